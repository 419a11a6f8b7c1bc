"""Times and objectives, as pure functions of a journal's events.

Durations are differences of the journal's monotonic clock (one run is one process); RPO compares wall clocks, since
its two ends lie in different machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from recovery.journal import Event

StepOutcome = Literal["done", "failed", "skipped", "not-run", "interrupted", "running", "waiting"]
_ENDS: Mapping[str, StepOutcome] = {
    "step-done": "done",
    "step-failed": "failed",
    "step-skipped": "skipped",
    "step-not-run": "not-run",
    "step-interrupted": "interrupted",
}


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What became of one step. `offset` and `seconds` count from the run's start and the step's start."""

    name: str
    title: str
    phase: str
    where: str
    outcome: StepOutcome
    offset: float | None
    seconds: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class PhaseTime:
    """From the first start to the last end of a phase's steps, in seconds; overlapping phases each count in full."""

    name: str
    offset: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rto:
    """Recovery time: `clock_start` says what started the clock; `seconds` is None when nothing was verified."""

    clock_start: str
    started_at: datetime
    verified_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Rpo:
    """Recovery point: outage start minus the moment the data is of; `seconds` is None when that is unknown."""

    outage_at: datetime
    recovery_point: datetime | None
    seconds: float | None
    reason: str | None


def started(events: Sequence[Event]) -> Event | None:
    """Return the event that began the run."""
    return next((event for event in events if event.event == "run-started"), None)


def finished(events: Sequence[Event]) -> bool:
    """Tell whether the run came to its end, whichever way."""
    return any(event.event == "run-finished" for event in events)


def step_times(events: Sequence[Event]) -> list[StepTime]:
    """Return every step of the runbook in its order, with what became of it so far."""
    begin = started(events)
    if begin is None:
        return []
    declared = begin.data["steps"]
    if not isinstance(declared, list):
        return []
    times = []
    for step in declared:
        own = [event for event in events if event.step == step["name"]]
        start = next((event for event in own if event.event == "step-started"), None)
        end = next((event for event in own if event.event in _ENDS), None)
        outcome: StepOutcome = _ENDS[end.event] if end else "running" if start else "waiting"
        last = end or (own[-1] if own else None)
        times.append(
            StepTime(
                name=step["name"],
                title=step["title"],
                phase=step["phase"],
                where=step["where"],
                outcome=outcome,
                offset=round(start.monotonic - begin.monotonic, 3) if start else None,
                seconds=round(last.monotonic - start.monotonic, 3) if start and last else None,
                text=_text(end),
            )
        )
    return times


def _text(end: Event | None) -> str:
    if end is None:
        return ""
    if end.event == "step-done":
        evidence = end.data.get("evidence")
        return str(evidence.get("summary", "")) if isinstance(evidence, dict) else ""
    return str(end.data.get("reason") or end.data.get("message") or "")


def phase_times(events: Sequence[Event]) -> list[PhaseTime]:
    """Return each phase that ran, by the order of its start."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for step in step_times(events):
        if step.phase and step.offset is not None and step.seconds is not None:
            spans.setdefault(step.phase, []).append((step.offset, step.offset + step.seconds))
    phases = []
    for name, parts in spans.items():
        first = min(begin for begin, _ in parts)
        phases.append(
            PhaseTime(name=name, offset=round(first, 3), seconds=round(max(end for _, end in parts) - first, 3))
        )
    return sorted(phases, key=lambda phase: phase.offset)


def outage(events: Sequence[Event]) -> tuple[str, datetime, float | None] | None:
    """Return what started the clock, when by the wall, and when by the monotonic clock if that was inside the run."""
    begin = started(events)
    if begin is None:
        return None
    declared = next((event for event in events if event.event == "outage-declared"), None)
    if declared is None:
        return "the drill's start", begin.time, begin.monotonic
    at = declared.data.get("at")
    if at:
        return str(declared.data.get("how", "declared")), datetime.fromisoformat(str(at)), None
    return str(declared.data.get("how", "declared")), declared.time, declared.monotonic


def rto(events: Sequence[Event], verify_step: str = "verify") -> Rto | None:
    """Return the recovery time: from the declared outage, else the run's start, to the end of a verification passed."""
    clock = outage(events)
    if clock is None:
        return None
    how, at, monotonic = clock
    done = next((event for event in events if event.event == "step-done" and event.step == verify_step), None)
    seconds = None
    if done is not None:
        elapsed = done.monotonic - monotonic if monotonic is not None else (done.time - at).total_seconds()
        seconds = round(elapsed, 3)
    return Rto(clock_start=how, started_at=at, verified_at=done.time if done else None, seconds=seconds)


def rpo(events: Sequence[Event], point_step: str = "recovery-point") -> Rpo | None:
    """Return the recovery point's distance; unknown, never guessed, when the backup has no manifest."""
    clock = outage(events)
    if clock is None:
        return None
    done = next((event for event in events if event.event == "step-done" and event.step == point_step), None)
    if done is None:
        return Rpo(outage_at=clock[1], recovery_point=None, seconds=None, reason="no recovery point was chosen")
    evidence = done.data.get("evidence")
    point = evidence.get("snapshot_time") if isinstance(evidence, dict) else None
    if not point:
        return Rpo(
            outage_at=clock[1], recovery_point=None, seconds=None, reason="the dump has no manifest that says its time"
        )
    moment = datetime.fromisoformat(str(point))
    return Rpo(
        outage_at=clock[1],
        recovery_point=moment,
        seconds=round((clock[1] - moment).total_seconds(), 3),
        reason=None,
    )
