"""A database restored here and one restored by psql are equal: pg_dump writes the same of both, but for rows' order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # real servers or processes in every test

ZOO = Path(__file__).parent / "zoo.sql"
CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sql.gz"


@pytest.fixture
def restored_equal(programs: Any, tmp_path: Path) -> Callable[..., Any]:
    """restored_equal(dump, make, major=16, **options): the result of a restore that makes what psql makes of it."""

    def check(dump: bytes, make: Callable[..., str], major: int = 16, **options: Any) -> Any:
        ours, theirs = make(), make()
        path = tmp_path / "dump.sql"
        path.write_bytes(dump)
        result = restore(str(path), ours, **options)
        programs.psql(theirs, dump, major=major)
        programs.assert_same(ours, theirs, major)
        return result

    return check


@pytest.fixture(params=[16, 18])
def place(request: pytest.FixtureRequest) -> tuple[int, Callable[..., str]]:
    """A major version and how to make databases of it."""
    major = int(request.param)
    return major, request.getfixturevalue("make_database" if major == 16 else f"make_database{major}")


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_zoo_of_every_object_type_is_restored_as_psql_restores_it(
    place: tuple[int, Callable[..., str]], programs: Any, restored_equal: Callable[..., Any], jobs: int
) -> None:
    major, make = place
    source = make()
    programs.psql(source, ZOO.read_bytes(), "-v", "ON_ERROR_STOP=1", major=major)
    dump = programs.pg_dump(source, major=major)
    result = restored_equal(dump, make, major, jobs=jobs)
    assert {note.kind for note in result.notes} <= {"warning", "expected"}, result.notes
    with psycopg.connect(source) as connection:
        assert dump.count(b"\nCOPY ") >= 20
        assert connection.execute("SELECT count(*) FROM zoo.animal").fetchone() == (3001,)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--inserts",), ("--no-owner", "--clean", "--if-exists"), ("--disable-triggers",)])
def test_the_zoo_in_other_styles_of_dump_is_restored_as_psql_restores_it(
    make_database: Callable[..., str], programs: Any, restored_equal: Callable[..., Any], options: tuple[str, ...]
) -> None:
    source = make_database()
    programs.psql(source, ZOO.read_bytes(), "-v", "ON_ERROR_STOP=1")
    restored_equal(programs.pg_dump(source, *options), make_database)


def test_the_shared_dump_is_restored_as_psql_restores_it(
    place: tuple[int, Callable[..., str]], restored_equal: Callable[..., Any]
) -> None:
    if not CHINOOK.exists():
        pytest.skip("NOT RUN: the shared data is not on this machine")
    import gzip  # noqa: PLC0415  # only here

    restored_equal(gzip.decompress(CHINOOK.read_bytes()), place[1], place[0])


def test_a_dump_in_another_encoding_is_restored_and_counted_as_what_it_is(
    make_database: Callable[..., str], programs: Any, restored_equal: Callable[..., Any]
) -> None:
    source = make_database()
    with psycopg.connect(source) as connection:
        connection.execute('CREATE TABLE "größe" ("maß" text)')
        connection.execute("""INSERT INTO "größe" VALUES ('fünf'), ('ß')""")
        connection.execute('CREATE INDEX ON "größe" ("maß")')
    result = restored_equal(programs.pg_dump(source, "--encoding=LATIN1"), make_database)
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
    make_database: Callable[..., str],
    programs: Any,
    restored_equal: Callable[..., Any],
    rows: list[tuple[Any, ...]],
    names: list[str],
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
    restored_equal(programs.pg_dump(source), make_database)
