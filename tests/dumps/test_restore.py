"""Restoring real dumps into real servers: what arrives, what is noted, and that failure leaves the target as it was."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError, RefusedError
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # real servers or processes in every test

CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sql.gz"

SMALL = b"""
CREATE SCHEMA app;
CREATE TABLE app.t (id integer PRIMARY KEY, v text);
COPY app.t (id, v) FROM stdin;
1\tone
2\ttwo
\\.
"""


@pytest.fixture
def chinook() -> Path:
    if not CHINOOK.exists():
        pytest.skip("NOT RUN: the shared data is not on this machine")
    return CHINOOK


def query(dsn: str, text: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return [row[0] if len(row) == 1 else row for row in connection.execute(text.encode()).fetchall()]


def databases(dsn: str) -> list[str]:
    """All databases that belong to the DSN's one by name."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    return [
        found
        for found in query(make_conninfo(dsn, dbname="postgres"), "SELECT datname FROM pg_database ORDER BY 1")
        if found.startswith(name)
    ]


def pg_dump(dsn: str, *options: str, major: int = 16) -> bytes:
    program = postgresql_client_folder(major) / "pg_dump"
    return subprocess.run([program, *options, "-d", dsn], check=True, capture_output=True).stdout


def write(tmp_path: Path, text: bytes, name: str = "dump.sql") -> str:
    path = tmp_path / name
    path.write_bytes(text)
    return str(path)


def kinds(result: Any) -> set[str]:
    return {note.kind for note in result.notes}


