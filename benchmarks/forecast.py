"""The finish that a restore projects while it runs against the one it comes to, on every shape of database.

There is no peer: psql and pg_restore project nothing.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from benchmarks.databases import SHAPES, Shape
from benchmarks.measure import heading
from benchmarks.postgres import Server, postgresql
from benchmarks.ways import make, ours, scratch

JOBS = 2
_TARGET = "restored"
_PROJECTED = re.compile(r"done in about (?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)?")
_MOMENTS = (0.1, 0.25, 0.5, 0.75)


def measure(server: Server, shape: Shape, megabytes: int) -> None:
    """Back up and restore one shape, and print what was projected at some moments of the restore."""
    source = make(server, shape, megabytes)
    with scratch() as folder:
        dump = ours("backup", source, str(folder))["dump"]
        server.drop_database(shape.key)
        server.drop_database(_TARGET)
        server.settle()
        said = ours("restore", dump, server.dsn(_TARGET), str(JOBS), dump.removesuffix(".sql.gz") + ".manifest.json")
    whole = said["seconds"]
    projected = [(at, at + left) for at, text in said["told"] if (left := _left(text)) is not None]
    heading(f"Projected finish, {shape.name}: it took {whole:.1f} s")
    print("  " + ", ".join(f"{phase['name']} {phase['seconds']:.1f} s" for phase in said["phases"]))
    print(f"  first said after {projected[0][0]:.1f} s" if projected else "  never said: over too soon")
    for moment in _MOMENTS:
        known = [finish for at, finish in projected if at <= whole * moment]
        if known:
            error = f"{known[-1]:6.1f} s ({(known[-1] / whole - 1) * 100:+.0f} %)"
            print(f"  at {moment:4.0%} of the time: projected {error}")


def _left(text: str) -> float | None:
    found = _PROJECTED.search(text)
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def run(megabytes: int, shapes: Sequence[str] = ()) -> None:
    """Measure every shape, or those asked for."""
    with postgresql() as server:
        for shape in SHAPES:
            if not shapes or shape.key in shapes:
                measure(server, shape, megabytes)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="plain SQL of each database")
    parser.add_argument("shapes", nargs="*", choices=[[], *(shape.key for shape in SHAPES)])
    arguments = parser.parse_args()
    run(arguments.megabytes, arguments.shapes)


if __name__ == "__main__":
    main()
