"""What belongs to the database itself: given to a new one as the source had it, kept where the target exists."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.errors import ConnectionLostError, RefusedError, UsageError
from recovery.restore import find_resumable, restore

if TYPE_CHECKING:
    from pathlib import Path

    from recovery.dumps.catalogue import Backup
    from recovery.dumps.manifest import Manifest

pytestmark = pytest.mark.slow  # real servers in every test

STATE = """
SELECT pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
       datconnlimit, shobj_description(oid, 'pg_database'),
       ARRAY(SELECT COALESCE(r.rolname, 'all') || ': ' || c FROM pg_db_role_setting s LEFT JOIN pg_roles r
               ON r.oid = s.setrole, unnest(s.setconfig) c WHERE s.setdatabase = d.oid ORDER BY 1),
       has_database_privilege('state_reader', oid, 'CREATE'),
       ARRAY(SELECT DISTINCT privilege_type FROM aclexplode(datacl) WHERE grantee = 0 ORDER BY 1)
  FROM pg_database d WHERE datname = %s
"""
PLAIN = ("UTF8", "C.UTF-8", "C.UTF-8", -1, None, [], False, [])
SOURCE = (
    "LATIN1", "C", "C", 7, "it's the \"source\"",
    ["all: custom.x=a: b=c", "all: log_min_duration_statement=5", 'all: search_path="$user", app',
     "state_reader: work_mem=8MB"],
    True, ["TEMPORARY"],
)  # fmt: skip


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in script.split(";"):
            connection.execute(statement.encode())


def state(dsn: str) -> tuple[Any, ...] | None:
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        return connection.execute(STATE, [name]).fetchone()


def notes(result: Any, kind: str) -> list[str]:
    return [f"{note.object}: {note.text}" for note in result.notes if note.kind == kind]


@pytest.fixture
def backup(make_database: Callable[..., str], server16: Any, tmp_path: Path) -> Backup:
    """A backup of a database that has a state of its own."""
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'state_reader'").fetchone() is None:
            connection.execute("CREATE ROLE state_reader")
    source = make_database(TEMPLATE="template0", ENCODING="LATIN1", LC_COLLATE="C", LC_CTYPE="C")
    name = sql.Identifier(str(conninfo_to_dict(source)["dbname"])).as_string()
    run(
        source,
        f"""CREATE TABLE public.t (x text);
        ALTER DATABASE {name} SET search_path = "$user", app;
        ALTER DATABASE {name} SET custom.x = 'a: b=c';
        ALTER DATABASE {name} SET log_min_duration_statement = 5;
        ALTER ROLE state_reader IN DATABASE {name} SET work_mem = '8MB';
        REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
        GRANT CREATE ON DATABASE {name} TO state_reader;
        ALTER DATABASE {name} CONNECTION LIMIT 7;
        COMMENT ON DATABASE {name} IS 'it''s the "source"'""",
    )
    with psycopg.connect(source) as connection:
        connection.execute("INSERT INTO public.t VALUES ('é')")
    return take_backup(source, local_dir=tmp_path)


@pytest.fixture
def absent(server16: Any) -> Iterator[Callable[..., str]]:
    """absent(user="postgres") -> DSN of a database that does not exist yet and is dropped after the test."""
    made: list[str] = []

    def make(user: str = "postgres") -> str:
        made.append(f"new{secrets.token_hex(6)}")
        return str(server16.dsn(made[-1], user=user))

    yield make
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def test_a_database_that_does_not_exist_is_made_as_the_source_was(backup: Backup, absent: Callable[..., str]) -> None:
    target = absent()
    result = restore(str(backup.path), target, manifest=backup.manifest)
    assert state(target) == ("postgres", *SOURCE)
    name = conninfo_to_dict(target)["dbname"]
    assert notes(result, "database") == [f"{name}: it did not exist and was created as the source's was"]
    assert notes(result, "collation") == []


def test_a_role_that_may_not_set_all_of_it_sets_the_rest_and_what_is_not_set_is_noted(
    backup: Backup, absent: Callable[..., str], master16: str
) -> None:
    target = absent(master16)
    result = restore(str(backup.path), target, manifest=backup.manifest)
    found = state(target)
    assert found is not None
    assert found[:6] == (master16, *SOURCE[:5])
    # The others are for a superuser, or an administrator of the role, to make.
    assert found[6] == ['all: search_path="$user", app']
    assert found[7:] == SOURCE[6:]
    said = "\n".join(notes(result, "database"))
    for statement in ("custom", "log_min_duration_statement", "ALTER ROLE", 'OWNER TO "postgres"'):
        assert statement in said, said


def test_a_target_that_exists_keeps_its_own_state_unless_told_otherwise(
    backup: Backup, make_database: Callable[..., str], absent: Callable[..., str]
) -> None:
    target = make_database()
    restore(str(backup.path), target, manifest=backup.manifest)
    assert state(target) == ("postgres", *PLAIN)
    restore(str(backup.path), target, manifest=backup.manifest, replace=True, database_state="source")
    assert state(target) == ("postgres", *SOURCE)
    target = absent()
    restore(str(backup.path), target, manifest=backup.manifest, database_state="target")
    assert state(target) == ("postgres", *PLAIN)
    with pytest.raises(UsageError, match="not known"):
        restore(str(backup.path), absent(), database_state="source")


def elsewhere(manifest: Manifest | None, **changes: Any) -> Manifest:
    """The manifest of the same dump, made where things are otherwise."""
    assert manifest is not None
    assert manifest.database_state is not None
    changed = manifest.database_state.model_copy(update=changes)
    return manifest.model_copy(update={"database_state": changed}).seal()


@pytest.mark.parametrize(
    ("changes", "made", "wished"),
    [
        ({"collate": "xx_YY", "ctype": "xx_YY"}, ("LATIN1", "C", "C"), "LATIN1, xx_YY"),
        ({"encoding": "UTF8", "collate": "xx_YY"}, ("UTF8", "C.UTF-8", "C.UTF-8"), "UTF8, xx_YY"),
        ({"encoding": "UTF8", "provider": "b", "locale": "C.UTF-8"}, ("UTF8", "C.UTF-8", "C.UTF-8"), "builtin C.UTF-8"),
        ({"encoding": "UTF8", "provider": "i", "locale": "de"}, ("UTF8", "C.UTF-8", "C.UTF-8"), "UTF8, ICU de"),
    ],
)
def test_a_locale_that_the_server_lacks_is_noted_and_the_rows_come_back_in_the_sources_encoding(
    backup: Backup, absent: Callable[..., str], changes: dict[str, Any], made: tuple[str, ...], wished: str
) -> None:
    target = absent()
    result = restore(str(backup.path), target, manifest=elsewhere(backup.manifest, **changes))
    assert (state(target) or ())[1:4] == made
    (note,) = notes(result, "collation")
    assert wished in note
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT x FROM public.t").fetchall() == [("é",)]


@pytest.mark.parametrize("collate", ["C", "xx_YY"])
def test_an_interrupted_restore_into_a_new_database_goes_on_with_the_sources_state(
    backup: Backup, absent: Callable[..., str], server16: Any, cutters: Callable[..., Any], collate: str
) -> None:
    target, manifest = absent(), elsewhere(backup.manifest, collate=collate)

    def decide(query: bytes) -> str | None:
        return "before" if b" RENAME TO " in query else None

    with cutters(server16, decide) as cutter, pytest.raises(ConnectionLostError):
        restore(str(backup.path), cutter.dsn(target), manifest=manifest)
    with pytest.raises(RefusedError, match="another database now"):
        restore(str(backup.path), target, manifest=manifest, resume=True, database_state="target")
    result = restore(str(backup.path), target, manifest=manifest, resume=True)
    assert result.resumed_rows == 1
    assert state(target) == ("postgres", *SOURCE)
    assert len(notes(result, "collation")) == (collate != "C")


def test_grants_and_settings_of_roles_that_are_absent_are_noted(backup: Backup, absent: Callable[..., str]) -> None:
    target = absent()
    changes = {
        "privileges": ('"no ""one"=C*/postgres', "=c/postgres", "postgres=CTc/postgres"),
        "settings": ("no one: work_mem=1MB", "work_mem=2MB"),
        "owner": "nobody_here",
    }
    result = restore(str(backup.path), target, manifest=elsewhere(backup.manifest, **changes))
    found = state(target)
    assert found is not None
    assert (found[0], found[6], found[8]) == ("postgres", ["all: work_mem=2MB"], ["CONNECT"])
    said = "\n".join(notes(result, "database"))
    for statement in ('TO "no ""one" WITH GRANT OPTION', 'ALTER ROLE "no one"', 'OWNER TO "nobody_here"'):
        assert statement in said, said


def test_what_could_be_resumed_is_looked_at_with_the_same_state(
    backup: Backup, absent: Callable[..., str], server16: Any, cutters: Callable[..., Any]
) -> None:
    target = absent()
    cutter = cutters(server16, lambda query: "before" if b" RENAME TO " in query else None)
    with cutter as cut, pytest.raises(ConnectionLostError):
        restore(str(backup.path), cut.dsn(target), manifest=backup.manifest)
    with open_dump(str(backup.path)) as dump:
        left = find_resumable(dump, target, backup.manifest)
        assert left is not None
        assert left.rows == 1
        with pytest.raises(RefusedError, match="another database now"):
            find_resumable(dump, target, backup.manifest, database_state="target")
