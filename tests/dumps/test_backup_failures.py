"""What keeps a backup from being taken is said in words, in bounded time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery import BackupConfig, BackupService, BackupStatus
from recovery.dumps.catalogue import list_local_backups
from recovery.dumps.writer import Options, take_backup
from recovery.errors import RecoveryError, RefusedError

pytestmark = pytest.mark.slow  # many backups of real servers

QUICK = Options(lock_timeout_seconds=0.5)


def fill(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


@contextlib.contextmanager
def held(dsn: str, statement: str) -> Iterator[None]:
    """Another session that has done something in a transaction and does not end it."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield
        connection.rollback()


def sessions(dsn: str) -> list[str]:
    """What is connected to the database besides this."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()
    return [str(name) for (name,) in rows]


def gone(dsn: str, seconds: float = 10) -> None:
    """Nobody is connected any more, as soon as the server has noticed that they left."""
    deadline = time.monotonic() + seconds
    while left := sessions(dsn):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_materialized_view_that_is_being_refreshed_fails_the_backup_in_words_and_in_bounded_time(
    database: str, tmp_path: Path
) -> None:
    fill(database, "CREATE MATERIALIZED VIEW m AS SELECT 1 AS x")
    with held(database, "REFRESH MATERIALIZED VIEW m"):
        began = time.monotonic()
        with pytest.raises(RecoveryError, match=r"locked by somebody else for longer than 0\.5 s") as caught:
            take_backup(database, local_dir=tmp_path, options=QUICK)
        assert time.monotonic() - began < 20
    assert "REFRESH MATERIALIZED VIEW" in (caught.value.hint or "")
    assert list_local_backups(tmp_path) == []
    gone(database)


def test_what_is_no_part_of_the_dump_may_be_locked_and_only_the_sizes_are_unknown(
    database: str, tmp_path: Path
) -> None:
    fill(
        database,
        "CREATE TABLE t AS SELECT 1 AS x; CREATE TABLE member (x int); ALTER EXTENSION plpgsql ADD TABLE member",
    )
    with held(database, "LOCK TABLE member IN ACCESS EXCLUSIVE MODE"):
        locked = take_backup(database, local_dir=tmp_path, options=QUICK).manifest
    free = take_backup(database, local_dir=tmp_path, options=QUICK).manifest
    assert locked is not None
    assert free is not None
    assert locked.sizes is None
    assert free.sizes is not None
    assert (locked.tables, locked.objects) == (free.tables, free.objects)


def test_a_schema_without_usage_is_refused_with_the_names_of_its_tables(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    database = make_database()
    fill(database, f"CREATE SCHEMA closed CREATE TABLE t (x int); GRANT SELECT ON closed.t TO {master16}")
    with pytest.raises(RefusedError, match="may not read 1 of the tables") as caught:
        take_backup(make_conninfo(database, user=master16), local_dir=tmp_path)
    assert caught.value.detail == "closed.t"
    assert "USAGE on their schemas" in (caught.value.hint or "")


@pytest.mark.parametrize("major", [16, 18])
def test_large_objects_that_the_role_may_not_read_are_a_failed_result_and_no_exception(
    request: pytest.FixtureRequest, tmp_path: Path, major: int
) -> None:
    database = request.getfixturevalue("make_database" if major == 16 else "make_database18")()
    role = request.getfixturevalue(f"master{major}")
    fill(database, "SELECT lo_from_bytea(4711, 'secret'), lo_from_bytea(4712, 'told'), lo_from_bytea(4713, 'own')")
    fill(database, f"GRANT SELECT ON LARGE OBJECT 4712 TO {role}; ALTER LARGE OBJECT 4713 OWNER TO {role}")
    config = BackupConfig(database=make_conninfo(database, user=role), local_dir=tmp_path, bucket=None)
    taken = asyncio.run(BackupService(config).create_backup())
    assert taken.status is BackupStatus.FAILED
    assert "the role may not read all large objects" in str(taken.error_message)
    assert "4711" in str(taken.error_message)
    assert "4712" not in str(taken.error_message)
    assert "4713" not in str(taken.error_message)
    gone(database)
    fill(database, "GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC")
    taken = asyncio.run(BackupService(config).create_backup())
    assert taken.status is BackupStatus.COMPLETED, taken.error_message
