"""What a drill's report says, as a pure function of its journal and the objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from recovery import ledger
from recovery.errors import CheckFailedError

if TYPE_CHECKING:
    from recovery.journal import Event

Outcome = Literal["PASS", "FAIL", "NOT RUN"]
HOUR = 3600.0

# What holds in every drill, whatever it measured: said each time, since a report is read alone.
_ALWAYS_TRUE = (
    (
        "The database, the cache and the endpoints of the DR environment get new DNS names when they are made. "
        "An ailing Route 53 control plane can delay them; a drill cannot show that."
    ),
    (
        "A drill proves the recovery point it restored and no other; the worst case of a daily dump is its interval "
        "plus its duration plus the replication's delay."
    ),
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class CheckLine(_Part):
    """One check: `group` is data, objects, cache, objective or clean-up."""

    group: str
    name: str
    title: str
    outcome: Outcome
    reason: str
    required: bool = False


class StepLine(_Part):
    """One step of the timeline; `offset` and `seconds` are seconds from the run's and the step's start."""

    name: str
    title: str
    phase: str
    where: str
    outcome: str
    offset: float | None
    seconds: float | None
    text: str


class PhaseLine(_Part):
    """One phase: from its first start to its last end, in seconds. Phases overlap."""

    name: str
    offset: float
    seconds: float


class Failure(_Part):
    """The failure that came first, in its own words."""

    step: str
    message: str
    detail: str | None
    hint: str | None
    code: int


class Report(_Part):
    """A drill's report. `rto_seconds` and `rpo_seconds` are None when they are unknown, never guessed."""

    schema_version: Literal[1] = 1
    drill: str
    runbook: str
    title: str
    verdict: Literal["PASS", "FAIL", "INTERRUPTED", "UNFINISHED"]
    verdict_reasons: tuple[str, ...]
    started_at: datetime
    ended_at: datetime
    seconds: float
    account: str
    region: str
    local: bool
    clock_start: str
    rto_seconds: float | None
    rto_objective_seconds: float
    rpo_seconds: float | None
    rpo_objective_seconds: float
    rpo_reason: str | None
    recovery_point: datetime | None
    teardown_seconds: float | None
    phases: tuple[PhaseLine, ...]
    steps: tuple[StepLine, ...]
    checks: tuple[CheckLine, ...]
    failure: Failure | None
    later_failures: tuple[Failure, ...]
    backup: Mapping[str, Any]
    restore: Mapping[str, Any]
    notes: tuple[str, ...]
    risks: tuple[str, ...]
    leftovers: tuple[str, ...]
    kept: bool
    events: int
    chain: str


