"""A PostgreSQL server for a benchmark: real, durable (fsync on), with the CPU time of all its processes told apart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks.measure import short_folder
from benchmarks.sampler import Sampler
from machine.programs import postgresql_server_folder
from machine.unprivileged import copied_installation, unprivileged_user

MAJOR = 16
# One set of settings for every way that is measured. fsync is on, as it always is where data matters.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "log_min_messages": "fatal",
}
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60.0
# Often enough for phases of a second. Whoever keeps both cores busy would pay for more with its own time, and whoever
# leaves one of them idle would not.
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Server:
    """A running server: its socket's folder, its programs, the process that the others descend from."""

    folder: Path
    programs: Path
    pid: int

    def dsn(self, database: str = "postgres") -> str:
        """Return a connection string of libpq's key=value form."""
        return make_conninfo(host=str(self.folder), port=5432, user="postgres", dbname=database)

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> None:
        """Run one statement outside any transaction."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self, name: str) -> str:
        """Drop the database of this name and make it anew, empty; return its connection string."""
        self.drop_database(name)
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is in it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def settle(self) -> None:
        """Write everything out, so that no way pays for what another one left to be written."""
        self.execute(sql.SQL("CHECKPOINT"))
        os.sync()

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server so far: its live processes and all that have ended."""
        # Its own, and those of children that it waited for.
        total = sum(map(int, _stat(self.pid)[11:15]))
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it may end while it is looked at
                total += sum(map(int, _stat(int(child))[11:13]))
        return total / _TICKS


class CpuTimeline(Sampler):
    """Samples a server's CPU time in the background; afterwards tells what it used between two moments."""

    def __init__(self, server: Server) -> None:
        super().__init__(_SAMPLE_SECONDS)
        self._server = server
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        # A process that ends between being counted alone and among the ended ones is missing from one sample.
        least = self._samples[-1][1] if self._samples else 0.0
        self._samples.append((time.monotonic(), max(least, self._server.cpu_seconds())))

    def between(self, start: float, end: float) -> float:
        """Return the CPU seconds between two moments of the monotonic clock."""
        return self._at(end) - self._at(start)

    def _at(self, moment: float) -> float:
        index = bisect_left(self._samples, (moment, 0.0))
        return self._samples[min(index, len(self._samples) - 1)][1]


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """Run a server with SETTINGS for the time of the block. Its data and everything in it is removed at the end."""
    user = unprivileged_user()
    programs = postgresql_server_folder(MAJOR)
    with short_folder() as folder:
        user.own(folder)
        if not user.reaches(programs / "postgres"):
            programs = copied_installation(programs, folder / "programs")
        data = folder / "data"
        with (folder / "log").open("wb") as log:
            options: dict[str, Any] = {"stdout": log, "stderr": log, "cwd": folder, **user.popen_options()}
            cluster = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
            subprocess.run([programs / "initdb", "-D", data, *cluster], check=True, **options)
            settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
            process = subprocess.Popen([programs / "postgres", "-D", data, "-k", folder, *settings], **options)
            try:
                server = Server(folder, programs, process.pid)
                _wait(server, process)
                yield server
            finally:
                process.send_signal(signal.SIGQUIT)  # nothing of it outlives the benchmark
                process.wait(60)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(server.dsn()).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def program(server: Server, name: str, *arguments: str) -> list[str]:
    """Return the command line of one of the server's client programs."""
    return [str(server.programs / name), *arguments]
