"""Medians, one line for a figure, and a cloud for a benchmark to run in."""

from __future__ import annotations

import dataclasses
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
    _HEADINGS.append(title)
    print(f"\n{title}", flush=True)


def figure(name: str, seconds: Sequence[float], beside: str = "") -> float:
    """Print the median of some runs in seconds, with its range when there are several; return the median."""
    median = statistics.median(seconds)
    spread = f"  ({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} runs)" if len(seconds) > 1 else ""
    print(f"  {name:<42} {median:8.2f} s{spread}{'  ' + beside if beside else ''}", flush=True)
    return median


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a ratio should be: at least `least`, or at most `most`; `stretch` is what would be better still."""

    least: float | None = None
    most: float | None = None
    stretch: float | None = None

    def met(self, value: float) -> bool:
        """Whether the ratio clears it."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        bar = f"at most {self.most:g}" if self.most is not None else f"bar {self.least:g}"
        return bar if self.stretch is None else f"{bar}, stretch {self.stretch:g}"


_HEADINGS = [""]  # the table names a ratio's work as its heading does
_RATIOS: list[tuple[str, str, float, Bar | None]] = []


def ratio(name: str, first: float, second: float, bar: Bar | None = None) -> None:
    """Print how many times the second the first is, with the bar it should clear, and remember it for the table."""
    value = first / second
    _RATIOS.append((_HEADINGS[-1], name, value, bar))
    print(f"  {name:<42} {value:8.2f} x{f'  ({bar})' if bar else ''}", flush=True)


def table() -> None:
    """Print every ratio of this run once more, all in one table."""
    print(f"\n  {'work':<58} {'ratio of medians':<42} {'':>8}  bar")
    for work, name, value, bar in _RATIOS:
        said = "" if bar is None else f"{bar}: {'met' if bar.met(value) else 'NOT MET'}"
        print(f"  {work[:58]:<58} {name:<42} {value:7.2f}x  {said}")


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
