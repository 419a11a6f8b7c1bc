"""The runbook's own snippets, kept working: BackupService, BackupConfig, BackupResult, BackupType, BackupStatus.

Scenario A of the runbook runs with nothing changed but its import line.  Everything here calls what the command line
calls; work that blocks runs in a thread, so that the coroutines can be awaited beside others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from recovery.dumps import names
from recovery.dumps.catalogue import Backup, list_backups, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.writer import DEFAULT_FOLDER, take_backup
from recovery.errors import EnvironmentLacksError, RecoveryError, UsageError
from recovery.restore import restore

if TYPE_CHECKING:
    from recovery.restore import RestoreResult


class BackupType(enum.StrEnum):
    """The kinds of backup the runbook knows; only a full one is a dump."""

    FULL = "full"


class BackupStatus(enum.StrEnum):
    """How far a backup or a restore is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupConfig:
    """Where the database and its backups are.

    `database` is a connection string; empty means DATABASE_URL, else libpq's own PG* variables.  `bucket` is used
    where it is given, beside the folder.
    """

    database: str = ""
    local_dir: Path | None = DEFAULT_FOLDER
    bucket: str | None = None
    prefix: str = names.DEFAULT_PREFIX
    region: str | None = None
    kms_key_id: str | None = None
    replace: bool = True

    def dsn(self) -> str:
        """The connection string in effect."""
        return self.database or os.environ.get("DATABASE_URL", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupResult:
    """A backup, or what became of taking or restoring one."""

    backup_id: str
    backup_type: BackupType = BackupType.FULL
    status: BackupStatus
    started_at: dt.datetime
    file_path: str | None = None
    completed_at: dt.datetime | None = None
    size_bytes: int | None = None
    error_message: str | None = None
    restored: RestoreResult | None = None


class BackupService:
    """Takes, lists and restores backups of one database."""

    def __init__(self, config: BackupConfig | None = None) -> None:
        self.config = config or BackupConfig()

    async def create_backup(self, backup_type: BackupType = BackupType.FULL) -> BackupResult:
        """Take a backup now; a failure is a result with status FAILED and its message."""
        started = dt.datetime.now(dt.UTC)
        try:
            backup = await asyncio.to_thread(self._take)
        except RecoveryError as error:
            return BackupResult(
                backup_id=f"failed-{uuid.uuid4().hex[:8]}",
                backup_type=backup_type,
                status=BackupStatus.FAILED,
                started_at=started,
                completed_at=dt.datetime.now(dt.UTC),
                error_message=str(error),
            )
        return BackupResult(
            backup_id=backup.backup_id,
            backup_type=backup_type,
            status=BackupStatus.COMPLETED,
            started_at=started,
            completed_at=dt.datetime.now(dt.UTC),
            file_path=str(backup.path) if backup.path is not None else backup.address,
            size_bytes=backup.size,
        )

    async def list_backups(self) -> list[dict[str, Any]]:
        """Return every backup, newest first, as dicts with filename, size (bytes) and created_at among others."""
        return await asyncio.to_thread(self._list)

    async def restore_database(self, backup: BackupResult) -> BackupResult:
        """Restore a backup's file into the configured database; a failure is a result with status FAILED.

        The database is replaced, as the runbook's snippet expects, unless the configuration says otherwise; on failure
        it is left as `recovery restore` leaves it.
        """
        started = dt.datetime.now(dt.UTC)
        try:
            restored = await asyncio.to_thread(self._restore, backup)
        except RecoveryError as error:
            return dataclasses.replace(
                backup,
                status=BackupStatus.FAILED,
                started_at=started,
                completed_at=dt.datetime.now(dt.UTC),
                error_message=str(error),
            )
        return dataclasses.replace(
            backup,
            status=BackupStatus.COMPLETED,
            started_at=started,
            completed_at=dt.datetime.now(dt.UTC),
            restored=restored,
        )

    def _take(self) -> Backup:
        config = self.config
        return take_backup(
            config.dsn(),
            s3=self._s3(),
            bucket=config.bucket,
            prefix=config.prefix,
            local_dir=config.local_dir,
            kms_key_id=config.kms_key_id,
        )

    def _list(self) -> list[dict[str, Any]]:
        config = self.config
        found = list_local_backups(config.local_dir) if config.local_dir is not None else []
        if config.bucket is not None:
            here = {backup.backup_id for backup in found}
            remote = list_backups(self._s3(), config.bucket, config.prefix)
            found += [backup for backup in remote if backup.backup_id not in here]
        found.sort(key=lambda backup: (backup.created_at, backup.backup_id), reverse=True)
        return [
            {
                "backup_id": backup.backup_id,
                "filename": backup.filename,
                "size": backup.size,
                "created_at": backup.created_at,
                "sealed": backup.sealed,
                "problem": backup.problem,
                "address": backup.address,
            }
            for backup in found
        ]

    def _restore(self, backup: BackupResult) -> RestoreResult:
        if not backup.file_path:
            raise UsageError("the backup to restore names no file", hint="give file_path a path or an s3:// address")
        return restore(
            backup.file_path,
            self.config.dsn(),
            manifest=self._manifest_beside(backup.file_path),
            replace=self.config.replace,
            s3=self._s3() if backup.file_path.startswith("s3://") else None,
        )

    def _manifest_beside(self, address: str) -> Manifest | None:
        """The sealed manifest beside a local dump, None where there is none."""
        path = Path(address)
        if address.startswith("s3://") or not path.name.endswith(names.DUMP_SUFFIX):
            return None
        beside = path.with_name(path.name.removesuffix(names.DUMP_SUFFIX) + names.MANIFEST_SUFFIX)
        try:
            return Manifest.from_bytes(beside.read_bytes(), origin=str(beside))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentLacksError(f"{beside} cannot be read", detail=str(error)) from error

    def _s3(self) -> Any:
        return boto3.client("s3", region_name=self.config.region)
