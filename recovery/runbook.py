"""A runbook is data: steps, what each needs, and where it runs. The runner turns one into a journal.

Each step starts as soon as what it needs is done. A failure stops only what depends on it; steps marked `always`
(teardown, report) run once everything they need is settled, whichever way. The first failure stays the run's failure
whatever goes wrong afterwards.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from recovery.errors import CheckFailedError, RecoveryError, RunInterruptedError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from recovery.journal import Journal

Where = Literal["here", "task", "person"]
Evidence = Mapping[str, object]


class StepNotNeededError(Exception):
    """Raised by a step that cannot go on because of a failure told elsewhere; it is recorded as skipped."""


class StepNotRunError(Exception):
    """Raised by a step whose work cannot be done here, with the reason; what needs the step goes on."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of a runbook.

    `run` takes the step's context and returns its evidence; `needs` names other steps; `phase` groups steps in the
    report; `timeout` is in seconds and is honoured at the step's own checkpoints; `always` makes it run after failures
    and interruptions too; `not_run` says why a step of the written runbook is not executed.
    """

    name: str
    title: str
    run: Callable[[StepContext], Evidence] | None = None
    needs: tuple[str, ...] = ()
    where: Where = "here"
    phase: str = ""
    always: bool = False
    timeout: float | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class Runbook:
    """Steps in the order of the written page; checked when made. Raises UsageError when they do not fit together."""

    name: str
    title: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Check names, needs and that the needs have an end."""
        names = [step.name for step in self.steps]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"Runbook {self.name} has two steps of one name: {', '.join(twice)}.")
        for step in self.steps:
            unknown = sorted(set(step.needs) - set(names))
            if unknown:
                raise UsageError(f"Step {step.name} of runbook {self.name} needs unknown {', '.join(unknown)}.")
            if (step.run is None) == (step.not_run is None):
                raise UsageError(
                    f"Step {step.name} of runbook {self.name} must have either something to run or a reason."
                )
        self._refuse_cycles()

    def _refuse_cycles(self) -> None:
        left = {step.name: set(step.needs) for step in self.steps}
        while left:
            free = {name for name, needs in left.items() if not needs & left.keys()}
            if not free:
                raise UsageError(f"Steps of runbook {self.name} need each other: {', '.join(sorted(left))}.")
            left = {name: needs for name, needs in left.items() if name not in free}


@dataclass
class StepContext:
    """What a running step may use: its journal voice, earlier evidence, and the order to stop."""

    step: Step
    journal: Journal
    evidence: Mapping[str, Evidence]
    cancelled: threading.Event
    deadline: float | None = None
    _spoke: float = field(default=0.0, repr=False)

    def note(self, event: str, data: Mapping[str, object] | None = None) -> None:
        """Write an event of this step to the journal."""
        self.journal.append(event, data, step=self.step.name)

    def progress(self, text: str, data: Mapping[str, object] | None = None, *, every: float = 1.0) -> None:
        """Write a progress event, at most one each `every` seconds."""
        now = time.monotonic()
        if now - self._spoke >= every:
            self._spoke = now
            self.note("step-progress", {"text": text, **(data or {})})

    def checkpoint(self) -> None:
        """Return unless the step has to stop. Raises RunInterruptedError or CheckFailedError (time is up)."""
        if self.cancelled.is_set():
            raise RunInterruptedError(f"Step {self.step.name} was interrupted.")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise CheckFailedError(
                f"Step {self.step.name} was not done within {self.step.timeout:.0f} s.",
                hint="The journal's last progress events of this step say how far it came.",
            )

    def sleep(self, seconds: float) -> None:
        """Wait, waking at once when the step has to stop (then raises as `checkpoint` does)."""
        self.cancelled.wait(seconds)
        self.checkpoint()

    def wait_until(self, ready: Callable[[], bool], *, every: float = 0.5) -> None:
        """Ask `ready` until it says yes, at most until the step's time-out."""
        while True:
            self.checkpoint()
            if ready():
                return
            self.sleep(every)


