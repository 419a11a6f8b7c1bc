"""The drills on this machine: their ids, folders and journals."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from recovery.errors import CheckFailedError, UsageError
from recovery.journal import FILE_NAME, Event, is_being_written, read_journal
from recovery.ledger import finished, started

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["running", "finished", "dead", "reaped", "damaged"]

# Lower case and short: the id is part of every resource's name, and of a cache group's 40 characters.
ID = re.compile(r"^\d{8}-\d{6}-[0-9a-f]{4}$")

_MADE_SOMETHING = frozenset({("step-started", "outage"), ("step-done", "preflight")})


def new_drill_id(now: datetime) -> str:
    """Return a new id, `YYYYMMDD-HHMMSS-xxxx`, for a drill that begins at `now` (aware)."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One drill as its journal tells it.

    `state` is running, finished, dead (its process ended before its run), reaped (removed after it had died) or damaged
    (its journal cannot be read, and nothing else is known of it, not even `local`); `built` tells whether it came as
    far as making anything, `kept` whether its environment was left there on purpose.
    """

    id: str
    folder: Path
    runbook: str
    started_at: datetime | None
    state: State
    verdict: str | None
    built: bool
    kept: bool
    swept: bool
    local: bool | None


def journal_path(drills: Path, drill_id: str) -> Path:
    """Return where the journal of a drill is. Raises UsageError for what is not a drill's id."""
    if not ID.match(drill_id):
        raise UsageError(
            f"{drill_id!r} is not a drill's id.",
            hint="Drill ids look like 20260109-020000-1a2b; `recovery drills list` shows them.",
        )
    return drills / drill_id / FILE_NAME


def load(drills: Path, drill_id: str) -> list[Event]:
    """Return the events of a drill, or of the newest one for `latest`. Raises UsageError when there is none."""
    if drill_id == "latest":
        known = list_drills(drills)
        if not known:
            raise UsageError(f"There is no drill in {drills}.", hint="Run one: recovery --local drill quarterly")
        drill_id = known[0].id
    path = journal_path(drills, drill_id)
    if not path.is_file():
        raise UsageError(f"There is no drill {drill_id} in {drills}.", hint="`recovery drills list` shows them.")
    return read_journal(path)


def list_drills(drills: Path) -> list[Drill]:
    """Return the drills of this folder, newest first."""
    if not drills.is_dir():
        return []
    names = sorted((path.name for path in drills.iterdir() if ID.match(path.name)), reverse=True)
    return [describe(drills, name) for name in names if (drills / name / FILE_NAME).is_file()]


def describe(drills: Path, drill_id: str) -> Drill:
    """Return what the journal of one drill says about it. Raises UsageError for what is not a drill's id."""
    path = journal_path(drills, drill_id)
    # The lock first: a run that ends between the two looks is then seen as finished, not as dead.
    writing = is_being_written(path)
    try:
        events = read_journal(path)
    except CheckFailedError:
        # One bad file must not hide every other drill, least of all from a reaper.
        return Drill(
            id=drill_id, folder=path.parent, runbook="", started_at=None, state="damaged", verdict=None,
            built=True, kept=False, swept=False, local=None,
        )  # fmt: skip
    begin = started(events)
    verdict = next((event.data.get("verdict") for event in reversed(events) if event.event == "verdict"), None)
    reaped = any(event.event == "reaped" for event in events)
    kept = any(event.event == "step-done" and event.step == "keep" for event in events)
    state: State = "running" if writing else "finished" if finished(events) else "reaped" if reaped else "dead"
    return Drill(
        id=drill_id,
        folder=path.parent,
        runbook=str(begin.data["runbook"]) if begin else "",
        started_at=begin.time if begin else None,
        state=state,
        verdict=str(verdict) if verdict else None,
        # What comes before the end of its preflight only looks; a blackout needs no preflight.
        built=any((event.event, event.step) in _MADE_SOMETHING for event in events),
        kept=kept and not reaped,
        local=bool(begin.data.get("local")) if begin else False,
        swept=any(event.event == "step-done" and event.step == "sweep" for event in events),
    )
