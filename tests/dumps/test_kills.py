"""Killed at any moment, by whatever: the target is as it was or the restore is complete, and the next one works.

The moments are a sample with a fixed seed, from nothing to about the time that an undisturbed restore takes.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.catalogue import list_backups, list_local_backups, newest_sealed
from recovery.dumps.writer import Options, take_backup
from recovery.errors import RecoveryError, RefusedError
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # many restores into real servers

RANDOM = random.Random(20260102)  # noqa: S311  # the same moments each time
RESTORE = "import sys; from recovery.restore import restore; restore(sys.argv[1], sys.argv[2], replace=True, jobs=2)"
BACKUP = (
    "import sys; from pathlib import Path; from recovery.dumps.writer import take_backup;"
    "take_backup(sys.argv[1], local_dir=Path(sys.argv[2]))"
)
ROWS = 20_000


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dump that takes a second or so: two tables, keys, an index."""
    path = tmp_path_factory.mktemp("dump") / "dump.sql"
    rows = b"".join(b"%d\t%s\n" % (number, b"x" * 300) for number in range(ROWS))
    text = b"".join(
        b"CREATE TABLE public.%b (id int NOT NULL, v text);\nCOPY public.%b (id, v) FROM stdin;\n%b\\.\n" % (n, n, rows)
        for n in (b"a", b"b")
    )
    for name in (b"a", b"b"):
        text += b"ALTER TABLE ONLY public.%b\n    ADD CONSTRAINT %b_pkey PRIMARY KEY (id);\n" % (name, name)
    text += b"ALTER TABLE ONLY public.a\n    ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES public.b(id);\n"
    path.write_bytes(text)
    return str(path)


@pytest.fixture
def slow_dump(dump: str, tmp_path: Path) -> Callable[[float], str]:
    """The same dump with a statement in it that keeps the server busy for so many seconds."""

    def make(seconds: float) -> str:
        path = tmp_path / "slow.sql"
        path.write_bytes(Path(dump).read_bytes() + b"SELECT pg_catalog.pg_sleep(%d);\n" % seconds)
        return str(path)

    return make


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE precious AS SELECT g AS id FROM generate_series(1, 10) g")


def state(dsn: str) -> str:
    """Which of the two the target is; anything between fails the test."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        ).fetchone()
        if tables == (["precious"],):
            assert connection.execute("SELECT sum(id) FROM precious").fetchone() == (55,)
            return "as it was"
        assert tables == (["a", "b"],)
        assert connection.execute("SELECT count(*) FROM a JOIN b USING (id)").fetchone() == (ROWS,)
        assert connection.execute(
            "SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f')"
        ).fetchone() == (3,)
        return "restored"


def beside(dsn: str) -> list[str]:
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        rows = connection.execute(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname, %s)", [name]
        ).fetchall()
    return sorted(str(row[0]) for row in rows if row[0] != name)


def clean(dsn: str) -> None:
    """One call drops what is left, as soon as the server has noticed that the client is gone."""
    deadline = time.monotonic() + 60
    while beside(dsn):
        drop_interrupted(dsn)
        assert time.monotonic() < deadline, beside(dsn)
        time.sleep(0.1)


def finish(dump: str, dsn: str) -> None:
    """A restore after whatever happened works; a session of the dead one may hold its lock for a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            restore(dump, dsn, replace=True)
            break
        except RefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert state(dsn) == "restored"
    assert beside(dsn) == []


@pytest.mark.slow
def test_a_restore_killed_at_any_moment_leaves_the_target_as_it_was_or_complete(
    dump: str, make_database: Callable[..., str]
) -> None:
    undisturbed = make_database()
    prepare(undisturbed)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", RESTORE, dump, undisturbed], check=True)
    whole = time.monotonic() - began
    for share in sorted(RANDOM.uniform(0.3, 1.1) for _ in range(10)):
        dsn = make_database()
        prepare(dsn)
        process = subprocess.Popen([sys.executable, "-c", RESTORE, dump, dsn])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(whole * share)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = state(dsn)
        clean(dsn)
        assert state(dsn) == seen
    finish(dump, dsn)


@pytest.mark.slow
def test_a_restore_killed_while_its_side_database_fills_leaves_the_target_as_it_was(
    dump: str, make_database: Callable[..., str], slow_dump: Callable[[float], str]
) -> None:
    dsn = make_database()
    prepare(dsn)
    process = subprocess.Popen([sys.executable, "-c", RESTORE, slow_dump(60), dsn])
    deadline = time.monotonic() + 60
    while not beside(dsn):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state(dsn) == "as it was"
    clean(dsn)
    assert state(dsn) == "as it was"
    finish(dump, dsn)


@pytest.mark.slow
def test_a_restore_whose_backends_are_ended_at_any_moment_says_so_or_is_complete(
    dump: str, make_database: Callable[..., str]
) -> None:
    for moment in [RANDOM.uniform(0, 1.2) for _ in range(16)]:
        dsn = make_database()
        prepare(dsn)
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'agentverse-dr restore'"
        )

        def end(moment: float = moment, dsn: str = dsn, kill: str = kill) -> None:
            time.sleep(moment)
            with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
                connection.execute(kill.encode())

        killer = threading.Thread(target=end)
        killer.start()
        failed = False
        try:
            restore(dump, dsn, replace=True, jobs=2)
        except RecoveryError:
            failed = True
        killer.join()
        assert failed or state(dsn) == "restored"
        state(dsn)
        clean(dsn)
    finish(dump, dsn)


