"""Whatever pg_dump can write, of whatever server and in whatever style, is restored as psql restores it.

The databases are the zoo and the menagerie: every type of object that the bundled servers can hold without further
software.  Not held by them and NOT RUN: security labels (no provider is bundled), tablespaces (a folder of the server's
own machine), postgres_fdw, subscriptions, xml values.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # many restores into real servers

HERE = Path(__file__).parent
ZOO, MENAGERIE, SUPERUSERS = (
    (HERE / name).read_bytes() for name in ("zoo.sql", "menagerie.sql", "menagerie_superuser.sql")
)
ROLES = ("menagerie_owner", "menagerie_reader", '"odd ""role; $$"')
# What 18 has more than 16 that stands in a dump.
OF_18 = b"""
SET search_path = m;
CREATE TABLE of_18 (a int4range, v int GENERATED ALWAYS AS (lower(a) * 2) VIRTUAL, period daterange,
  CONSTRAINT "nn;" NOT NULL a, PRIMARY KEY (a, period WITHOUT OVERLAPS));
INSERT INTO of_18 (a, period) VALUES ('[1,2)', '[2020-01-01,2021-01-01)'),
  ('[1,2)', '[2021-01-01,)');
CREATE TABLE to_of_18 (a int4range, period daterange,
  FOREIGN KEY (a, PERIOD period) REFERENCES of_18 (a, PERIOD period),
  CONSTRAINT unenforced CHECK (lower(a) < 0) NOT ENFORCED, CONSTRAINT later_not_null NOT NULL a NO INHERIT);
