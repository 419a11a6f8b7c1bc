"""Rows that psql writes for us: all of them and nothing else, whatever they hold, and the server's own errors."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from recovery.dumps import checksum
from recovery.dumps.copy_out import CopyOut
from recovery.dumps.gzip_writer import MEMBER_BYTES
from recovery.dumps.pipes import pass_on
from recovery.dumps.rowsum import RowSum
from recovery.dumps.snapshot import Snapshot, take_snapshot
from recovery.errors import EnvironmentLacksError

# Whatever could be taken for the end, for a command of psql or for one of its variables.
HOSTILE = ["\\.", ".", "\\", "", "\n\\.\n", ":DBNAME", "\\! touch x", "'", '"', "a\tb\\", "\\gexec", ";"]


@pytest.fixture
def snapshot(database: str) -> Iterator[tuple[Snapshot, CopyOut]]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a text)")
        connection.cursor().executemany("INSERT INTO t VALUES (%s)", [(value,) for value in HOSTILE])
    with take_snapshot(database) as taken, CopyOut(database, taken.major) as session:
        session.begin(taken.identifier)
        yield taken, session


def rows(session: CopyOut, query: LiteralString) -> bytes:
    pieces: list[bytes] = []
    session.rows(sql.SQL(query), pieces.append)
    return b"".join(pieces)


def test_values_that_look_like_the_end_or_like_commands_are_values(
    snapshot: tuple[Snapshot, CopyOut], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, session = snapshot
    escaped = [value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t") for value in HOSTILE]
    assert rows(session, "COPY (SELECT a FROM public.t) TO STDOUT").decode().split("\n")[:-1] == escaped
    assert rows(session, "COPY (SELECT 1 WHERE false) TO STDOUT") == b""
    assert rows(session, "COPY (SELECT) TO STDOUT") == b"\n"


def test_text_of_somebody_elses_is_not_psqls_to_act_on(
    snapshot: tuple[Snapshot, CopyOut], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    taken, _ = snapshot
    hostile = [dataclasses.replace(r, condition="WHERE a <> '' \n\\! touch made\n") for r in taken.relations]
    with pytest.raises(psycopg.errors.SyntaxError):
        checksum.measure(taken.connection.info.dsn, taken, hostile, jobs=1)
    assert list(tmp_path.iterdir()) == []
    harmless = [dataclasses.replace(r, condition="WHERE a <> ':DBNAME'") for r in hostile]
    (content,) = checksum.measure(taken.connection.info.dsn, taken, harmless, jobs=1).values()
    assert content.rows == len(HOSTILE) - 1


def test_rows_longer_than_what_is_read_at_once_come_whole(snapshot: tuple[Snapshot, CopyOut]) -> None:
    _, session = snapshot
    pieces: list[bytes] = []
    query = "COPY (SELECT repeat('x', {} - n) FROM generate_series(0, 3) n) TO STDOUT"
    session.rows(sql.SQL(query).format(sql.Literal(MEMBER_BYTES + 1)), pieces.append)
    assert [len(row) for row in b"".join(pieces).split(b"\n")] == [MEMBER_BYTES + 1 - n for n in range(4)] + [0]
    assert max(map(len, pieces)) == MEMBER_BYTES


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"", b"\\", b"\\..", b"x\\.", b"\\N", b"." * 700, b"y" * 5000]), max_size=12),
    cuts=st.lists(st.integers(1, 4000), max_size=30),
)
def test_the_line_that_ends_it_is_found_wherever_the_pipe_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    reading, writing = os.pipe()
    pieces: list[bytes] = []

    def write() -> None:
        rest = text + b"\\.\n"
        for cut in cuts:
            os.write(writing, rest[:cut])
            rest = rest[cut:]
        while rest:
            rest = rest[os.write(writing, rest) :]

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert pass_on(reading, pieces.append, until=b"\\.")
        thread.join()
        os.close(writing)
        writing = -1
        assert b"".join(pieces) == text
        assert not pass_on(reading, pieces.append, until=b"\\.")
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_the_errors_of_the_server_keep_their_kind_and_words(snapshot: tuple[Snapshot, CopyOut], database: str) -> None:
    taken, session = snapshot
    with pytest.raises(psycopg.errors.UndefinedTable, match="does not exist"):
        rows(session, "COPY (SELECT 1 FROM public.gone) TO STDOUT")
    with CopyOut(database, taken.major) as another, pytest.raises(psycopg.errors.InvalidParameterValue):
        another.begin("00000000-00000000-1")
    nowhere = psycopg.conninfo.make_conninfo(database, dbname="nowhere")
    with CopyOut(nowhere, taken.major) as another, pytest.raises(EnvironmentLacksError, match="nowhere"):
        another.begin(taken.identifier)


def test_a_session_that_the_server_ends_says_so(snapshot: tuple[Snapshot, CopyOut], database: str) -> None:
    taken, session = snapshot

    def end(_: bytes) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT repeat%'"
            )

    with pytest.raises(psycopg.OperationalError, match="terminat"):
        session.rows(sql.SQL("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 10000)) TO STDOUT"), end)
    assert taken.still_open()


def test_a_cancelled_session_leaves_no_backend(snapshot: tuple[Snapshot, CopyOut], database: str) -> None:
    _, session = snapshot
    found = RowSum()

    def cancel(text: bytes) -> None:
        found.feed(text)
        session.cancel()

    with pytest.raises(psycopg.errors.QueryCanceled):
        session.rows(sql.SQL("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 100000)) TO STDOUT"), cancel)
    assert 0 < found.rows < 100000
    with psycopg.connect(database, autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT repeat%'"
        while connection.execute(query).fetchone() != (0,):
            pass
