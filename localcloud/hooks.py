"""Replace what moto does by something that may call it: the one place where its classes are changed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Make `owner.name` a method that calls `replacement(original, self, ...)`; `original` takes self first."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return replacement(original, self, *args, **kwargs)

    setattr(owner, name, method)


def add(owner: Any, name: str, action: Callable[..., Any]) -> None:
    """Give `owner` a method it lacks: `owner.name` calls `action(self, ...)`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return action(self, *args, **kwargs)

    # moto finds its actions by their names.
    method.__name__ = name
    setattr(owner, name, method)
