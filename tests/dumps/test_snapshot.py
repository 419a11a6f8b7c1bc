"""What a snapshot waits for and states, and whom it refuses."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps.catalogue import list_local_backups
from recovery.dumps.snapshot import take_snapshot
from recovery.dumps.writer import Options, take_backup
from recovery.errors import RecoveryError, RefusedError

pytestmark = pytest.mark.slow  # a real server


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


def lock_for(dsn: str, table: str, seconds: float) -> Callable[[], None]:
    """Lock a table exclusively for some seconds from now; returns what waits for the end of that."""
    connection = psycopg.connect(dsn)
    connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
    timer = threading.Timer(seconds, connection.close)
    timer.start()

    def ended() -> None:
        timer.join()

    return ended


def test_the_wait_for_all_locks_together_is_bounded(database: str, tmp_path: Path) -> None:
    run(database, "CREATE TABLE a (x int); CREATE TABLE b (x int)")
    locked = [lock_for(database, "a", 2.5), lock_for(database, "b", 9)]
    started = time.monotonic()
    with pytest.raises(RecoveryError, match="locked by somebody else for longer than 3 s"):
        take_backup(database, local_dir=tmp_path, options=Options(lock_timeout_seconds=3))
    took = time.monotonic() - started
    for ended in locked:
        ended()
    # One after the other they would be waited for 2.5 and 3 seconds.
    assert took < 5
    assert list_local_backups(tmp_path) == []


def test_locks_that_end_in_time_are_waited_for_and_nothing_is_limited_afterwards(database: str) -> None:
    run(database, "CREATE TABLE a (x int); CREATE TABLE b (x int)")
    locked = [lock_for(database, "a", 0.3), lock_for(database, "b", 0.6)]
    with take_snapshot(database, lock_timeout_seconds=20) as snapshot:
        assert snapshot.connection.execute("SHOW statement_timeout").fetchone() == ("0",)
    for ended in locked:
        ended()


def test_a_table_that_is_emptied_and_filled_before_its_lock_is_granted_is_not_seen_empty(
    database: str, tmp_path: Path
) -> None:
    run(database, "CREATE TABLE a (x int); INSERT INTO a VALUES (1); CREATE TABLE b (x int); INSERT INTO b VALUES (1)")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'b'::regclass"
    taken: list[Any] = []
    backup = threading.Thread(target=lambda: taken.append(take_backup(database, local_dir=tmp_path).manifest))
    with psycopg.connect(database) as other, psycopg.connect(database, autocommit=True) as watching:
        other.execute("LOCK TABLE b IN ACCESS EXCLUSIVE MODE")
        backup.start()
        while watching.execute(waiting).fetchone() != (1,):
            time.sleep(0.02)
        other.execute("TRUNCATE b; INSERT INTO b VALUES (1)")
        other.commit()
        backup.join()
    assert [table.rows for table in taken[0].tables] == [1, 1]


def test_an_owner_whose_rows_a_forced_policy_hides_is_refused(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    database = make_conninfo(make_database(owner=master16), user=master16)
    run(database, "CREATE TABLE secured (x int); INSERT INTO secured VALUES (1)")
    run(database, "ALTER TABLE secured ENABLE ROW LEVEL SECURITY")
    assert take_backup(database, local_dir=tmp_path / "owner").sealed
    run(database, "ALTER TABLE secured FORCE ROW LEVEL SECURITY")
    with pytest.raises(RefusedError, match="row security would hide rows of 1 table") as caught:
        take_backup(database, local_dir=tmp_path / "forced")
    assert caught.value.detail == "public.secured"
    assert "FORCE ROW LEVEL SECURITY" in str(caught.value.hint)


def test_a_folder_that_another_backup_writes_to_is_refused(database: str, tmp_path: Path) -> None:
    with (
        filelock.FileLock(tmp_path / ".backup.lock", timeout=0),
        pytest.raises(RefusedError, match="another backup is running") as caught,
    ):
        take_backup(database, local_dir=tmp_path)
    assert str(tmp_path) in str(caught.value.detail)
    assert take_backup(database, local_dir=tmp_path).sealed


def wal_position(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        return int(row[0])


def as_number(lsn: str | None) -> int:
    high, _, low = str(lsn).partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def test_the_manifest_states_where_the_snapshot_is_in_the_wal_and_who_wrote_it(database: str, tmp_path: Path) -> None:
    moment = dt.datetime.now(dt.UTC)
    run(database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
    before = wal_position(database)
    manifest = take_backup(database, local_dir=tmp_path).manifest
    after = wal_position(database)
    assert manifest is not None
    assert before <= as_number(manifest.snapshot_lsn) <= after
    assert manifest.tool_version == importlib.metadata.version("agentverse-dr")
    # The server of these tests tracks the times of commits.
    assert manifest.newest_commit_time is not None
    assert moment <= manifest.newest_commit_time <= manifest.snapshot_time


def test_without_commit_times_the_manifest_states_none(own_server: Any, tmp_path: Path) -> None:
    manifest = take_backup(own_server.dsn(), local_dir=tmp_path).manifest
    assert manifest is not None
    assert (manifest.newest_commit_time, manifest.snapshot_lsn is None) == (None, False)
