"""Restoring a plain .sql.gz against the ways people have: `gunzip -c | psql`, and a tuned `pg_restore -j2`.

All of them restore the same data into the same server, in turns within one run. The peers are given an empty database
before the clock starts; ours is the whole call, with creating the database and collecting statistics in it. No peer
collects any: ours without is printed as well.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.databases import SHAPES, Shape
from benchmarks.measure import Bar, heading, ratio
from benchmarks.postgres import Server, postgresql, program
from benchmarks.waits import causes
from benchmarks.ways import MODEL_CORES, Way, in_turns, make, most_of_cores, ours, pipe, scratch

JOBS = 2
# What a person who knows pg_restore gives it on such a server.
_TUNED = {"PGOPTIONS": "-c maintenance_work_mem=512MB -c synchronous_commit=off"}
_TARGET = "restored"
_BARS = {"platform": (Bar(least=1.6, stretch=1.9), Bar(least=1.15, stretch=1.4))}
_OTHER_BARS = (Bar(least=1.4), Bar(least=1.0))
_MEMORY_BAR = 150
_IDLE_ENOUGH = 0.05  # from here on it is worth saying why


def measure(server: Server, shape: Shape, megabytes: int, runs: int) -> None:
    """Restore one shape in every way, and print."""
    source = make(server, shape, megabytes)
    with scratch() as folder:
        plain, directory = folder / "dump.sql.gz", folder / "dump.dir"
        pipe(program(server, "pg_dump", source), ["gzip", "-6"], to=plain)
        pipe(program(server, "pg_dump", "-Fd", f"-j{JOBS}", "-f", str(directory), source))
        server.drop_database(shape.key)
        text = _inflated(plain)
        heading(f"Restore, {shape.name}: {text / 1e6:,.0f} MB of SQL, {plain.stat().st_size / 1e6:,.0f} MB stored")
        target = server.dsn(_TARGET)
        psql = program(server, "psql", "-qX", "-v", "ON_ERROR_STOP=1", target)
        pg_restore = program(server, "pg_restore", f"-j{JOBS}", "-d", target, str(directory))

        def without() -> None:
            server.drop_database(_TARGET)

        def with_empty() -> object:
            return server.new_database(_TARGET)

        given = (str(plain), target, str(JOBS))
        ways = [
            Way("recovery restore", lambda: ours("restore", *given), without),
            Way("the same, no statistics, as the peers", lambda: ours("restore-without-statistics", *given), without),
            Way("peer: gunzip -c | psql", lambda: pipe(["gunzip", "-c", str(plain)], psql), with_empty),
            Way(f"peer: pg_restore -j{JOBS}, tuned", lambda: pipe(pg_restore, environment=_TUNED), with_empty),
        ]
        in_turns(server, ways, runs)
        bars = _BARS.get(shape.key, _OTHER_BARS)
        for peer, bar in zip(ways[2:], bars, strict=True):
            name = peer.name.removeprefix("peer: ")
            ratio(f"{name} / ours", peer.median, ways[0].median, bar)
            ratio(f"{name} / ours, no statistics", peer.median, ways[1].median)
        inflating = ours("inflate", str(plain))["cpu_seconds"]
        most_of_cores(ways[2], statistics.median(ways[1].server) + inflating)
        _phases(ways[0], text)
        server.drop_database(_TARGET)


def _inflated(plain: Path) -> int:
    with scratch() as folder:
        pipe(["gunzip", "-c", str(plain)], ["wc", "-c"], to=folder / "count")
        return int((folder / "count").read_text())


def _phases(way: Way, text: int) -> None:
    """Print where our time goes, and what a model says of servers with more cores."""
    cores = os.cpu_count() or 1
    gigabytes = text / 1e9
    print(f"  {'phase':<14}{'wall s':>8}{'client CPU s/GB':>18}{'server CPU s/GB':>18}{'idle':>8}  backends waited for")
    medians: list[tuple[str, float, float, float]] = []
    for number, phase in enumerate(way.said[0]["phases"]):
        each = [said["phases"][number] for said in way.said]
        wall, client, server = (statistics.median(p[key] for p in each) for key in ("seconds", "cpu_seconds", "server"))
        idle = max(0.0, 1 - (client + server) / (wall * cores)) if wall > 0.05 else 0.0
        waits: collections.Counter[str] = sum((p["waits"] for p in each), collections.Counter())
        why = causes(waits) if idle >= _IDLE_ENOUGH else ""
        print(f"  {phase['name']:<14}{wall:8.2f}{client / gigabytes:18.2f}{server / gigabytes:18.2f}{idle:8.0%}  {why}")
        medians.append((phase["name"], wall, client, server))
    print(f"  client memory, peak {way.peak_megabytes():.0f} MB (bar {_MEMORY_BAR})")
    for count in MODEL_CORES:
        print(f"  MODEL, not measured: server of {count} cores, client of 2: {_model(medians, count):.1f} s")


def _model(phases: Sequence[tuple[str, float, float, float]], cores: int) -> float:
    """Say how long it would take if the server had so many cores of this kind to itself.

    Loading: the longer of the client's own CPU time, which one reader spends, and the server's over its cores.
    Building: the server's time over the cores, but no less than an eighth of it, since one index is one backend's.
    Everything else stays as it is measured: it waits for disks and locks.
    """
    seconds = 0.0
    for name, wall, client, server in phases:
        if name == "load":
            seconds += max(client, server / cores)
        elif name in {"build", "analyze"}:
            seconds += min(wall, max(server / cores, server / 8))
        else:
            seconds += wall
    return seconds


def run(megabytes: int, runs: int, shapes: Sequence[str] = ()) -> None:
    """Measure every shape, or those asked for, each on a server of its own."""
    for shape in SHAPES:
        if not shapes or shape.key in shapes:
            with postgresql() as server:
                # One table of 80 % is the case that matters most, and the one whose bar is set for a large dump.
                measure(server, shape, megabytes if shape.key == "platform" else max(megabytes // 2, 50), runs)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="plain SQL of the largest database")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("shapes", nargs="*", choices=[[], *(shape.key for shape in SHAPES)])
    arguments = parser.parse_args()
    run(arguments.megabytes, arguments.runs, arguments.shapes)


if __name__ == "__main__":
    main()
