"""Reads the pipe of a client program that writes a lot, in pieces of a member's size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import IO, TYPE_CHECKING

from recovery.dumps.gzip_writer import MEMBER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

# A pipe's capacity, the most that an unprivileged process may ask for.
PIPE_BYTES = 1024 * 1024

# Client programs write 4 KiB at a time.  A reader that takes each as it comes wakes up a hundred thousand times per 500
# MB and slows both down; one that pauses finds the pipe a quarter full, with room left for what comes meanwhile.
_PAUSE_SECONDS = 0.002

_NEWLINE = 0x0A


def widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold as much as it may: of 64 such ones a user has no more on Linux, and elsewhere there are none."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def pass_on(pipe: int, take: Callable[[bytes], None], *, until: bytes | None = None) -> bool:
    """Read the pipe to its end, or to a line that is `until`, after which the program writes nothing until it is told.

    `take` is given pieces of up to `MEMBER_BYTES`, cut behind a newline where there is one; the line that ends them is
    no part of them.  Returns whether that line has come.
    """
    # One buffer for all: a fresh one per read costs more in page faults than the reading.
    buffer = bytearray(MEMBER_BYTES)
    view = memoryview(buffer)
    last = until + b"\n" if until is not None else None
    filled, ended, line_begins = 0, False, True
    while not ended:
        while not ended and filled < len(buffer):
            count = os.readv(pipe, [view[filled:]])
            filled += count
            ended = count == 0
            if last is not None and buffer.endswith(last, 0, filled):
                before = filled - len(last)
                if buffer[before - 1] == _NEWLINE if before else line_begins:
                    if before:
                        take(bytes(view[:before]))
                    return True
            if not ended and filled < len(buffer):
                time.sleep(_PAUSE_SECONDS)
        end = filled if ended else buffer.rfind(b"\n", 0, filled) + 1 or filled
        if end:
            take(bytes(view[:end]))
            line_begins = buffer[end - 1] == _NEWLINE
        view[: filled - end] = bytes(view[end:filled])
        filled -= end
    return False
