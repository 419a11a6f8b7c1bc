"""Dumps made to harm: names, commands and paths that would do something else than restore, refused or harmless."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps.catalogue import find_backup, list_backups, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.writer import take_backup
from recovery.errors import BadDumpError, RecoveryError
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # many restores into real servers

NASTY = (
    '"; DROP TABLE precious; --',
    "'); DROP TABLE precious; --",
    "$(touch pwned)`touch pwned`",
    "../../etc/passwd",
    "%s%(x)s{0}",
)


def query(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return None if row is None else row[0]


def count_like(dsn: str) -> int:
    """How many databases belong to the DSN's one by name."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
    return sum(str(row[0]).startswith(name) for row in rows)


LINES = [
    r"\! touch pwned",
    r"\i /etc/passwd",
    r"\ir x.sql",
    r"\copy t from /etc/passwd",
    r"\o /tmp/out",
    r"\g /tmp/out",
    r"\gexec",
    r"\setenv PATH x",
    r"\set x `touch pwned`",
    r"\connect dbname=other",
    r"\c",
    r"\lo_import /etc/passwd",
    r"\unrestrict abc",
    r"\restrict a b",
    r"\if true",
    "\\",
    "COPY public.t FROM PROGRAM 'touch pwned';",
    "COPY public.t FROM '/etc/passwd';",
    "COPY public.t TO '/tmp/x';",
    "COPY public.t (a) TO PROGRAM 'sh';",
    "copy (select 1) to '/tmp/x';",
    "COPY public.t FROM stdin WITH (FORMAT csv);",
    "/* a */ COPY public.t FROM PROGRAM 'x';",
    "LOAD '/tmp/x.so';",
    "LISTEN x;",
    "EXPLAIN ANALYZE SELECT 1;",
    "PREPARE p AS SELECT 1;",
    "DISCARD ALL;",
]


@pytest.mark.parametrize("check_first", [True, False])
def test_what_no_dump_contains_is_refused_with_its_line_and_nothing_is_changed(
    tmp_path: Path, database: str, *, check_first: bool
) -> None:
    path = tmp_path / "dump.sql"
    # Loading costs a database each time: a few of the lines go that way, the check takes all of them.
    for line in LINES if check_first else LINES[::7]:
        path.write_text(f"CREATE TABLE public.t (a text);\n\n{line}\nSELECT 1;\n")
        with pytest.raises(BadDumpError, match="line 3 of the dump"):
            restore(str(path), database, check_first=check_first)
    assert count_like(database) == 1
    assert query(database, "SELECT to_regclass('public.t') IS NULL")
    assert not Path("pwned").exists()


def test_a_statement_behind_a_psql_command_in_restricted_mode_is_refused(tmp_path: Path, database: str) -> None:
    path = tmp_path / "dump.sql"
    path.write_text("\\restrict abc\nSELECT 1;\n\\connect other\n\\unrestrict abc\n")
    with pytest.raises(BadDumpError, match="line 3"):
        restore(str(path), database)


def test_names_meant_to_end_a_statement_are_names_and_nothing_else(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source = make_database()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE precious AS SELECT 1 AS id")
        for number, name in enumerate(NASTY):
            table, schema = sql.Identifier(name), sql.Identifier(f"{number}{name}")
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            connection.execute(
                sql.SQL("CREATE TABLE {0}.{1} ({1} int, v int, CONSTRAINT {2} PRIMARY KEY ({1}))").format(
                    schema, table, sql.Identifier(name + "1")
                )
            )
            connection.execute(sql.SQL("INSERT INTO {}.{} VALUES (1, 2), (2, 1)").format(schema, table))
            connection.execute(sql.SQL("CREATE INDEX ON {}.{} (v)").format(schema, table))
            connection.execute(
                sql.SQL("ALTER TABLE {0}.{1} ADD FOREIGN KEY (v) REFERENCES {0}.{1} ({1})").format(schema, table)
            )
    backup = take_backup(source, local_dir=tmp_path)
    result = restore(str(backup.path), ours := make_database(), manifest=backup.manifest)
    assert result.rows == 1 + 2 * len(NASTY)
    assert query(ours, "SELECT count(*) FROM precious") == 1
    assert query(ours, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated") == len(NASTY)
    assert query(ours, "SELECT count(*) FROM pg_statistic") > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NASTY, "UPPER", "né", 'a"b\\c', "x" * 63, "é" * 31])
