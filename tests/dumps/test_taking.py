"""What `recovery backup` and BackupService take, and what they say of it, by recovery.toml and into real buckets."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import psycopg
import pytest

from recovery import BackupConfig, BackupService, BackupStatus, cli
from recovery.clients import Clients
from recovery.dumps import pg_dump
from recovery.dumps.catalogue import list_backups, list_local_backups, newest_sealed
from recovery.dumps.manifest import Manifest
from recovery.dumps.reread import reread_backup
from recovery.dumps.writer import Options, take_backup
from recovery.errors import RecoveryError, UsageError
from recovery.procedures.points import remove_given

pytestmark = pytest.mark.slow  # backups of a real server

DRILL = "20260109-020000-1a2b"


@pytest.fixture
def locked(s3: Any, bucket: str) -> str:
    """A bucket in us-east-1 that takes object lock."""
    name = f"locked-{bucket}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def run(  # noqa: PLR0917  # fixtures
    database: str, tmp_path: Path, locked: str, bucket_west: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:  # fmt: skip
    """run(*arguments) -> (exit code, stdout, stderr), with a recovery.toml and a database."""
    settings = tmp_path / "recovery.toml"
    settings.write_text(
        '[platform]\naccount = "123456789012"\n'
        f'backups_bucket = "{locked}"\ndr_backups_bucket = "{bucket_west}"\n'
        f'[objectives]\nretention_days = 7\n[database]\nlocal_dir = "{tmp_path / "backups"}"\n'
    )
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(settings))
    monkeypatch.setenv("AGENTVERSE_DATABASE_URL", database)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def keys(s3: Any, bucket: str) -> set[str]:
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


def days_locked(s3: Any, bucket: str, key: str) -> float:
    until = s3.head_object(Bucket=bucket, Key=key)["ObjectLockRetainUntilDate"]
    return (until - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1)


def test_a_backup_is_locked_for_as_long_as_recovery_toml_keeps_backups(
    run: Callable[..., Any], s3: Any, locked: str
) -> None:
    code, out, _ = run("--json", "backup", "--no-local-copy")
    assert code == 0
    document = json.loads(out)
    assert document["notes"] == []
    schema = json.loads((Path(__file__).parents[2] / "docs/schemas/backup.schema.json").read_text())
    importlib.import_module("jsonschema").validate(document, schema)
    taken = asyncio.run(BackupService(BackupConfig(local_dir=None)).create_backup())
    assert taken.status is BackupStatus.COMPLETED, taken.error_message
    found = list_backups(s3, locked)
    assert len(found) == 2
    for backup in found:
        assert 6.9 < days_locked(s3, locked, str(backup.key)) < 7.1
        assert 6.9 < days_locked(s3, locked, f"db/{backup.backup_id}.manifest.json") < 7.1


class Silent:
    """A client of S3 whose role may not ask for a bucket's object lock."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def get_object_lock_configuration(self, **_: Any) -> Any:
        raise botocore.exceptions.ClientError(
            {"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "GetObjectLockConfiguration"
        )


def test_a_backup_that_could_not_be_locked_says_so_in_its_manifest(database: str, s3: Any, locked: str) -> None:
    backup = take_backup(database, s3=Silent(s3), bucket=locked)
    assert backup.manifest is not None
    assert [note for note in backup.manifest.notes if "s3:GetBucketObjectLockConfiguration" in note]
    assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key=backup.key)


def test_what_fails_after_sealing_is_said_and_the_backup_is_one(
    database: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    # Nothing can take the place of a folder that is not empty.
    (folder / "latest.sql.gz" / "x").mkdir(parents=True)
    code, out, err = run("backup")
    assert code == 0
    assert "sealed" in out
    assert "sealed; latest.sql.gz could not be moved" in err
    assert newest_sealed(list_local_backups(folder)).sealed
    assert not list(folder.glob(".*.partial"))
    config = BackupConfig(database=database, local_dir=folder, bucket=None)
    taken = asyncio.run(BackupService(config).create_backup())
    assert (taken.status, taken.error_message) == (BackupStatus.COMPLETED, None)
    assert "could not be moved" in taken.notes[-1]
    assert newest_sealed(list_local_backups(folder)).backup_id == taken.backup_id


def test_a_rehearsal_is_a_whole_backup_in_its_own_place_and_goes_with_its_drill(  # noqa: PLR0917  # fixtures
    run: Callable[..., Any], s3: Any, s3_west: Any, locked: str, bucket_west: str, tmp_path: Path
) -> None:
    assert run("backup", "--rehearsal", "../db")[0] == 2
    code, out, _ = run("--json", "backup", "--rehearsal", DRILL)
    assert code == 0
    (backup,) = list_backups(s3_west, bucket_west, f"drills/{DRILL}/")
    assert backup.sealed
    assert backup.address == json.loads(out)["backup"]["address"]
    assert keys(s3_west, bucket_west) == {
        f"drills/{DRILL}/{backup.backup_id}{suffix}" for suffix in (".sql.gz", ".manifest.json", ".globals.sql")
    }
    assert keys(s3, locked) == set()
    assert not (tmp_path / "backups").exists()
    assert run("restore", backup.address, "--to", "dbname=x host=/nowhere", "--dry-run")[0] == 4
    remove_given(Clients("us-west-2"), bucket_west, DRILL)
    assert s3_west.list_object_versions(Bucket=bucket_west).get("Versions", []) == []


def test_a_rehearsal_is_never_locked_nor_latest_wherever_it_goes(
    database: str, s3: Any, locked: str, tmp_path: Path
) -> None:
    options = Options(rehearsal="exercise")
    backup = take_backup(database, s3=s3, bucket=locked, local_dir=tmp_path, options=options)
    assert backup.path == tmp_path / "drills" / "exercise" / backup.filename
    assert list_local_backups(tmp_path) == []
    assert list_local_backups(backup.path.parent)[0].sealed
    assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key=backup.key)
    assert not list(tmp_path.rglob("latest.sql.gz"))
    with pytest.raises(UsageError, match="not a rehearsal's id"):
        take_backup(database, local_dir=tmp_path, options=Options(rehearsal="a/b"))


