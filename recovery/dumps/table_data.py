"""Rows of tables for a dump: read over several sessions ahead of who writes them, compressed, and given out in order.

Tables are cut into pieces of some megabytes.  Sessions take the pieces in the dump's order, so that they all work on
neighbours, and what a piece comes to waits in memory, bounded, until everything before it is written.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
from typing import TYPE_CHECKING, Self

from recovery.dumps.copy_out import CopyOut
from recovery.dumps.gzip_writer import compressed_member
from recovery.dumps.pieces import Piece, cut
from recovery.dumps.rowsum import RowSum
from recovery.dumps.session import LOCK_TIMEOUT_SECONDS
from recovery.dumps.snapshot import SIGN_OF_LIFE_SECONDS
from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from recovery.dumps.relations import Relation
    from recovery.dumps.snapshot import Snapshot

# What all sessions read at one time: what a piece comes to is kept while the pieces before it are written.
AT_ONCE_BYTES = 48 * 1024 * 1024
# No less each, for many sessions: every piece ends with a smaller gzip member, and begins with a query.
LEAST_PIECE_BYTES = 2 * 1024 * 1024
# Of compressed members, whatever they are of: one page of pointers to large values may be gigabytes of text.
MOST_WAITING_BYTES = 32 * 1024 * 1024
# How often who waits for rows looks whether something else has failed.
_CHECK_SECONDS = 1.0
# What follows a table's rows in a dump.
FOOTER = b"\\.\n\n\n"


@dataclasses.dataclass
class _Lane:
    """What has come of one piece and is not written yet."""

    piece: Piece
    sum: RowSum = dataclasses.field(default_factory=RowSum)
    members: collections.deque[tuple[bytes, int]] = dataclasses.field(default_factory=collections.deque)
    ended: bool = False


class TableData:
    """A context in which :meth:`members` is called for every table, in the order they were given in.

    `headers` maps every table to the text before its rows.
    """

    def __init__(
        self,
        dsn: str,
        snapshot: Snapshot,
        headers: Mapping[Relation, bytes],
        *,
        encoding: str,
        sessions: int,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    ) -> None:
        self._snapshot = snapshot.identifier
        self._headers = headers
        self._encoding = encoding
        piece_bytes = max(LEAST_PIECE_BYTES, AT_ONCE_BYTES // sessions)
        self._pieces = (piece for table in headers for piece in cut(table, snapshot.major, piece_bytes))
        # Those that are read now, and as many that are read and wait.
        self._most_lanes = 2 * sessions
        self._lanes: collections.deque[_Lane] = collections.deque()  # in order, from the one that is written
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._failures: list[BaseException] = []
        self._numbers = itertools.count()
        self._sessions: list[CopyOut] = []
        try:
            for _ in range(sessions if headers else 0):
                self._sessions.append(CopyOut(dsn, snapshot.major, lock_timeout_seconds=lock_timeout_seconds))
        except BaseException:
            self._close()
            raise
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        try:
            for session in self._sessions:
                thread = threading.Thread(target=self._work, args=(session,), name="table-data")
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            all_read = not self._stopped and next(self._pieces, None) is None and not self._lanes
            self._stopped = True
            self._changed.notify_all()
        if not all_read:
            for session in self._sessions:
                session.cancel()
        for thread in self._threads:
            thread.join()
        self._close()

    def _close(self) -> None:
        for session in self._sessions:
            session.close()

    def members(self, table: Relation, into: RowSum, check: Callable[[], None]) -> Iterator[tuple[bytes, int]]:
        """Yield the gzip members of a table's part of the dump, each with the length of its text; sum up its rows.

        `check` is called now and then, also while nothing comes, and may raise what ends the work.
        Raises psycopg's error of the server's code when rows cannot be read.
        """
        while True:
            self._await(lambda: bool(self._lanes), check)
            lane = self._lanes[0]
            if lane.piece.relation.oid != table.oid:
                raise AssertionError(f"{lane.piece.relation.title} comes before {table.title}")
            while (member := self._next_of(lane, check)) is not None:
                yield member
            into.merge(lane.sum)
            with self._changed:
                self._lanes.popleft()
                self._changed.notify_all()
            if lane.piece.end_block is None:
                return

    def check(self) -> None:
        """Raise what a session failed by: the cause, not what followed from it."""
        if self._failures:
            raise self._failures[0]

    def _next_of(self, lane: _Lane, check: Callable[[], None]) -> tuple[bytes, int] | None:
        self._await(lambda: bool(lane.members) or lane.ended, check)
        with self._changed:
            if not lane.members:
                return None
            member = lane.members.popleft()
            self._waiting_bytes -= len(member[0])
            self._changed.notify_all()
            return member

    def _await(self, done: Callable[[], bool], check: Callable[[], None]) -> None:
        """Wait for the sessions, which alone make it so; only who takes what they read makes it otherwise."""
        is_done = False
        while not is_done:
            check()
            with self._changed:
                is_done = self._changed.wait_for(lambda: done() or bool(self._failures), _CHECK_SECONDS)
                self.check()

    def _work(self, session: CopyOut) -> None:
        try:
            session.begin(self._snapshot)
            # Now: behind a migration that waits for the snapshot's locks, no lock would be granted later.
            session.lock(table.identifier for table in self._headers)
            while (lane := self._claim(session)) is not None:
                self._read(session, lane)
        except BaseException as error:  # noqa: BLE001  # raised by who takes the members
            with self._changed:
                if not self._stopped:
                    self._failures.append(error)
                self._stopped = True
                self._changed.notify_all()

    def _claim(self, session: CopyOut) -> _Lane | None:
        """Take the next piece, as soon as there is room for what it comes to; None when there is no more to do."""
        while True:
            with self._changed:
                if self._changed.wait_for(
                    lambda: len(self._lanes) < self._most_lanes or self._stopped, SIGN_OF_LIFE_SECONDS
                ):
                    piece = next(self._pieces, None) if not self._stopped else None
                    if piece is None:
                        return None
                    lane = _Lane(piece)
                    self._lanes.append(lane)
                    self._changed.notify_all()
                    return lane
            session.touch()

    def _read(self, session: CopyOut, lane: _Lane) -> None:
        relation = lane.piece.relation
        # Text waits for what comes after it, so that header and footer are in a member with rows.
        waiting = self._headers[relation] if lane.piece.first_block is None else b""
        begun = False

        def take(text: bytes) -> None:
            nonlocal waiting, begun
            lane.sum.feed(text)
            if begun:
                self._put(lane, waiting)
                waiting = text
            else:
                waiting += text
                begun = True

        session.rows(lane.piece.copy_out(relation.columns, self._encoding), take)
        if lane.piece.end_block is None:
            waiting += FOOTER
        if waiting:
            self._put(lane, waiting)
        with self._changed:
            lane.ended = True
            self._changed.notify_all()

    def _put(self, lane: _Lane, text: bytes) -> None:
        member = compressed_member(text, next(self._numbers)), len(text)
        with self._changed:
            # What is to be written next always has room for one: nothing else is until it is.
            self._changed.wait_for(
                lambda: (
                    self._waiting_bytes < MOST_WAITING_BYTES
                    or (lane is self._lanes[0] and not lane.members)
                    or self._stopped
                )
            )
            if self._stopped:
                raise RecoveryError("the work was stopped before it was done")
            lane.members.append(member)
            self._waiting_bytes += len(member[0])
            self._changed.notify_all()
