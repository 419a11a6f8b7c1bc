"""Rows that are read beside pg_dump stand where it would have written them, and none is lost or written twice."""

from __future__ import annotations

import gzip
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps import assembly, table_data
from recovery.dumps.catalogue import list_local_backups
from recovery.dumps.copy_out import CopyOut
from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.describe import describe
from recovery.dumps.gzip_writer import GzipWriter
from recovery.dumps.relations import Relation
from recovery.dumps.reread import reread_backup
from recovery.dumps.rowsum import RowSum
from recovery.dumps.snapshot import take_snapshot
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


@pytest.mark.parametrize(("major", "jobs"), [(15, 1), (16, 4), (18, 2)])
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
    fill(database, SPREAD.replace("20000", "2000"))
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


def test_sessions_that_the_server_ends_end_the_backup(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, SPREAD)
    begun = itertools.count()

    class Dying(CopyOut):
        def rows(self, *arguments: Any) -> None:
            if next(begun) == 1:
                fill(
                    database,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'agentverse-recovery'"
                    " AND (query LIKE 'LOCK TABLE ONLY%ACCESS SHARE MODE;' OR query LIKE 'COPY (%')",
                )
            super().rows(*arguments)

    monkeypatch.setattr(table_data, "CopyOut", Dying)
    with pytest.raises(EnvironmentLacksError, match="connection to the database was lost"):
        take_backup(database, local_dir=tmp_path)
    assert list_local_backups(tmp_path) == []
    assert list(tmp_path.glob(".*.partial")) == []


def test_sessions_that_wait_for_the_writer_give_signs_of_life(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, SPREAD)

    class Impatient(CopyOut):
        def begin(self, snapshot: str) -> None:
            super().begin(snapshot)
            self._run(b"SET idle_in_transaction_session_timeout = '1s';", lambda _: None)

    slow = itertools.count()
    add = GzipWriter.add

    def slowly(self: GzipWriter, compressed: bytes, length: int) -> None:
        if next(slow) == 0:
            time.sleep(3)
        add(self, compressed, length)

    monkeypatch.setattr(table_data, "CopyOut", Impatient)
    monkeypatch.setattr(GzipWriter, "add", slowly)
    monkeypatch.setattr(table_data, "SIGN_OF_LIFE_SECONDS", 0.2)
    assert take_backup(database, local_dir=tmp_path / "alive").sealed
    slow = itertools.count()
    monkeypatch.setattr(table_data, "SIGN_OF_LIFE_SECONDS", 60)
    with pytest.raises(RecoveryError):
        take_backup(database, local_dir=tmp_path / "silent")


