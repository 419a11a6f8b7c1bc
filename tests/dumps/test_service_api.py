"""The runbook's Scenario A snippets run with only their import line changed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from recovery.service_api import BackupConfig, BackupService, BackupStatus

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


def run(snippet: str, dsn: str) -> str:
    script = re.sub(r"from app\.services\.backup", "from recovery.service_api", snippet)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"DATABASE_URL": dsn, "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_restore_snippet_of_scenario_a_brings_the_rows_back(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE nodes AS SELECT i AS id FROM generate_series(1, 100) i")
    service = BackupService(BackupConfig(database=database, local_dir=tmp_path))
    taken = asyncio.run(service.create_backup())
    assert taken.status is BackupStatus.COMPLETED, taken.error_message
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM nodes WHERE id > 7")
    snippet = RESTORE.replace("/var/backups/agentverse/db_full_YYYYMMDD_HHMMSS.sql.gz", str(taken.file_path))
    assert run(snippet, database) == "Restore status: completed\n"
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM nodes").fetchone() == (100,)


def test_the_listing_snippet_runs_where_there_is_no_backup_folder(database: str) -> None:
    if Path("/var/backups/agentverse").exists():
        pytest.skip("this machine has backups of its own in /var/backups/agentverse")
    assert run(LIST, database) == ""


def test_listed_backups_have_filename_size_and_time(database: str, tmp_path: Path) -> None:
    service = BackupService(BackupConfig(database=database, local_dir=tmp_path))
    taken = asyncio.run(service.create_backup())
    (listed,) = asyncio.run(service.list_backups())
    assert listed["filename"] == f"{taken.backup_id}.sql.gz"
    assert listed["size"] == taken.size_bytes
    assert listed["sealed"]
    assert listed["created_at"].tzinfo is not None


def test_failures_are_results_with_a_message(make_database: Callable[..., str], tmp_path: Path) -> None:
    service = BackupService(BackupConfig(database="host=127.0.0.1 port=1 dbname=x", local_dir=tmp_path))
    taken = asyncio.run(service.create_backup())
    assert taken.status is BackupStatus.FAILED
    assert "cannot be connected to" in str(taken.error_message)
    service = BackupService(BackupConfig(database=make_database(), local_dir=tmp_path))
    (tmp_path / "db_full_20260101_000000.sql.gz").write_bytes(b"\x1f\x8b\x08 no dump")
    lost = asyncio.run(
        service.restore_database(
            type(taken)(
                backup_id="x",
                status=BackupStatus.COMPLETED,
                started_at=taken.started_at,
                file_path=str(tmp_path / "db_full_20260101_000000.sql.gz"),
            )
        )
    )
    assert lost.status is BackupStatus.FAILED
    assert lost.error_message