Outcome = Literal["done", "failed", "skipped", "not-run", "interrupted"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended: each step's outcome and evidence, and the failure that came first."""

    outcomes: Mapping[str, Outcome]
    evidence: Mapping[str, Evidence]
    first_failure: tuple[str, RecoveryError] | None
    interrupted: bool


class Runner:
    """Runs one runbook into one journal."""

    def __init__(
        self,
        runbook: Runbook,
        journal: Journal,
        *,
        finish_command: str,
        abandon: Callable[[], None] = lambda: None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare a run. `finish_command` is what removes what an abandoned run leaves; `abandon` kills helpers."""
        self.runbook = runbook
        self.journal = journal
        self._finish_command = finish_command
        self._abandon = abandon
        self._facts = dict(facts or {})
        self._cancelled = threading.Event()
        self._never = threading.Event()
        self._settled: queue.SimpleQueue[tuple[Step, Evidence | BaseException] | None] = queue.SimpleQueue()
        self._outcomes: dict[str, Outcome] = {}
        self._evidence: dict[str, Evidence] = {}
        self._first_failure: tuple[str, RecoveryError] | None = None
        self._running: set[str] = set()

    def interrupt(self) -> None:
        """Stop the run: running steps end at their next checkpoint, what is left is skipped, teardown still runs."""
        self._cancelled.set()
        self._settled.put(None)

    def run(self) -> RunResult:
        """Run every step and return how it went; failures of steps are results, not exceptions.

        Raises RunInterruptedError when the operator asked a second time to stop.
        """
        self.journal.append(
            "run-started",
            {
                "runbook": self.runbook.name,
                "title": self.runbook.title,
                "steps": [
                    {
                        "name": s.name,
                        "title": s.title,
                        "needs": s.needs,
                        "where": s.where,
                        "phase": s.phase,
                        "always": s.always,
                    }
                    for s in self.runbook.steps
                ],
                **self._facts,
            },
        )
        with self._signals():
            interruption_told = False
            self._advance()
            while self._running:
                settled = self._settled.get()
                if self._cancelled.is_set() and not interruption_told:
                    interruption_told = True
                    self.journal.append("interrupted", {"finish_command": self._finish_command})
                if settled is not None:
                    self._settle(*settled)
                self._advance()
        failure = self._first_failure
        self.journal.append(
            "run-finished",
            {
                "outcomes": self._outcomes,
                "interrupted": self._cancelled.is_set(),
                "first_failure": failure[0] if failure else None,
            },
        )
        return RunResult(
            outcomes=dict(self._outcomes),
            evidence=dict(self._evidence),
            first_failure=failure,
            interrupted=self._cancelled.is_set(),
        )

    def _advance(self) -> None:
        """Start or skip every step whose needs are settled, until nothing changes."""
        moved = True
        while moved:
            moved = False
            for step in self.runbook.steps:
                if step.name in self._outcomes or step.name in self._running:
                    continue
                if not all(need in self._outcomes for need in step.needs):
                    continue
                moved = True
                missing = [need for need in step.needs if self._outcomes[need] not in {"done", "not-run"}]
                if self._cancelled.is_set() and not step.always:
                    self._skip(step, "the run was interrupted")
                elif missing and not step.always:
                    self._skip(step, f"{', '.join(missing)} did not succeed")
                elif step.not_run is not None:
                    self._leave(step, step.not_run)
                else:
                    self._start(step)

    def _skip(self, step: Step, reason: str) -> None:
        self._outcomes[step.name] = "skipped"
        self.journal.append("step-skipped", {"reason": reason}, step=step.name)

    def _leave(self, step: Step, reason: str) -> None:
        self._outcomes[step.name] = "not-run"
        self.journal.append("step-not-run", {"reason": reason}, step=step.name)

    def _start(self, step: Step) -> None:
        self._running.add(step.name)
        self.journal.append("step-started", {"where": step.where}, step=step.name)
        context = StepContext(
            step=step,
            journal=self.journal,
            evidence=dict(self._evidence),
            # What cleans up must not be stopped by the very order that made it necessary.
            cancelled=self._never if step.always else self._cancelled,
            deadline=time.monotonic() + step.timeout if step.timeout is not None else None,
        )
        # Daemon threads: an operator who asks twice to stop must not wait for a call that hangs.
        threading.Thread(target=self._call, args=(step, context), name=f"step-{step.name}", daemon=True).start()

    def _call(self, step: Step, context: StepContext) -> None:
        try:
            evidence = dict(step.run(context)) if step.run else {}
            self._settled.put((step, evidence))
        except BaseException as exc:  # noqa: BLE001  # whatever a step raises is its result; the runner records it
            self._settled.put((step, exc))

    def _settle(self, step: Step, result: Evidence | BaseException) -> None:
        self._running.discard(step.name)
        if not isinstance(result, BaseException):
            self._outcomes[step.name] = "done"
            self._evidence[step.name] = result
            self.journal.append("step-done", {"evidence": result}, step=step.name)
        elif isinstance(result, StepNotNeededError):
            self._skip(step, str(result))
        elif isinstance(result, StepNotRunError):
            self._leave(step, str(result))
        elif isinstance(result, RunInterruptedError) and self._cancelled.is_set():
            self._outcomes[step.name] = "interrupted"
            self.journal.append("step-interrupted", {"message": result.message}, step=step.name)
        else:
            self._fail(step, result)

    def _fail(self, step: Step, problem: BaseException) -> None:
        error = problem if isinstance(problem, RecoveryError) else _unexpected(problem)
        first = self._first_failure is None
        if first:
            self._first_failure = (step.name, error)
        self._outcomes[step.name] = "failed"
        data: dict[str, object] = {
            "kind": type(problem).__name__,
            "message": error.message,
            "detail": error.detail,
            "hint": error.hint,
            "code": error.exit_code,
            "first": first,
        }
        if error is not problem:
            data["traceback"] = "".join(traceback.format_exception(problem))
        self.journal.append("step-failed", data, step=step.name)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM while the run lasts, where Python lets us: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def asked(_number: int, _frame: FrameType | None) -> None:
            if not self._cancelled.is_set():
                self.interrupt()
                return
            self._abandon()
            raise RunInterruptedError(
                "Stopped at once; what this run had made may still be there.",
                hint=f"Finish the job with: {self._finish_command}",
            )

        before: Sequence[tuple[signal.Signals, object]] = [
            (number, signal.signal(number, asked)) for number in (signal.SIGINT, signal.SIGTERM)
        ]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave goes back in


def _unexpected(problem: BaseException) -> RecoveryError:
    return RecoveryError(
        f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__,
        hint="This kind of failure was not foreseen; the journal holds its traceback.",
    )
