"""Where the environment's making is watched from: which types the engine has begun and made, and whether it gave up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from recovery.runbook import StepNotNeededError

if TYPE_CHECKING:
    from recovery.environment import Resource


class ResourceBoard:
    """Filled by the engine's events, read by steps that need one resource before the stack is complete."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._mutex = threading.Lock()
        self._seen: set[str] = set()
        self._made = 0
        self._gave_up = False

    def hear(self, resource: Resource) -> int:
        """Take what the engine says of a resource; return how many are made."""
        with self._mutex:
            self._seen.add(resource.type)
            self._made += resource.made
            return self._made

    def give_up(self) -> None:
        """Say that the environment could not be made."""
        with self._mutex:
            self._gave_up = True

    def seen(self, kind: str) -> bool:
        """Tell whether the engine has begun a resource of this type.

        Raises StepNotNeededError once the environment could not be made: what is not there now will never be.
        """
        with self._mutex:
            if self._gave_up:
                raise StepNotNeededError("the environment could not be made")
            return kind in self._seen
