"""A dump on standard input is loaded as it comes, whatever its size; only an archive is kept, and up to a limit."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps import archive, source
from recovery.errors import BadDumpError, RefusedError
from recovery.progress import ProgressEvent
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # real servers in every test

DEADLINE_SECONDS = 60
ROWS = b"".join(b"%x\n" % value for value in random.Random(1).sample(range(2**60), 5000))  # noqa: S311  # test data
FIRST = (
    b"CREATE TABLE public.a (v text);\nCREATE TABLE public.b (v text);\n"
    b"COPY public.a (v) FROM stdin;\n" + ROWS + b"\\.\nCOPY public.b (v) FROM stdin;\n" + ROWS
)
REST = ROWS + b"\\.\n"


@pytest.fixture(autouse=True)
def _little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHECK_FIRST_BYTES", 1000)


def rows(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        return int(found[0]) if found else 0


def beside(dsn: str) -> list[str]:
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        found = connection.execute(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname, %s)", [f"{name}_restoring_"]
        )
        return [make_conninfo(dsn, dbname=row[0]) for row in found]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_the_first_rows_are_loaded_before_the_stream_has_ended(
    database: str, compress: Callable[[bytes], bytes]
) -> None:
    ours, theirs = os.pipe()
    seen: list[int] = []

    def write() -> None:
        with os.fdopen(theirs, "wb") as pipe:
            pipe.write(compress(FIRST))
            pipe.flush()
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not seen and time.monotonic() < deadline:
                time.sleep(0.05)
                for side in beside(database):
                    with psycopg.connect(side) as connection:
                        there = connection.execute("SELECT to_regclass('public.a') IS NOT NULL").fetchone()
                    if there == (True,) and rows(side, "public.a"):
                        seen.append(rows(side, "public.a"))
            pipe.write(compress(REST))

    writer = threading.Thread(target=write)
    writer.start()
    events: list[ProgressEvent] = []
    try:
        with os.fdopen(ours, "rb") as stream:
            result = restore("-", database, stdin=stream, progress=events.append)
    finally:
        writer.join()
    assert seen == [5000]
    assert (rows(database, "a"), rows(database, "b")) == (5000, 10000)
    assert result.bytes == len(compress(FIRST)) + len(compress(REST))
    assert {event.total for event in events if event.stage == "load"} == {None}


def test_a_stream_that_is_cut_off_leaves_the_target_as_it_was(database: str) -> None:
    whole = gzip.compress(FIRST + REST)
    with pytest.raises(BadDumpError, match="damaged"):
        restore("-", database, stdin=io.BytesIO(whole[:-9]))
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regclass('public.a')").fetchone() == (None,)
    assert beside(database) == []


def test_a_long_stream_cannot_be_read_before_it_is_loaded(database: str) -> None:
    with pytest.raises(RefusedError, match="only once"):
        restore("-", database, stdin=io.BytesIO(FIRST + REST), check_first=True)
    restore("-", database, stdin=io.BytesIO(FIRST + REST))
    assert rows(database, "b") == 10000


def test_an_archive_on_a_stream_is_kept_up_to_the_limit(
    make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, database = make_database(), make_database()
    with psycopg.connect(original, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT md5(i::text) AS v FROM generate_series(1, 9000) i")
    program = postgresql_client_folder(16) / "pg_dump"
    data = subprocess.run([program, "-Fc", "-d", original], check=True, stdout=subprocess.PIPE).stdout
    result = restore("-", database, stdin=io.BytesIO(data))
    assert (rows(database, "t"), result.bytes) == (9000, len(data))
    monkeypatch.setattr(archive, "SPOOL_LIMIT_BYTES", len(data) - 1)
    with pytest.raises(RefusedError, match=r"more than .* are kept in a temporary file"):
        restore("-", database, stdin=io.BytesIO(data), replace=True)
    assert rows(database, "t") == 9000
