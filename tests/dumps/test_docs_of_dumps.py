"""The pages about backups and restores claim what is so: their commands are run, their lists are those of the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pydantic
import pytest
import typer

from machine.programs import postgresql_client_folder
from recovery import cli
from recovery.dumps.catalogue import Backup
from recovery.dumps.manifest import Manifest
from recovery.dumps.writer import take_backup
from recovery.loading.expected import _EXPECTED
from recovery.loading.rules import RULES

DOCS = Path(__file__).parents[2] / "docs"
FORMAT = (DOCS / "backup-format.md").read_text(encoding="utf-8")
RESTORE = (DOCS / "restore.md").read_text(encoding="utf-8")


def block(page: str, name: str) -> str:
    """The indented block behind the comment that names it."""
    found = re.search(rf"<!-- test: {name} -->\n((?:    .*\n|\n)+)", page)
    assert found is not None, name
    return textwrap.dedent(found.group(1))


@pytest.fixture
def backup(database: str, tmp_path: Path) -> Backup:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.things (label text, id bigint PRIMARY KEY)")
        connection.execute("INSERT INTO things SELECT 'a,\"b\\ ' || i, i FROM generate_series(1, 5000) i")
        connection.execute("INSERT INTO things VALUES (NULL, 0), ('', -1)")
    return take_backup(database, local_dir=tmp_path)


def shell(script: str, backup: Backup, **variables: str) -> str:
    assert backup.path is not None
    done = subprocess.run(
        [shutil.which("bash") or "/bin/bash", "-c", "set -euo pipefail\n" + script],
        env={
            "PATH": f"{postgresql_client_folder(16)}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BACKUP": str(backup.path).removesuffix(".sql.gz"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plain_restore_and_both_checks_work_as_the_page_says(
    backup: Backup, make_database: Callable[..., str]
) -> None:
    target = make_database()
    shell(block(FORMAT, "plain restore"), backup, TARGET=target)
    assert shell(block(FORMAT, "check the dump"), backup).startswith(f"sealed {backup.backup_id} ")
    assert backup.manifest is not None
    (table,) = backup.manifest.tables
    said = shell(block(FORMAT, "check a table"), backup, TARGET=target)
    assert said.split() == [str(table.rows), table.checksum]


def test_the_check_of_the_page_finds_a_changed_manifest_and_a_changed_dump(backup: Backup) -> None:
    assert backup.path is not None
    manifest = Path(backup.manifest_address)
    sealed = manifest.read_bytes()
    manifest.write_bytes(sealed.replace(b'"rows":5002', b'"rows":5003'))
    with pytest.raises(AssertionError, match="the manifest was changed"):
        shell(block(FORMAT, "check the dump"), backup)
    manifest.write_bytes(sealed)
    content = bytearray(backup.path.read_bytes())
    content[9] ^= 1
    backup.path.write_bytes(content)
    with pytest.raises(AssertionError, match="another content"):
        shell(block(FORMAT, "check the dump"), backup)


def fields(schema: object) -> Iterator[str]:
    """Every property's name in a JSON schema, however deep."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for part in schema.values():
            yield from fields(part)


def test_every_field_of_the_manifest_is_explained() -> None:
    published = json.loads((DOCS / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))
    missing = {name for name in fields(published) if f"`{name}`" not in FORMAT}
    assert not missing
    assert issubclass(Manifest, pydantic.BaseModel)


def test_every_rule_about_what_may_fail_is_listed_with_its_words() -> None:
    assert [rule.text for rule in RULES if rule.text not in RESTORE] == []
    assert {rule.kind for rule in RULES if f"`{rule.kind}`" not in RESTORE} == set()
    assert [text for _, _, text in _EXPECTED if text not in RESTORE] == []


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_every_option_is_explained(command: str) -> None:
    group = typer.main.get_command(cli.app)
    options = {
        option
        for parameter in group.commands[command].params  # type: ignore[attr-defined]  # a group has commands
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }
    assert {option for option in options if f"`{option}" not in RESTORE} == set()
