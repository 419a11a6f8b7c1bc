"""How far something is, told on stderr while a command runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.commands.shared import Session
    from recovery.progress import Progress, ProgressEvent


def progress_of(here: Session) -> Progress:
    """Return a listener that tells progress on stderr, at most twice a second."""
    spoke = 0.0

    def hear(event: ProgressEvent) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke >= 0.5 or (event.total is not None and event.done >= event.total):
            spoke = now
            here.screen.say(f"{event.stage}: {_so_far(event)} {event.text}", "dim")

    return hear


def _so_far(event: ProgressEvent) -> str:
    """Say how much is done, bytes in megabytes."""
    each, unit = (1_000_000, "MB") if event.unit == "bytes" else (1, event.unit)
    of = f" of {event.total // each:,}" if event.total is not None else ""
    return f"{event.done // each:,}{of} {unit}"
