"""Ledger and report, from journals recorded here: times, objectives, verdicts, and a page that escapes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recovery import ledger
from recovery.errors import CheckFailedError
from recovery.journal import FIRST_PREV, Event
from recovery.report.model import Report, duration, make_report
from recovery.report.page import render_page, write_report

START = datetime(2026, 1, 9, 2, 0, tzinfo=UTC)
DRILL = "20260109-020000-1a2b"
STEPS = ("recovery-point", "restore", "verify", "objects", "cache", "verified", "teardown", "sweep")


class Recording:
    """A journal made by hand: each event at the second it is said to happen."""

    def __init__(self, **facts: Any) -> None:
        self.events: list[Event] = []
        steps = [
            {"name": name, "title": name.title(), "needs": [], "where": "here", "phase": _phase(name), "always": False}
            for name in STEPS
        ]
        self.add(
            0,
            "run-started",
            data={
                "runbook": "quarterly",
                "title": "Quarterly full DR test",
                "steps": steps,
                "account": "123456789012",
                "region": "us-west-2",
                "objectives": {"rto_hours": 4, "rpo_hours": 24},
                "required_rungs": ["server"],
                **facts,
            },
        )

    def add(self, second: float, event: str, step: str = "", data: Mapping[str, object] | None = None) -> None:
        prev = self.events[-1].hash if self.events else FIRST_PREV
        fields: dict[str, Any] = {
            "v": 1, "seq": len(self.events), "time": START + timedelta(seconds=second), "monotonic": 1000.0 + second,
            "drill": DRILL, "step": step, "event": event, "data": dict(data or {}), "prev": prev,
        }  # fmt: skip
        self.events.append(Event(**fields, hash=Event(**fields, hash="").computed_hash()))

    def done(self, step: str, begin: float, end: float, evidence: Mapping[str, object] | None = None) -> None:
        self.add(begin, "step-started", step)
        self.add(end, "step-done", step, {"evidence": dict(evidence or {})})


def _phase(step: str) -> str:
    return "teardown" if step in {"teardown", "sweep"} else "recovery"


def passing(*, point: str | None = None, outcome: str = "PASS", **facts: Any) -> Recording:
    recording = Recording(**facts)
    recording.done("recovery-point", 1, 2, {"snapshot_time": point, "source": "s3://b/db/x.sql.gz"})
    recording.done("restore", 10, 40, {"rows": 15607})
    recording.add(
        40, "restored", "restore", {"notes": [{"kind": "owner", "object": "album", "text": "<b>role</b> missing"}]}
    )
    rungs = [{"name": "server", "title": "Server answers", "outcome": outcome, "reason": "it does"}]
    recording.add(49, "verification", "verify", {"rungs": rungs})
    recording.done("verify", 40, 50)
    proof = {"prefix": "telemetry/", "outcome": "NOT RUN", "reason": "there is no object"}
    recording.add(5, "objects", "objects", {"proofs": [proof], "not_here": ["exports/"]})
    recording.done("objects", 3, 5)
    recording.done("cache", 30, 31)
    recording.done("verified", 50, 50.5)
    recording.done("teardown", 51, 60)
    recording.done("sweep", 60, 61)
    recording.add(61, "run-finished", data={"outcomes": {}})
    return recording


def test_rto_runs_from_the_drills_start_to_verified_and_teardown_is_apart() -> None:
    report = make_report(passing().events)
    assert (report.rto_seconds, report.clock_start) == (50.5, "the drill's start")
    assert report.teardown_seconds == 10
    assert report.seconds == 61


def test_rto_runs_from_a_declared_outage() -> None:
    recording = Recording()
    recording.add(4, "outage-declared", "outage", {"how": "blackout of us-east-1", "region": "us-east-1"})
    recording.done("verified", 20, 24)
    rto = ledger.rto(recording.events, "verified")
    assert rto is not None
    assert (rto.seconds, rto.clock_start) == (20, "blackout of us-east-1")


def test_rpo_is_outage_start_minus_snapshot_time() -> None:
    point = (START - timedelta(hours=3)).isoformat()
    report = make_report(passing(point=point).events)
    assert report.rpo_seconds == 3 * 3600
    assert {check.name: check.outcome for check in report.checks}["rpo"] == "PASS"


def test_rpo_without_a_manifest_is_unknown_and_its_check_not_run() -> None:
    report = make_report(passing().events)
    assert report.rpo_seconds is None
    assert {check.name: check.outcome for check in report.checks}["rpo"] == "NOT RUN"
    assert report.verdict == "PASS"


def test_an_old_recovery_point_fails_the_drill() -> None:
    report = make_report(passing(point=(START - timedelta(hours=30)).isoformat()).events)
    assert report.verdict == "FAIL"
    assert "objective 24 h" in report.verdict_reasons[0]


def test_a_required_rung_that_was_not_run_fails_the_drill() -> None:
    report = make_report(passing(outcome="NOT RUN").events)
    assert (report.verdict, report.verdict_reasons) == ("FAIL", ("required check server was not run",))


def test_a_required_rung_that_does_not_exist_fails_the_drill() -> None:
    assert make_report(passing(required_rungs=["server", "content"]).events).verdict == "FAIL"


def test_the_first_failure_stays_first_and_later_ones_stand_beside_it() -> None:
    recording = Recording()
    for step, message in (("restore", "the dump is truncated"), ("teardown", "the subnet is in use")):
        recording.add(5, "step-started", step)
        recording.add(6, "step-failed", step, {"message": message, "detail": None, "hint": None, "code": 1})
    recording.add(7, "run-finished")
    report = make_report(recording.events)
    assert report.verdict == "FAIL"
    assert report.failure is not None
    assert report.failure.message == "the dump is truncated"
    assert [failure.step for failure in report.later_failures] == ["teardown"]


def test_a_journal_that_ends_in_the_middle_is_reported_as_unfinished() -> None:
    for length in range(1, len(passing().events)):
        report = make_report(passing().events[:length])
        assert report.verdict == "UNFINISHED"
        render_page(report)


def test_an_interrupted_run_is_neither_pass_nor_fail() -> None:
    recording = Recording()
    recording.add(1, "interrupted", data={"finish_command": "x"})
    recording.add(2, "run-finished")
    assert make_report(recording.events).verdict == "INTERRUPTED"


def test_a_journal_without_a_run_is_refused() -> None:
    recording = passing()
    with pytest.raises(CheckFailedError, match="no run"):
        make_report(recording.events[1:])


def test_phases_span_their_steps() -> None:
    phases = {phase.name: (phase.offset, phase.seconds) for phase in ledger.phase_times(passing().events)}
    assert phases == {"recovery": (1, 49.5), "teardown": (51, 10)}


def test_the_page_escapes_what_it_shows_and_needs_nothing_else() -> None:
    page = render_page(make_report(passing().events))
    assert "&lt;b&gt;role&lt;/b&gt; missing" in page
    assert "<b>role</b>" not in page
    assert "exports/ replicate within their region only" in page
    for foreign in ("src=", "href=", "@import", "<script"):
        assert foreign not in page


def test_the_json_is_read_back_as_the_same_report(tmp_path: Path) -> None:
    report = make_report(passing().events)
    written = write_report(report, tmp_path)
    assert Report.model_validate_json(written.json.read_text()) == report


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "unknown"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (61, "1 min 01 s"),
        (3720, "1 h 02 min"),
        (-61, "-1 min 01 s"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
