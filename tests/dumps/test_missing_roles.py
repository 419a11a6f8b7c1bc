"""What a dump says of roles that the server lacks, or that the restoring role may not act for: a note, or an error with
the role's name and where it comes from; never a policy that is left out in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.errors import RecoveryError
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # a restore into a real server in every test

BEFORE = (
    "CREATE TABLE public.t (id int);\nCREATE VIEW public.v AS SELECT 1 AS a;\nCREATE SEQUENCE public.q;\n"
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';\nCREATE TYPE public.e AS ENUM ('a');\n"
    "CREATE FUNCTION public.on_command() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';\n"
    "SELECT pg_catalog.lo_create('4711');\n"
)
# By statement: the kind of its note.
NOTED = {
    "ALTER TABLE public.t OWNER TO absent;": "owner",
    "ALTER VIEW public.v OWNER TO absent;": "owner",
    "ALTER FUNCTION public.f() OWNER TO absent;": "owner",
    "ALTER TYPE public.e OWNER TO absent;": "owner",
    "ALTER SCHEMA public OWNER TO absent;": "owner",
    "ALTER LARGE OBJECT 4711 OWNER TO absent;": "owner",
    'ALTER SEQUENCE public.q OWNER TO "ab;sent";': "owner",
    "SET SESSION AUTHORIZATION 'absent';\nCREATE TABLE public.u ();\nRESET SESSION AUTHORIZATION;": "owner",
    "GRANT SELECT ON TABLE public.t TO absent;": "privileges",
    "GRANT SELECT(id) ON TABLE public.t TO absent WITH GRANT OPTION;": "privileges",
    "GRANT ALL ON SCHEMA public TO absent;": "privileges",
    "REVOKE ALL ON FUNCTION public.f() FROM absent;": "privileges",
    "GRANT SELECT ON LARGE OBJECT 4711 TO absent;": "privileges",
    "ALTER DEFAULT PRIVILEGES FOR ROLE absent IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;": "privileges",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO absent;": "privileges",
    "ALTER DEFAULT PRIVILEGES FOR ROLE absent REVOKE ALL ON FUNCTIONS FROM PUBLIC;": "privileges",
    "GRANT ALL ON PARAMETER work_mem TO absent;": "privileges",
}
REFUSED = [
    "CREATE POLICY p ON public.t TO absent USING ((id > 1));",
    "CREATE POLICY p ON public.t AS RESTRICTIVE FOR SELECT TO postgres, absent USING (true);",
    "CREATE SCHEMA s AUTHORIZATION absent;",
]
# A role that is no superuser may not do these; what is noted is lost, what is not ends the restore.
NOT_FOR_A_MASTER = {
    "CREATE EVENT TRIGGER w ON ddl_command_end EXECUTE FUNCTION public.on_command();\n"
    "ALTER EVENT TRIGGER w DISABLE;\nALTER EVENT TRIGGER w OWNER TO postgres;\nCOMMENT ON EVENT TRIGGER w IS 'x';": (
        "not restored"
    ),
    "CREATE PUBLICATION p FOR ALL TABLES;\nALTER PUBLICATION p OWNER TO postgres;": "not restored",
    "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);": "not restored",
    "GRANT SET ON PARAMETER log_statement TO PUBLIC;": "privileges",
    "SET SESSION AUTHORIZATION 'postgres';\nCREATE TABLE public.u ();\nRESET SESSION AUTHORIZATION;": "owner",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC;": "privileges",
    "COMMENT ON EXTENSION plpgsql IS 'x';": "comment",
    "ALTER FUNCTION public.f() OWNER TO postgres;": "owner",
    "SET log_statement = 'none';": "setting",
    "CREATE FOREIGN DATA WRAPPER w;": None,
    "CREATE FUNCTION public.c() RETURNS int LANGUAGE c AS 'x', 'y';": None,
    "CREATE OPERATOR FAMILY public.o USING btree;": None,
    "CREATE ACCESS METHOD m TYPE TABLE HANDLER heap_tableam_handler;": None,
}


def restored(tmp_path: Path, dsn: str, text: str) -> Any:
    path = tmp_path / "dump.sql"
    path.write_text(BEFORE + text + "\n")
    return restore(str(path), dsn, jobs=1)


def kinds(result: Any) -> set[str]:
    return {note.kind for note in result.notes} - {"completeness", "expected", "warning", "database"}


@pytest.mark.parametrize("who", ["superuser", "master"])
def test_owners_and_privileges_of_absent_roles_are_noted(
    request: pytest.FixtureRequest, tmp_path: Path, who: str
) -> None:
    dsn = request.getfixturevalue("database" if who == "superuser" else "master_database")
    result = restored(tmp_path, dsn, "\n".join(NOTED))
    assert kinds(result) == set(NOTED.values())
    counts = {note.kind: 0 for note in result.notes}
    for note in result.notes:
        counts[note.kind] += note.count
    assert counts["owner"] >= sum(kind == "owner" for kind in NOTED.values())
    assert counts["privileges"] >= sum(kind == "privileges" for kind in NOTED.values())
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE relname = 'u'"
                                  ).fetchone() == (True,)  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_what_would_guard_otherwise_without_its_role_is_refused_with_the_roles_name(
    database: str, tmp_path: Path, statement: str
) -> None:
    with pytest.raises(RecoveryError, match='role "absent" does not exist') as refused:
        restored(tmp_path, database, statement)
    assert 'no role "absent"' in str(refused.value.hint)
    assert "globals" in str(refused.value.hint)


def test_a_user_mapping_of_an_absent_role_is_refused_with_the_roles_name(database: str, tmp_path: Path) -> None:
    server = "CREATE FOREIGN DATA WRAPPER w;\nCREATE SERVER s FOREIGN DATA WRAPPER w;\n"
    mapping = "CREATE USER MAPPING FOR absent SERVER s OPTIONS (\"user\" 'a', password 'secret of theirs');"
    with pytest.raises(RecoveryError, match='role "absent" does not exist') as refused:
        restored(tmp_path, database, server + mapping)
    assert 'no role "absent"' in str(refused.value.hint)
    assert "secret of theirs" not in str(refused.value)


@pytest.mark.parametrize("statement", NOT_FOR_A_MASTER)
def test_what_a_master_role_may_not_do_is_noted_or_ends_the_restore_with_what_to_do(
    master_database: str, tmp_path: Path, statement: str
) -> None:
    kind = NOT_FOR_A_MASTER[statement]
    if kind is not None:
        assert kind in kinds(restored(tmp_path, master_database, statement))
        return
    with pytest.raises(RecoveryError, match="line 8 of the dump") as refused:
        restored(tmp_path, master_database, statement)
    assert "the role master may not do this" in str(refused.value.hint)


def test_the_globals_of_a_backup_make_what_was_refused_restorable(
    make_database: Callable[..., str], database: str, tmp_path: Path
) -> None:
    """The hint's own advice, followed: the role is made, and the same dump is restored with its policy."""
    statement = "CREATE POLICY p ON public.t TO came_back USING ((id > 1));"
    with pytest.raises(RecoveryError, match="came_back"):
        restored(tmp_path, database, statement)
    with psycopg.connect(make_database(), autocommit=True) as connection:
        connection.execute("CREATE ROLE came_back")
        try:
            restored(tmp_path, database, statement)
            with psycopg.connect(database) as target:
                assert target.execute(
                    "SELECT polroles = ARRAY['came_back'::regrole::oid] FROM pg_policy"
                ).fetchone() == (True,)
                target.execute("DROP POLICY p ON public.t")
        finally:
            connection.execute("DROP ROLE came_back")
