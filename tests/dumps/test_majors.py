"""Backup, restore and proof on servers of every major version from 12 to 18 that this machine has.

16 and 18 come with the project. Of the others those are tested whose programs are in a distribution's folder or on
PATH, the rest is NOT RUN; a pg_dump that is not here is stood in for by that of 18.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from machine.programs import ProgramNotFoundError, postgresql_client_folder
from recovery.dumps import session
from recovery.dumps.objects_sql import objects
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow  # a server of its own for every major

ZOO, ORIGINAL = ((Path(__file__).parent / name).read_bytes() for name in ("zoo.sql", "original.sql"))
# The zoo is of 16: an older server refuses what it does not know of it.
LEAST_TABLES = 19
MULTIRANGE = 'CREATE TYPE "odd\nrange" AS RANGE (subtype = float8, subtype_diff = float8mi)'


@pytest.fixture(scope="module", params=[12, 13, 14, 15, 16, 17])
def make(request: pytest.FixtureRequest, make_databases_of: Any) -> Iterator[Callable[..., str]]:
    with make_databases_of(request.param) as make:
        yield make


@pytest.fixture
def source(make: Callable[..., str], programs: Any) -> str:
    """A database with everything of the zoo and of the original that this server can hold."""
    source = make()
    for text in (ZOO, ORIGINAL):
        programs.psql(source, text, major=18)
    return source


def only_of(*majors: int) -> Callable[[int], Path]:
    """What finds client programs on a machine that has those of these versions alone."""

    def find(major: int) -> Path:
        if major not in majors:
            raise ProgramNotFoundError(f"no client programs of {major}")
        return postgresql_client_folder(major)

    return find


def assert_holds(dsn: str, backup: Any) -> None:
    found = verify(dsn, manifest=backup.manifest)
    assert [(r.name, r.reason, r.evidence) for r in found.rungs if r.outcome is Outcome.FAIL] == []
    assert {found.rung(name).outcome for name in ("schema", "rows", "content", "sequences")} == {Outcome.PASS}


def test_a_backup_is_restored_into_its_own_version_and_proven(
    make: Callable[..., str], source: str, programs: Any, tmp_path: Path
) -> None:
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.path is not None
    assert len(backup.manifest.tables) >= LEAST_TABLES
    target, theirs = make(), make()
    restore(str(backup.path), target, jobs=3)
    programs.psql(theirs, gzip.decompress(backup.path.read_bytes()), major=18)
    programs.assert_same(target, theirs, 18)
    assert_holds(target, backup)


def test_a_backup_is_restored_into_18_and_proven(
    make_database18: Callable[..., str], source: str, tmp_path: Path
) -> None:
    backup = take_backup(source, local_dir=tmp_path)
    target = make_database18()
    restore(str(backup.path), target, jobs=3)
    assert_holds(target, backup)


def test_a_backup_of_18_is_restored_into_an_older_server(
    make: Callable[..., str], make_database18: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    source = make_database18()
    programs.psql(source, ORIGINAL, "-v", "ON_ERROR_STOP=1", major=18)
    programs.psql(source, b"DROP FUNCTION app.atomic", major=18)  # the one thing in it that servers before 14 lack
    backup = take_backup(source, local_dir=tmp_path)
    target = make()
    result = restore(str(backup.path), target, jobs=3)
    found = verify(target, manifest=backup.manifest)
    assert {found.rung(name).outcome for name in ("rows", "content", "sequences", "foreign-keys")} == {Outcome.PASS}
    assert {note.kind for note in result.notes} <= {"setting", "not restored", "expected"}, result.notes


def test_what_a_newer_pg_dump_says_of_ranges_and_sequences_is_left_out_for_an_older_server(
    make: Callable[..., str], make_database18: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    source, older = make_database18(), make()
    for dsn in (source, older):
        with psycopg.connect(dsn) as connection:
            major = connection.info.server_version // 10000
            connection.execute(MULTIRANGE)
            connection.execute('CREATE UNLOGGED TABLE fleeting (id int GENERATED ALWAYS AS IDENTITY, s "odd\nrange")')
            if major >= 15:
                connection.execute("ALTER SEQUENCE fleeting_id_seq SET LOGGED")
    (tmp_path / "dump.sql").write_bytes(programs.pg_dump(source, major=18))
    target = make()
    result = restore(str(tmp_path / "dump.sql"), target)
    programs.assert_same(target, older, 18)
    noted = {note.text for note in result.notes if note.kind != "setting" or "sequences" in note.text}
    assert ("the sequences of this server are all logged" in noted) == (major < 15)
    assert ("the server has no types of multiranges" in noted) == (major < 14)


def test_a_server_whose_pg_dump_is_not_here_is_dumped_by_a_newer_one_and_the_backup_says_so(
    database: str, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "postgresql_client_folder", only_of(18))
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.manifest.pg_dump_version.startswith("18.")
    assert [note for note in backup.manifest.notes if "this machine has none of 16" in note]
    target = make_database()
    restore(str(backup.path), target)
    assert_holds(target, backup)


def test_an_older_pg_dump_is_not_tried(database18: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "postgresql_client_folder", only_of(16))
    with pytest.raises(EnvironmentLacksError, match="no pg_dump of PostgreSQL 18 or newer"):
        take_backup(database18, local_dir=tmp_path)


def test_objects_are_described_in_the_words_of_12_as_in_those_of_newer_servers(database: str, programs: Any) -> None:
    programs.psql(database, ZOO, "-v", "ON_ERROR_STOP=1")
    with psycopg.connect(database) as connection:
        connection.execute("SET search_path = ''")
        of12, of16 = ({row[:2]: row for row in connection.execute(objects(major).encode())} for major in (12, 16))
    assert [kind for kind, _ in of16.keys() & of12.keys() if kind == "table"]
    assert {key for key in of16 if of16[key] != of12.get(key)} == {
        ("publication", name)
        for name in ("partial", "schema_wide")  # what these publish came with 15
    }


def test_rows_whose_generated_column_looks_at_another_table_wait_for_it(
    make: Callable[..., str], tmp_path: Path
) -> None:
    rows = b"".join(b"%d\n" % number for number in range(4000))
    path = tmp_path / "dump.sql"
    path.write_bytes(
        b"CREATE TABLE public.a (a int);\n"
        b"CREATE FUNCTION public.known(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS\n"
        b"$$BEGIN RETURN EXISTS (SELECT FROM public.a WHERE a.a = $1); END$$;\n"
        b"CREATE TABLE public.b (a int, g boolean GENERATED ALWAYS AS (public.known(a)) STORED CHECK (g));\n"
        b"COPY public.a (a) FROM stdin;\n" + rows + b"\\.\nCOPY public.b (a) FROM stdin;\n3999\n\\.\n"
    )
    assert restore(str(path), make(), jobs=2).rows == 4001
