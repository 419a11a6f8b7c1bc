"""The runbook's Scenario A snippets run with only their import line changed."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery import BackupConfig, BackupResult, BackupService, BackupStatus, space
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError

pytestmark = pytest.mark.slow  # many restores into real servers

# Steps 2 and 3 of the runbook's Scenario A, as they stand there.
LIST = """
from app.services.backup import BackupService, BackupConfig
import asyncio

config = BackupConfig()
service = BackupService(config)
backups = asyncio.run(service.list_backups())
for b in backups:
    print(f"{b['filename']} - {b['size']} bytes - {b['created_at']}")
"""

RESTORE = """
from app.services.backup import BackupService, BackupConfig, BackupResult, BackupType, BackupStatus
from datetime import datetime, timezone
import asyncio

config = BackupConfig()
service = BackupService(config)

# Create a BackupResult object for the selected backup
backup = BackupResult(
    backup_id='selected_backup',
    backup_type=BackupType.FULL,
    status=BackupStatus.COMPLETED,
    started_at=datetime.now(timezone.utc),
    file_path='/var/backups/agentverse/db_full_YYYYMMDD_HHMMSS.sql.gz'
)

# Restore
result = asyncio.run(service.restore_database(backup))
print(f'Restore status: {result.status}')
"""


@pytest.fixture
def run(tmp_path: Path, aws_endpoint: str) -> Callable[..., str]:
    """Run a snippet with nothing changed but its import line, on a machine with a recovery.toml of its own."""
    settings = tmp_path / "recovery.toml"
    folder = tmp_path / "backups"
    settings.write_text(
        f'[database]\ndsn_env = "PRODUCTION"\nlocal_dir = "{folder}"\n[platform]\n'
        'dr_backups_bucket = "snippet-backups-dr"\n'
    )

    def run_snippet(snippet: str, dsn: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", snippet.replace("from app.services.backup import", "from recovery import")],
            env={
                "PRODUCTION": dsn,
                "AGENTVERSE_CONFIG": str(settings),
                "AWS_ENDPOINT_URL": aws_endpoint,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_EC2_METADATA_DISABLED": "true",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "PATH": "/usr/bin:/bin",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_snippet


def test_the_restore_snippet_of_scenario_a_brings_the_rows_back(
    database: str, tmp_path: Path, run: Callable[..., str]
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE nodes AS SELECT i AS id FROM generate_series(1, 100) i")
    service = BackupService(BackupConfig(database=database, local_dir=tmp_path, bucket=None))
    taken = asyncio.run(service.create_backup())
    assert taken.status is BackupStatus.COMPLETED, taken.error_message
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM nodes WHERE id > 7")
    snippet = RESTORE.replace("/var/backups/agentverse/db_full_YYYYMMDD_HHMMSS.sql.gz", str(taken.file_path))
    assert run(snippet, database) == "Restore status: completed\n"
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM nodes").fetchone() == (100,)


def test_the_listing_snippet_shows_what_is_in_the_folder_and_in_the_bucket_of_the_settings(
    database: str, tmp_path: Path, s3_west: Any, run: Callable[..., str]
) -> None:
    # Nothing anywhere, and no bucket either: an empty list.
    assert run(LIST, database) == ""
    bucket = "snippet-backups-dr"
    s3_west.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    both = take_backup(database, s3=s3_west, bucket=bucket, local_dir=tmp_path / "backups")
    remote = take_backup(database, s3=s3_west, bucket=bucket)
    lines = run(LIST, database).splitlines()
    assert [line.split(" - ")[0] for line in lines] == [remote.filename, both.filename]
    assert lines[0] == f"{remote.filename} - {remote.size} bytes - {remote.created_at}"
    # Explicit values win over the settings.
    assert run(LIST.replace("BackupConfig()", "BackupConfig(bucket=None, local_dir=None)"), database) == ""
    # Without any way to the bucket the folder is still listed.
    alone = run(LIST, database, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert alone == f"{both.filename} - {both.size} bytes - {both.created_at}\n"


@pytest.mark.usefixtures("fake_aws")
def test_a_bucket_that_was_named_and_does_not_answer_is_an_error(tmp_path: Path) -> None:
    service = BackupService(BackupConfig(local_dir=tmp_path, bucket="no-such-bucket-here", region="us-west-2"))
    with pytest.raises(EnvironmentLacksError, match="no-such-bucket-here"):
        asyncio.run(service.list_backups())


def test_importing_the_package_loads_none_of_what_the_classes_need() -> None:
    script = "import sys, recovery; assert 'psycopg' not in sys.modules and 'boto3' not in sys.modules; recovery.NoSuch"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert "AttributeError: module 'recovery' has no attribute 'NoSuch'" in done.stderr


def test_listed_backups_have_filename_size_and_time(database: str, tmp_path: Path) -> None:
    service = BackupService(BackupConfig(database=database, local_dir=tmp_path, bucket=None))
    taken = asyncio.run(service.create_backup())
    (listed,) = asyncio.run(service.list_backups())
    assert listed["filename"] == f"{taken.backup_id}.sql.gz"
    assert listed["size"] == taken.size_bytes
    assert listed["sealed"]
    assert listed["created_at"].tzinfo is not None


def test_failures_are_results_with_a_message(make_database: Callable[..., str], tmp_path: Path) -> None:
    service = BackupService(BackupConfig(database="host=127.0.0.1 port=1 dbname=x", local_dir=tmp_path, bucket=None))
    taken = asyncio.run(service.create_backup())
    assert taken.status is BackupStatus.FAILED
    assert "cannot be connected to" in str(taken.error_message)
    service = BackupService(BackupConfig(database=make_database(), local_dir=tmp_path, bucket=None))
    (tmp_path / "db_full_20260101_000000.sql.gz").write_bytes(b"\x1f\x8b\x08 no dump")
    lost = asyncio.run(
        service.restore_database(
            BackupResult(
                backup_id="x",
                status=BackupStatus.COMPLETED,
                started_at=taken.started_at,
                file_path=str(tmp_path / "db_full_20260101_000000.sql.gz"),
            )
        )
    )
    assert lost.status is BackupStatus.FAILED
    assert lost.error_message


def test_the_service_refuses_a_restore_that_is_too_large_for_the_disk_unless_told_otherwise(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE nodes AS SELECT i AS id FROM generate_series(1, 100) i")
    config = BackupConfig(database=database, local_dir=tmp_path, bucket=None)
    taken = asyncio.run(BackupService(config).create_backup())
    monkeypatch.setattr(space, "DATABASE_PER_TEXT", 1e12)
    refused = asyncio.run(BackupService(config).restore_database(taken))
    assert refused.status is BackupStatus.FAILED
    assert "disk is likely too small" in str(refused.error_message)
    assert "ignore_space" in str(refused.error_message)
    config = dataclasses.replace(config, ignore_space=True)
    assert asyncio.run(BackupService(config).restore_database(taken)).status is BackupStatus.COMPLETED
