"""A restore of one S3 object uses the manifest beside it and needs nothing but these two objects."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import psycopg
import pytest

from recovery import BackupConfig, BackupResult, BackupService, BackupStatus, cli
from recovery.commands import restoring
from recovery.dumps.catalogue import backup_at
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.dumps.catalogue import Backup

pytestmark = pytest.mark.slow  # real servers in most tests


class NoLister:
    """A client whose role may read objects and list nothing: S3 says of what is missing that it may not be read."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        assert name in {"head_object", "get_object"}, f"{name} is not permitted"

        def call(**arguments: Any) -> Any:
            try:
                return getattr(self._client, name)(**arguments)
            except botocore.exceptions.ClientError as error:
                response: Any = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
                raise botocore.exceptions.ClientError(response, name) from error

        return call


@pytest.fixture
def backup(make_database: Callable[..., str], s3: Any, bucket: str) -> Backup:
    source = make_database()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 100) i")
    return take_backup(source, s3=s3, bucket=bucket)


def restored(dsn: str, address: str, bucket: str) -> BackupResult:
    service = BackupService(BackupConfig(database=dsn, local_dir=None, bucket=bucket, region="us-east-1"))
    wanted = BackupResult(
        backup_id="x", status=BackupStatus.COMPLETED, started_at=dt.datetime.now(dt.UTC), file_path=address
    )
    return asyncio.run(service.restore_database(wanted))


def rows(dsn: str) -> int | None:
    with psycopg.connect(dsn) as connection:
        if connection.execute("SELECT to_regclass('public.t') IS NULL").fetchone() == (True,):
            return None
        found = connection.execute("SELECT count(*) FROM public.t").fetchone()
        return int(found[0]) if found else None


def test_the_service_refuses_an_object_that_is_not_the_one_of_its_manifest(
    backup: Backup, make_database: Callable[..., str], s3: Any, bucket: str
) -> None:
    target = make_database()
    done = restored(target, backup.address, bucket)
    assert (done.status, rows(target)) == (BackupStatus.COMPLETED, 100), done.error_message
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("DELETE FROM t WHERE id > 7")
    other = take_backup(target, s3=s3, bucket=bucket)
    s3.copy_object(Bucket=bucket, Key=backup.key, CopySource={"Bucket": bucket, "Key": other.key})
    for broken, said in (
        (None, "not the one its manifest describes"),
        (b"{}", "manifest.json cannot be used: its manifest has schema version None"),
    ):
        if broken is not None:
            s3.put_object(Bucket=bucket, Key=f"db/{backup.backup_id}.manifest.json", Body=broken)
        done = restored(target, backup.address, bucket)
        assert done.status is BackupStatus.FAILED
        assert said in str(done.error_message)
        assert rows(target) == 7
    # An object that nobody made a manifest for speaks for itself.
    s3.delete_object(Bucket=bucket, Key=f"db/{backup.backup_id}.manifest.json")
    assert restored(target, backup.address, bucket).status is BackupStatus.COMPLETED


def test_a_backup_is_found_by_a_role_that_may_not_list(backup: Backup, s3: Any, bucket: str) -> None:
    found = backup_at(NoLister(s3), bucket, str(backup.key))
    assert found is not None
    assert (found.sealed, found.manifest) == (True, backup.manifest)
    s3.delete_object(Bucket=bucket, Key=f"db/{backup.backup_id}.manifest.json")
    found = backup_at(NoLister(s3), bucket, str(backup.key))
    assert found is not None
    assert (found.sealed, found.problem, found.size) == (False, "it has no manifest", backup.size)
    assert backup_at(NoLister(s3), bucket, "db/other.sql.gz") is None
    with pytest.raises(EnvironmentLacksError):
        backup_at(Unreachable(), bucket, str(backup.key))


class Unreachable:
    """A client of an S3 that does not answer."""

    def head_object(self, **arguments: Any) -> Any:
        raise botocore.exceptions.EndpointConnectionError(endpoint_url=str(arguments))


def test_the_command_restores_an_object_of_any_region_and_lists_nothing(
    backup: Backup, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def list_nothing(*_: Any) -> Any:
        raise AssertionError

    settings = tmp_path / "recovery.toml"
    settings.write_text('[platform]\naccount = "123456789012"\n')
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(settings))
    monkeypatch.setattr(restoring, "list_backups", list_nothing)
    target = make_database()
    arguments = ["restore", backup.address, "--to", target, "--region", "eu-central-1", "--strict", "all"]
    assert cli._run(arguments) == 0, capsys.readouterr()
    assert rows(target) == 100
