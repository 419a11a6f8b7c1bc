"""Processes the cloud starts: recorded, so that the next start can end what a killed one left, and suspended as trees.

On Linux a process also dies with the cloud (PR_SET_PDEATHSIG). The kernel sends that signal when the *thread* that
forked ends, so one thread forks for the whole life of the cloud.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from localcloud.settings import Home, same_process
from machine.unprivileged import UnprivilegedUser

_LOGGER = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Spawner:
    """The one thread that forks."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="spawner", daemon=True)
                self._thread.start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, future))
        return future.result()

    def _work(self) -> None:
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as exc:  # noqa: BLE001  # it is raised again where the caller waits
                future.set_exception(exc)


_SPAWNER = _Spawner()


@dataclass(frozen=True)
class Running:
    """A process the cloud started, and the file that says so."""

    process: subprocess.Popen[bytes]
    record: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def forget(self) -> None:
        """Remove the record: the process is gone."""
        self.record.unlink(missing_ok=True)


def spawn(
    home: Path,
    argv: Sequence[str | Path],
    *,
    kind: str,
    output: IO[bytes] | int,
    stdin: int = subprocess.DEVNULL,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    user: UnprivilegedUser | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> Running:
    """Start a process in a session of its own and record it below `home`.

    `output` takes its stdout and stderr. `user` is whom to become (see machine.unprivileged). On Linux it gets
    `death_signal` when the cloud dies, however that happens. Raises OSError when the program cannot be started.
    """

    def before_exec() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal))

    def start() -> subprocess.Popen[bytes]:
        options: dict[str, Any] = user.popen_options() if user is not None else {}
        return subprocess.Popen(
            [os.fspath(word) for word in argv],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd or "/",
            start_new_session=True,
            # One function of libc, looked up beforehand; it must come after the change of user, which clears it.
            preexec_fn=before_exec if _LIBC is not None else None,  # noqa: PLW1509  # as said above
            **options,
        )

    process = _SPAWNER.run(start)
    record = Home(path=home).processes / f"{process.pid}.json"
    with contextlib.suppress(psutil.NoSuchProcess):  # already over: nothing to clean up after
        started = psutil.Process(process.pid).create_time()
        record.write_text(json.dumps({"pid": process.pid, "started": started, "kind": kind}))
    return Running(process=process, record=record)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def suspend(pid: int) -> None:
    """Suspend a process and all below it; the parent first, so that it starts no further ones meanwhile."""
    _signal_all(_tree(pid)[:1], signal.SIGSTOP)
    _signal_all(_tree(pid)[1:], signal.SIGSTOP)


def resume(pid: int) -> None:
    """Let a process and all below it go on; the parent last, so that it finds its children awake."""
    _signal_all(reversed(_tree(pid)), signal.SIGCONT)


def is_over(process: psutil.Process) -> bool:
    """Tell whether a process has ended. A zombie has: whoever adopted it may take its time to collect it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _end_tree(tree: list[psutil.Process], number: signal.Signals, grace: float) -> None:
    """End a root and all below it: `number` to the root first, SIGKILL to what is left after `grace` seconds."""
    _signal_all(tree[:1], number)
    _signal_all(tree, signal.SIGCONT)  # what is suspended acts on no other signal
    wait_until(lambda: all(is_over(process) for process in tree), seconds=grace)
    _signal_all([process for process in tree if not is_over(process)], signal.SIGKILL)
    wait_until(lambda: all(is_over(process) for process in tree), seconds=grace)


def end(running: Running, *, number: signal.Signals = signal.SIGTERM, grace: float = 5.0) -> None:
    """End a process and all below it: `number` to its root first, SIGKILL to what is left after `grace` seconds."""
    if running.alive():
        _end_tree(_tree(running.pid), number, grace)
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(grace)
    running.forget()


def end_recorded(home: Path) -> int:
    """End every process that an earlier cloud in this home recorded and that still runs; return how many there were.

    A process is touched only if its start time is the recorded one: ids are used again.
    """
    ended = 0
    for record in sorted(Home(path=home).processes.glob("*.json")):
        try:
            said = json.loads(record.read_text())
            process = same_process(int(said["pid"]), float(said["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            _LOGGER.warning("unreadable process record %s removed", record)
            process = None
        if process is not None:
            # PostgreSQL frees its shared memory on SIGQUIT, and not on SIGKILL.
            _end_tree(_tree(process.pid), signal.SIGQUIT, 5.0)
            ended += 1
        record.unlink(missing_ok=True)
    return ended


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Ask until it is so, or the time is over; return whether it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
