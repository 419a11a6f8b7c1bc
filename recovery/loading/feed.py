"""Rows on their way from the one reader of a dump to the several sessions that copy them."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from recovery.loading.pool import WAIT_SECONDS, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Feed:
    """Pieces of one table's rows on their way from the reader to the sessions that copy them.

    A row longer than a piece comes in several; all of them go to the session that got the first one.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._changed = budget.changed
        self._runs: collections.deque[_Run] = collections.deque()
        self._last: _Run | None = None
        self._closed = False

    def put(self, piece: bytes, *, ends_row: bool) -> None:
        """Add a piece; waits while too many bytes are on their way.  Raises StoppedError when work was given up."""
        self._budget.take(len(piece))
        with self._changed:
            if self._last is None:
                self._last = _Run()
                self._runs.append(self._last)
            self._last.pieces.append(piece)
            if ends_row:
                self._last.ended = True
                self._last = None
            self._changed.notify_all()

    def close(self) -> None:
        """No more pieces will come."""
        with self._changed:
            self._closed = True
            if self._last is not None:
                self._last.ended = True
            self._changed.notify_all()

    @property
    def backlog(self) -> int:
        """How many pieces no session has begun with."""
        with self._changed:
            return len(self._runs)

    def pieces(self) -> Iterator[bytes]:
        """Give one session its share of the rows; ends when there are no more."""
        while (run := self._take_run()) is not None:
            while (piece := self._take_piece(run)) is not None:
                yield piece
                self._budget.give_back(len(piece))

    def _take_run(self) -> _Run | None:
        with self._changed:
            while not self._runs:
                if self._closed:
                    return None
                self._budget.wait()
            return self._runs.popleft()

    def _take_piece(self, run: _Run) -> bytes | None:
        with self._changed:
            while not run.pieces:
                if run.ended:
                    return None
                self._budget.wait()
            return run.pieces.popleft()


class _Run:
    """Pieces that belong to one session: one piece of whole rows, or all the pieces of one long row."""

    def __init__(self) -> None:
        self.pieces: collections.deque[bytes] = collections.deque()
        self.ended = False


class Budget:
    """How many bytes may be on their way at once, over all feeds of a restore."""

    def __init__(self, limit: int, stopping: Callable[[], bool]) -> None:
        self.changed = threading.Condition()
        self._limit = limit
        self._used = 0
        self._stopping = stopping

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes fit; one piece always does."""
        with self.changed:
            while self._used and self._used + count > self._limit:
                self.wait()
            self._used += count

    def give_back(self, count: int) -> None:
        """``count`` bytes have reached the server."""
        with self.changed:
            self._used -= count
            self.changed.notify_all()

    def wait(self) -> None:
        """Wait, with the lock held, for a change; raises StoppedError when work was given up."""
        if self._stopping():
            raise StoppedError
        self.changed.wait(WAIT_SECONDS)
