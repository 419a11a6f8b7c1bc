"""Databases that are not encoded in UTF-8: their names are read as what they are, or refused in words."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps.catalogue import list_local_backups
from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.reread import reread_backup
from recovery.dumps.writer import take_backup
from recovery.errors import BadDumpError, RecoveryError
from recovery.restore import restore
from recovery.verify import Outcome, verify

pytestmark = pytest.mark.slow  # backups and restores of real servers

NAMES = """
CREATE SCHEMA "Büro";
CREATE TABLE "Büro"."größe" (id serial PRIMARY KEY, "maß" text, n numeric);
INSERT INTO "Büro"."größe" ("maß", n) SELECT 'Straße ' || g, g FROM generate_series(1, 20) g;
CREATE SEQUENCE "Büro"."zähler" START 7;
SELECT nextval('"Büro"."zähler"');
CREATE INDEX "größe_über" ON "Büro"."größe" ("maß");
CREATE VIEW "Übersicht" AS SELECT "maß" FROM "Büro"."größe";
"""


def fill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as connection:
        connection.execute(NAMES.encode())


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "LATIN9", "LATIN5", "EUC_JIS_2004"])
def test_a_database_of_another_encoding_is_backed_up_restored_and_proven(
    make_database: Callable[..., str], programs: Any, tmp_path: Path, encoding: str
) -> None:
    source, target = (make_database(ENCODING=encoding, LOCALE="C", TEMPLATE="template0") for _ in range(2))
    fill(source)
    backup = take_backup(source, local_dir=tmp_path)
    manifest = backup.manifest
    assert manifest is not None
    assert backup.path is not None
    assert [(table.schema_name, table.name, table.rows) for table in manifest.tables] == [("Büro", "größe", 20)]
    assert [(s.schema_name, s.name, s.value) for s in manifest.sequences] == [
        ("Büro", "größe_id_seq", 20),
        ("Büro", "zähler", 7),
    ]
    assert manifest.layout is not None
    assert manifest.layout.copy_blocks[0].columns == ("id", "maß", "n")
    assert b"SET client_encoding = '" + encoding.encode() in gzip.decompress(backup.path.read_bytes())
    assert reread_backup(list_local_backups(tmp_path)[0]).problems == []
    restore(str(backup.path), target, manifest=manifest)
    programs.assert_same(target, source)
    assert [rung for rung in verify(target, manifest=manifest).rungs if rung.outcome == Outcome.FAIL] == []


@pytest.mark.parametrize(
    "statement",
    [
        b'CREATE TABLE "gr\xf6\xdfe" (a int)',
        b"CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ''\xf6 ''; END'",
    ],
)
def test_a_name_of_no_encoding_ends_the_backup_in_words(
    make_database: Callable[..., str], tmp_path: Path, statement: bytes
) -> None:
    source = make_database(ENCODING="SQL_ASCII", LOCALE="C", TEMPLATE="template0")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(statement)
    with pytest.raises(RecoveryError, match="name") as caught:
        take_backup(source, local_dir=tmp_path)
    assert "0xf6" in str(caught.value.detail)
    assert caught.value.hint
    assert [backup for backup in list_local_backups(tmp_path) if backup.sealed] == []


def test_a_database_without_an_encoding_whose_names_are_utf_8_is_backed_up(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source = make_database(ENCODING="SQL_ASCII", LOCALE="C", TEMPLATE="template0")
    fill(source)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute('INSERT INTO "Büro"."größe" (n, "maß") VALUES (1, E'.encode() + rb"'\xf6')")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert [(table.name, table.rows) for table in backup.manifest.tables] == [("größe", 21)]


def test_names_that_the_encoding_of_the_dump_does_not_have_are_refused() -> None:
    scanner = CopyScanner()
    with pytest.raises(BadDumpError, match="name"):
        scanner.feed(b"SET client_encoding = 'EUC_JP';\nCOPY public.gr\xff (a) FROM stdin;\n\\.\n\n")


@pytest.mark.parametrize("client_encoding", ["SJIS", "LATIN1"])
def test_the_client_encoding_of_whoever_takes_a_backup_makes_no_difference(
    database: str,
    make_database: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    client_encoding: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE größe (maß text); INSERT INTO größe VALUES ('é'), ('ü')")
    monkeypatch.setenv("PGCLIENTENCODING", client_encoding)
    backup = take_backup(database, local_dir=tmp_path)
    monkeypatch.delenv("PGCLIENTENCODING")
    target = make_database()
    restore(str(backup.path), target, manifest=backup.manifest)
    assert verify(target, manifest=backup.manifest).rung("content").outcome is Outcome.PASS


def test_a_dump_in_an_encoding_whose_characters_contain_backslashes_is_refused() -> None:
    scanner = CopyScanner()
    with pytest.raises(BadDumpError, match="SJIS"):
        scanner.feed(b"SET client_encoding = 'SJIS';\nSELECT 1;\n")
