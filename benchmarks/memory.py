"""The client's memory while it restores and backs up databases of very different sizes: it should be flat.

The dump is one member of gzip written again and again, so that a large one is made in no time; to those who read, load
and back up its rows they are rows like any others. There is no peer: the bar is 150 MB at any size.
"""

from __future__ import annotations

import argparse
import gzip
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import heading
from benchmarks.postgres import Server, postgresql
from benchmarks.ways import ours, scratch

JOBS = 2
SIZES = (100, 2000)
_TARGET = "restored"
_MEMBER_BYTES = 2_000_000
_BAR = 150
_BEGIN = (
    b"--\n-- PostgreSQL database dump\n--\n\n"
    b"CREATE TABLE public.events (id bigint, at timestamp, kind text, body text);\n"
    b"COPY public.events (id, at, kind, body) FROM stdin;\n"
)
_END = b"\\.\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n"


def measure(server: Server, megabytes: int) -> None:
    """Make a dump of this size, restore it, back up what was restored, and print both peaks."""
    with scratch() as folder:
        dump = folder / "dump.sql.gz"
        write(dump, megabytes)
        heading(f"Client memory at {megabytes:,} MB of SQL ({dump.stat().st_size / 1e6:,.0f} MB stored)")
        restored = ours("restore", str(dump), server.dsn(_TARGET), str(JOBS))
        _say("restore", restored["peak_megabytes"], restored["seconds"])
        dump.unlink()  # the disk need not hold both
        saved = ours("backup", server.dsn(_TARGET), str(folder))
        _say("backup", saved["peak_megabytes"], saved["seconds"])
        server.drop_database(_TARGET)


def _say(work: str, peak: float, seconds: float) -> None:
    print(f"  {work:<10} peak {peak:6.0f} MB (bar {_BAR}), {seconds:.0f} s", flush=True)


def write(path: Path, megabytes: int) -> None:
    """Write a dump of one table."""
    chance = random.Random(20)  # noqa: S311  # no secret: rows of any kind
    rows = bytearray()
    while len(rows) < _MEMBER_BYTES:
        number = chance.getrandbits(40)
        body = " ".join(f"{chance.getrandbits(24):x}" for _ in range(24))
        rows += f"{number}\t2026-01-02 03:04:05.{number % 1_000_000:06}\tkind {number % 7}\t{body}\n".encode()
    member = gzip.compress(bytes(rows), 6)
    with path.open("wb") as file:
        file.write(gzip.compress(_BEGIN))
        for _ in range(megabytes * 1_000_000 // len(rows)):
            file.write(member)
        file.write(gzip.compress(_END))


def run(sizes: Sequence[int] = SIZES) -> None:
    """Measure each size, in megabytes of SQL, on one server."""
    with postgresql() as server:
        for megabytes in sizes:
            measure(server, megabytes)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="megabytes of SQL; 20000 takes 45 GB of disk")
    run(parser.parse_args().sizes)


if __name__ == "__main__":
    main()
