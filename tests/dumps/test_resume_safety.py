"""What is resumed when the dump itself is lost, and what is not on the word of others; rows that sequences number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from botocore.exceptions import EndpointConnectionError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.errors import ConnectionLostError, EnvironmentLacksError, RecoveryError, RefusedError
from recovery.restore import drop_interrupted, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # real servers, and tens of megabytes

SMALL = b"CREATE TABLE public.small (id int, v text);\nCOPY public.small (id, v) FROM stdin;\n1\tone\n2\ttwo\n\\.\n"
WIDE_ROWS = 60_000
ADDRESS = "s3://dumps/dump.sql"


@pytest.fixture
def dump(s3: Any) -> str:
    """A dump in S3 of so many ranges that some are asked for after its first table is loaded."""
    rows = b"".join(b"%d\t%s\n" % (number, b"%032d" % number * 16) for number in range(WIDE_ROWS))
    text = (
        SMALL + b"CREATE TABLE public.wide (id int, v text);\nCOPY public.wide (id, v) FROM stdin;\n" + rows + b"\\.\n"
    )
    s3.create_bucket(Bucket="dumps")
    s3.put_object(Bucket="dumps", Key="dump.sql", Body=text)
    return ADDRESS


@pytest.fixture
def unreachable(s3: Any) -> Iterator[Any]:
    """The same S3, of which the last ranges do not answer."""
    asked: list[str] = []

    def refuse(request: Any, **_: Any) -> None:
        asked.append(request.url)
        if len(asked) > 6:
            raise EndpointConnectionError(endpoint_url=request.url)

    s3.meta.events.register("before-send.s3.GetObject", refuse)
    yield s3
    s3.meta.events.unregister("before-send.s3.GetObject", refuse)


@pytest.fixture
def other_role(server16: Any) -> Iterator[str]:
    """A role that owns nothing yet."""
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE other_owner")
        yield "other_owner"
        connection.execute("DROP ROLE other_owner")


def left_by(dsn: str) -> list[str]:
    return drop_interrupted(dsn, dry_run=True)


def leave(dsn: str, s3: Any) -> str:
    with pytest.raises(EnvironmentLacksError) as lost:
        restore(ADDRESS, dsn, s3=s3, check_first=False, jobs=2)
    assert "recovery restore --resume" in str(lost.value.hint)
    (name,) = left_by(dsn)
    return name


def counts(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT (SELECT count(*) FROM small), (SELECT count(DISTINCT id) FROM wide), (SELECT count(*) FROM wide)"
        )
        return connection.execute(query).fetchone()


def test_a_restore_whose_dump_is_out_of_reach_is_gone_on_with_when_it_is_back(
    database: str, dump: str, unreachable: Any, fake_aws: str
) -> None:
    del fake_aws
    name = leave(database, unreachable)
    result = restore(dump, database, region="us-east-1", resume=True, jobs=2)
    assert result.resumed_tables == 1
    assert result.resumed_rows == 2
    assert counts(database) == (2, WIDE_ROWS, WIDE_ROWS)
    assert left_by(database) == []
    assert name.startswith(str(conninfo_to_dict(database)["dbname"]))


def test_a_database_of_another_owner_is_not_gone_on_with_whatever_its_comment_says(
    database: str, dump: str, unreachable: Any, other_role: str
) -> None:
    genuine = leave(database, unreachable)
    forged = genuine[:-6] + "ffffff"
    with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as admin:
        row = admin.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [genuine]
        ).fetchone()
        assert row is not None
        names = {"forged": sql.Identifier(forged), "other": sql.Identifier(other_role), "mark": sql.Literal(row[0])}
        for text in ("CREATE DATABASE {forged} OWNER {other}", "COMMENT ON DATABASE {forged} IS {mark}"):
            admin.execute(sql.SQL(text).format(**names))
        try:
            result = restore(dump, database, region="us-east-1", resume=True, jobs=2)
            assert result.resumed_tables == 1
            with pytest.raises(RefusedError, match=f"{forged} belongs to {other_role}, while the target"):
                restore(dump, database, region="us-east-1", replace=True, resume=True, jobs=2)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {forged} WITH (FORCE)").format(**names))


def test_a_target_of_another_owner_is_not_given_what_was_loaded_for_the_old_one(
    database: str, dump: str, unreachable: Any, other_role: str
) -> None:
    genuine = leave(database, unreachable)
    target = str(conninfo_to_dict(database)["dbname"])
    with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as admin:
        alter = sql.SQL("ALTER DATABASE {} OWNER TO {}")
        admin.execute(alter.format(sql.Identifier(target), sql.Identifier(other_role)))
        with pytest.raises(RefusedError, match=f"{genuine} belongs to postgres, while the target belongs to"):
            restore(dump, database, region="us-east-1", resume=True, jobs=2)
        assert left_by(database) == [genuine]
        admin.execute(alter.format(sql.Identifier(target), sql.Identifier("postgres")))
    assert drop_interrupted(database) == [genuine]


@pytest.mark.parametrize("form", ["copy", "inserts"])
def test_rows_that_a_sequence_numbers_are_numbered_in_the_dumps_order(database: str, tmp_path: Path, form: str) -> None:
    values = [b"%032d" % number * 8 for number in range(40_000)]
    text = b"CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY, n bigserial, v text);\n"
    if form == "copy":
        text += b"COPY public.t (v) FROM stdin;\n" + b"".join(value + b"\n" for value in values) + b"\\.\n"
    else:
        text += b"".join(b"INSERT INTO public.t (v) VALUES ('%b');\n" % value for value in values)
    path = tmp_path / "dump.sql"
    path.write_bytes(text)
    restore(str(path), database, jobs=4)
    query = "SELECT count(*), max(n), bool_and(id = substr(v, 1, 32)::bigint + 1 AND n = id) FROM t"
    with psycopg.connect(database) as connection:
        assert connection.execute(query).fetchone() == (len(values), len(values), True)


def test_rows_that_the_role_the_dump_acts_as_may_not_load_are_named_by_their_line(
    database: str, tmp_path: Path, other_role: str
) -> None:
    text = "CREATE SCHEMA hidden;\nCREATE TABLE hidden.t (id serial, v int);\n"
    text += f"SET SESSION AUTHORIZATION '{other_role}';\nCOPY hidden.t (v) FROM stdin;\n1\n\\.\n"
    path = tmp_path / "dump.sql"
    path.write_text(text)
    with pytest.raises(RecoveryError, match=r"line 4 of the dump, rows of hidden\.t: permission denied"):
        restore(str(path), database, jobs=2)


def test_a_restore_cut_while_the_names_are_swapped_is_gone_on_with_whatever_limits_the_target_has(
    master_database: str, server16: Any, cutters: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(SMALL)
    target = str(conninfo_to_dict(master_database)["dbname"])
    as_master = make_conninfo(master_database, dbname="postgres")
    limits = ("CONNECTION LIMIT 0", "SET default_transaction_read_only = on")
    with psycopg.connect(as_master, autocommit=True) as admin:
        for limit in limits:
            admin.execute(f"ALTER DATABASE {target} {limit}".encode())
    renames: list[bytes] = []

    def at_the_second_rename(query: bytes) -> str | None:
        renames.extend([query] if b" RENAME TO " in query else [])
        return "before" if len(renames) == 2 else None

    with cutters(server16, at_the_second_rename) as cutter, pytest.raises(ConnectionLostError):
        restore(str(path), cutter.dsn(master_database), replace=True, jobs=2)
    result = restore(str(path), master_database, replace=True, resume=True, jobs=2)
    assert result.resumed_rows == 2
    state = "SELECT datconnlimit, setconfig FROM pg_database d JOIN pg_db_role_setting s ON setdatabase = d.oid"
    with psycopg.connect(as_master) as admin:
        row = admin.execute(f"{state} WHERE datname = '{target}'".encode()).fetchone()
    assert row == (0, ["default_transaction_read_only=on"])


def test_what_is_left_of_a_database_whose_drop_was_interrupted_is_dropped_and_the_restore_begins_anew(
    database: str, dump: str, unreachable: Any, server16: Any
) -> None:
    name = leave(database, unreachable)
    with psycopg.connect(server16.dsn(), autocommit=True) as admin:
        # What DROP DATABASE leaves when the server goes down in the middle of it.
        admin.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [name])
    result = restore(dump, database, region="us-east-1", resume=True, jobs=2)
    assert result.resumed_tables == 0
    assert counts(database) == (2, WIDE_ROWS, WIDE_ROWS)
    assert left_by(database) == []


def test_rows_that_were_rolled_back_take_no_room_in_what_is_resumed(
    database: str, server16: Any, cutters: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(SMALL + SMALL.replace(b"small", b"other"))

    def before_the_commit_of_other(query: bytes) -> str | None:
        return "before" if b'"tables": 2' in query else None

    with cutters(server16, before_the_commit_of_other) as cutter, pytest.raises(ConnectionLostError):
        restore(str(path), cutter.dsn(database), jobs=2)
    result = restore(str(path), database, resume=True, jobs=2)
    assert result.resumed_tables == 1
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT min(ctid)::text, count(*) FROM other").fetchone() == ("(0,1)", 2)
