"""Medians, one line for a figure, and a cloud for a benchmark to run in."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from examples.agentverse.rehearsal import embedded_cloud, environment_of


def say(text: str) -> None:
    """Print a line of progress on stderr, so that stdout holds figures only."""
    print(f"  {text}", file=sys.stderr, flush=True)


def heading(title: str) -> None:
    """Print what is measured next."""
    print(f"\n{title}", flush=True)


def figure(name: str, seconds: Sequence[float], beside: str = "") -> float:
    """Print the median of some runs in seconds, with its range when there are several; return the median."""
    median = statistics.median(seconds)
    spread = f"  ({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} runs)" if len(seconds) > 1 else ""
    print(f"  {name:<42} {median:8.2f} s{spread}{'  ' + beside if beside else ''}", flush=True)
    return median


def ratio(name: str, first: float, second: float, beside: str = "") -> None:
    """Print how many times as long the first takes as the second, with the bar it should clear."""
    print(f"  {name:<42} {first / second:8.2f} x{'  (' + beside + ')' if beside else ''}", flush=True)


@contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder with a short path that an unprivileged user can pass through; it goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="avb-", dir="/var/tmp"))  # a name of its own, made safely
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def cloud() -> Iterator[None]:
    """Run an embedded cloud of this benchmark's own for the time of the block, with its variables set."""
    with short_folder() as home, embedded_cloud(say, home=home / "c", port=0) as own, environment_of(own):
        yield
