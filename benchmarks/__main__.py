"""`python -m benchmarks [RUNS]`: all of them, one after the other, each with medians over its runs."""

from __future__ import annotations

import os
import platform
import sys

from benchmarks import drill, localcloud_start, stack


def main() -> None:
    """Run every benchmark."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    localcloud_start.run(runs)
    stack.run(runs)
    drill.run(runs)


if __name__ == "__main__":
    main()
