"""Proving a database's content by checksums of all rows against reading it once with `pg_dump > /dev/null`."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks.databases import SHAPES
from benchmarks.measure import heading, ratio
from benchmarks.postgres import Server, postgresql, program
from benchmarks.ways import Way, in_turns, make, ours, pipe, scratch


def measure(server: Server, source: str, folder: Path, runs: int) -> None:
    """Verify against the manifest of a backup of the same database, and print."""
    backup = Path(ours("backup", source, str(folder), "checksums")["dump"])
    manifest = next(folder.glob("*.manifest.json"))
    backup.unlink()
    dump = program(server, "pg_dump", source)
    ways = [
        Way("recovery verify, every rung", lambda: ours("verify", source, str(manifest))),
        Way("peer: pg_dump > /dev/null", lambda: pipe(dump)),
    ]
    in_turns(server, ways, runs)
    ratio("pg_dump > /dev/null / ours", ways[1].median, ways[0].median, "bar 1, stretch 2")
    for said in ways[0].said:
        if said["failed"]:
            sys.exit(f"verify found a difference where there is none: {said['failed']}")
    for number, (name, _) in enumerate(ways[0].said[0]["rungs"]):
        seconds = statistics.median(said["rungs"][number][1] for said in ways[0].said)
        if seconds >= 0.1:
            print(f"    {name:<40} {seconds:8.2f} s")


def run(megabytes: int, runs: int) -> None:
    """Measure on a server of its own."""
    with postgresql() as server, scratch() as folder:
        source = make(server, SHAPES[0], megabytes)
        heading(f"Verify, {SHAPES[0].name}: some {megabytes:,} MB of SQL")
        measure(server, source, folder, runs)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="plain SQL of the database")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    run(arguments.megabytes, arguments.runs)


if __name__ == "__main__":
    main()
