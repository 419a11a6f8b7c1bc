"""Taking a backup, sealed and with checksums of all content, against `pg_dump | gzip -6`, in turns within one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.databases import SHAPES
from benchmarks.measure import heading, ratio
from benchmarks.postgres import Server, postgresql, program
from benchmarks.ways import Way, in_turns, make, ours, pipe, scratch

_MEMORY_BAR = 150


def measure(server: Server, source: str, folder: Path, runs: int) -> None:
    """Back up in every way, and print."""
    plain = folder / "peer.sql.gz"

    def backup(checksums: str) -> dict[str, Any]:
        said = ours("backup", source, str(folder / "ours"), checksums)
        for path in (folder / "ours").iterdir():
            path.unlink()
        return said

    dump = program(server, "pg_dump", source)
    ways = [
        Way("recovery backup, sealed, with checksums", lambda: backup("checksums")),
        Way("recovery backup without checksums", lambda: backup("counts")),
        Way("peer: pg_dump | gzip -6", lambda: pipe(dump, ["gzip", "-6"], to=plain)),
    ]
    (folder / "ours").mkdir()
    in_turns(server, ways, runs)
    ratio("pg_dump | gzip -6 / ours", ways[2].median, ways[0].median, "bar 5, stretch 8")
    ratio("the same without checksums", ways[2].median, ways[1].median)
    ratio("size of ours / gzip -6's", ways[0].said[0]["size"], plain.stat().st_size, "bar 1.10")
    print(f"  client memory, peak {ways[0].peak_megabytes():.0f} MB (bar {_MEMORY_BAR}; pg_dump's own is apart)")


def run(megabytes: int, runs: int) -> None:
    """Measure on a server of its own."""
    with postgresql() as server, scratch() as folder:
        source = make(server, SHAPES[0], megabytes)
        heading(f"Backup, {SHAPES[0].name}: some {megabytes:,} MB of SQL")
        measure(server, source, folder, runs)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="plain SQL of the database")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    run(arguments.megabytes, arguments.runs)


if __name__ == "__main__":
    main()
