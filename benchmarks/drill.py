"""The warm quarterly drill on the embedded cloud, whole and by phase; aim: under 60 s on two cores.

Warm: the cloud runs and holds a production with data, as a real one does before it is lost. The data is 50 MB of SQL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import cloud, figure, heading, say
from examples.agentverse import production
from examples.agentverse.stack import ROOT


def run(runs: int) -> None:
    """Make a production once, drill against it some times; print medians of the whole and of each phase."""
    heading("Warm quarterly drill on the embedded cloud")
    whole: list[float] = []
    recovered: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    with cloud(), TemporaryDirectory(prefix="avb-") as name:
        production.up(production.Wishes(), say)
        # Not this repository's drills/: a benchmark is no drill that anybody should be shown.
        environment = {**os.environ, "AGENTVERSE_DRILLS": name}
        for _ in range(runs):
            begun = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "recovery", "--local", "--json", "--yes", "drill", "quarterly"],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            whole.append(time.monotonic() - begun)
            report = _report(done, Path(name))
            for phase in report["phases"]:
                phases[phase["name"]].append(phase["seconds"])
            recovered.append(report["rto_seconds"])
    figure("whole drill", whole, "aim: under 60 s")
    figure("RTO: start to verified", recovered)
    for phase, seconds in phases.items():
        figure(f"  {phase}", seconds)


def _report(done: subprocess.CompletedProcess[str], drills: Path) -> dict[str, Any]:
    if done.returncode:
        sys.exit(
            f"the drill ended with exit code {done.returncode}; its journal was in {drills}: {done.stdout[-2000:]}"
        )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
