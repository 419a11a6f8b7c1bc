"""Taking a backup, sealed and with checksums of all content, against `pg_dump | gzip -6`, in turns within one run."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.alone import Alone
from benchmarks.measure import Bar, ratio
from benchmarks.postgres import Server, program
from benchmarks.ways import Way, in_turns, most_of_cores, ours, pipe

_MEMORY_BAR = 150


def measure(server: Server, source: str, folder: Path, runs: int) -> None:
    """Back up in every way, and print."""
    plain = folder / "peer.sql.gz"

    def backup() -> dict[str, Any]:
        said = ours("backup", source, str(folder / "ours"))
        for path in (folder / "ours").iterdir():
            path.unlink()
        return said

    dump = program(server, "pg_dump", source)
    ways = [
        Way("recovery backup, sealed, with checksums", backup),
        Way("peer: pg_dump | gzip -6", lambda: pipe(dump, ["gzip", "-6"], to=plain)),
    ]
    (folder / "ours").mkdir()
    in_turns(server, ways, runs)
    ratio("pg_dump | gzip -6 / ours", ways[1].median, ways[0].median, Bar(least=5, stretch=8))
    ratio("size of ours / gzip -6's", ways[0].said[0]["size"], plain.stat().st_size, Bar(most=1.1))
    most_of_cores(ways[1], statistics.median(ways[1].server) + ours("deflate", str(plain))["deflating"])
    ways[0].say_work(ways[0].said[0]["text"] / 1e9)
    print(f"  client memory, peak {ways[0].peak_megabytes():.0f} MB (bar {_MEMORY_BAR}; pg_dump's own is apart)")


_ALONE = Alone("backup", measure)
run = _ALONE.run


if __name__ == "__main__":
    _ALONE.main(__doc__)