def test_a_target_of_any_name_is_replaced_and_nothing_else(tmp_path: Path, database: str, name: str) -> None:
    postgres = make_conninfo(database, dbname="postgres")
    path = tmp_path / "dump.sql"
    path.write_text("CREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\n1\n\\.\n")
    target = make_conninfo(database, dbname=name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        before = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            restore(str(path), target)
            restore(str(path), target, replace=True)
            assert query(target, "SELECT a FROM t") == 1
            assert drop_interrupted(target) == []
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        assert connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x;y", "a'b", '"q"', "new\nline"])
def test_a_backup_of_a_database_of_any_name_by_a_role_of_any_name_is_whole(
    make_database: Callable[..., str], tmp_path: Path, name: str
) -> None:
    postgres = make_conninfo(make_database(), dbname="postgres")
    identifier = sql.Identifier(name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        newline = "\n" in name  # which PostgreSQL's own programs refuse in a database's name
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
        database = "plain_name" if newline else name
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), identifier))
        try:
            dsn = make_conninfo(postgres, dbname=database, user=name)
            with psycopg.connect(dsn) as owner:
                owner.execute("CREATE SCHEMA s")
                owner.execute("CREATE TABLE s.t AS SELECT 1 AS a")
            backup = take_backup(dsn, local_dir=tmp_path)
            assert backup.manifest is not None
            assert backup.manifest.database == database
            restore(str(backup.path), target := make_database(), manifest=backup.manifest)
            assert query(target, "SELECT a FROM s.t") == 1
            with psycopg.connect(target) as restored:
                restored.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
            connection.execute(sql.SQL("DROP ROLE {}").format(identifier))


def sealed(folder: Path, dsn: str) -> tuple[Manifest, Path]:
    backup = take_backup(dsn, local_dir=folder)
    assert backup.manifest is not None
    return backup.manifest, folder / f"{backup.backup_id}.manifest.json"


PATHS = ("../../etc/passwd", "/etc/passwd", "a/b", "..", "", ".hidden", "a\0b", "a\n", "a\nb", "-rf", "$(x)", "é")


def test_a_manifest_that_names_a_path_is_no_manifest(tmp_path: Path, database: str) -> None:
    manifest, path = sealed(tmp_path, database)
    for field, value in itertools.product(["filename", "backup_id", "globals"], PATHS):
        forged = json.loads(manifest.to_bytes())
        del forged["digest"]
        if field == "globals":
            forged["globals"]["filename"] = value
        else:
            forged[field] = value
        canonical = json.dumps(forged, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        path.write_bytes(json.dumps({**forged, "digest": hashlib.sha256(canonical).hexdigest()}).encode())
        with pytest.raises(BadDumpError, match="is not a manifest"):
            Manifest.from_bytes(path.read_bytes())
        assert [backup.sealed for backup in list_local_backups(tmp_path)] == [False]


def test_an_id_that_is_none_finds_nothing(tmp_path: Path, database: str) -> None:
    sealed(tmp_path, database)
    for wanted in (*PATHS, "db_full_20260101_000000/../x", "*", "latest; rm", "%2e%2e"):
        with pytest.raises(RecoveryError, match="there is no backup"):
            find_backup(list_local_backups(tmp_path), wanted)


def test_odd_keys_and_files_beside_the_backups_are_no_backups(
    s3: Any, bucket: str, tmp_path: Path, database: str
) -> None:
    backup = take_backup(database, s3=s3, bucket=bucket, local_dir=tmp_path)
    real = backup.filename
    odd = [f"db/../{real}", f"db/x/{real}", f"db/{real}/", f"db/ {real}", f"db/{real}%00", f"db/{real};rm -rf x", "db/",
           "db/db_full_20261399_999999.sql.gz",
           "db/db_full_2026\u0661231_000000.sql.gz", "db/$(x).sql.gz", "db/é.sql.gz"]  # fmt: skip
    for key in odd:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    (tmp_path / "db_full_20260101_000000.sql.gz").mkdir()
    (tmp_path / "db_full_20260102_000000.manifest.json").symlink_to("/etc/passwd")
    assert [(found.backup_id, found.sealed) for found in list_backups(s3, bucket)] == [(backup.backup_id, True)]
    assert [found.backup_id for found in list_local_backups(tmp_path) if found.sealed] == [backup.backup_id]


def test_text_for_the_terminal_in_a_dump_reaches_no_message_as_such(tmp_path: Path, database: str) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(
        b"-- Name: x\x1b]0;owned\x07\x1b[2J; Type: TABLE; Schema: public; Owner: \x9b31m\n\n"
        b'ALTER TABLE public."x\x1b[2J" OWNER TO "nobody\x1b[31m";\n'
    )
    with pytest.raises(RecoveryError) as failed:
        restore(str(path), database)
    text = f"{failed.value.message} {failed.value.detail} {failed.value.hint}"
    assert "\x1b" not in text
    assert "\x07" not in text


def test_our_backup_of_names_that_look_like_commands_is_restored_by_psql_too(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, theirs = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute('CREATE TABLE "\\! touch pwned" ("\\." text)')
        connection.execute('INSERT INTO "\\! touch pwned" VALUES (%s), (%s)', ["\n\\! touch pwned\n", "\\."])
        connection.execute("COMMENT ON TABLE \"\\! touch pwned\" IS E'\\n\\\\! touch pwned\\n'")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.path is not None
    program = postgresql_client_folder(16) / "psql"
    command = f'gunzip -c "$1" | "{program}" -qX -v ON_ERROR_STOP=1 -d "$2"'
    subprocess.run(
        ["/bin/sh", "-c", command, "sh", backup.path, theirs], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    assert query(theirs, 'SELECT count(*) FROM "\\! touch pwned"') == 2
    assert not (tmp_path / "pwned").exists()
