"""The WAL writer is kept awake while rows come, by a session that is gone afterwards and that nothing depends on."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.loading.session import connect
from recovery.loading.wal import awake_wal_writer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # a real server in every test

NEXT = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


def given(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(NEXT).fetchone()
    assert row is not None
    return int(row[0])


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def others(connection: psycopg.Connection[Any]) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_transactions_are_committed_as_long_as_bytes_come_and_the_session_goes(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as watching:
        before = given(watching)
        count = itertools.count(1)
        with awake_wal_writer(lambda: connect(database), lambda: next(count)):
            until(lambda: given(watching) > before + 5)
            assert others(watching) == 1
        until(lambda: others(watching) == 0)


def test_while_no_bytes_come_no_transaction_is_spent(own_server: Any) -> None:
    dsn = own_server.dsn()
    looked = threading.Semaphore(0)

    def nothing() -> int:
        looked.release()
        return 0

    with psycopg.connect(dsn, autocommit=True) as watching:
        before = given(watching)
        with awake_wal_writer(lambda: connect(dsn), nothing):
            for _ in range(5):
                assert looked.acquire(timeout=30)
        assert given(watching) == before


def test_a_session_that_cannot_be_had_or_is_lost_hinders_nobody(database: str) -> None:
    with awake_wal_writer(lambda: connect(database, database="absent"), lambda: 1):
        pass
    count = itertools.count(1)
    with psycopg.connect(database, autocommit=True) as watching:
        with awake_wal_writer(lambda: connect(database), lambda: next(count)):
            until(lambda: others(watching) == 1)
            watching.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            until(lambda: others(watching) == 0)
        assert others(watching) == 0
