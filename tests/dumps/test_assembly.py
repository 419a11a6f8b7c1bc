"""Rows that are read beside pg_dump stand where it would have written them, and none is lost or written twice."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps import assembly, table_data
from recovery.dumps.catalogue import list_local_backups
from recovery.dumps.copy_out import CopyOut
from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.reread import reread_backup
from recovery.dumps.table_data import TableData
from recovery.dumps.writer import Options, take_backup
from recovery.errors import EnvironmentLacksError, RecoveryError

pytestmark = pytest.mark.slow  # backups and restores of real servers

HERE = Path(__file__).parent
ZOO, MENAGERIE, SUPERUSERS, ORIGINAL = (
    (HERE / name).read_bytes() for name in ("zoo.sql", "menagerie.sql", "menagerie_superuser.sql", "original.sql")
)
ROLES = ("menagerie_owner", "menagerie_reader", '"odd ""role; $$"')
SPREAD = "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) AS x FROM generate_series(1, 20000) n"


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every table are read beside pg_dump, in pieces of a few blocks."""
    monkeypatch.setattr(assembly, "LEAST_BYTES", 0)
    monkeypatch.setattr(table_data, "LEAST_PIECE_BYTES", 64 * 1024)
    monkeypatch.setattr(table_data, "AT_ONCE_BYTES", 64 * 1024)


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[[int], Callable[..., str]]:
    """make(major) -> make_database of that version, on which the menagerie's roles are."""

    def of(major: int) -> Callable[..., str]:
        database: Callable[..., str] = request.getfixturevalue(f"make_database{'' if major == 16 else major}")
        with psycopg.connect(make_conninfo(database(), dbname="postgres"), autocommit=True) as connection:
            for role in ROLES:
                known = connection.execute("SELECT FROM pg_roles WHERE quote_ident(rolname) = %s", [role]).fetchone()
                if known is None:
                    connection.execute(f"CREATE ROLE {role}".encode())
        return database

    return of


def without_keys(text: bytes) -> list[bytes]:
    """The lines of a dump but those that are random by design."""
    return [line for line in text.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]


def fill(dsn: str, text: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode())


def backup_of(dsn: str, folder: Path, jobs: int = 3) -> tuple[Any, bytes]:
    backup = take_backup(dsn, local_dir=folder, options=Options(jobs=jobs))
    assert backup.path is not None
    return backup, gzip.decompress(backup.path.read_bytes())


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("major", [15, 16, 18])
def test_a_backup_of_every_kind_of_object_is_byte_for_byte_what_pg_dump_writes(
    make: Callable[[int], Callable[..., str]], programs: Any, tmp_path: Path, major: int, jobs: int
) -> None:
    source = make(major)()
    for text in (ZOO, MENAGERIE, SUPERUSERS, ORIGINAL):
        programs.psql(source, text, "-v", "ON_ERROR_STOP=1", major=major)
    backup, text = backup_of(source, tmp_path, jobs)
    options = ("--encoding=UTF8",)
    environment_free = programs.pg_dump(make_conninfo(source, options="-c timezone=UTC"), *options, major=major)
    assert without_keys(text) == without_keys(environment_free)
    layout = backup.manifest.layout
    assert layout.uncompressed_size == len(text)
    assert len(layout.copy_blocks) > 60
    scanner = CopyScanner()
    scanner.feed(text)
    scanner.finish()
    assert (layout.data_start, layout.data_end) == (scanner.data_start, scanner.data_end)
    assert [(b.schema_name, b.name, b.columns, b.offset, b.length, b.rows) for b in layout.copy_blocks] == [
        (b.schema, b.name, b.columns, b.offset, b.length, b.rows) for b in scanner.blocks
    ]
    assert {(t.schema_name, t.name): t.checksum for t in backup.manifest.tables} == {
        name: content.checksum for name, content in scanner.contents().items()
    }
    assert reread_backup(backup).problems == []


