"""Reading a backup whole, every member checked and every row counted, against gunzip, which only inflates it.

The client's part of a restore without the database: gzip's and the manifest's checksums, SQL understood, rows counted.
Our time begins when the program is loaded, as in the other benchmarks; the peers' programs load within 0.05 s.
"""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which

from benchmarks.alone import Alone
from benchmarks.measure import ratio
from benchmarks.postgres import Server
from benchmarks.ways import Way, in_turns, ours, pipe

_MEMORY_BAR = 150
_PYTHON = "import gzip, sys\nwith gzip.open(sys.argv[1]) as file:\n    while file.read(1 << 20):\n        pass"


def measure(server: Server, source: str, folder: Path, runs: int) -> None:
    """Read a backup of the database in every way, and print."""
    dump = ours("backup", source, str(folder))["dump"]
    manifest = str(next(folder.glob("*.manifest.json")))
    ways = [
        Way("recovery: read, check and count", lambda: ours("read", dump, manifest)),
        Way("peer: gunzip -c", lambda: pipe(["gunzip", "-c", dump])),
        Way("peer: Python's gzip", lambda: pipe([sys.executable, "-c", _PYTHON, dump])),
    ]
    if which("pigz") is not None:
        ways.append(Way("peer: pigz -dc", lambda: pipe(["pigz", "-dc", dump])))
    in_turns(server, ways, runs)
    for peer in ways[1:]:
        ratio(f"{peer.name.removeprefix('peer: ')} / ours", peer.median, ways[0].median)
    print(f"  client memory, peak {ways[0].peak_megabytes():.0f} MB (bar {_MEMORY_BAR})")


_ALONE = Alone("reading", measure)
run = _ALONE.run


if __name__ == "__main__":
    _ALONE.main(__doc__)
