"""An iterator of bytes that runs in a thread of its own, some pieces ahead of its reader."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

# Enough that neither side waits for the other at every piece.
AHEAD_BYTES = 4 * 1024 * 1024


def read_ahead(pieces: Generator[bytes], limit: int = AHEAD_BYTES) -> Generator[bytes]:
    """Yield what ``pieces`` yields, in order, while a thread gets up to ``limit`` bytes more; one piece it always gets.

    What ``pieces`` raises is raised in its place, after everything that came before.  The thread starts with the first
    piece that is asked for; it ends, and ``pieces`` is closed, before this generator does.
    """
    work = _Work(pieces, limit)
    thread = threading.Thread(target=work.run, name="dump-ahead", daemon=True)
    thread.start()
    try:
        while (piece := work.take()) is not None:
            yield piece
    finally:
        work.stop()
        thread.join()
    if work.error is not None:
        raise work.error


class _Work:
    """What the thread and the reader share."""

    def __init__(self, pieces: Generator[bytes], limit: int) -> None:
        self.error: BaseException | None = None
        self._pieces = pieces
        self._limit = limit
        self._changed = threading.Condition()
        self._ready: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._stopped = False

    def run(self) -> None:
        """Get pieces until there are no more or nobody wants them."""
        try:
            for piece in self._pieces:
                if not self._put(piece):
                    self._pieces.close()
                    break
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where the reader is
            self.error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> bytes | None:
        """Return the next piece, None at the end."""
        with self._changed:
            while not self._ready:
                if self._ended:
                    return None
                self._changed.wait()
            piece = self._ready.popleft()
            self._size -= len(piece)
            self._changed.notify_all()
            return piece

    def stop(self) -> None:
        """Nobody takes pieces any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _put(self, piece: bytes) -> bool:
        with self._changed:
            while self._ready and self._size + len(piece) > self._limit and not self._stopped:
                self._changed.wait()
            self._ready.append(piece)
            self._size += len(piece)
            self._changed.notify_all()
            return not self._stopped
