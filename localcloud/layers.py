"""Layers put around moto's methods and taken off again, in any order.

Several parts of the cloud hook the same method (replication and the corrections both watch S3's answers), and tests
start and stop several clouds in one process: a hooked method keeps its original and a stack of layers, read per call.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

# A layer is called as layer(inner, *args): inner is the next layer down, or moto's own method.
Layer = Callable[..., Any]

_lock = threading.RLock()


class _Point:
    """One hooked method or property of one of moto's classes."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner = owner
        self.name = name
        self.own = name in vars(owner)
        self.raw: Any = inspect.getattr_static(owner, name)
        self.layers: tuple[Layer, ...] = ()
        self.original: Callable[..., Any] = self.raw
        if isinstance(self.raw, property):
            self.original = self.raw.fget  # type: ignore[assignment]  # moto's properties can be read
        elif isinstance(self.raw, staticmethod | classmethod):
            self.original = self.raw.__func__

    def _call(self, layers: tuple[Layer, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not layers:
            return self.original(*args, **kwargs)
        rest = layers[:-1]

        def inner(*inner_args: Any, **inner_kwargs: Any) -> Any:
            return self._call(rest, inner_args, inner_kwargs)

        return layers[-1](inner, *args, **kwargs)

    def install(self) -> None:
        def entry(*args: Any, **kwargs: Any) -> Any:
            return self._call(self.layers, args, kwargs)

        # moto looks at its handlers' names.
        entry.__name__ = self.name
        entry.__qualname__ = f"{self.owner.__qualname__}.{self.name}"
        hooked: Any = entry
        if isinstance(self.raw, property):
            hooked = property(entry, self.raw.fset, self.raw.fdel)
        elif isinstance(self.raw, staticmethod | classmethod):
            hooked = type(self.raw)(entry)
        setattr(self.owner, self.name, hooked)

    def uninstall(self) -> None:
        if self.own:
            setattr(self.owner, self.name, self.raw)
        else:
            delattr(self.owner, self.name)


_points: dict[tuple[type, str], _Point] = {}


class Layers:
    """The layers one part of the cloud has put on; `undo` takes exactly those off again."""

    def __init__(self) -> None:
        self._mine: list[tuple[_Point, Layer]] = []
        self._added: list[tuple[type, str]] = []

    def wrap(self, owner: type, name: str, layer: Layer) -> None:
        """Call `layer(inner, *args)` wherever moto calls the method, or reads the property, `owner.name`."""
        with _lock:
            point = _points.get((owner, name))
            if point is None:
                point = _points[owner, name] = _Point(owner, name)
                point.install()
            point.layers = (*point.layers, layer)
            self._mine.append((point, layer))

    def add(self, owner: type, name: str, action: Callable[..., Any]) -> None:
        """Give `owner` a method that moto lacks: `owner.name` calls `action(self, ...)`."""

        def method(*args: Any, **kwargs: Any) -> Any:
            return action(*args, **kwargs)

        # moto finds its actions by their names.
        method.__name__ = name
        with _lock:
            setattr(owner, name, method)
            self._added.append((owner, name))

    def undo(self) -> None:
        """Take every layer of this part off; moto's own method is back where no other part has one."""
        with _lock:
            for owner, name in self._added:
                delattr(owner, name)
            self._added.clear()
            for point, layer in self._mine:
                remaining = list(point.layers)
                remaining.remove(layer)
                point.layers = tuple(remaining)
                if not remaining and _points.pop((point.owner, point.name), None) is not None:
                    point.uninstall()
            self._mine.clear()
