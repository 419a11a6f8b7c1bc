"""Backups as an operator has them: taken, listed, shown and reread, on a real embedded cloud, each also with --json."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

if TYPE_CHECKING:
    from conftest import Database, Operator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PRIMARY_REGION = "us-east-1"
BUCKET = "agentverse-backups"


def test_a_backup_without_an_address_changes_nothing(operator: Operator) -> None:
    before = operator.cloud.dumps(PRIMARY_REGION)
    refused = operator.json("backup", code=4)["error"]
    assert "AGENTVERSE_DATABASE_URL is not set" in refused["message"]
    assert refused["hint"]
    nonsense = operator.json("backup", code=2, AGENTVERSE_DATABASE_URL="hunter2-no-address")["error"]
    assert "AGENTVERSE_DATABASE_URL is not the address" in nonsense["message"]
    assert "hunter2" not in json.dumps(nonsense)
    away = operator("backup", AGENTVERSE_DATABASE_URL="postgresql://u:s3cret-word@127.0.0.1:9/x")
    assert away.returncode == 4
    assert "s3cret-word" not in away.stderr
    assert operator.cloud.dumps(PRIMARY_REGION) == before
    # The lock that keeps two backups apart is no backup.
    assert [path for path in operator.local_dir.glob("*") if path.name != ".backup.lock"] == []


def test_a_backup_is_a_sealed_pair_in_both_regions_and_here_with_latest_moved(
    operator: Operator, production: Database
) -> None:
    taken = operator.backup(production)
    there = operator.cloud.dumps(PRIMARY_REGION)
    here = {path.name: path.stat().st_size for path in operator.local_dir.iterdir()}
    for suffix in (".sql.gz", ".manifest.json"):
        assert there[f"db/{taken['id']}{suffix}"] == here[f"{taken['id']}{suffix}"]
    content = (operator.local_dir / f"{taken['id']}.sql.gz").read_bytes()
    assert (operator.local_dir / "latest.sql.gz").read_bytes() == content
    s3 = operator.cloud.client("s3", PRIMARY_REGION)
    latest = s3.get_object(Bucket=BUCKET, Key="db/latest.sql.gz")["Body"].read()
    assert hashlib.sha256(latest).digest() == hashlib.sha256(content).digest()
    for where in (("--region", "us-east-1"), ("--region", "us-west-2"), ("--here",)):
        listed = operator.json("backups", "list", *where)["backups"]
        assert listed[0]["id"] == taken["id"]
        assert listed[0]["sealed"]
        shown = operator.json("backups", "show", taken["id"], *where)
        assert shown["manifest"]["size"] == taken["size"]
        assert operator.json("backups", "verify", taken["id"], *where)["readable"]
    page = operator("backups", "list")
    assert page.returncode == 0
    # What is printed can be copied into the next command: nothing is cut, nothing is coloured.
    assert f"s3://agentverse-backups-dr/db/{taken['id']}.sql.gz\n" in page.stdout
    assert f"{operator.local_dir}/{taken['id']}.sql.gz\n" in page.stdout
    assert "\x1b" not in page.stdout + page.stderr


def test_a_backup_that_is_damaged_here_is_told_from_the_good_one(operator: Operator, production: Database) -> None:
    taken = operator.backup(production)
    path = operator.local_dir / f"{taken['id']}.sql.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert operator.json("backups", "verify", taken["id"], "--here", code=1)["error"]["message"]
    path.write_bytes(content[:-1])
    error = operator.json("backups", "verify", taken["id"], "--here", code=1)["error"]
    assert error["message"]
    assert not operator.json("backups", "list", "--here")["backups"][0]["sealed"]
    assert operator("backups", "verify", taken["id"]).returncode == 0


def test_what_is_asked_of_the_backups_and_is_not_there_is_named(operator: Operator) -> None:
    assert "'nonsense'" in operator.json("backups", "show", "nonsense", code=1)["error"]["message"]
    assert "eu-west-1" in operator.json("backups", "list", "--region", "eu-west-1", code=2)["error"]["message"]
    assert operator.json("backups", "list", "--here") == {"schema_version": 1, "backups": []}
    assert operator.json("backups", "show", "--here", code=1)["error"]["message"] == "there is no sealed backup"
    operator.settings.write_text(operator.settings.read_text() + '[drill]\nrecovery_image = ""\n')
    text = operator.settings.read_text().replace("[platform]\n", '[platform]\ndr_backups_bucket = "not-here"\n')
    operator.settings.write_text(text)
    assert "not-here" in json.dumps(operator.json("backups", "list", code=4)["error"])


def test_nobody_reads_the_password_in_the_process_list(operator: Operator, production: Database) -> None:
    dsn = psycopg.conninfo.make_conninfo(production.dsn, password=production.password)
    process = subprocess.Popen(
        [sys.executable, "-m", "recovery", "--local", "backup"],
        env=operator.environment(AGENTVERSE_DATABASE_URL=dsn),
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen: set[str] = set()
    while process.poll() is None:
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                seen.add(" ".join(child.cmdline()))
            except psutil.Error:
                continue
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert any("pg_dump" in line for line in seen)
    assert not [line for line in seen if production.password in line]
    assert production.password not in output + errors


def test_a_list_that_is_cut_off_by_its_reader_is_no_crash(operator: Operator) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "recovery", "--local", "backups", "list"],
        env=operator.environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