def test_a_dump_nobody_here_wrote_is_restored_by_a_master_role_and_its_missing_owner_is_noted(
    chinook: Path, master_database: str
) -> None:
    result = restore(str(chinook), master_database)
    assert (result.tables, result.rows) == (11, 15607)
    assert query(master_database, "SELECT count(*) FROM public.track") == [3503]
    assert query(master_database, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == [11]
    assert [note.count for note in result.notes if note.kind == "owner"] == [11]
    assert databases(master_database) == [conninfo_to_dict(master_database)["dbname"]]


def test_an_empty_target_is_asked_for_and_replace_gives_it_up(tmp_path: Path, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE precious (v int)")
        connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    source = write(tmp_path, SMALL)
    with pytest.raises(RefusedError, match="not empty") as refused:
        restore(source, database)
    assert "precious" in str(refused.value.detail)
    assert query(database, "SELECT count(*) FROM precious") == [0]
    restore(source, database, replace=True)
    assert query(database, "SELECT v FROM app.t ORDER BY id") == ["one", "two"]
    assert query(database, "SELECT to_regclass('precious') IS NULL") == [True]


@pytest.mark.parametrize("what", ["CREATE SCHEMA s", "CREATE DOMAIN d AS int", "SELECT lo_create(7)"])
def test_any_object_of_a_user_makes_a_target_not_empty(tmp_path: Path, database: str, what: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(what.encode())
    with pytest.raises(RefusedError, match="not empty"):
        restore(write(tmp_path, SMALL), database)


def test_a_database_that_does_not_exist_is_created_and_that_is_noted(tmp_path: Path, database: str) -> None:
    new = make_conninfo(database, dbname=f"{conninfo_to_dict(database)['dbname']}_new")
    try:
        result = restore(write(tmp_path, SMALL), new)
        assert query(new, "SELECT count(*) FROM app.t") == [2]
        assert "database" in kinds(result)
    finally:
        with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{conninfo_to_dict(new)["dbname"]}"'.encode())


def test_a_refused_statement_names_line_object_and_sqlstate_and_leaves_the_target_as_it_was(
    tmp_path: Path, database: str
) -> None:
    source = write(tmp_path, SMALL + b"\nALTER TABLE app.t ADD CONSTRAINT bad CHECK (id < 2);\n")
    with pytest.raises(RecoveryError) as failed:
        restore(source, database)
    assert "line 9 of the dump" in failed.value.message
    assert "SQLSTATE 23514" in str(failed.value.detail)
    assert query(database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'app'") == [0]
    assert len(databases(database)) == 1


def test_a_row_the_server_refuses_fails_the_restore_without_showing_the_value(tmp_path: Path, database: str) -> None:
    source = write(tmp_path, SMALL.replace(b"2\ttwo", b"secret-number\ttwo"))
    with pytest.raises(RecoveryError) as failed:
        restore(source, database)
    assert "app.t" in failed.value.message
    assert "SQLSTATE 22P02" in str(failed.value.detail)
    assert "secret-number" not in str(failed.value.detail)
    assert len(databases(database)) == 1


def test_the_target_keeps_its_own_settings_privileges_comment_and_owner(
    tmp_path: Path, master_database: str, master16: str
) -> None:
    name = str(conninfo_to_dict(master_database)["dbname"])
    as_master = make_conninfo(master_database, dbname="postgres")
    with psycopg.connect(as_master, autocommit=True) as connection:
        for text in (
            f"ALTER DATABASE {name} SET search_path = app, \"odd name\", '$user'",
            f"ALTER DATABASE {name} SET work_mem = '7MB'",
            f"ALTER ROLE {master16} IN DATABASE {name} SET statement_timeout = '3min'",
            f"ALTER DATABASE {name} CONNECTION LIMIT 33",
            f"COMMENT ON DATABASE {name} IS 'production, really'",
            f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {name} TO pg_monitor WITH GRANT OPTION",
        ):
            connection.execute(text.encode())
    state = (
        "SELECT pg_get_userbyid(datdba), datacl::text, datconnlimit, shobj_description(oid, 'pg_database'), encoding,"
        " datcollate, datlocprovider, (SELECT array_agg((setrole, setconfig) ORDER BY setrole)::text"
        f" FROM pg_db_role_setting WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = '{name}'"
    )
    before = query(as_master, state)
    result = restore(write(tmp_path, SMALL), master_database)
    assert query(as_master, state) == before
    assert kinds(result) <= {"completeness"}, result.notes


def test_sessions_in_the_target_are_ended_when_the_restored_database_takes_its_place(
    tmp_path: Path, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as application:
        restore(write(tmp_path, SMALL), database)
        with pytest.raises(psycopg.OperationalError):
            application.execute("SELECT 1")
    assert query(database, "SELECT count(*) FROM app.t") == [2]


def test_time_limits_of_the_role_do_not_end_a_restore(tmp_path: Path, master_database: str, master16: str) -> None:
    as_master = make_conninfo(master_database, dbname="postgres")
    with psycopg.connect(as_master, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {master16} SET statement_timeout = '200ms'".encode())
        try:
            restore(write(tmp_path, SMALL + b"SELECT pg_catalog.pg_sleep(0.5);\n"), master_database)
        finally:
            connection.execute(f"ALTER ROLE {master16} RESET statement_timeout".encode())


@pytest.mark.parametrize("form", ["zstd", "empty", "garbage", "folder", "missing", "prose", "nothing"])
def test_what_is_no_plain_dump_is_refused_before_anything_is_created(tmp_path: Path, database: str, form: str) -> None:
    path = tmp_path / "dump"
    match form:
        case "zstd":
            path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(30))
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(random.Random(4).randbytes(100_000))  # noqa: S311  # garbage, the same each time
        case "folder":
            path.mkdir()
        case "prose":
            path.write_text("Dear operator, the dump is in the other folder; please look there.\n")
        case "nothing":
            path.write_text("-- nothing here\n\n")
    with pytest.raises(BadDumpError):
        restore(str(path), database)
    assert len(databases(database)) == 1


def test_a_dump_cut_off_anywhere_is_found_and_the_target_is_not_touched(
    chinook: Path, tmp_path: Path, database: str
) -> None:
    whole = chinook.read_bytes()
    chosen = random.Random(1).sample(range(len(whole)), 12)  # noqa: S311  # the same each time
    for number, length in enumerate([*range(12), *chosen, *range(len(whole) - 12, len(whole))]):
        with pytest.raises(BadDumpError):
            restore(write(tmp_path, whole[:length]), database, check_first=number % 4 != 0)
    assert databases(database) == [conninfo_to_dict(database)["dbname"]]
    assert query(database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [0]


def test_a_dump_with_a_member_missing_at_its_end_is_found(tmp_path: Path, database: str) -> None:
    text = pg_dump(database)
    members = [gzip.compress(text[:300]), gzip.compress(text[300:600]), gzip.compress(text[600:])]
    restore(write(tmp_path, b"".join(members)), database)
    with pytest.raises(BadDumpError, match="cut off"):
        restore(write(tmp_path, b"".join(members[:2])), database)


def test_what_a_master_role_may_not_restore_is_noted_as_lost_never_left_out_in_silence(
    make_database: Callable[..., str], master_database: str, tmp_path: Path
) -> None:
    source = make_database()
    with psycopg.connect(source, autocommit=True) as connection:
        for text in (
            "CREATE ROLE missing_later",
            "CREATE TABLE public.t (id int)",
            "GRANT SELECT ON public.t TO missing_later",
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "COMMENT ON PUBLICATION everything IS 'all of it'",
            "CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.e()",
        ):
            connection.execute(text.encode())
        dump = pg_dump(source).replace(b"\n\\unrestrict", b"\nCOMMENT ON EXTENSION plpgsql IS 'mine';\n\\unrestrict")
        connection.execute("DROP OWNED BY missing_later")
        connection.execute("DROP ROLE missing_later")
    result = restore(write(tmp_path, dump), master_database)
    lost = [note for note in result.notes if note.kind == "not restored"]
    assert {"everything", "watch"} <= {word for note in lost for word in note.object.split()}
    assert {"owner", "privileges", "comment"} <= kinds(result)
    assert query(master_database, "SELECT count(*) FROM public.t") == [0]


def test_settings_of_a_newer_pg_dump_are_noted_on_an_older_server(
    make_database18: Callable[..., str], database: str, tmp_path: Path
) -> None:
    source = make_database18()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS v")
    result = restore(write(tmp_path, pg_dump(source, major=18)), database)
    assert any(note.kind == "setting" and "transaction_timeout" in note.text for note in result.notes)
    assert query(database, "SELECT v FROM t") == [1]


def test_an_extension_the_server_lacks_fails_with_its_name_before_anything_is_created(
    tmp_path: Path, database: str
) -> None:
    source = write(tmp_path, b'CREATE EXTENSION IF NOT EXISTS "no-such-thing" WITH SCHEMA public;\n')
    with pytest.raises(EnvironmentLacksError, match="no-such-thing"):
        restore(source, database)
    assert len(databases(database)) == 1


@pytest.mark.parametrize(
    "options", [("--create",), ("--clean",), ("--clean", "--create", "--if-exists"), ("--inserts",)]
)
def test_dumps_of_every_style_are_restored(
    make_database: Callable[..., str], database: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = make_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        connection.execute("INSERT INTO t VALUES (1, 'a''b\\;'), (2, NULL)")
        connection.execute("SELECT pg_catalog.lo_from_bytea(4711, 'blob''; \\\\134x'::bytea)")
    restore(write(tmp_path, pg_dump(source, *options)), database)
    assert query(database, "SELECT id, v FROM t ORDER BY id") == [(1, "a'b\\;"), (2, None)]
    assert query(database, "SELECT lo_get(4711)") == query(source, "SELECT lo_get(4711)")


@pytest.mark.parametrize(
    "text", [b"\\! rm -rf /\n", b"\\connect other\n", b"\\i /etc/passwd\n", b"SELECT 1 \\g /tmp/x\n"]
)
def test_psql_commands_that_pg_dump_does_not_write_are_refused(tmp_path: Path, database: str, text: bytes) -> None:
    with pytest.raises(BadDumpError, match="psql command"):
        restore(write(tmp_path, b"SELECT 1;\n" + text + b"SELECT 2;\n"), database)


@pytest.mark.parametrize("text", [b"COPY t TO PROGRAM 'sh';\n", b"COPY t FROM '/etc/passwd';\n"])
def test_copy_from_and_to_the_servers_own_files_is_refused(tmp_path: Path, database: str, text: bytes) -> None:
    with pytest.raises(BadDumpError, match="COPY"):
        restore(write(tmp_path, text), database)


def test_a_dump_is_restored_from_standard_input(chinook: Path, database: str) -> None:
    restore("-", database, stdin=io.BytesIO(chinook.read_bytes()))
    assert query(database, "SELECT count(*) FROM album") == [347]


def test_a_dump_is_restored_from_a_bucket_of_another_region(
    chinook: Path, database: str, s3_west: Any, bucket_west: str
) -> None:
    s3_west.put_object(Bucket=bucket_west, Key="db/x.sql.gz", Body=chinook.read_bytes())
    restore(f"s3://{bucket_west}/db/x.sql.gz", database, region="us-west-2")
    assert query(database, "SELECT count(*) FROM album") == [347]
    with pytest.raises(BadDumpError, match="there is no dump"):
        restore(f"s3://{bucket_west}/db/y.sql.gz", database, region="us-west-2", replace=True)


def test_what_an_interrupted_restore_left_is_dropped_and_a_running_ones_is_not(tmp_path: Path, database: str) -> None:
    name = str(conninfo_to_dict(database)["dbname"])
    left = f"{name}_restoring_20260101000000_abcdef"
    mark = f'{{"made_by": "agentverse-dr", "role": "restoring", "target": "{name}"}}'
    foreign = f"{name}_restoring_20260101000000_abcdee"
    with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
        try:
            for other in (left, foreign):
                connection.execute(f"CREATE DATABASE {other}".encode())
            connection.execute(f"COMMENT ON DATABASE {left} IS '{mark}'".encode())
            connection.execute(f"COMMENT ON DATABASE {foreign} IS 'made by somebody else'".encode())
            connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [0x41564452, left])
            assert drop_interrupted(database) == []
            connection.execute("SELECT pg_advisory_unlock_all()")
            result = restore(write(tmp_path, SMALL), database)
            assert "left over" in kinds(result)
            assert databases(database) == [name, foreign]
        finally:
            for other in (left, foreign):
                connection.execute(f"DROP DATABASE IF EXISTS {other}".encode())


def test_two_restores_into_one_target_do_not_run_at_once(tmp_path: Path, database: str) -> None:
    name = conninfo_to_dict(database)["dbname"]
    with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [0x41564452, name])
        with pytest.raises(RefusedError, match="another restore"):
            restore(write(tmp_path, SMALL), database)


def test_an_unreachable_server_is_what_the_environment_lacks_and_no_password_is_shown(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError) as failed:
        restore(write(tmp_path, SMALL), f"host={tmp_path} user=x dbname=y password=hunter2")
    assert "hunter2" not in str(failed.value)
    assert os.fspath(tmp_path) in str(failed.value)
