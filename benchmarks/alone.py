"""A benchmark of one database, the one with a large table, on a server of its own: what it is called with and told."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import SHAPES
from benchmarks.measure import heading
from benchmarks.postgres import Server, postgresql
from benchmarks.ways import make, scratch


@dataclass(frozen=True)
class Alone:
    """`measure` is given the server, the database's address, an empty folder and the number of runs, and prints."""

    name: str
    measure: Callable[[Server, str, Path, int], None]

    def run(self, megabytes: int, runs: int) -> None:
        """Make the database, some megabytes of SQL, and measure."""
        with postgresql() as server, scratch() as folder:
            source = make(server, SHAPES[0], megabytes)
            heading(f"{self.name.capitalize()}, {SHAPES[0].name}: some {megabytes:,} MB of SQL")
            self.measure(server, source, folder, runs)

    def main(self, description: str | None) -> None:
        """Read the command line and run."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=description)
        parser.add_argument("--megabytes", type=int, default=400, help="plain SQL of the database")
        parser.add_argument("--runs", type=int, default=3)
        arguments = parser.parse_args()
        self.run(arguments.megabytes, arguments.runs)
