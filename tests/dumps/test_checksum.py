"""A table's checksum: the same for the same rows in any order, another for any other value."""

from __future__ import annotations

import threading

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from recovery.dumps import checksum, session
from recovery.dumps.copy_out import CopyOut
from recovery.dumps.rowsum import Content, RowSum
from recovery.dumps.snapshot import take_snapshot
from recovery.dumps.workers import in_snapshot

values = st.none() | st.text(st.sampled_from('ab,"\\(){}\n\t é'), max_size=4)
rows = st.lists(st.tuples(values, values, st.none() | st.integers(-5, 5)), min_size=1, max_size=6)


def content(dsn: str, table: str = "t", *, order: tuple[str, ...] | None = None) -> Content:
    orders = {("public", table): order} if order is not None else None
    with take_snapshot(dsn) as snapshot:
        return checksum.measure(dsn, snapshot, snapshot.relations, jobs=1, orders=orders)["public", table]


def store(dsn: str, data: list[tuple[str | None, str | None, int | None]]) -> Content:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (a text, b text, c int)")
        connection.cursor().executemany("INSERT INTO t VALUES (%s, %s, %s)", data)
    return content(dsn)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=rows, second=rows)
def test_equal_multisets_and_only_those_are_equal(
    database: str,
    first: list[tuple[str | None, str | None, int | None]],
    second: list[tuple[str | None, str | None, int | None]],
) -> None:
    one, other = store(database, first), store(database, second)
    assert store(database, first[::-1]) == one
    same = sorted(map(repr, first)) == sorted(map(repr, second))
    assert (one == other) is same


def test_null_empty_and_nested_delimiters_are_all_different(database: str) -> None:
    candidates: list[tuple[str | None, str | None, int | None]] = [
        (None, None, None), ("", None, None), (None, "", None), (",", "", None), ("", ",", None), ("a,b", "", 1),
        ("a", "b", 1), ('"', None, None), ('""', None, None), ("\\", None, None), ("(,)", None, None),
    ]  # fmt: skip
    assert len({store(database, [row]) for row in candidates}) == len(candidates)


def test_a_table_in_pieces_has_the_checksum_of_the_whole(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS x FROM generate_series(1, 20000) i")
        connection.execute("DELETE FROM t WHERE i % 3 = 0")
    with take_snapshot(database) as snapshot:
        whole = checksum.measure(database, snapshot, snapshot.relations, jobs=1)
        saved, checksum.PIECE_BYTES = checksum.PIECE_BYTES, 1024 * 1024
        try:
            pieces = checksum.measure(database, snapshot, snapshot.relations, jobs=3)
        finally:
            checksum.PIECE_BYTES = saved
    assert pieces == whole


def test_columns_are_summed_in_the_order_that_is_asked_for_and_their_names_count(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2), (3, 4)")
        one = content(database)
        connection.execute("DROP TABLE t; CREATE TABLE t (b int, gone int, a int); ALTER TABLE t DROP COLUMN gone")
        connection.execute("INSERT INTO t (a, b) VALUES (3, 4), (1, 2)")
        assert content(database, order=one.columns) == one
        assert content(database) != one
        connection.execute("ALTER TABLE t RENAME a TO c")
        assert content(database, order=one.columns).checksum != one.checksum


def test_a_table_without_columns_is_summed_by_its_number_of_rows(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (); INSERT INTO t DEFAULT VALUES")
        one = content(database)
        connection.execute("INSERT INTO t DEFAULT VALUES")
        two = content(database)
    assert (one.rows, two.rows) == (1, 2)
    assert one.checksum != two.checksum


def test_a_row_that_cannot_be_written_as_text_ends_the_sum_with_the_servers_own_error(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a text); INSERT INTO t VALUES ('fine'), ('größe €')")
    with take_snapshot(database) as snapshot, pytest.raises(psycopg.errors.UntranslatableCharacter):
        checksum.measure(database, snapshot, snapshot.relations, jobs=1, encoding="LATIN1")


@given(st.lists(st.binary(max_size=30).map(lambda row: row.replace(b"\n", b"")), max_size=20), st.data())
def test_the_sum_of_text_is_that_of_its_rows_wherever_it_is_cut(rows: list[bytes], data: st.DataObject) -> None:
    text = b"".join(row + b"\n" for row in rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    cut, whole = RowSum(), RowSum()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        cut.feed(text[start:end])
    for row in reversed(rows):
        whole.add(row)
    assert (cut.rows, cut.checksum("a")) == (whole.rows, whole.checksum("a")) == (len(rows), whole.checksum("a"))


def test_a_failed_query_ends_all_workers_and_names_the_cause(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE a (x int); CREATE TABLE b (x int); INSERT INTO a VALUES (0)")
    with take_snapshot(database) as snapshot:

        def work(worker: psycopg.Connection[tuple[object, ...]], name: str) -> None:
            worker.execute(sql.SQL("SELECT 1 / x FROM {}").format(sql.Identifier("public", name)))

        try:
            in_snapshot(database, snapshot.identifier, ["a", "b"], work, jobs=2, stop=threading.Event())
        except psycopg.errors.DivisionByZero:
            return
    raise AssertionError("a division by zero passed unnoticed")


def test_a_migration_waiting_for_the_snapshot_is_not_waited_for_in_turn(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (x int)")
    monkeypatch.setattr(session.connect, "__kwdefaults__", {"read_only": True, "lock_timeout_seconds": 0.3})
    monkeypatch.setattr(CopyOut.__init__, "__kwdefaults__", {"lock_timeout_seconds": 0.3})

    def migrate() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER TABLE t ADD y int")

    migration = threading.Thread(target=migrate)
    waiting = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE NOT l.granted AND d.datname = %s"
    )
    try:
        with take_snapshot(database) as snapshot, psycopg.connect(database, autocommit=True) as watcher:
            migration.start()
            while watcher.execute(waiting, (snapshot.database,)).fetchone() != (1,):
                pass
            for checksums in (True, False):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    checksum.measure(database, snapshot, snapshot.relations, jobs=2, checksums=checksums)
    finally:
        migration.join()
