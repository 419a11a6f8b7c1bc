"""What a restore did otherwise than the dump says, so that nothing is left out in silence."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pydantic

from recovery.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection

_NAMED_OBJECTS = 5
# What a resumed restore cannot find out again, since it does not do again what these are about; and how many are kept.
_LASTING = frozenset({"warning", "expected", "rows", "clean", "exists"})
_MOST_LASTING = 30


def strict_hint(kind: str, text: str) -> str:
    """Return the hint of a failure that is one only because its kind is strict; ``text`` is what would be noted."""
    return f"`--strict {kind.replace(' ', '-')}` makes a failure of this; without it, it is noted as `{kind}`: {text}"


class Note(pydantic.BaseModel):
    """One departure from the dump.

    ``kind`` groups notes: "owner", "privileges", "setting", "comment", "not restored", "database", "collation",
    "clean", "exists", "rows", "foreign key", "serial", "warning", "expected", "completeness", "left over", "resumed".
    ``object`` names what is concerned, the first few of ``count``.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    kind: str
    object: str
    text: str
    count: int = 1


class Notes:
    """Collects notes from any thread; those that say the same of many objects become one.

    Departures of the kinds in ``strict`` are to be failures: whoever meets one asks :meth:`is_strict` first.
    """

    def __init__(self, strict: Collection[str] = ()) -> None:
        self._strict = frozenset(strict)
        self._objects: dict[tuple[str, str], list[str]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._lasting: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, subject: str, text: str) -> None:
        """Note that ``text`` is so for ``subject``."""
        subject, text = printable(subject), printable(text)
        with self._lock:
            objects = self._objects.setdefault((kind, text), [])
            if len(objects) < _NAMED_OBJECTS:
                objects.append(subject)
            self._counts[kind, text] = self._counts.get((kind, text), 0) + 1
            if kind in _LASTING and len(self._lasting) < _MOST_LASTING:
                self._lasting.setdefault((kind, text), subject)

    def is_strict(self, kind: str) -> bool:
        """Whether what would be noted as this kind is a failure."""
        return kind in self._strict

    def lasting(self) -> list[tuple[str, str, str]]:
        """Return kind, object and text of the first notes that a restore which is resumed would otherwise lose."""
        with self._lock:
            return [(kind, subject, text) for (kind, text), subject in self._lasting.items()]

    def all(self) -> list[Note]:
        """Return the notes in the order of their first occurrence."""
        with self._lock:
            return [
                Note(
                    kind=kind,
                    text=text,
                    object=_joined(objects, self._counts[kind, text]),
                    count=self._counts[kind, text],
                )
                for (kind, text), objects in self._objects.items()
            ]


def _joined(objects: list[str], count: int) -> str:
    more = count - len(objects)
    return ", ".join(objects) + (f" and {more} more" if more else "")
