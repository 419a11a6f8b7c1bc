"""The runbook's own snippets, kept working: BackupService, BackupConfig, BackupResult, BackupType, BackupStatus.

Scenario A of the runbook runs with nothing changed but its import line, which becomes `from recovery import ...`.
Everything here calls what the command line calls, with the same recovery.toml; work that blocks runs in a thread, so
that the coroutines can be awaited beside others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import logging
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from recovery.dumps import names
from recovery.dumps.catalogue import NO_MANIFEST, Backup, backup_at, list_backups, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.source import text_size_of
from recovery.dumps.writer import Options, take_backup
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError, UsageError
from recovery.restore import restore
from recovery.settings import load_settings
from recovery.space import look_at_space, refuse_too_little

if TYPE_CHECKING:
    from collections.abc import Callable

    from recovery.restore import RestoreResult
    from recovery.settings import Platform


_LOG = logging.getLogger(__name__)

# What stands for "as recovery.toml says": no bucket and no folder has this name.
_OF_SETTINGS = "recovery.toml"
_OF_SETTINGS_FOLDER = Path("\0recovery.toml")


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
class Place:
    """A bucket that holds backups; `named` says whether the caller named it, or recovery.toml did."""

    bucket: str
    region: str | None
    named: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupConfig:
    """Where the database and its backups are: by default what recovery.toml says, as for the command line.

    `database` is a connection string; left out, the variable that database.dsn_env names, else DATABASE_URL, else
    libpq's own PG* variables.  `local_dir` is a folder, None for none; left out, database.local_dir.  `bucket` is one
    bucket for taking, listing and restoring, None for none; left out, backups go to platform.backups_bucket and are
    read from platform.dr_backups_bucket.  `region` is that of a named bucket.  `replace` gives up what the database
    holds, `ignore_space` restores although the server's disk is estimated to be too small.
    """

    database: str | None = None
    local_dir: Path | None = _OF_SETTINGS_FOLDER
    bucket: str | None = _OF_SETTINGS
    prefix: str = names.DEFAULT_PREFIX
    region: str | None = None
    kms_key_id: str | None = None
    replace: bool = True
    ignore_space: bool = False

    def dsn(self) -> str:
        """The connection string in effect."""
        if self.database is not None:
            return self.database
        return os.environ.get(load_settings().database.dsn_env) or os.environ.get("DATABASE_URL", "")

    def folder(self) -> Path | None:
        """The folder in effect, None for none."""
        return load_settings().database.local_dir if self.local_dir == _OF_SETTINGS_FOLDER else self.local_dir

    def writes_to(self) -> Place | None:
        """The bucket that takes new backups, None for none."""
        return self._place(lambda platform: (platform.backups_bucket, platform.primary_region))

    def reads_from(self) -> Place | None:
        """The bucket whose backups are listed, None for none."""
        return self._place(lambda platform: (platform.dr_backups_bucket, platform.dr_region))

    def _place(self, of_settings: Callable[[Platform], tuple[str, str]]) -> Place | None:
        if self.bucket is None:
            return None
        if self.bucket != _OF_SETTINGS:
            return Place(bucket=self.bucket, region=self.region, named=True)
        bucket, region = of_settings(load_settings().platform)
        return Place(bucket=bucket, region=region, named=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupResult:
    """A backup, or what became of taking or restoring one; `notes` is what a completed backup lacks, in words."""

    backup_id: str
    backup_type: BackupType = BackupType.FULL
    status: BackupStatus
    started_at: dt.datetime
    file_path: str | None = None
    completed_at: dt.datetime | None = None
    size_bytes: int | None = None
    error_message: str | None = None
    restored: RestoreResult | None = None
    notes: tuple[str, ...] = ()


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
            notes=(*(backup.manifest.notes if backup.manifest else ()), *backup.notes),
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
        place = config.writes_to()
        return take_backup(
            config.dsn(),
            s3=_s3(place.region) if place else None,
            bucket=place.bucket if place else None,
            prefix=config.prefix,
            local_dir=config.folder(),
            kms_key_id=config.kms_key_id,
            options=Options(retention=dt.timedelta(days=load_settings().objectives.retention_days))
            if place is not None and not place.named
            else None,
        )

    def _list(self) -> list[dict[str, Any]]:
        config = self.config
        folder, place = config.folder(), config.reads_from()
        found = list_local_backups(folder) if folder is not None else []
        if place is not None:
            here = {backup.backup_id for backup in found}
            found += [backup for backup in self._in_bucket(place) if backup.backup_id not in here]
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

    def _in_bucket(self, place: Place) -> list[Backup]:
        try:
            return list_backups(_s3(place.region), place.bucket, self.config.prefix)
        except RecoveryError as error:
            # A machine without the cloud still has its own folder: that is listed, and what is missing is said.
            if place.named:
                raise
            _LOG.warning("the backups in s3://%s/%s are not listed: %s", place.bucket, self.config.prefix, error)
            return []

    def _restore(self, backup: BackupResult) -> RestoreResult:
        address = backup.file_path
        if not address:
            raise UsageError("the backup to restore names no file", hint="give file_path a path or an s3:// address")
        s3 = _s3(self._region()) if address.startswith("s3://") else None
        manifest = _manifest_beside(address) if s3 is None else _manifest_in_bucket(s3, address)
        if not self.config.ignore_space:
            text_size = text_size_of(address, s3=s3) if manifest is None else None
            space = look_at_space(self.config.dsn(), manifest, text_size=text_size)
            refuse_too_little(space, hint="Make room or a larger disk, or set ignore_space: the need is an estimate.")
        return restore(
            address,
            self.config.dsn(),
            manifest=manifest,
            replace=self.config.replace,
            s3=s3,
        )

    def _region(self) -> str | None:
        place = self.config.reads_from()
        return place.region if place else self.config.region


def _manifest_beside(address: str) -> Manifest | None:
    """The sealed manifest beside a local dump, None where there is none."""
    path = Path(address)
    if not path.name.endswith(names.DUMP_SUFFIX):
        return None
    beside = path.with_name(path.name.removesuffix(names.DUMP_SUFFIX) + names.MANIFEST_SUFFIX)
    try:
        return Manifest.from_bytes(beside.read_bytes(), origin=str(beside))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentLacksError(f"{beside} cannot be read", detail=str(error)) from error


def _manifest_in_bucket(s3: Any, address: str) -> Manifest | None:
    """The manifest beside a dump in S3, None where there is none; raises BadDumpError for one that is damaged."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    backup = backup_at(s3, bucket, key)
    if backup is None:
        return None
    if backup.manifest is None and backup.problem != NO_MANIFEST:
        raise BadDumpError(f"{backup.manifest_address} cannot be used: {backup.problem}")
    return backup.manifest


def _s3(region: str | None) -> Any:
    return boto3.client("s3", region_name=region)
