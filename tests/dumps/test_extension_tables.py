"""The configuration tables of extensions: counted, restored and proven as pg_dump filters them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps import assembly
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify

pytestmark = pytest.mark.slow  # backups and restores of real servers

FILTER = "WHERE NOT built_in"
SCRIPT = """
CREATE TABLE settings (name text PRIMARY KEY, value text, built_in boolean NOT NULL DEFAULT true);
CREATE TABLE notes (line text);
CREATE TABLE internal (line text);
INSERT INTO settings VALUES ('built in', '1');
INSERT INTO internal VALUES ('comes with the extension');
SELECT pg_catalog.pg_extension_config_dump('settings', 'WHERE NOT built_in');
SELECT pg_catalog.pg_extension_config_dump('notes', '');
"""


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every table are read beside pg_dump, but for those of extensions."""
    monkeypatch.setattr(assembly, "LEAST_BYTES", 0)


@pytest.fixture
def extension(server18: Any) -> Iterator[str]:
    """The name of an extension that 18 finds in a folder of the test's own."""
    folder = server18.folder / "share" / "extension"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configured.control").write_text("default_version = '1.0'\nrelocatable = false\nschema = public\n")
    (folder / "configured--1.0.sql").write_text(SCRIPT)
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)
    with psycopg.connect(server18.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE postgres SET extension_control_path = '{folder.parent}:$system'".encode())
    yield "configured"
    with psycopg.connect(server18.dsn(), autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres RESET extension_control_path")


def test_what_an_extension_says_is_configuration_is_restored_and_proven(
    extension: str, make_database18: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database18(), make_database18()
    with psycopg.connect(source) as connection:
        connection.execute(f"CREATE EXTENSION {extension}".encode())
        connection.execute("INSERT INTO settings SELECT 's' || i, i, false FROM generate_series(1, 30) i")
        connection.execute("INSERT INTO notes SELECT 'note ' || i FROM generate_series(1, 5) i")
    backup = take_backup(source, local_dir=tmp_path)
    manifest = backup.manifest
    assert manifest is not None
    assert {table.name: (table.rows, table.filter) for table in manifest.tables} == {
        "settings": (30, FILTER),
        "notes": (5, ""),
    }
    restore(str(backup.path), target, manifest=manifest)
    with psycopg.connect(target) as connection:
        counts = "SELECT (SELECT count(*) FROM settings), (SELECT count(*) FROM notes), (SELECT count(*) FROM internal)"
        assert connection.execute(counts.encode()).fetchone() == (31, 5, 1)
    found = verify(target, manifest=manifest)
    assert [rung for rung in found.rungs if rung.outcome is Outcome.FAIL] == []
    assert (found.rung("rows").outcome, found.rung("content").outcome) == (Outcome.PASS, Outcome.PASS)
    with psycopg.connect(target) as connection:
        connection.execute("UPDATE settings SET value = 'another' WHERE name = 'built in'")
    assert verify(target, manifest=manifest).rung("content").outcome is Outcome.PASS  # it is no part of the dump
    with psycopg.connect(target) as connection:
        connection.execute("UPDATE settings SET value = 'another' WHERE name = 's7'")
    assert verify(target, manifest=manifest).rung("content").outcome is Outcome.FAIL


def test_a_table_that_was_made_configuration_later_is_counted_as_it_is_dumped(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        # Only what was created after the cluster stands in a dump.
        for statement in (
            "DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql",
            "CREATE TABLE settings (name text, built_in boolean); CREATE TABLE internal (line text)",
            "INSERT INTO settings SELECT 's' || i, i % 3 = 0 FROM generate_series(1, 30) i",
            "INSERT INTO internal VALUES ('not dumped')",
            "ALTER EXTENSION plpgsql ADD TABLE settings; ALTER EXTENSION plpgsql ADD TABLE internal",
            f"UPDATE pg_extension SET extconfig = '{{settings}}'::regclass[]::oid[], extcondition = ARRAY['{FILTER}']",
        ):
            connection.execute(statement.encode())
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.path is not None
    assert [(table.name, table.rows, table.filter) for table in backup.manifest.tables] == [("settings", 20, FILTER)]
    text = gzip.decompress(backup.path.read_bytes())
    assert (text.count(b"\tf\n"), b"not dumped" in text) == (20, False)
