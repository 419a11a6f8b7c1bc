"""Keeps the server's WAL writer awake while rows are loaded.

Sessions that copy rows commit once, at their end. Until then nobody wakes the WAL writer, whose own rounds are 200 ms
apart; in that time two fast sessions fill more than the WAL buffers hold (16 MB, unless somebody chose otherwise). Then
each of them has to write and flush WAL itself, and all others wait for it. An asynchronous commit wakes the WAL writer
as soon as more is not flushed than `wal_writer_flush_after`, 1 MB (XLogSetAsyncXactLSN in PostgreSQL's xlog.c; older
servers wake it at every full page).
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import psycopg

from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recovery.loading.session import Connection

# At 300 MB/s of WAL, more than one machine has been seen to write, a third of the WAL buffers.
_SECONDS = 0.02
# A server that no longer answers is found to be gone by what loads; nothing waits for this session longer.
_LAST_SECONDS = 10.0
_COMMIT = b"SELECT pg_catalog.txid_current()"  # an empty transaction that has a number, and so a commit record


@contextlib.contextmanager
def awake_wal_writer(connect: Callable[[], Connection], sent: Callable[[], int]) -> Iterator[None]:
    """Commit an empty transaction every 20 ms in which ``sent`` bytes have grown, in a session of its own.

    It is a help and no part of the work: where no session can be had, or it is lost, the block goes on without.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_commit, args=(connect, sent, ended), name="restore-wal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST_SECONDS)


def _commit(connect: Callable[[], Connection], sent: Callable[[], int], ended: threading.Event) -> None:
    with contextlib.suppress(psycopg.Error, RecoveryError), contextlib.closing(connect()) as connection:
        connection.execute("SET synchronous_commit = off")
        before = 0
        while not ended.wait(_SECONDS):
            if (now := sent()) != before:
                connection.execute(_COMMIT)
                before = now
