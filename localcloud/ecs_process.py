"""One container: a process in a group of its own, its output line by line in CloudWatch Logs, its exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil

from localcloud import processes
from localcloud.ecs_launch import Launch, LogStream, StartFailureError
from localcloud.moto_errors import MOTO_ERRORS

_log = logging.getLogger(__name__)

# CloudWatch Logs takes at most 256 KiB per event, 26 bytes of which are its own.
_LONGEST_EVENT = 262_144 - 26

# A child that left the group may keep the pipe open; its output is not waited for longer than this.
_DRAIN_SECONDS = 2.0


# Every process of a task inherits this, those that leave its group too: HOME:TASK/CONTAINER.
_MARK = "LOCALCLOUD_TASK"


def end_marked(mark: str) -> int:
    """Kill every process whose mark begins so, however far it has moved from the task; return how many there were."""
    ended = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK, "").startswith(mark) and process.pid != os.getpid():
                process.kill()
                ended += 1
        except psutil.Error:
            continue  # ended meanwhile, or not ours to see
    return ended


class _LogPump(threading.Thread):
    """Carries a pipe's lines to a log stream, in order, as they come, until the pipe ends."""

    def __init__(self, pipe: int, stream: LogStream | None) -> None:
        super().__init__(name="container log", daemon=True)
        self._pipe = pipe
        self._stream = stream

    def run(self) -> None:
        rest = b""
        try:
            while chunk := os.read(self._pipe, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_EVENT:
                    lines, rest = [*lines, rest], b""
                self._put(lines)
            self._put([rest])
        finally:
            os.close(self._pipe)

    def _put(self, lines: list[bytes]) -> None:
        if self._stream is None:
            return
        now = int(time.time() * 1000)
        pieces = (line[at : at + _LONGEST_EVENT] for line in lines for at in range(0, len(line), _LONGEST_EVENT))
        # CloudWatch Logs has no empty events: the driver leaves blank lines out.
        texts = [text for piece in pieces if (text := piece.decode("utf-8", "replace").rstrip("\r"))]
        if not texts:
            return
        try:
            self._stream.put([{"timestamp": now, "message": text} for text in texts])
        except MOTO_ERRORS as exc:
            _log.info("output of a container is lost: %s: %s", self._stream.group, exc)

    def finish(self) -> None:
        """Wait for the last lines; give up on a pipe that some process still holds."""
        self.join(_DRAIN_SECONDS)


class ContainerProcess:
    """A container from start to exit."""

    def __init__(self, launch: Launch, home: Path, folder: Path) -> None:
        self.launch = launch
        self._home = home
        self._folder = folder
        self._mark = f"{home}:{folder.name}/{launch.name}"
        self._running: processes.Running | None = None
        self._pump: _LogPump | None = None

    @property
    def pid(self) -> int | None:
        return None if self._running is None else self._running.pid

    def start(self) -> None:
        """Start the process in its own session, below its own scratch folder.

        Raises StartFailureError where there is no such program.
        """
        scratch, temporary = self._folder / self.launch.name, self._folder / f"{self.launch.name}.tmp"
        scratch.mkdir(parents=True)
        temporary.mkdir()
        environment = self.launch.environment | {"TMPDIR": str(temporary), _MARK: self._mark}
        program = shutil.which(self.launch.argv[0], path=environment.get("PATH")) if self.launch.argv else None
        if program is None:
            wanted = self.launch.argv[0] if self.launch.argv else "(no command)"
            raise StartFailureError(
                "CannotStartContainerError: failed to create task: OCI runtime create failed: exec: "
                f'"{wanted}": executable file not found in $PATH'
            )
        reading, writing = os.pipe()
        try:
            self._running = processes.spawn(
                self._home,
                [program, *self.launch.argv[1:]],
                kind="ecs task",
                output=writing,
                environment=environment,
                cwd=scratch,
            )
        except OSError as exc:
            os.close(reading)
            raise StartFailureError(f"CannotStartContainerError: {exc}") from exc
        finally:
            os.close(writing)
        self._pump = _LogPump(reading, self.launch.log)
        self._pump.start()

    def wait(self) -> int:
        """Wait for the exit, end what is left of its group, deliver its last lines; return a container's exit code."""
        if self._running is None or self._pump is None:
            raise RuntimeError(f"container {self.launch.name} was not started")
        code = self._running.process.wait()
        # A container's other processes end with its first one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        end_marked(self._mark)
        self._pump.finish()
        self._running.forget()
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        """Ask the container's first process to end, and end them all when it has not after its stop timeout."""
        if self._running is not None:
            processes.end(self._running, number=signal.SIGTERM, grace=self.launch.stop_timeout)

    def kill(self) -> None:
        """End every process of the container now."""
        if self._running is not None:
            processes.end(self._running, number=signal.SIGKILL)

    def suspend(self) -> None:
        if self._running is not None and self._running.alive():
            processes.suspend(self._running.pid)

    def resume(self) -> None:
        if self._running is not None and self._running.alive():
            processes.resume(self._running.pid)