INSERT INTO to_of_18 VALUES ('[1,2)', '[2020-05-01,2021-05-01)');
CREATE TABLE unproven (a int, b int);
INSERT INTO unproven VALUES (NULL, 1);
ALTER TABLE unproven ADD CONSTRAINT unproven_nn NOT NULL a NOT VALID;
ALTER TABLE unproven ADD CONSTRAINT unenforced_fk FOREIGN KEY (b) REFERENCES circle_a NOT ENFORCED;
"""


def make_roles(dsn: str) -> None:
    """Make the roles the menagerie names; the RDS-like master may act as the one that owns things."""
    with psycopg.connect(make_conninfo(dsn, dbname="postgres", user="postgres"), autocommit=True) as connection:
        for role in ROLES:
            if connection.execute("SELECT FROM pg_roles WHERE quote_ident(rolname) = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role}".encode())
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'master'").fetchone() is not None:
            connection.execute("GRANT menagerie_owner TO master")


def make_of(request: pytest.FixtureRequest, major: int) -> Callable[..., str]:
    make: Callable[..., str] = request.getfixturevalue("make_database" if major == 16 else f"make_database{major}")
    make_roles(make())
    return make


def fill(programs: Any, make: Callable[..., str], major: int, *texts: bytes) -> str:
    source = make()
    for text in texts:
        programs.psql(source, text, "-v", "ON_ERROR_STOP=1", major=major)
    return source


STYLES = [
    (),
    ("--inserts",),
    ("--column-inserts", "--no-owner"),
    ("--clean",),
    ("--clean", "--if-exists"),
    ("--create",),
    ("--quote-all-identifiers",),
    ("--disable-triggers",),
    ("--serializable-deferrable", "--no-comments"),
    ("-n", "m", "-n", "owned"),
    ("--rows-per-insert=7", "--on-conflict-do-nothing", "--no-privileges"),
    ("--load-via-partition-root", "--no-publications"),
    ("--section=pre-data", "--section=data"),
]


@pytest.mark.parametrize("major", [16, 18])
def test_the_menagerie_is_restored_as_psql_restores_it(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, major: int
) -> None:
    make = make_of(request, major)
    source = fill(programs, make, major, MENAGERIE, SUPERUSERS, *([OF_18] if major == 18 else []))
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source, major=major))
    ours, theirs = make(), make()
    result = restore(str(tmp_path / "dump.sql"), ours, jobs=3)
    programs.psql(theirs, dump, "-v", "ON_ERROR_STOP=1", major=major)
    programs.assert_same(ours, theirs, major)
    assert {note.kind for note in result.notes} <= {"warning", "expected"}, result.notes


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_the_menagerie_in_every_style_of_dump_is_restored_as_psql_restores_it(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, style: tuple[str, ...]
) -> None:
    make = make_of(request, 16)
    more = [] if "-n" in style else [SUPERUSERS]  # languages belong to no schema
    source = fill(programs, make, 16, MENAGERIE, *more)
    dump = programs.pg_dump(source, *style)
    (tmp_path / "dump.sql").write_bytes(dump)
    ours, theirs = make(), make()
    restore(str(tmp_path / "dump.sql"), ours)
    if "--create" in style:  # psql would restore into the source itself
        dump = programs.pg_dump(source)
    programs.psql(theirs, dump)
    programs.assert_same(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "target"), [(15, 16), (15, 18), (16, 18), (18, 16)])
def test_a_dump_of_another_major_version_is_restored_as_psql_restores_it(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, origin: int, target: int
) -> None:
    source = fill(programs, make_of(request, origin), origin, ZOO, MENAGERIE, SUPERUSERS)
    make = make_of(request, target)
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source, major=origin))
    ours, theirs = make(), make()
    restore(str(tmp_path / "dump.sql"), ours)
    if origin == 18 and target == 16:  # psql would lose all of a GRANT for the one privilege that 16 does not know
        dump = dump.replace(b",MAINTAIN", b"")
    programs.psql(theirs, dump, major=target)
    programs.assert_same(ours, theirs, target)


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "target"), [(15, 16), (16, 16), (18, 18), (16, 18)])
def test_what_a_master_role_restores_is_what_psql_restores_as_that_role(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, origin: int, target: int
) -> None:
    master = request.getfixturevalue(f"master{target}")
    source = fill(programs, make_of(request, origin), origin, MENAGERIE)
    make = make_of(request, target)
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source, major=origin))
    ours, theirs = (make_conninfo(make(owner=master), user=master) for _ in range(2))
    restore(str(tmp_path / "dump.sql"), ours)
    programs.psql(theirs, dump, major=target)
    programs.assert_same(make_conninfo(ours, user="postgres"), make_conninfo(theirs, user="postgres"), target)


@pytest.mark.slow
@pytest.mark.parametrize("major", [16, 18])
def test_a_backup_of_everything_is_restored_and_verified_against_its_manifest(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, major: int
) -> None:
    make = make_of(request, major)
    source = fill(programs, make, major, ZOO, MENAGERIE, SUPERUSERS, *([OF_18] if major == 18 else []))
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    ours, theirs = make(), make()
    restore(str(backup.path), ours, manifest=backup.manifest)
    programs.psql(theirs, programs.pg_dump(source, major=major), major=major)
    programs.assert_same(ours, theirs, major)
    verification = verify(ours, manifest=backup.manifest, facts=None, samples=[], required=set())
    failed = {rung.name: (rung.reason, rung.evidence) for rung in verification.rungs if str(rung.outcome) == "FAIL"}
    assert not failed
    broken = [key.name for key in backup.manifest.foreign_keys if key.violations]
    assert sorted(broken) == ["broken_fk", "to_nothing_fk"]
    assert conninfo_to_dict(ours)["dbname"]


def test_a_function_body_that_uses_the_word_begin_as_a_name_is_restored_though_psql_cannot(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path
) -> None:
    make = make_of(request, 16)
    body = b'BEGIN ATOMIC SELECT 1 AS "begin", CASE WHEN true THEN 2 END; SELECT 2; END;'
    function = b"CREATE FUNCTION f() RETURNS int LANGUAGE sql " + body
    source = fill(programs, make, 16, function + b"CREATE TABLE t AS SELECT f();")
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source))
    assert b"AS begin," in dump  # written without quotes, so psql counts a block that never ends
    restore(str(tmp_path / "dump.sql"), ours := make())
    programs.assert_same(ours, source)