def test_rows_come_as_the_heap_has_them_whatever_indexes_and_costs_say(
    database: str, programs: Any, tmp_path: Path
) -> None:
    fill(database, "CREATE TABLE t AS SELECT (n * 7919) % 20011 AS n FROM generate_series(1, 20000) n")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE INDEX ON t (n)")
        connection.execute("VACUUM ANALYZE t")
        name = connection.info.dbname
        for setting in ("enable_seqscan = off", "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                        "min_parallel_table_scan_size = 0", "enable_tidscan = off"):  # fmt: skip
            connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    _, text = backup_of(database, tmp_path)
    assert without_keys(text) == without_keys(programs.pg_dump(database))


def test_an_owner_with_a_line_of_its_own_says_nothing_to_who_restores(
    database: str, programs: Any, tmp_path: Path
) -> None:
    fill(database, f'CREATE ROLE "x\nSELECT 1/0;--\r"; {SPREAD}; ALTER TABLE t OWNER TO "x\nSELECT 1/0;--\r"')
    try:
        _, text = backup_of(database, tmp_path)
        assert without_keys(text) == without_keys(programs.pg_dump(database))
    finally:
        fill(database, 'DROP TABLE t; DROP ROLE "x\nSELECT 1/0;--\r"')


class Joined:
    """What would be compressed, put together."""

    def __init__(self) -> None:
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data

    def add(self, compressed: bytes, length: int) -> None:
        assert len(compressed) == length
        self.text += compressed

    def finish(self) -> None:
        pass


class Rows:
    """Rows that are there at once."""

    def check(self) -> None:
        pass

    def members(self, table: Relation, into: Any, check: Callable[[], None]) -> Iterator[tuple[bytes, int]]:
        check()
        into.merge(RowSum(1))
        text = f"COPY {table.name};\n1\n\\.\n\n\n".encode()
        yield text, len(text)


def relation(name: str) -> Relation:
    return Relation(
        oid=1,
        schema="public",
        name=name,
        kind="r",
        condition=None,
        hidden_rows=False,
        readable=True,
        is_heap=True,
        columns=("a",),
        parent=None,
        hashes_enum=False,
    )


@pytest.mark.parametrize("size", [*range(1, 40), 100, 1000, 100_000])
def test_wherever_pg_dumps_text_is_cut_the_rows_stand_in_their_places(size: int) -> None:
    decoy = "--\n-- Name: x; Type: INDEX; Schema: s; Owner: o\n"
    entries = [
        ("TABLE", "t", "CREATE TABLE public.t (a int);\n\n\n"),
        (
            "FUNCTION",
            "f()",
            f"CREATE FUNCTION public.f() AS $$\n{decoy}$$;\n\n",
        ),
        (
            "TABLE",
            "u",
            f"CREATE TABLE public.u (a text DEFAULT '{decoy}');\n\n",
        ),
        (
            "TABLE DATA",
            "s",
            f"COPY public.s (a) FROM stdin;\n{decoy}\\.\n\n\n",
        ),
        ("BLOBS", "BLOBS", "SELECT pg_catalog.lowrite(0, '\\x00');\n" * 2000),
        ("INDEX", "i", "CREATE INDEX i ON public.t USING btree (a);\n\n\n"),
    ]
    begin, end = "--\n-- PostgreSQL database dump\n--\n\n", "--\n-- PostgreSQL database dump complete\n--\n\n"
    label = "--\n-- {}Name: {}; Type: {}; Schema: public; Owner: o\n--\n\n"
    parts = [label.format("Data for " * (kind == "TABLE DATA"), name, kind) + text for kind, name, text in entries]
    rows = {name: f"COPY {name};\n1\n\\.\n\n\n" for name in "tu"}
    expected = begin + "".join(parts[:4]) + rows["t"] + rows["u"] + "".join(parts[4:]) + end
    text = (begin + "".join(parts) + end).encode()
    joined: Any = Joined()
    rows_of: Any = Rows()
    beside = {relation(name): b"\nCOPY " for name in "tu"}
    dump = assembly.Assembly(joined, rows_of, beside, progress=lambda _: None, check=lambda: None)
    held = 0
    for start in range(0, len(text), size):
        dump.take(text[start : start + size])
        held = max(held, len(dump._held))
    dump.finish()
    assert joined.text.decode() == expected
    assert held < 200 + size
    assert dump.scanner.position == len(joined.text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--\n-- Name: i; Type: INDEX; Schema: public; Owner: o\n--\n\n", "before it makes public.t"),
        ("--\n-- Name: t; Type: TABLE; Schema: public; Owner: o\n--\n\n", "no place for the rows of public.t"),
    ],
)
def test_text_that_is_not_understood_seals_nothing_and_says_what_to_do(text: str, words: str) -> None:
    joined: Any = Joined()
    rows: Any = Rows()
    dump = assembly.Assembly(joined, rows, {relation("t"): b"\nCOPY "}, progress=lambda _: None, check=lambda: None)

    def read() -> None:
        dump.take(text.encode())
        dump.finish()

    with pytest.raises(RecoveryError, match=words) as caught:
        read()
    assert "the previous one is still the latest" in (caught.value.hint or "")


def test_a_pg_dump_that_is_not_known_writes_all_rows_itself(database: str) -> None:
    fill(database, SPREAD)
    with take_snapshot(database) as snapshot:
        description = describe(snapshot.connection)
        known, unknown = (
            assembly.read_beside(snapshot, description, version, sessions=3) for version in ("18.4", "19.0")
        )
    assert [table.name for table in known] == ["t"]
    assert unknown == {}


def test_a_reader_that_is_slow_bounds_what_waits_in_memory(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, SPREAD)
    monkeypatch.setattr(table_data, "MOST_WAITING_BYTES", 20_000)
    most = 0
    give = TableData._next_of

    def watched(self: TableData, lane: Any, check: Any) -> Any:
        nonlocal most
        member = give(self, lane, check)
        most = max(most, sum(len(data) for each in self._lanes for data, _ in each.members))
        return member

    monkeypatch.setattr(TableData, "_next_of", watched)
    backup, _ = backup_of(database, tmp_path)
    largest = max(length for length, _ in backup.manifest.layout.members)
    assert 0 < most <= 20_000 + 4 * largest
    assert backup.size > 10 * most


@pytest.mark.parametrize("limit", ["MOST_TABLES", "MOST_LOCKS"])
def test_many_tables_leave_some_to_pg_dump(
    database: str, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(assembly, limit, 3 * (4 if limit == "MOST_LOCKS" else 1))
    fill(database, ";".join(f"CREATE TABLE t{n} AS SELECT generate_series(1, {n}00) AS n" for n in range(1, 9)))
    _, text = backup_of(database, tmp_path)
    assert without_keys(text) == without_keys(programs.pg_dump(database))