def make_report(events: Sequence[Event]) -> Report:
    """Build the report of a journal; objectives and required rungs are those the run began with.

    Raises CheckFailedError when the journal holds no run.
    """
    begin = ledger.started(events)
    if begin is None:
        raise CheckFailedError("The journal holds no run, so there is nothing to report.")
    facts = begin.data
    steps = ledger.step_times(events)
    rto, rpo = ledger.rto(events, "verified"), ledger.rpo(events)
    objectives = _mapping(facts.get("objectives"))
    rto_objective = float(objectives.get("rto_hours", 4)) * HOUR
    rpo_objective = float(objectives.get("rpo_hours", 24)) * HOUR
    declared = {step.name for step in steps}
    # A runbook that verifies nothing, such as making an environment by hand, is not judged by checks it never makes.
    rungs = facts.get("required_rungs") or [] if "verify" in declared or not declared else []
    required = {str(name) for name in rungs}  # type: ignore[attr-defined]  # a JSON list
    failures = _failures(events)
    kept = any(step.name == "keep" and step.outcome == "done" for step in steps)
    checks = (
        *_rungs(events, required),
        *_objects(events),
        _from_step(steps, "cache", "cache", "The cache answers with its token"),
        _objective("rto", "Recovery time", rto.seconds if rto else None, rto_objective, "nothing was verified"),
        _objective(
            "rpo", "Recovery point", rpo.seconds if rpo else None, rpo_objective, (rpo.reason if rpo else "") or ""
        ),
        *((_from_step(steps, "sweep", "clean-up", "Nothing is left of the environment"),) if not kept else ()),
    )
    verdict, reasons = _verdict(events, checks, failures, required)
    teardown = [phase for phase in ledger.phase_times(events) if phase.name == "teardown"]
    return Report(
        drill=begin.drill,
        runbook=str(facts["runbook"]),
        title=str(facts["title"]),
        verdict=verdict,
        verdict_reasons=tuple(reasons),
        started_at=begin.time,
        ended_at=events[-1].time,
        seconds=round(events[-1].monotonic - begin.monotonic, 3),
        account=str(facts.get("account", "")),
        region=str(facts.get("region", "")),
        local=bool(facts.get("local")),
        clock_start=rto.clock_start if rto else "",
        rto_seconds=rto.seconds if rto else None,
        rto_objective_seconds=rto_objective,
        rpo_seconds=rpo.seconds if rpo else None,
        rpo_objective_seconds=rpo_objective,
        rpo_reason=rpo.reason if rpo else None,
        recovery_point=rpo.recovery_point if rpo else None,
        teardown_seconds=teardown[0].seconds if teardown else None,
        phases=tuple(PhaseLine(name=p.name, offset=p.offset, seconds=p.seconds) for p in ledger.phase_times(events)),
        steps=tuple(
            StepLine(
                name=s.name,
                title=s.title,
                phase=s.phase,
                where=s.where,
                outcome=s.outcome,
                offset=s.offset,
                seconds=s.seconds,
                text=s.text,
            )
            for s in steps
        ),
        checks=checks,
        failure=failures[0] if failures else None,
        later_failures=tuple(failures[1:]),
        backup=_evidence(events, "recovery-point"),
        restore={key: value for key, value in _evidence(events, "restore").items() if key not in {"notes", "summary"}},
        notes=tuple(_notes(events)),
        risks=tuple(_risks(events)),
        leftovers=_leftovers(events),
        kept=kept,
        events=len(events),
        chain=events[-1].hash,
    )


def _verdict(
    events: Sequence[Event], checks: Sequence[CheckLine], failures: Sequence[Failure], required: set[str]
) -> tuple[Literal["PASS", "FAIL", "INTERRUPTED", "UNFINISHED"], list[str]]:
    """PASS is: no step failed, no check failed, and every required rung was run."""
    if not ledger.finished(events):
        return "UNFINISHED", ["the run's process ended before the run did"]
    reasons = [f"{failure.step}: {failure.message}" for failure in failures]
    reasons += [
        f"{check.title}: {check.reason}" for check in checks if check.outcome == "FAIL" and check.group != "clean-up"
    ]
    ran = {check.name for check in checks if check.outcome != "NOT RUN"}
    reasons += [f"required check {name} was not run" for name in sorted(required - ran)]
    if any(event.event == "interrupted" for event in events):
        return "INTERRUPTED", ["the operator stopped it", *reasons]
    clock = next((step for step in ledger.step_times(events) if step.name == "verified"), None)
    if clock is not None and clock.outcome != "done" and not reasons:
        reasons.append("the clock was never stopped")
    return ("FAIL", list(dict.fromkeys(reasons))) if reasons else ("PASS", [])


def _rungs(events: Sequence[Event], required: set[str]) -> list[CheckLine]:
    found = next((event for event in reversed(events) if event.event == "verification"), None)
    rungs = found.data.get("rungs") if found else None
    lines = [
        CheckLine(
            group="data",
            name=str(rung.get("name")),
            title=str(rung.get("title") or rung.get("name")),
            outcome=rung.get("outcome", "FAIL"),
            reason=str(rung.get("reason") or ""),
            required=rung.get("name") in required,
        )
        for rung in (rungs if isinstance(rungs, list) else [])
        if isinstance(rung, dict)
    ]
    known = {line.name for line in lines}
    lines += [
        CheckLine(group="data", name=name, title=name, outcome="NOT RUN", reason="it was not reached", required=True)
        for name in sorted(required - known)
    ]
    return lines