def test_password_hashes_go_along_only_when_they_are_asked_for(
    database: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS keyholder")
        connection.execute("CREATE ROLE keyholder PASSWORD 'hunter2'")
    try:
        assert run("backup")[0] == 0
        assert run("backup", "--password-hashes")[0] == 0
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("DROP ROLE keyholder")
    folder = tmp_path / "backups"
    for backup, hashes in zip(list_local_backups(folder), (True, False), strict=True):
        assert backup.manifest is not None
        assert backup.manifest.globals is not None
        assert backup.manifest.globals.password_hashes == hashes
        text = (folder / backup.manifest.globals.filename).read_text()
        assert "CREATE ROLE keyholder" in text
        assert ("SCRAM-SHA-256$" in text) == hashes


def test_verifying_a_backup_reads_its_globals_too(
    run: Callable[..., Any], s3: Any, locked: str, tmp_path: Path
) -> None:
    assert run("backup")[0] == 0
    (backup,) = list_local_backups(tmp_path / "backups")
    (stored,) = list_backups(s3, locked)
    good = reread_backup(stored, s3=s3)
    assert (good.problems, good.globals_compared) == ([], True)
    assert run("backups", "verify", "--here")[0] == 0
    beside = tmp_path / "backups" / f"{backup.backup_id}.globals.sql"
    beside.write_bytes(beside.read_bytes().replace(b"LOGIN", b"logiN", 1))
    code, _, err = run("backups", "verify", "--here")
    assert code == 1
    assert "its globals have" in err
    beside.unlink()
    key = f"db/{backup.backup_id}.globals.sql"
    s3.delete_object(Bucket=locked, Key=key)
    for found in (reread_backup(backup), reread_backup(stored, s3=s3)):
        assert found.problems == [f"its globals, {beside.name}, are missing"]


def test_globals_that_cannot_be_read_in_time_keep_no_backup_waiting(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_dump, "_GLOBALS_SECONDS", 2.0)
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE pg_catalog.pg_parameter_acl IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(RecoveryError, match="pg_dumpall failed") as caught:
            pg_dump.globals_of(database, 16, password_hashes=False)
    assert caught.value.detail == "it did not end within 2 s"


def test_the_manifest_knows_the_roles_their_memberships_and_their_settings(
    database: str, make_database15: Callable[..., str], tmp_path: Path
) -> None:
    database15 = make_database15()
    for dsn, options in ((database, "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"), (database15, "WITH ADMIN OPTION")):
        modern = dsn == database
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "CREATE ROLE writers; CREATE ROLE auditors NOINHERIT LOGIN CONNECTION LIMIT 3 PASSWORD 'x'"
            )
            connection.execute(f"GRANT writers TO auditors {options}; GRANT pg_monitor TO auditors".encode())
            connection.execute("ALTER ROLE auditors SET work_mem = '8MB'; ALTER ROLE auditors SET search_path = a, b")
        try:
            manifest = take_backup(dsn, local_dir=tmp_path / str(modern)).manifest
        finally:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("DROP ROLE auditors, writers")
        assert manifest is not None
        roles = {role.name: role for role in manifest.roles or ()}
        assert roles["auditors"].attributes == ("LOGIN", "NOINHERIT", "CONNECTION LIMIT 3")
        assert roles["auditors"].member_of == ("pg_monitor", "writers")
        assert roles["auditors"].settings == ("search_path=a, b", "work_mem=8MB")
        assert [(m.role, m.admin, m.inherit, m.set_role) for m in roles["auditors"].memberships or ()] == [
            ("pg_monitor", False, False if modern else None, True if modern else None),
            ("writers", True, False if modern else None, False if modern else None),
        ]
        assert (roles["writers"].memberships, roles["writers"].settings) == ((), ())
        assert "SUPERUSER" in roles["postgres"].attributes
        assert not any(name.startswith("pg_") for name in roles)


def test_a_manifest_of_before_memberships_is_read_as_it_was_sealed(database: str, tmp_path: Path) -> None:
    manifest = take_backup(database, local_dir=tmp_path).manifest
    assert manifest is not None
    content = manifest.content()
    for role in content["roles"]:
        del role["memberships"], role["settings"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    old = json.dumps({**content, "digest": hashlib.sha256(canonical).hexdigest()}).encode()
    read = Manifest.from_bytes(old)
    assert read.verify_digest()
    assert [role.memberships for role in read.roles or ()] == [None] * len(content["roles"])
