"""Writes one ordinary .gz file with several threads, as a row of gzip members.

A gzip file may consist of any number of members; every gunzip puts them together again.  Members are compressed apart
from each other, so threads share the work and a reader can begin at any of them.
"""

from __future__ import annotations

import collections
import concurrent.futures
from typing import TYPE_CHECKING, Self

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Large enough that a fresh dictionary per member costs less than 1 % of the size, small enough for memory and for a
# reader that wants one row.
MEMBER_BYTES = 2 * 1024 * 1024

# isal's level 2: some 9 % larger than gzip -6 on such dumps at a seventh of its time.
LEVEL = 2

_GZIP_FORMAT = 31  # window of 32 KiB, with gzip's header and trailer


class GzipWriter:
    """Compresses what is written and hands the compressed members to `sink`, in order, from the calling thread.

    A member ends after a newline where its data has one.  `members` collects (compressed, uncompressed) lengths in
    bytes.  Memory: about `threads + 2` members, compressed and not.
    """

    def __init__(self, sink: Callable[[bytes], None], *, threads: int = 2, member_bytes: int = MEMBER_BYTES) -> None:
        self.members: list[tuple[int, int]] = []
        self._sink = sink
        self._member_bytes = member_bytes
        self._buffer = bytearray()
        self._running: collections.deque[tuple[int, concurrent.futures.Future[bytes]]] = collections.deque()
        self._most_running = threads + 1
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="gzip")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises what the sink raises."""
        self._buffer += data
        while len(self._buffer) >= self._member_bytes:
            newline = self._buffer.rfind(b"\n", 0, self._member_bytes)
            self._start(newline + 1 if newline >= 0 else self._member_bytes)

    def finish(self) -> None:
        """Compress what is left and hand over everything; an empty input makes one empty member."""
        if self._buffer or not (self.members or self._running):
            self._start(len(self._buffer))
        while self._running:
            self._pass_on()

    def _start(self, length: int) -> None:
        piece = bytes(self._buffer[:length])
        del self._buffer[:length]
        while len(self._running) >= self._most_running:
            self._pass_on()
        self._running.append((length, self._pool.submit(isal_zlib.compress, piece, LEVEL, _GZIP_FORMAT)))

    def _pass_on(self) -> None:
        length, future = self._running.popleft()
        compressed = future.result()
        self.members.append((len(compressed), length))
        self._sink(compressed)
