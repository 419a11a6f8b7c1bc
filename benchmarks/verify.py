"""Proving a database's content by checksums of all rows against reading it once with `pg_dump > /dev/null`."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks.alone import Alone
from benchmarks.measure import Bar, ratio
from benchmarks.postgres import Server, program
from benchmarks.ways import Way, in_turns, ours, pipe


def measure(server: Server, source: str, folder: Path, runs: int) -> None:
    """Verify against the manifest of a backup of the same database, and print."""
    saved = ours("backup", source, str(folder))
    backup, text = Path(saved["dump"]), saved["text"]
    manifest = next(folder.glob("*.manifest.json"))
    backup.unlink()
    dump = program(server, "pg_dump", source)
    ways = [
        Way("recovery verify, every rung", lambda: ours("verify", source, str(manifest))),
        Way("peer: pg_dump > /dev/null", lambda: pipe(dump)),
    ]
    in_turns(server, ways, runs)
    ratio("pg_dump > /dev/null / ours", ways[1].median, ways[0].median, Bar(least=1, stretch=2))
    ways[0].say_work(text / 1e9)
    for said in ways[0].said:
        if said["failed"]:
            sys.exit(f"verify found a difference where there is none: {said['failed']}")
    for number, (name, _) in enumerate(ways[0].said[0]["rungs"]):
        seconds = statistics.median(said["rungs"][number][1] for said in ways[0].said)
        if seconds >= 0.1:
            print(f"    {name:<40} {seconds:8.2f} s")


_ALONE = Alone("verify", measure)
run = _ALONE.run


if __name__ == "__main__":
    _ALONE.main(__doc__)
