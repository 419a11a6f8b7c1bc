"""The runner: order, overlap, failures, interruption, and a journal that is whole wherever a run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery.errors import CheckFailedError, RecoveryError, UsageError
from recovery.journal import Journal, read_journal, verify_chain
from recovery.runbook import (
    Evidence,
    Runbook,
    Runner,
    RunResult,
    Step,
    StepContext,
    StepNotNeededError,
    StepNotRunError,
)

DRILL = "20260109-020000-1a2b"
Run = Callable[..., RunResult]


def _nothing(_context: StepContext) -> Evidence:
    return {}


def _fail(message: str) -> Callable[[StepContext], Evidence]:
    def fail(_context: StepContext) -> Evidence:
        raise CheckFailedError(message)

    return fail


def _step(name: str, *needs: str, run: Callable[[StepContext], Evidence] = _nothing, always: bool = False) -> Step:
    return Step(name=name, title=name, run=run, needs=needs, always=always)


def test_a_step_that_needs_an_unknown_one_is_refused() -> None:
    with pytest.raises(UsageError, match="needs unknown b"):
        Runbook("r", "R", (_step("a", "b"),))


def test_steps_that_need_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="need each other: a, b"):
        Runbook("r", "R", (_step("a", "b"), _step("b", "a"), _step("c")))


def test_steps_run_side_by_side_as_soon_as_their_needs_are_done(run: Run) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def meet(_context: StepContext) -> Evidence:
        meeting.wait()
        return {}

    result = run(_step("a"), _step("b", "a", run=meet), _step("c", "a", run=meet))
    assert set(result.outcomes.values()) == {"done"}


def test_a_failure_stops_only_what_depends_on_it_and_teardown_still_runs(run: Run) -> None:
    result = run(
        _step("a", run=_fail("no")), _step("b", "a"), _step("c"), _step("teardown", "a", "b", "c", always=True)
    )
    assert result.outcomes == {"a": "failed", "b": "skipped", "c": "done", "teardown": "done"}


def test_a_failing_teardown_never_hides_the_failure_before_it(run: Run, journal: Journal) -> None:
    result = run(_step("a", run=_fail("first")), _step("teardown", "a", run=_fail("second"), always=True))
    assert result.first_failure is not None
    assert (result.first_failure[0], result.first_failure[1].message) == ("a", "first")
    assert [event.data["first"] for event in journal.events if event.event == "step-failed"] == [True, False]


def test_an_unforeseen_exception_is_a_failure_with_its_traceback(run: Run, journal: Journal) -> None:
    def broken(_context: StepContext) -> Evidence:
        return {"x": 1 // 0}

    result = run(_step("a", run=broken))
    assert result.first_failure is not None
    assert isinstance(result.first_failure[1], RecoveryError)
    failed = next(event for event in journal.events if event.event == "step-failed")
    assert "ZeroDivisionError" in str(failed.data["traceback"])


def test_a_step_made_pointless_by_another_failure_is_skipped_not_failed(run: Run) -> None:
    def pointless(_context: StepContext) -> Evidence:
        raise StepNotNeededError("the environment could not be made")

    result = run(_step("environment", run=_fail("no")), _step("database", run=pointless))
    assert result.outcomes["database"] == "skipped"
    assert result.first_failure is not None
    assert result.first_failure[0] == "environment"


def test_a_step_that_is_not_executed_says_why_and_stops_nobody(run: Run, journal: Journal) -> None:
    result = run(Step(name="deploy", title="Deploy", not_run="there is no application"), _step("after", "deploy"))
    assert result.outcomes == {"deploy": "not-run", "after": "done"}
    assert any(event.data.get("reason") == "there is no application" for event in journal.events)


def test_a_step_that_finds_that_it_cannot_be_done_says_why_and_stops_nobody(run: Run, journal: Journal) -> None:
    def impossible(_context: StepContext) -> Evidence:
        raise StepNotRunError("nobody has measured it yet")

    result = run(_step("space", run=impossible), _step("restore", "space"))
    assert (result.outcomes, result.first_failure) == ({"space": "not-run", "restore": "done"}, None)
    assert [event.data["reason"] for event in journal.events if event.event == "step-not-run"] == [
        "nobody has measured it yet"
    ]


def test_a_step_over_its_time_fails_at_its_next_checkpoint(run: Run) -> None:
    def wait(context: StepContext) -> Evidence:
        context.wait_until(lambda: False, every=0.01)
        return {}

    result = run(Step(name="slow", title="Slow", run=wait, timeout=0.05))
    assert result.first_failure is not None
    assert "not done within" in result.first_failure[1].message


def test_an_interruption_ends_what_runs_skips_the_rest_and_still_tears_down(journal: Journal) -> None:
    started = threading.Event()

    def wait(context: StepContext) -> Evidence:
        started.set()
        context.wait_until(lambda: False)
        return {}

    def tear_down(context: StepContext) -> Evidence:
        context.checkpoint()
        return {}

    steps = (_step("a", run=wait), _step("b", "a"), _step("teardown", "a", "b", run=tear_down, always=True))
    runner = Runner(Runbook("r", "R", steps), journal, finish_command="recovery environment reap")
    threading.Thread(target=lambda: (started.wait(20), runner.interrupt())).start()
    result = runner.run()
    assert result.interrupted
    assert result.outcomes == {"a": "interrupted", "b": "skipped", "teardown": "done"}
    assert any(event.data.get("finish_command") == "recovery environment reap" for event in journal.events)


@st.composite
def _dags(draw: st.DrawFn) -> list[tuple[tuple[int, ...], bool, bool]]:
    """Steps as (needs, fails, always); needs point backwards, so there is no cycle."""
    size = draw(st.integers(min_value=1, max_value=8))
    return [
        (
            tuple(sorted(draw(st.sets(st.integers(0, index - 1), max_size=3)))) if index else (),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for index in range(size)
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dag=_dags())
def test_any_runbook_settles_every_step_and_none_before_its_needs(
    dag: list[tuple[tuple[int, ...], bool, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    steps = tuple(
        _step(f"s{index}", *(f"s{need}" for need in needs), run=_fail("no") if fails else _nothing, always=always)
        for index, (needs, fails, always) in enumerate(dag)
    )
    with Journal(tmp_path_factory.mktemp("dag") / "journal.jsonl", DRILL) as journal:
        result = Runner(Runbook("r", "R", steps), journal, finish_command="x").run()
        journal.verify()
        place = {(event.step, event.event): event.seq for event in journal.events}
    for index, (needs, fails, always) in enumerate(dag):
        name = f"s{index}"
        good = all(result.outcomes[f"s{need}"] == "done" for need in needs)
        assert result.outcomes[name] == (("failed" if fails else "done") if good or always else "skipped")
        for need in needs:
            settled = min(seq for (step, kind), seq in place.items() if step == f"s{need}" and kind != "step-started")
            if (name, "step-started") in place:
                assert settled < place[name, "step-started"]
    assert (result.first_failure is not None) == ("failed" in result.outcomes.values())


_RUN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from recovery.errors import CheckFailedError
from recovery.journal import Journal
from recovery.runbook import Runbook, Runner, Step
last = int(sys.argv[2])
def die(event):
    if event.seq == last:
        os.kill(os.getpid(), signal.SIGKILL)
def fail(context):
    raise CheckFailedError("no")
steps = (
    Step(name="a", title="A", run=lambda c: {}),
    Step(name="b", title="B", needs=("a",), run=fail),
    Step(name="c", title="C", needs=("b",), run=lambda c: {}),
    Step(name="teardown", title="T", needs=("a", "b", "c"), run=lambda c: {}, always=True),
)
journal = Journal(Path(sys.argv[1]), "20260109-020000-1a2b", listeners=[die])
Runner(Runbook("r", "R", steps), journal, finish_command="x").run()
"""


