"""What a hand-written or unusual dump says about order and settings holds for every session that loads it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from machine.programs import postgresql_client_folder
from recovery.errors import RefusedError
from recovery.restore import drop_interrupted, restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.progress import ProgressEvent

pytestmark = pytest.mark.slow  # many restores into real servers


def query(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return None if row is None else row[0]


def restored(tmp_path: Path, dsn: str, text: bytes, **options: Any) -> Any:
    path = tmp_path / "dump.sql"
    path.write_bytes(text)
    return restore(str(path), dsn, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        b"CREATE TABLE public.b (a int CHECK (public.known(a)));",
        (
            b"CREATE OPERATOR public.?? (RIGHTARG = int, FUNCTION = public.known);\n"
            b"CREATE TABLE public.b (a int CHECK (OPERATOR(public.??) a));"
        ),
        b"CREATE DOMAIN public.d AS int CHECK (public.known(VALUE));\nCREATE TABLE public.b (a public.d);",
        (
            b"CREATE DOMAIN public.d AS int CHECK (public.known(VALUE));\nCREATE DOMAIN public.e AS public.d;\n"
            b"CREATE TYPE public.c AS (x public.e);\nCREATE DOMAIN public.b_type AS public.c[];\n"
            b"CREATE TABLE public.b (a public.b_type);"
        ),
        (
            b"CREATE TABLE public.b_root (a int) PARTITION BY LIST (public.known(a));\n"
            b"CREATE TABLE public.b PARTITION OF public.b_root FOR VALUES IN (true);"
        ),
        b"CREATE TABLE public.b (a int, g boolean GENERATED ALWAYS AS (public.known(a)) STORED CHECK (g));",
        b"CREATE TABLE public.b (a int);\nCREATE INDEX ON public.b ((1 / public.known(a)::int));",
    ],
)
def test_rows_whose_check_looks_at_another_table_wait_for_it(tmp_path: Path, database: str, check: bytes) -> None:
    many = b"".join(b"%d\t%s\n" % (number, b"x" * 2000) for number in range(4000))
    value = b'{"(3999)"}' if b"b_type" in check else b"3999"
    text = (
        b"CREATE TABLE public.a (id int, v text);\nCREATE FUNCTION public.known(i int) RETURNS boolean LANGUAGE sql"
        b" IMMUTABLE AS 'SELECT EXISTS (SELECT FROM public.a WHERE id = i)';\n" + check + b"\n"
        b"COPY public.a (id, v) FROM stdin;\n" + many + b"\\.\nCOPY public.b (a) FROM stdin;\n" + value + b"\n\\.\n"
    )
    assert restored(tmp_path, database, text, jobs=3).rows == 4001
    assert query(database, "SELECT count(*) FROM b") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("SET datestyle TO 'German, DMY';", b"03.02.2020", "2020-02-03"),
        ("SET DateStyle = 'SQL, DMY';", b"03/02/2020", "2020-02-03"),
        ("set datestyle = dmy;", b"03/02/2020", "2020-02-03"),
        ("SET SESSION datestyle = 'SQL, DMY';", b"03/02/2020", "2020-02-03"),
        ("SELECT set_config('datestyle', 'SQL, DMY', false);", b"03/02/2020", "2020-02-03"),
        ("SET datestyle = 'SQL, DMY';\nRESET ALL;", b"03/02/2020", "2020-03-02"),
        ("SET datestyle = 'SQL, DMY';\nRESET datestyle;", b"03/02/2020", "2020-03-02"),
        ("DO $$ BEGIN PERFORM set_config('datestyle', 'SQL, DMY', false); END $$;", b"03/02/2020", "2020-02-03"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE;\nSET datestyle = dmy;", b"03/02/2020", "2020-02-03"),
    ],
)
def test_a_setting_in_any_wording_holds_for_the_rows_after_it(
    tmp_path: Path, database: str, setting: str, value: bytes, expected: str
) -> None:
    text = b"CREATE TABLE public.t (d date);\n" + setting.encode() + b"\nCOPY public.t (d) FROM stdin;\n"
    restored(tmp_path, database, text + value + b"\n\\.\n", jobs=3)
    assert query(database, "SELECT d::text FROM t") == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    ["SET client_encoding = 'LATIN1';", "SET client_encoding TO LATIN1;", "SET NAMES 'LATIN1';",
     "set session client_encoding to 'latin1';", "SELECT pg_catalog.set_config('client_encoding', 'LATIN1', false);"],
)  # fmt: skip
def test_an_encoding_in_any_wording_is_the_rows_encoding(tmp_path: Path, database: str, setting: str) -> None:
    text = b"CREATE TABLE public.t (v text);\n" + setting.encode() + b"\nCOPY public.t (v) FROM stdin;\n"
    restored(tmp_path, database, text + b"\xc3\xa9\n\\.\n", jobs=3)  # two characters here, one in UTF-8
    assert query(database, "SELECT length(v) FROM t") == 2


def test_a_dump_of_a_database_without_an_encoding_is_restored_as_psql_restores_it(
    tmp_path: Path, make_database: Callable[..., str]
) -> None:
    def make() -> str:
        return make_database(TEMPLATE="template0", ENCODING="SQL_ASCII", LOCALE="C")

    source, theirs, ours = make(), make(), make()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(b"CREATE TABLE bytes (v text)")
        connection.execute(b"INSERT INTO bytes VALUES (convert_from('\\xe9fffe', 'SQL_ASCII'))")
        connection.execute(b'CREATE TABLE "caf\xe9" ("\xe9" text); INSERT INTO "caf\xe9" VALUES (\'\xe9\')')
        connection.execute(b'ALTER TABLE "caf\xe9" ADD PRIMARY KEY ("\xe9")')
    program = postgresql_client_folder(16)
    dump = subprocess.run([program / "pg_dump", "-d", source], check=True, capture_output=True).stdout
    restored(tmp_path, ours, dump, jobs=2)
    command = [str(program / "psql"), "-qX", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", theirs]
    subprocess.run(command, input=dump, check=True)
    dumps = [
        subprocess.run([program / "pg_dump", "-d", dsn], check=True, capture_output=True).stdout
        for dsn in (ours, theirs)
    ]
    one, other = ([line for line in text.splitlines() if b"restrict" not in line] for text in dumps)
    assert one == other


def test_a_target_that_somebody_began_to_use_meanwhile_is_not_given_up(tmp_path: Path, database: str) -> None:
    done = False

    def begin_to_use(event: ProgressEvent) -> None:
        nonlocal done
        if not done and event.stage == "load":
            done = True
            with psycopg.connect(database) as connection:
                connection.execute("CREATE TABLE orders AS SELECT 1 AS id")

    text = b"CREATE TABLE public.t (id int);\nCOPY public.t (id) FROM stdin;\n1\n\\.\n"
    with pytest.raises(RefusedError, match="no longer"):
        restored(tmp_path, database, text, progress=begin_to_use)
    assert query(database, "SELECT id FROM orders") == 1
    restored(tmp_path, database, text, replace=True)
    assert query(database, "SELECT to_regclass('orders') IS NULL")
    assert drop_interrupted(database, dry_run=True) == []
