"""How long work reports how far it is.

A :class:`ProgressEvent` is one line of news about one stage.  Work that takes longer than a moment accepts a
``Progress`` callable and calls it from whichever thread does the work, so a listener must be quick and must not raise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

from recovery.errors import RecoveryError


@dataclasses.dataclass(frozen=True)
class ProgressEvent:
    """One report of progress.

    ``done`` and ``total`` count ``unit`` ("bytes", "rows", "tables", "statements"); ``total`` is None when it cannot be
    known.  ``text`` is for people and may be empty.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    text: str = ""

    def to_json(self) -> str:
        """One line of JSON, without a line end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> ProgressEvent:
        """Read what :meth:`to_json` wrote; unknown keys are ignored.  Raises RecoveryError on anything else."""
        try:
            fields = json.loads(line)
            stage, done, total, unit = fields["stage"], fields["done"], fields["total"], fields["unit"]
            text = fields.get("text", "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecoveryError("a progress line is not the JSON of a progress event", detail=line[:200]) from error
        if not (
            isinstance(stage, str)
            and isinstance(done, int)
            and (total is None or isinstance(total, int))
            and isinstance(unit, str)
            and isinstance(text, str)
        ):
            raise RecoveryError("a progress line has a field of the wrong type", detail=line[:200])
        return cls(stage=stage, done=done, total=total, unit=unit, text=text)


Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """A listener for callers who want none."""
    del event
