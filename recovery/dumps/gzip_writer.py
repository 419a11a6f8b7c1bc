"""Writes one ordinary .gz file with several threads, as a row of gzip members.

A gzip file may consist of any number of members; every gunzip puts them together again.  Members are compressed apart
from each other, so threads share the work and a reader can begin at any of them.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from typing import TYPE_CHECKING, Self

import deflate

from recovery.dumps.member_index import MemberIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Large enough that a fresh dictionary per member costs less than 1 % of the size, small enough for memory and for a
# reader that wants one row.
MEMBER_BYTES = 2 * 1024 * 1024

# libdeflate's first level twice and its third once, in turns, make dumps of many numbers and hashes less than 10 %
# larger than gzip -6 does, in a sixth of its time: the first alone makes them 12 % larger, the third 5 %, for three
# fifths more time.  The second lies above the line between them; isal (15 %, two thirds of the first's time) on it.
LEVELS = (1, 1, 3)


class GzipWriter:
    """Compresses what is written and hands the compressed members to `sink`, in order, from the calling thread.

    Every write makes a member, or several when it is longer than `member_bytes`; these end after a newline where there
    is one.  `members` collects their lengths.  Memory: about `threads + 2` members.
    """

    def __init__(self, sink: Callable[[bytes], None], *, threads: int = 2, member_bytes: int = MEMBER_BYTES) -> None:
        self.members = MemberIndex()
        self._sink = sink
        self._member_bytes = member_bytes
        self._running: collections.deque[tuple[int, concurrent.futures.Future[bytes]]] = collections.deque()
        self._most_running = threads + 1
        self._numbers = itertools.count()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="gzip")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises what the sink raises."""
        start = 0
        while len(data) - start > self._member_bytes:
            end = start + self._member_bytes
            end = data.rfind(b"\n", start, end) + 1 or end
            self._start(data[start:end])
            start = end
        if start < len(data):
            self._start(data[start:])  # the very same object, not a copy, where it begins at the start

    def add(self, compressed: bytes, length: int) -> None:
        """Take a member that is compressed already, of a text of this length."""
        self._drain()
        self.members.append(len(compressed), length)
        self._sink(compressed)

    def finish(self) -> None:
        """Compress what is left and hand over everything; an empty input makes one empty member."""
        if not (self.members or self._running):
            self._start(b"")
        self._drain()

    def _drain(self) -> None:
        while self._running:
            self._pass_on()

    def _start(self, data: bytes) -> None:
        while len(self._running) >= self._most_running:
            self._pass_on()
        self._running.append((len(data), self._pool.submit(compressed_member, data, next(self._numbers))))

    def _pass_on(self) -> None:
        length, future = self._running.popleft()
        compressed = future.result()
        self.members.append(len(compressed), length)
        self._sink(compressed)


def compressed_member(data: bytes, number: int) -> bytes:
    """Compress one gzip member; its number among all of the file's decides by which level."""
    return bytes(deflate.gzip_compress(data, LEVELS[number % len(LEVELS)]))
