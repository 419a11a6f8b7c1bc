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
from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recovery.dumps.relations import Relation
    from recovery.dumps.snapshot import Snapshot

# What all sessions read at one time: what a piece comes to is kept while the pieces before it are written.
AT_ONCE_BYTES = 48 * 1024 * 1024
# No less each, for many sessions: every piece ends with a smaller gzip member, and begins with a query.
LEAST_PIECE_BYTES = 2 * 1024 * 1024
# Of compressed members, whatever they are of: one page of pointers to large values may be gigabytes of text.
MOST_WAITING_BYTES = 32 * 1024 * 1024
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

    `headers` is the text before the rows of each, by its oid.
    """

    def __init__(  # all of them are what is read
        self,
        dsn: str,
        snapshot: Snapshot,
        tables: Sequence[Relation],
        *,
        headers: dict[int, bytes],
        encoding: str,
        jobs: int,
    ) -> None:
        self._snapshot = snapshot.identifier
        self._tables = tables
        self._headers = headers
        self._encoding = encoding
        piece_bytes = max(LEAST_PIECE_BYTES, AT_ONCE_BYTES // jobs)
        self._pieces = (piece for table in tables for piece in cut(table, snapshot.major, piece_bytes))
        # Those that are read now, and as many that are read and wait.
        self._most_lanes = 2 * jobs
        self._lanes: collections.deque[_Lane] = collections.deque()  # in order, from the one that is written
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._failures: list[BaseException] = []
        self._numbers = itertools.count()
        self._sessions: list[CopyOut] = []
        try:
            for _ in range(jobs if tables else 0):
                self._sessions.append(CopyOut(dsn, snapshot.major))
        except BaseException:
            self._close()
            raise
        self._threads = [
            threading.Thread(target=self._work, args=(session,), name="table-data") for session in self._sessions
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
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

    def members(self, table: Relation, into: RowSum) -> Iterator[tuple[bytes, int]]:
        """Yield the gzip members of a table's part of the dump, each with the length of its text; sum up its rows.

        Raises psycopg's error of the server's code when rows cannot be read.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lanes or self._failures)
                self._refuse_failure()
                lane = self._lanes[0]
            if lane.piece.relation.oid != table.oid:
                raise AssertionError(f"{lane.piece.relation.title} comes before {table.title}")
            while (member := self._next_of(lane)) is not None:
                yield member
            into.merge(lane.sum)
            with self._changed:
                self._lanes.popleft()
                self._changed.notify_all()
            if lane.piece.end_block is None:
                return

    def _next_of(self, lane: _Lane) -> tuple[bytes, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: lane.members or lane.ended or self._failures)
            self._refuse_failure()
            if not lane.members:
                return None
            member = lane.members.popleft()
            self._waiting_bytes -= len(member[0])
            self._changed.notify_all()
            return member

    def _refuse_failure(self) -> None:
        """Raise what a worker failed by: the cause, not what followed from it."""
        if self._failures:
            raise self._failures[0]

    def _work(self, session: CopyOut) -> None:
        try:
            session.begin(self._snapshot)
            # Now: behind a migration that waits for the snapshot's locks, no lock would be granted later.
            session.lock(table.identifier for table in self._tables)
            while (lane := self._claim()) is not None:
                self._read(session, lane)
        except BaseException as error:  # noqa: BLE001  # raised by who takes the members
            with self._changed:
                if not self._stopped:
                    self._failures.append(error)
                self._stopped = True
                self._changed.notify_all()

    def _claim(self) -> _Lane | None:
        """Take the next piece, as soon as there is room for what it comes to; None when there is no more to do."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lanes) < self._most_lanes or self._stopped)
            piece = next(self._pieces, None)
            if piece is None or self._stopped:
                return None
            lane = _Lane(piece)
            self._lanes.append(lane)
            self._changed.notify_all()
            return lane

    def _read(self, session: CopyOut, lane: _Lane) -> None:
        relation = lane.piece.relation
        # Text waits for what comes after it, so that header and footer are in a member with rows.
        waiting = self._headers[relation.oid] if lane.piece.first_block is None else b""
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
