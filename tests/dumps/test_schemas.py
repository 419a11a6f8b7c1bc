"""The published schemas are those of the models, and what the tool writes keeps to them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery import schemas
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import verify

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


def validate(name: str, document: Any) -> None:
    importlib.import_module("jsonschema").validate(
        document, json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize("name", schemas.MODELS)
def test_the_published_schema_is_current(name: str) -> None:
    published = (PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8")
    assert published == schemas.text(name), "run: python -m recovery.schemas docs/schemas"


def test_nothing_is_published_that_is_no_longer_printed() -> None:
    assert {file.name for file in PUBLISHED.iterdir()} == {f"{name}.schema.json" for name in schemas.MODELS}


def test_the_tool_writes_what_is_published(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "recovery.schemas", str(tmp_path / "new")], check=True, cwd=PUBLISHED.parents[1]
    )
    assert {f.name: f.read_bytes() for f in (tmp_path / "new").iterdir()} == {
        f.name: f.read_bytes() for f in PUBLISHED.iterdir()
    }


def test_a_manifest_a_restore_and_a_verification_keep_to_their_schemas(make_database: Any, tmp_path: Path) -> None:
    source, target = make_database(), make_database()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t)")
        connection.execute("INSERT INTO t VALUES (1, NULL), (2, 1)")
        connection.execute("CREATE SEQUENCE s")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.path is not None
    manifest = tmp_path / f"{backup.backup_id}.manifest.json"
    validate("manifest", json.loads(manifest.read_text(encoding="utf-8")))
    validate("restore", restore(str(backup.path), target, manifest=backup.manifest).model_dump(mode="json"))
    validate("verify", verify(target, manifest=backup.manifest).model_dump(mode="json"))
    validate("verify", verify("host=127.0.0.1 port=1 dbname=x").model_dump(mode="json"))
