"""How set-up speaks: one line a step, and one every few seconds while something long runs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Long enough not to scroll a terminal away, short enough that nobody thinks it hangs.
_HEARTBEAT_SECONDS = 5.0


class SetupError(Exception):
    """Raised when set-up cannot go on: what failed, the evidence, and what to install or do."""


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


def run(
    what: str,
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> None:
    """Run a command, saying every few seconds that it still runs.

    Raises SetupError with the command's last lines when it fails, or when `timeout` seconds are over.
    """
    say(what)
    started = time.monotonic()
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(environment) if environment is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            output = _wait(process, what, started, timeout)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        tail = "\n".join(output.strip().splitlines()[-15:])
        raise SetupError(f"{what}: exit code {process.returncode}\n{tail}")


def _wait(process: subprocess.Popen[str], what: str, started: float, timeout: float | None) -> str:
    while True:
        try:
            return process.communicate(timeout=_HEARTBEAT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if timeout is not None and elapsed > timeout:
                raise SetupError(f"{what}: no end after {elapsed:.0f} s, gave up") from None
            say(f"{what} ({elapsed:.0f} s so far)")
