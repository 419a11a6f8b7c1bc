"""A server that is a process of the cloud's own on one loopback address: what PostgreSQL and Redis have in common."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from localcloud import processes


class ServerProcess:
    """A server whose files live below `folder`, which must not exist yet, and which listens on one loopback address."""

    def __init__(self, *, home: Path, folder: Path, address: str, port: int) -> None:
        self._home = home
        self._folder = folder
        self._running: processes.Running | None = None
        self.address = address
        self.port = port

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None when it does not run."""
        return self._running.pid if self._running is not None and self._running.alive() else None

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace").strip()[-800:] if self._log.exists() else "it wrote no log"

    def _end(self, number: signal.Signals) -> None:
        """End the process, which is sent this signal first; nothing happens when there is none."""
        if self._running is not None:
            processes.end(self._running, number=number)
            self._running = None

    def stop(self) -> None:
        """Stop the server at once. Does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def delete(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def suspend(self) -> None:
        """Suspend all its processes."""
        if self.pid is not None:
            processes.suspend(self.pid)

    def resume(self) -> None:
        """Let them go on."""
        if self.pid is not None:
            processes.resume(self.pid)
