"""`python -m benchmarks`: all of them, one after the other, each with medians over its runs."""

from __future__ import annotations

import argparse
import os
import platform

from benchmarks import backup, drill, forecast, localcloud_start, memory, reading, restore, stack, verify
from benchmarks.measure import table

_MEGABYTES, _FULL_MEGABYTES = 400, 1500


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=3)
    parser.add_argument("--megabytes", type=int, default=_MEGABYTES, help="plain SQL of the largest database")
    parser.add_argument("--full", action="store_true", help=f"the same as --megabytes {_FULL_MEGABYTES}")
    arguments = parser.parse_args()
    megabytes = _FULL_MEGABYTES if arguments.full else arguments.megabytes
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    restore.run(megabytes, arguments.runs)
    forecast.run(megabytes)
    backup.run(megabytes, arguments.runs)
    memory.run()
    reading.run(megabytes, arguments.runs)
    verify.run(megabytes, arguments.runs)
    localcloud_start.run(arguments.runs)
    stack.run(arguments.runs)
    drill.run(arguments.runs)
    table()


if __name__ == "__main__":
    main()