@pytest.mark.slow
def test_a_restore_whose_network_is_cut_at_any_moment_fails_in_words_or_is_complete(
    dump: str, make_database: Callable[..., str], server16: Any, cutters: Callable[..., Any]
) -> None:
    for moment in [RANDOM.uniform(0, 1.2) for _ in range(6)]:
        dsn = make_database()
        prepare(dsn)
        failed = False
        with cutters(server16) as cutter:
            timer = threading.Timer(moment, cutter.cut)
            timer.start()
            try:
                restore(dump, cutter.dsn(dsn), replace=True, jobs=2)
            except RecoveryError:
                failed = True
            timer.join()
        assert failed or state(dsn) == "restored"
        state(dsn)
        clean(dsn)
    finish(dump, dsn)


@pytest.mark.slow
def test_a_restore_whose_server_dies_at_any_moment_leaves_the_target_as_it_was_or_complete(
    dump: str, own_server: Any
) -> None:
    for number, moment in enumerate(RANDOM.uniform(0, 2) for _ in range(5)):
        with psycopg.connect(own_server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE target{number}".encode())
        dsn = own_server.dsn(f"target{number}")
        prepare(dsn)
        timer = threading.Timer(moment, own_server.kill)
        timer.start()
        failed = False
        try:
            restore(dump, dsn, replace=True, jobs=2)
        except RecoveryError:
            failed = True
        timer.join()
        own_server.start()
        assert failed or state(dsn) == "restored"
        state(dsn)
        clean(dsn)
    finish(dump, dsn)


@pytest.mark.slow
def test_a_backup_killed_at_any_moment_leaves_the_previous_one_the_latest_and_no_lock(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    dsn = make_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE t AS SELECT g, md5(g::text) AS v FROM generate_series(1, 300000) g")
    before = take_backup(dsn, local_dir=tmp_path)
    for moment in sorted(RANDOM.uniform(0.3, 3) for _ in range(8)):
        process = subprocess.Popen([sys.executable, "-c", BACKUP, dsn, str(tmp_path)])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        finished = process.poll() == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        latest = newest_sealed(list_local_backups(tmp_path))
        assert finished or latest.created_at >= before.created_at
        assert latest.manifest is not None
        assert latest.path is not None
        assert latest.path.stat().st_size == latest.manifest.size
    after = take_backup(dsn, local_dir=tmp_path)
    assert newest_sealed(list_local_backups(tmp_path)).backup_id == after.backup_id
    assert list(tmp_path.glob(".*.partial")) == []
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '20s'")
        connection.execute("TRUNCATE t")  # no session of a dead backup is in its way


# -- two at a time


def test_of_two_restores_into_one_target_one_is_refused_and_the_other_complete(
    make_database: Callable[..., str], slow_dump: Callable[[float], str]
) -> None:
    dsn = make_database()
    prepare(dsn)
    path = slow_dump(15)  # far longer than a restore waits for another one's lock
    outcomes: list[str] = []

    def run() -> None:
        try:
            restore(path, dsn, replace=True, jobs=2)
            outcomes.append("restored")
        except RefusedError as error:
            assert "another restore" in error.message  # noqa: PT017  # in a thread
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "restored"]
    assert state(dsn) == "restored"
    assert beside(dsn) == []


def test_of_two_backups_at_once_one_is_refused_and_the_other_sealed(
    make_database: Callable[..., str], s3: Any, bucket: str
) -> None:
    dsn = make_database()
    prepare(dsn)
    outcomes: list[str] = []

    def run() -> None:
        try:
            take_backup(dsn, s3=s3, bucket=bucket)
            outcomes.append("sealed")
        except RefusedError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "sealed" in outcomes
    assert [backup.sealed for backup in list_backups(s3, bucket)] == [True] * outcomes.count("sealed")


@pytest.mark.slow
def test_a_backup_beside_migrations_is_whole_or_fails_in_words(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    dsn = make_database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in "abcdef":
            connection.execute(f"CREATE TABLE {name} AS SELECT g AS id FROM generate_series(1, 20000) g".encode())
    stop = threading.Event()

    def migrate() -> None:
        numbers = random.Random(5)  # noqa: S311  # the same each time
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                name = numbers.choice("abcdef")
                with connection.transaction():
                    match numbers.randrange(4):
                        case 0:
                            connection.execute(f"TRUNCATE {name}".encode())
                        case 1:
                            connection.execute(f"ALTER TABLE {name} ALTER id TYPE bigint USING id + 0".encode())
                        case 2:
                            connection.execute(f"DROP TABLE {name}".encode())
                            connection.execute(f"CREATE TABLE {name} (id int)".encode())
                        case _:
                            connection.execute(f"ALTER TABLE {name} RENAME TO {name}_".encode())
                            connection.execute(f"ALTER TABLE {name}_ RENAME TO {name}".encode())
                    # Rows always come in 20,000: a backup with any other number has torn one transaction apart.
                    connection.execute(f"TRUNCATE {name}".encode())
                    connection.execute(f"INSERT INTO {name} SELECT g FROM generate_series(1, 20000) g".encode())
                time.sleep(numbers.uniform(0, 1))

    migration = threading.Thread(target=migrate)
    migration.start()
    try:
        for number in range(6):
            try:
                backup = take_backup(dsn, local_dir=tmp_path / str(number), options=Options(lock_timeout_seconds=2))
            except RecoveryError:
                continue
            assert backup.manifest is not None
            assert {table.rows for table in backup.manifest.tables} == {20_000}
            restore(str(backup.path), ours := make_database(), manifest=backup.manifest)
            with psycopg.connect(ours) as connection:
                assert connection.execute("SELECT count(*) FROM a").fetchone() == (20_000,)
    finally:
        stop.set()
        migration.join()
    assert take_backup(dsn, local_dir=tmp_path / "afterwards").sealed
