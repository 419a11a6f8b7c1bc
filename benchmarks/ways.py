"""Ways to do a work, measured in turns within one run: wall time, CPU time of client and server, and its phases."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg

from benchmarks.databases import Shape
from benchmarks.measure import figure, say
from benchmarks.postgres import CpuTimeline, Server
from benchmarks.waits import WaitTimeline, causes
from examples.agentverse.stack import ROOT

# Of servers larger than any here.
MODEL_CORES = (8, 16, 64)


@dataclass
class Way:
    """One way to do a work, and what its runs took: seconds, CPU seconds of client and server, what they said, what
    backends waited for.

    ``before`` is called before each run and not timed.
    """

    name: str
    run: Callable[[], dict[str, Any]]
    before: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    waits: list[collections.Counter[str]] = field(default_factory=list)

    def measure(self, server: Server) -> None:
        """Run once and remember."""
        self.before()
        server.settle()
        with CpuTimeline(server) as cpu, WaitTimeline(server) as waits:
            client, begun = _children_cpu(), time.monotonic()
            said = self.run()
            ended = time.monotonic()
            time.sleep(0.1)  # backends end a moment after their clients
        self.seconds.append(said.get("seconds", ended - begun))
        self.client.append(_children_cpu() - client)
        self.server.append(cpu.between(begun, time.monotonic()))
        self.waits.append(waits.between(begun, ended))
        start = said.get("started", 0.0)
        for phase in said.get("phases", ()):
            phase["server"] = cpu.between(start, start + phase["seconds"])
            phase["waits"] = waits.between(start, start + phase["seconds"])
            start += phase["seconds"]
        self.said.append(said)

    def say_work(self, gigabytes: float) -> None:
        """Print the CPU seconds per GB, of client and server apart, and how idle the processors were and why.

        And a model of servers with more cores: of work that any number of sessions share, whose client has these here.
        """
        cores = os.cpu_count() or 1
        client, used = statistics.median(self.client), statistics.median(self.server)
        waits: collections.Counter[str] = sum((each for each in self.waits), collections.Counter())
        idle = max(0.0, 1 - (client + used) / (self.median * cores))
        each = f"client {client / gigabytes:.1f}, server {used / gigabytes:.1f}"
        print(f"  CPU s per GB: {each}; processors idle {idle:.0%}")
        if why := causes(waits):
            print(f"  backends waited for {why}")
        for count in MODEL_CORES:
            modelled = max(client / cores, used / count)
            print(f"  MODEL, not measured: server of {count} cores, client of {cores}: {modelled:.1f} s")

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    def peak_megabytes(self) -> float:
        """The most memory that any run's client had."""
        return max(float(said["peak_megabytes"]) for said in self.said)


def in_turns(server: Server, ways: list[Way], runs: int) -> None:
    """Run the ways in turns, each round beginning with another one, and print their medians."""
    for number in range(runs):
        shift = number % len(ways)
        for way in ways[shift:] + ways[:shift]:
            way.measure(server)
            say(f"{way.name}: {way.seconds[-1]:.1f} s")
    for way in ways:
        client, used = statistics.median(way.client), statistics.median(way.server)
        figure(way.name, way.seconds, f"CPU s: client {client:.1f}, server {used:.1f}")


def most_of_cores(peer: Way, cpu_seconds: float) -> None:
    """Print the ratio that nothing here can pass: work that cannot be left out, in CPU seconds, with no core ever idle.

    Of a restore that is the server's own and inflating, of a backup what the server spends for pg_dump and deflating.
    """
    cores = os.cpu_count() or 1
    name = f"MODEL: the most that {cores} cores allow"
    print(f"  {name:<42} {peer.median / (cpu_seconds / cores):8.2f} x {peer.name.removeprefix('peer: ')}")


def pipe(*commands: list[str], to: Path | None = None, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run commands as a shell's pipe, the last one's output to a file or nowhere.

    Raises CalledProcessError when any of them fails.
    """
    with (to or Path(os.devnull)).open("wb") as end:
        processes: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(commands):
            processes.append(
                subprocess.Popen(
                    command,
                    stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                    stdout=end if number == len(commands) - 1 else subprocess.PIPE,
                    env={**os.environ, **(environment or {})},
                )
            )
        for process in processes[:-1]:
            if process.stdout is not None:
                process.stdout.close()  # the next one has it
        for process, command in zip(processes, commands, strict=True):
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, command)
    return {}


def ours(*arguments: str) -> dict[str, Any]:
    """Run `python -m benchmarks.client` and return what it says."""
    command = [sys.executable, "-m", "benchmarks.client", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for dumps, which goes at the end."""
    folder = Path(mkdtemp(prefix="avb-dumps-", dir="/var/tmp"))  # a folder of its own; /tmp may be memory
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make(server: Server, shape: Shape, megabytes: int) -> str:
    """Make the database of a shape and return its connection string."""
    say(f"making {megabytes} MB: {shape.name}")
    dsn = server.new_database(shape.key)
    with psycopg.connect(dsn) as connection:
        shape.fill(connection, megabytes)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return dsn


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
