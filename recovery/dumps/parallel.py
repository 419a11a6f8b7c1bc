"""The members of a sealed dump, fetched, inflated and hashed by several threads ahead of the one reader of its text.

The manifest tells how long each member is, stored and as text.  It is believed nothing: every member is inflated and
checked by :mod:`recovery.dumps.members` within exactly the bytes and to exactly the length that the manifest says, and
all members together are the whole file, so that a wrong manifest is found at the member where it is wrong.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from recovery.dumps.members import ANOTHER_COPY, PIECE_BYTES, inflate_member, refuse_other_formats
from recovery.errors import BadDumpError

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Generator, Iterator

    from recovery.dumps.manifest import Layout
    from recovery.dumps.source import RangedSource

# Text inflated and not handed on yet; a member that is larger than this is alone in it.
TEXT_AHEAD_BYTES = 12 * 1024 * 1024
# What is handed on whole has to fit into memory several times.
LARGEST_MEMBER_BYTES = 8 * 1024 * 1024
# A header of ten bytes, two of nothing compressed, a trailer of eight.
_SMALLEST_MEMBER_BYTES = 20
# One reader takes no more than so many threads inflate.
_MOST_THREADS = 4


def fits_parallel(layout: Layout) -> bool:
    """Whether members are told at all, and each of them is small enough to be inflated apart from the others."""
    return bool(layout.members) and all(max(member) <= LARGEST_MEMBER_BYTES for member in layout.members)


def parallel_text(
    source: RangedSource,
    layout: Layout,
    digest: hashlib._Hash | None,
    passed: Callable[[int], None],
    *,
    threads: int | None = None,
) -> Generator[bytes]:
    """Yield a dump's text in order, in pieces of at most PIECE_BYTES.

    ``digest``, if any, has seen every stored byte when this ends; ``passed`` is told how many of them were handed on as
    text.  At any time at most TEXT_AHEAD_BYTES of text and ``ranges_at_once`` + 2 ranges of the source are in
    memory.  Threads start with the first piece that is asked for and have ended when the generator has.

    Raises BadDumpError at the member that is damaged, or is not where or what the layout says.
    """
    _refuse_contradictions(layout, source)
    threads = threads if threads is not None else min(_MOST_THREADS, os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:
        read = stack.enter_context(source.ranges())
        pools = [
            concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix=f"dump-{name}")
            for name, count in (("fetch", source.ranges_at_once), ("hash", 1), ("inflate", threads))
        ]
        for pool in pools:
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        yield from _Pipeline(source, layout, read, digest, pools).text(passed)


def _refuse_contradictions(layout: Layout, source: RangedSource) -> None:
    """Refuse a layout that cannot be this file's, whatever is in it."""
    stored, text = sum(size for size, _ in layout.members), sum(length for _, length in layout.members)
    possible = all(size >= _SMALLEST_MEMBER_BYTES and length >= 0 for size, length in layout.members)
    if not possible or (stored, text) != (source.size, layout.uncompressed_size):
        raise BadDumpError(
            f"the manifest of {source.name} contradicts itself about the dump's members",
            detail=f"they have {stored:,} bytes, {text:,} of text; the dump has {source.size:,}, the manifest says "
            f"{layout.uncompressed_size:,} of text",
            hint=ANOTHER_COPY,
        )


class _Run(NamedTuple):
    """Members that follow each other and are fetched as one: `first` counts members from 1, `members` as in Layout."""

    first: int
    offset: int
    size: int
    members: list[tuple[int, int]]


class _Waiting(NamedTuple):
    """A member that is fetched: its number, its stored bytes and where they end, its text's length.

    ``hashed`` is set for the last one of a run: what is handed on is hashed, or a slow hash would pile up bytes.
    """

    number: int
    stored: memoryview
    end: int
    length: int
    hashed: concurrent.futures.Future[None] | None


class _Inflating(NamedTuple):
    member: _Waiting
    text: concurrent.futures.Future[list[bytes]]


class _Pipeline:
    """What is fetched, waiting and inflated; all decisions are the reader's thread's, when it asks for text."""

    def __init__(
        self,
        source: RangedSource,
        layout: Layout,
        read: Callable[[int, int], bytes],
        digest: hashlib._Hash | None,
        pools: list[concurrent.futures.ThreadPoolExecutor],
    ) -> None:
        self._name = source.name
        self._most_fetching = source.ranges_at_once
        self._runs = _runs(layout, source.range_bytes)
        self._read = read
        self._digest = digest
        self._fetchers, self._hasher, self._inflaters = pools
        self._fetching: deque[tuple[_Run, concurrent.futures.Future[bytes]]] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._inflating: deque[_Inflating] = deque()
        self._ahead = 0  # bytes of text in self._inflating

    def text(self, passed: Callable[[int], None]) -> Iterator[bytes]:
        """Yield all text in order."""
        while self._start():
            member, text = self._inflating[0]
            yield from text.result()
            self._inflating.popleft()
            self._ahead -= member.length
            if member.hashed is not None:
                member.hashed.result()
            passed(len(member.stored))

    def _start(self) -> bool:
        """Start what may be started, and wait for a range where there is nothing else; False at the end."""
        while self._fetch() or self._waiting:
            if not self._waiting:
                if self._inflating and not self._fetching[0][1].done():
                    break
                self._split(*self._fetching.popleft())
                continue
            member = self._waiting[0]
            if self._inflating and self._ahead + member.length > TEXT_AHEAD_BYTES:
                break
            self._waiting.popleft()
            self._inflating.append(_Inflating(member, self._inflaters.submit(self._inflate, member)))
            self._ahead += member.length
        return bool(self._inflating)

    def _fetch(self) -> bool:
        """Have as many ranges fetched as may be; False when there is none left."""
        while len(self._fetching) < self._most_fetching and (run := next(self._runs, None)) is not None:
            self._fetching.append((run, self._fetchers.submit(self._read, run.offset, run.size)))
        return bool(self._fetching)

    def _split(self, run: _Run, fetched: concurrent.futures.Future[bytes]) -> None:
        data = fetched.result()
        if run.first == 1:
            refuse_other_formats(data[:8], self._name)
        hashed = self._hasher.submit(self._digest.update, data) if self._digest is not None else None
        view, start = memoryview(data), 0
        for number, (size, length) in enumerate(run.members, run.first):
            end = start + size
            last = hashed if end == run.size else None
            self._waiting.append(_Waiting(number, view[start:end], run.offset + end, length, last))
            start = end

    def _inflate(self, member: _Waiting) -> list[bytes]:
        stored = bytes(member.stored)
        return inflate_member(
            stored, member.length, self._name, number=member.number, end=member.end, piece=PIECE_BYTES
        )


def _runs(layout: Layout, most: int) -> Iterator[_Run]:
    """Put members that follow each other together, up to ``most`` stored bytes, and at least one."""
    first, offset, size = 1, 0, 0
    members: list[tuple[int, int]] = []
    for member in layout.members:
        if members and size + member[0] > most:
            yield _Run(first, offset, size, members)
            first, offset, size, members = first + len(members), offset + size, 0, []
        members.append(member)
        size += member[0]
    if members:
        yield _Run(first, offset, size, members)
