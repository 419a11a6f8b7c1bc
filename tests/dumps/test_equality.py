"""A database restored here and one restored by psql are equal: pg_dump writes the same of both.

Rows of one table may come in another order, because several sessions load it, so each COPY block counts as a multiset.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine.programs import postgresql_client_folder
from recovery.dumps.lexer import Lexer
from recovery.dumps.statements import CopyBlock, Statement
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # real servers or processes in every test

ZOO = Path(__file__).parent / "zoo.sql"
CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sql.gz"


def pg_dump(dsn: str, major: int, *options: str) -> bytes:
    program = postgresql_client_folder(major) / "pg_dump"
    return subprocess.run([program, *options, "-d", dsn], check=True, capture_output=True).stdout


def psql(dsn: str, major: int, text: bytes, *options: str) -> None:
    program = postgresql_client_folder(major) / "psql"
    subprocess.run([program, "-X", "-q", "-o", "/dev/null", *options, "-d", dsn], input=text, check=True)


def content(dump: bytes) -> list[Any]:
    """A dump's items, the rows of each COPY block sorted."""
    found: list[Any] = []
    for item in Lexer(iter([dump])).items():
        if isinstance(item, CopyBlock):
            found.append((item.statement.text, sorted(b"".join(item.pieces).split(b"\n"))))
        elif isinstance(item, Statement):
            found.append((item.label, item.text))
    return found


def assert_restored_equal(dump: bytes, make: Callable[..., str], major: int, folder: Path, **options: Any) -> Any:
    ours, theirs = make(), make()
    path = folder / "dump.sql"
    path.write_bytes(dump)
    result = restore(str(path), ours, **options)
    psql(theirs, major, dump)
    for one, other in zip(content(pg_dump(ours, major)), content(pg_dump(theirs, major)), strict=True):
        assert one == other
    return result


@pytest.fixture(params=[16, 18])
def place(request: pytest.FixtureRequest) -> tuple[int, Callable[..., str]]:
    """A major version and how to make databases of it."""
    major = int(request.param)
    return major, request.getfixturevalue("make_database" if major == 16 else f"make_database{major}")


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_zoo_of_every_object_type_is_restored_as_psql_restores_it(
    place: tuple[int, Callable[..., str]], tmp_path: Path, jobs: int
) -> None:
    major, make = place
    source = make()
    psql(source, major, ZOO.read_bytes(), "-v", "ON_ERROR_STOP=1")
    dump = pg_dump(source, major)
    result = assert_restored_equal(dump, make, major, tmp_path, jobs=jobs)
    assert {note.kind for note in result.notes} <= {"warning", "expected"}, result.notes
    with psycopg.connect(source) as connection:
        assert dump.count(b"\nCOPY ") >= 20
        assert connection.execute("SELECT count(*) FROM zoo.animal").fetchone() == (3001,)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--inserts",), ("--no-owner", "--clean", "--if-exists"), ("--disable-triggers",)])
def test_the_zoo_in_other_styles_of_dump_is_restored_as_psql_restores_it(
    make_database: Callable[..., str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = make_database()
    psql(source, 16, ZOO.read_bytes(), "-v", "ON_ERROR_STOP=1")
    assert_restored_equal(pg_dump(source, 16, *options), make_database, 16, tmp_path)


def test_the_shared_dump_is_restored_as_psql_restores_it(place: tuple[int, Callable[..., str]], tmp_path: Path) -> None:
    if not CHINOOK.exists():
        pytest.skip("NOT RUN: the shared data is not on this machine")
    import gzip  # noqa: PLC0415  # only here

    assert_restored_equal(gzip.decompress(CHINOOK.read_bytes()), place[1], place[0], tmp_path)


def test_a_dump_in_another_encoding_is_restored_and_counted_as_what_it_is(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source = make_database()
    with psycopg.connect(source) as connection:
        connection.execute('CREATE TABLE "größe" ("maß" text)')
        connection.execute("""INSERT INTO "größe" VALUES ('fünf'), ('ß')""")
        connection.execute('CREATE INDEX ON "größe" ("maß")')
    dump = pg_dump(source, 16, "--encoding=LATIN1")
    result = assert_restored_equal(dump, make_database, 16, tmp_path)
    assert result.row_counts == {"public.größe": 2}


TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.tuples(
        st.none() | TEXTS,
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.none() | st.floats(),
        st.none() | st.binary(max_size=20),
        st.none() | st.lists(st.none() | TEXTS, max_size=3),
        st.none() | st.datetimes(),
    ),
    max_size=30,
)
NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, names=st.lists(NAMES, min_size=8, max_size=8, unique=True))
def test_any_names_and_values_are_restored_as_psql_restores_them(
    make_database: Callable[..., str], tmp_path: Path, rows: list[tuple[Any, ...]], names: list[str]
) -> None:
    source = make_database()
    with psycopg.connect(source) as connection:
        sql = psycopg.sql
        schema, table, *columns = (sql.Identifier(name) for name in names)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        kinds = ("text", "int", "float8", "bytea", "text[]", "timestamp")
        definition = sql.SQL(", ").join(
            [sql.SQL("{} {}").format(column, sql.SQL(kind)) for column, kind in zip(columns, kinds, strict=True)]
        )
        connection.execute(sql.SQL("CREATE TABLE {}.{} ({})").format(schema, table, definition))
        connection.execute(sql.SQL("CREATE INDEX ON {}.{} ({}, {})").format(schema, table, columns[0], columns[1]))
        with connection.cursor() as cursor:
            # psycopg reads a % in a name as a placeholder, unless it is doubled.
            into = sql.SQL("{}.{}").format(schema, table).as_string(cursor).replace("%", "%%")
            cursor.executemany(sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s)").format(sql.SQL(into)), rows)
    assert_restored_equal(pg_dump(source, 16), make_database, 16, tmp_path)