def test_a_database_of_one_table_and_nothing_else_has_its_rows_in_its_dump(
    make_database: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    others = ("", "GRANT SELECT ON t TO PUBLIC", "CREATE INDEX ON t (n)", "COMMENT ON TABLE t IS ''")
    for number, more in enumerate(others):
        source = make_database()
        fill(source, f"{SPREAD}; {more}")
        backup, text = backup_of(source, tmp_path / str(number))
        assert without_keys(text) == without_keys(programs.pg_dump(source))
        assert len([None for length, _ in backup.manifest.layout.members]) > 20


def test_names_that_look_like_what_pg_dump_says_mislead_nobody(
    make_database: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    source = make_database()
    hostile = "a; Type: INDEX; Schema: public; Owner: x"
    fill(source, f'CREATE TYPE "{hostile}" AS (a int); {SPREAD}; CREATE TABLE "z\n--\n" (a int); ')
    _, text = backup_of(source, tmp_path)
    assert without_keys(text) == without_keys(programs.pg_dump(source))


def test_a_table_that_is_written_to_meanwhile_is_dumped_as_the_snapshot_shows_it(database: str, tmp_path: Path) -> None:
    fill(database, SPREAD)
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("UPDATE t SET x = x || 'y' WHERE n % 100 = 0")
                connection.execute("INSERT INTO t SELECT n + 1000000, x FROM t WHERE n % 1000 = 0")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backups = [backup_of(database, tmp_path) for _ in range(3)]
    finally:
        ended.set()
        writer.join()
    for backup, _ in backups:
        assert reread_backup(backup).problems == []
    assert backups[0][0].manifest.tables[0].rows < backups[-1][0].manifest.tables[0].rows


def test_rows_that_cannot_be_read_end_the_backup_with_the_servers_words(database: str, tmp_path: Path) -> None:
    fill(database, SPREAD)
    fill(
        database,
        "SET allow_system_table_mods = on; CREATE TYPE broken AS (a int); CREATE TABLE b (v broken);"
        " INSERT INTO b VALUES (ROW(1)); DELETE FROM pg_attribute WHERE attrelid = 'broken'::regclass",
    )
    with pytest.raises(RecoveryError):
        take_backup(database, local_dir=tmp_path)
    assert list_local_backups(tmp_path) == []


class DeadSession(CopyOut):
    """One whose server ends it at the second piece."""

    begun = 0

    def rows(self, *arguments: Any) -> None:
        DeadSession.begun += 1
        if DeadSession.begun == 2:
            with psycopg.connect(dsn_of_dead[0], autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'agentverse-recovery' AND backend_xmin IS NOT NULL"
                    " AND query LIKE 'LOCK TABLE%' OR query LIKE 'COPY (%'"
                )
        super().rows(*arguments)


dsn_of_dead: list[str] = []


def test_sessions_that_the_server_ends_end_the_backup(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, SPREAD)
    dsn_of_dead[:] = [database]
    monkeypatch.setattr(table_data, "CopyOut", DeadSession)
    with pytest.raises(EnvironmentLacksError, match="connection to the database was lost"):
        take_backup(database, local_dir=tmp_path)
    assert list_local_backups(tmp_path) == []
    assert list(tmp_path.glob(".*.partial")) == []


def test_a_reader_that_is_slow_bounds_what_waits_in_memory(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, SPREAD)
    monkeypatch.setattr(table_data, "MOST_WAITING_BYTES", 20_000)
    most = 0
    give = TableData._next_of

    def watched(self: TableData, lane: Any) -> Any:
        nonlocal most
        member = give(self, lane)
        most = max(most, sum(len(data) for each in self._lanes for data, _ in each.members))
        return member

    monkeypatch.setattr(TableData, "_next_of", watched)
    backup, _ = backup_of(database, tmp_path)
    largest = max(length for length, _ in backup.manifest.layout.members)
    assert 0 < most <= 20_000 + 4 * largest
    assert backup.size > 10 * most


def test_many_tables_leave_some_to_pg_dump(
    database: str, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "MOST_TABLES", 3)
    fill(database, ";".join(f"CREATE TABLE t{n} AS SELECT generate_series(1, {n}00) AS n" for n in range(1, 9)))
    _, text = backup_of(database, tmp_path)
    assert without_keys(text) == without_keys(programs.pg_dump(database))
