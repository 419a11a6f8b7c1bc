"""The sessions of a backup outlast silence and not their client."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps import foreign_keys, pg_dump, session, snapshot
from recovery.dumps.snapshot import take_snapshot
from recovery.dumps.workers import in_snapshot
from recovery.dumps.writer import take_backup
from recovery.errors import RecoveryError

IDLE_LIMIT = "idle_in_transaction_session_timeout"

pytestmark = pytest.mark.slow  # they wait

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE 'SELECT pg_catalog.count(*) FROM ONLY%'"
)
# A process is born with SIGINT ignored when a shell started the tests in the background.
BACKUP = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from pathlib import Path; from recovery.dumps.writer import Options, take_backup;"
    "take_backup(sys.argv[1], local_dir=Path(sys.argv[2]), options=Options(lock_timeout_seconds=0.5))"
)
WORKING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND state = 'active' AND query LIKE '%pg_sleep%'"
)


def sleep(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
    connection.execute("SELECT pg_sleep(%s)", [1 if number == 1 else 60])


def test_sessions_notice_a_peer_that_is_gone_and_keep_what_the_connection_string_says(
    database: str, server16: Any, cutters: Callable[..., Any]
) -> None:
    with cutters(server16) as cutter, session.connect(cutter.dsn(database) + " keepalives_idle=7") as connection:
        parameters = connection.info.get_parameters()
        assert (parameters["keepalives_idle"], parameters["keepalives_interval"]) == ("7", "10")
        assert parameters["tcp_user_timeout"] == "90000"
        assert connection.execute("SHOW client_connection_check_interval").fetchone() == ("5s",)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10min",)
    _, given = session.client_environment(database + " keepalives_idle=7")
    of_pg_dump = psycopg.conninfo.conninfo_to_dict(given)
    assert (of_pg_dump["keepalives_idle"], of_pg_dump["keepalives_interval"]) == ("7", "10")


def test_a_snapshot_outlasts_silence_while_its_client_lives_and_not_when_it_is_gone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FIXED_SETTINGS", {**session.FIXED_SETTINGS, IDLE_LIMIT: "1s"})
    monkeypatch.setattr(snapshot, "SIGN_OF_LIFE_SECONDS", 0.2)
    with take_snapshot(database) as kept:
        time.sleep(2)
        assert kept.still_open()
    silent = take_snapshot(database)
    time.sleep(2)
    assert not silent.still_open()
    silent.connection.close()


def test_a_stop_cancels_the_queries_that_run(database: str) -> None:
    stop = threading.Event()
    began = time.monotonic()
    with take_snapshot(database) as taken:
        threading.Timer(1, stop.set).start()
        with pytest.raises(RecoveryError, match="was stopped"):
            in_snapshot(database, taken.identifier, (0, 2, 3), sleep, jobs=2, stop=stop)
        assert time.monotonic() - began < 10
        assert taken.connection.execute(WORKING).fetchone() == (0,)


def test_the_failure_of_one_worker_cancels_the_others_and_is_what_is_raised(database: str) -> None:
    def work(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
        sleep(connection, number)
        connection.execute("SELECT 1 / 0" if number else "SELECT 1")

    began = time.monotonic()
    with take_snapshot(database) as taken, pytest.raises(psycopg.errors.DivisionByZero):
        in_snapshot(database, taken.identifier, (0, 1), work, jobs=2, stop=threading.Event())
    assert time.monotonic() - began < 10


def test_a_backup_that_fails_does_not_wait_for_a_key_that_is_being_checked(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int REFERENCES a)")
    waiting = threading.Event()

    def slow(*_: object) -> str:
        waiting.set()
        return "SELECT 0 FROM pg_sleep(60)"

    def failing(*_: object, **__: object) -> None:
        assert waiting.wait(20)
        raise RecoveryError("pg_dump failed")

    monkeypatch.setattr(foreign_keys, "_violations_query", slow)
    monkeypatch.setattr(pg_dump, "run", failing)
    began = time.monotonic()
    with pytest.raises(RecoveryError, match="pg_dump failed"):
        take_backup(database, local_dir=tmp_path)
    assert time.monotonic() - began < 20


def test_ctrl_c_ends_a_backup_at_once_though_its_queries_wait(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t (x int PRIMARY KEY)")
    with psycopg.connect(database) as busy, psycopg.connect(database, autocommit=True) as watching:
        busy.execute("REINDEX INDEX t_pkey")  # who counts the rows waits for it, pg_dump does not
        process = subprocess.Popen([sys.executable, "-c", BACKUP, database, str(tmp_path)], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while watching.execute(WAITING).fetchone() == (0,):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
    assert b"KeyboardInterrupt" in said
    assert not list(tmp_path.glob("*.sql.gz"))