@pytest.mark.slow
def test_a_run_killed_at_any_event_leaves_a_readable_chained_journal(tmp_path: Path) -> None:
    last = 0
    while True:
        path = tmp_path / str(last) / "journal.jsonl"
        ended = subprocess.run([sys.executable, "-c", _RUN_AND_DIE, str(path), str(last)], check=False)
        events = read_journal(path)
        verify_chain(events)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        # Other threads may have written one more event before the signal took effect.
        assert len(events) >= last + 1
        with Journal(path, DRILL) as again:
            again.append("reaping-started")
        last += 1
    assert events[-1].event == "run-finished"


_RUN_FOR_EVER = """
import sys
from pathlib import Path
from recovery import cli
from recovery.errors import RecoveryError
from recovery.journal import Journal
from recovery.runbook import Runbook, Runner, Step
def say(event):
    print(event.step, event.event, flush=True)
def teardown(context):
    if sys.argv[2] == "hangs":
        context.wait_until(lambda: False)
    return {}
steps = (
    Step(name="a", title="A", run=lambda c: c.wait_until(lambda: False)),
    Step(name="teardown", title="T", needs=("a",), run=teardown, always=True),
)
journal = Journal(Path(sys.argv[1]), "20260109-020000-1a2b", listeners=[say])
try:
    Runner(Runbook("r", "R", steps), journal, finish_command="recovery environment reap").run()
except RecoveryError as exc:
    print(exc, flush=True)
    sys.exit(exc.exit_code)
"""


def _until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == text:
            return
    pytest.fail(f"{text!r} was never said")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_tears_down(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RUN_FOR_EVER, str(tmp_path / "journal.jsonl"), "ends"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        _until(process, "a step-started")
        process.send_signal(number)
        _until(process, "teardown step-done")
        assert process.wait(30) == 0


def test_the_second_signal_stops_at_once_and_names_the_command_that_finishes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RUN_FOR_EVER, str(tmp_path / "journal.jsonl"), "hangs"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        _until(process, "a step-started")
        process.send_signal(signal.SIGINT)
        _until(process, "teardown step-started")
        process.send_signal(signal.SIGINT)
        _until(process, "hint: Finish the job with: recovery environment reap")
        assert process.wait(30) == 130