def _objects(events: Sequence[Event]) -> list[CheckLine]:
    found = next((event for event in events if event.event == "objects"), None)
    proofs = found.data.get("proofs") if found else None
    return [
        CheckLine(
            group="objects",
            name=f"objects {proof['prefix']}",
            title=f"{proof['prefix']} is replicated",
            outcome=proof["outcome"],
            reason=proof["reason"],
        )
        for proof in (proofs if isinstance(proofs, list) else [])
    ]


def _from_step(steps: Sequence[ledger.StepTime], name: str, group: str, title: str) -> CheckLine:
    step = next((item for item in steps if item.name == name), None)
    outcome: Outcome = "NOT RUN"
    if step is not None and step.outcome in {"done", "failed"}:
        outcome = "PASS" if step.outcome == "done" else "FAIL"
    return CheckLine(
        group=group, name=name, title=title, outcome=outcome, reason=step.text if step else "it is no step of this run"
    )


def _objective(name: str, title: str, seconds: float | None, objective: float, unknown: str) -> CheckLine:
    hours = f"{objective / HOUR:g} h"
    if seconds is None:
        outcome: Outcome = "NOT RUN"
        reason = f"unknown: {unknown}"
    else:
        outcome = "PASS" if seconds <= objective else "FAIL"
        reason = f"{duration(seconds)}, objective {hours}"
    return CheckLine(group="objective", name=name, title=f"{title} within {hours}", outcome=outcome, reason=reason)


def _failures(events: Sequence[Event]) -> list[Failure]:
    return [
        Failure(
            step=event.step,
            message=str(event.data.get("message")),
            detail=_text(event.data.get("detail")),
            hint=_text(event.data.get("hint")),
            code=int(str(event.data.get("code") or 1)),
        )
        for event in events
        if event.event == "step-failed"
    ]


def _notes(events: Sequence[Event]) -> list[str]:
    """What the restore had to handle, and which events have no second copy."""
    notes = []
    restored = next((event for event in events if event.event == "restored"), None)
    raw = restored.data.get("notes") if restored else None
    for note in raw if isinstance(raw, list) else []:
        if isinstance(note, dict):
            parts = (note.get("kind"), note.get("object"), note.get("text"))
            notes.append(": ".join(str(part) for part in parts if part))
        else:
            notes.append(str(note))
    for event in events:
        if event.event == "mirror" and event.data.get("missing"):
            missing = event.data["missing"]
            count = len(missing) if isinstance(missing, list) else "some"
            notes.append(f"{count} events have no copy in the evidence bucket: {event.data.get('problem')}")
    return notes


def _risks(events: Sequence[Event]) -> list[str]:
    objects = next((event for event in events if event.event == "objects"), None)
    away = objects.data.get("not_here") if objects else None
    prefixes = ", ".join(str(item) for item in away) if isinstance(away, list) else "exports/"
    return [
        f"{prefixes} replicate within their region only: after the loss of that region they are gone.",
        *_ALWAYS_TRUE,
    ]


def _leftovers(events: Sequence[Event]) -> tuple[str, ...]:
    failed = next((e for e in reversed(events) if e.step == "sweep" and e.event == "step-failed"), None)
    return tuple(str(failed.data.get("detail") or failed.data.get("message")).split("; ")) if failed else ()


def _evidence(events: Sequence[Event], step: str) -> dict[str, Any]:
    done = next((event for event in events if event.event == "step-done" and event.step == step), None)
    return _mapping(done.data.get("evidence")) if done else {}


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return str(value) if value else None


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: 12.3 s, 4 min 05 s, 1 h 02 min; an unknown duration is `unknown`."""
    if seconds is None:
        return "unknown"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
