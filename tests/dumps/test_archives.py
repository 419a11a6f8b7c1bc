"""Custom, tar and directory format dumps: restored like plain ones, and refused as whole when anything is wrong."""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps import archive
from recovery.dumps.archive import archive_format
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError, RefusedError
from recovery.loading import forecast, loader
from recovery.progress import ProgressEvent
from recovery.restore import restore

pytestmark = pytest.mark.slow  # many restores into real servers

FORMATS = {"custom": "-Fc", "tar": "-Ft", "directory": "-Fd"}

ORIGINAL = """
CREATE SCHEMA app;
CREATE TABLE app.projects (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE app.nodes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project int, v text);
ALTER TABLE app.nodes ADD FOREIGN KEY (project) REFERENCES app.projects;
INSERT INTO app.projects SELECT i, 'p' || i FROM generate_series(1, 50) i;
INSERT INTO app.nodes (project, v) SELECT 1 + i % 50, repeat(md5(i::text), 3) FROM generate_series(1, 20000) i;
CREATE INDEX ON app.nodes (v);
SELECT lo_from_bytea(4711, decode(repeat('00ff5c27', 500), 'hex'));
CREATE PUBLICATION everything FOR ALL TABLES;
"""


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


def value(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return row[0] if row else None


def dump(dsn: str, form: str, path: Path, major: int = 16) -> Path:
    program = postgresql_client_folder(major) / "pg_dump"
    subprocess.run([program, FORMATS[form], "-f", path, "-d", dsn], check=True, capture_output=True)
    return path


def databases(dsn: str) -> int:
    name = conninfo_to_dict(dsn)["dbname"]
    return int(
        value(make_conninfo(dsn, dbname="postgres"), f"SELECT count(*) FROM pg_database WHERE datname ~ '^{name}'")
    )


@pytest.fixture
def source(make_database: Callable[..., str]) -> str:
    dsn = make_database()
    run(dsn, ORIGINAL)
    return dsn


def plain(dsn: str) -> bytes:
    program = postgresql_client_folder(16) / "pg_dump"
    options = ["--no-owner", "--no-publications", "--restrict-key=x", "-d", dsn]
    return subprocess.run([program, *options], check=True, capture_output=True).stdout


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_is_restored_by_a_master_role_and_what_that_may_not_restore_is_noted(
    form: str, source: str, master_database: str, tmp_path: Path
) -> None:
    path = dump(source, form, tmp_path / "archive")
    result = restore(str(path), master_database)
    assert (result.tables, result.rows) == (2, 20050)
    assert result.row_counts == {"app.nodes": 20000, "app.projects": 50}
    lost = [note for note in result.notes if note.kind == "not restored"]
    assert {note.object for note in lost} == {"PUBLICATION everything"}
    assert sorted(plain(master_database).splitlines()) == sorted(plain(source).splitlines())
    assert databases(master_database) == 1


@pytest.mark.parametrize("form", ["custom", "tar"])
def test_an_archive_comes_from_a_bucket_too(form: str, source: str, database: str, s3: Any, bucket: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        s3.upload_file(str(dump(source, form, Path(folder) / "archive")), bucket, "drills/x/archive")
    restore(f"s3://{bucket}/drills/x/archive", database, s3=s3)
    assert value(database, "SELECT count(*) FROM app.nodes") == 20000


@pytest.mark.parametrize("form", ["custom", "tar"])
def test_an_archive_comes_from_standard_input_too(form: str, source: str, database: str, tmp_path: Path) -> None:
    content = dump(source, form, tmp_path / "archive").read_bytes()
    restore("-", database, stdin=io.BytesIO(content))
    assert value(database, "SELECT count(*) FROM app.nodes") == 20000


def test_an_archive_too_large_for_a_temporary_file_is_refused(
    source: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "SPOOL_LIMIT_BYTES", 1000)
    content = dump(source, "custom", tmp_path / "archive").read_bytes()
    with pytest.raises(RefusedError, match="temporary file"):
        restore("-", database, stdin=io.BytesIO(content))
    restore(str(tmp_path / "archive"), database)


@pytest.mark.parametrize("check_first", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_archive_leaves_the_target_as_it_was(
    form: str, source: str, database: str, tmp_path: Path, *, check_first: bool
) -> None:
    path = dump(source, form, tmp_path / "archive")
    if form == "directory":
        largest = max(path.glob("*.dat.gz"), key=lambda file: file.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-2000])
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    run(database, "CREATE TABLE precious AS SELECT 1 AS v")
    with pytest.raises(BadDumpError):
        restore(str(path), database, replace=True, check_first=check_first)
    assert value(database, "SELECT v FROM precious") == 1
    assert databases(database) == 1


def test_a_missing_member_of_a_directory_is_found(source: str, database: str, tmp_path: Path) -> None:
    path = dump(source, "directory", tmp_path / "archive")
    next(path.glob("*.dat.gz")).unlink()
    with pytest.raises(BadDumpError, match="damaged"):
        restore(str(path), database)
    assert databases(database) == 1


def test_a_statement_of_an_archive_that_the_server_refuses_fails_the_restore(
    source: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    run(source, "CREATE FUNCTION app.one() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
    run(source, "ALTER TABLE app.projects ADD CHECK (app.one() = 1)")
    run(source, "CREATE OR REPLACE FUNCTION app.one() RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 2; END'")
    path, target = dump(source, "custom", tmp_path / "archive"), make_database()
    with pytest.raises(RecoveryError, match=r"app\.projects"):
        restore(str(path), target)
    assert databases(target) == 1
    assert value(target, "SELECT to_regclass('app.projects') IS NULL")


def test_an_archive_of_a_newer_pg_dump_is_read_by_one_as_new_and_restored_on_the_older_server(
    make_database18: Callable[..., str], database: str, tmp_path: Path
) -> None:
    newer = make_database18()
    run(newer, ORIGINAL)
    result = restore(str(dump(newer, "custom", tmp_path / "archive", 18)), database)
    assert result.pg_dump_version is not None
    assert result.pg_dump_version.startswith("18")
    assert value(database, "SELECT count(*) FROM app.nodes") == 20000


def test_without_a_pg_restore_that_is_new_enough_it_is_said_which_one_is_missing(
    make_database18: Callable[..., str], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = make_database18()
    path = dump(newer, "custom", tmp_path / "archive", 18)
    monkeypatch.setattr(archive, "NEWEST_PROGRAMS", 17)
    with pytest.raises(EnvironmentLacksError, match=r"newer|made by pg_dump 18"):
        restore(str(path), database)
    monkeypatch.setattr(archive, "NEWEST_PROGRAMS", 0)
    with pytest.raises(EnvironmentLacksError, match="no pg_restore"):
        restore(str(path), database)


def test_the_format_is_told_by_the_first_bytes_alone(source: str, tmp_path: Path) -> None:
    for form in ("custom", "tar"):
        assert archive_format(dump(source, form, tmp_path / form).read_bytes()[:512]) == form
    assert archive_format(b"--\n-- PostgreSQL database dump\n") is None
    assert archive_format(b"") is None
    assert archive_format(b"toc.dat\0" + bytes(504)) is None


def test_a_pg_restore_that_is_lost_in_an_archive_is_ended(
    source: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dump(source, "custom", tmp_path / "archive")
    silent = tmp_path / "bin" / "pg_restore"
    silent.parent.mkdir()
    real = postgresql_client_folder(16) / "pg_restore"
    silent.write_text(f'#!/bin/sh\ncase "$*" in *--list*) exec "{real}" "$@";; esac\nexec sleep 1000\n')
    silent.chmod(0o755)
    monkeypatch.setattr(archive, "_programs", lambda: {16: silent})
    monkeypatch.setattr(archive, "SILENCE_SECONDS", 1)
    with pytest.raises(BadDumpError, match="damaged"):
        restore(str(path), database)
    assert databases(database) == 1


def test_a_custom_archive_cut_anywhere_is_refused(source: str, tmp_path: Path) -> None:
    whole = dump(source, "custom", tmp_path / "archive").read_bytes()
    path = tmp_path / "cut"
    for part in range(1, 24):
        path.write_bytes(whole[: len(whole) * part // 24])
        with pytest.raises(BadDumpError), open_dump(str(path)) as opened:
            check(opened)


def test_the_progress_of_an_archive_counts_no_more_than_there_is_and_foretells_no_negative_time(
    source: str, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(loader, "_REPORT_SECONDS", 0.0)
    run(source, "CREATE TABLE app.even AS SELECT repeat('x', 1000) AS v FROM generate_series(1, 20000)")
    events: list[ProgressEvent] = []
    restore(str(dump(source, "custom", tmp_path / "dump.pgdump")), make_database(), progress=events.append)
    loading = [event for event in events if event.stage == "load"]
    assert loading[-1].done > 20_000_000
    assert {event.total for event in loading} == {None}
    assert not [event.text for event in loading if "-" in event.text or "rows loaded in" in event.text]
