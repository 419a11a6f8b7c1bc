"""Which backups are superseded, and telling the bucket's lifecycle so.

Age alone never removes a backup: nothing is superseded but what is older than the retention and has a newer sealed
backup that stays.  In a folder, where a listing knows no more than sizes, the one that stays is read whole first; in a
bucket S3 has stated its checksum for the listing.  In S3 superseded objects get a tag, which the lifecycle's rule
expires (object lock still holds them as long as it was set to); in a folder, which has no lifecycle, the files are
removed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pydantic

from recovery.dumps import names
from recovery.dumps.catalogue import Backup
from recovery.dumps.reread import reread_backup
from recovery.dumps.upload import storage_error
from recovery.errors import EnvironmentLacksError
from recovery.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable

# The tag that the buckets' lifecycle rule looks for.
TAG = {"Key": "agentverse:superseded", "Value": "true"}

_SUFFIXES = (names.DUMP_SUFFIX, names.MANIFEST_SUFFIX, names.GLOBALS_SUFFIX)


class Pruned(pydantic.BaseModel):
    """What was, or in a dry run would be, marked: backup ids, and those kept with the reason."""

    model_config = pydantic.ConfigDict(frozen=True)

    dry_run: bool
    superseded: list[str]
    kept: dict[str, str]


def superseded(
    backups: Iterable[Backup], *, retention: dt.timedelta, now: dt.datetime
) -> tuple[list[Backup], dict[str, str]]:
    """Divide backups into the superseded ones and, by id, the reason why each other one is kept.

    Without a sealed backup nothing is superseded.  The newest sealed backup is always kept, however old.
    """
    backups = list(backups)
    sealed = [backup for backup in _oldest_first(backups) if backup.sealed]
    old: list[Backup] = []
    kept: dict[str, str] = {}
    for backup in backups:
        age = now - backup.created_at
        if not sealed:
            kept[backup.backup_id] = "there is no sealed backup that could replace it"
        elif backup.backup_id == sealed[-1].backup_id:
            kept[backup.backup_id] = "it is the newest sealed backup"
        elif backup.created_at > sealed[-1].created_at:
            kept[backup.backup_id] = "it is newer than the newest sealed backup"
        elif age <= retention:
            kept[backup.backup_id] = f"it is {age.days} days old, of {retention.days}"
        else:
            old.append(backup)
    return old, kept


def prune(
    backups: Iterable[Backup],
    *,
    retention: dt.timedelta,
    s3: Any = None,
    dry_run: bool = True,
    now: dt.datetime | None = None,
    progress: Progress = silent,
) -> Pruned:
    """Mark what is superseded, or with `dry_run` only say it.

    `backups` are those of one bucket or folder, as the catalogue lists them.  A folder's newest sealed one is read
    whole before anything older is given up for it; where it is damaged, the next older one must replace the others.
    Raises EnvironmentLacksError when the bucket or folder refuses.
    """
    now = now or dt.datetime.now(dt.UTC)
    backups, damaged = list(backups), {}
    while True:
        old, kept = superseded(backups, retention=retention, now=now)
        stays = next((backup for backup in _oldest_first(backups)[::-1] if backup.sealed), None)
        if not old or stays is None or stays.path is None:
            break
        found = reread_backup(stays, progress=progress)
        if found.good:
            break
        damaged[stays.backup_id] = f"it is damaged and replaces nothing: {found.problems[0]}"
        backups = [dataclasses.replace(backup, sealed=backup.sealed and backup is not stays) for backup in backups]
    kept |= {name: damaged[name] for name in kept.keys() & damaged.keys()}
    if not dry_run:
        for backup in old:
            if backup.bucket is not None and backup.key is not None:
                _tag(s3, backup.bucket, backup.key)
            elif backup.path is not None:
                _remove(backup.path)
    return Pruned(dry_run=dry_run, superseded=[backup.backup_id for backup in old], kept=kept)


def _oldest_first(backups: Iterable[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (backup.created_at, backup.backup_id))


def _tag(s3: Any, bucket: str, key: str) -> None:
    base = key.removesuffix(names.DUMP_SUFFIX)
    # The manifest last: as long as it is not tagged, the backup is still listed as a candidate.
    for suffix in (names.DUMP_SUFFIX, names.GLOBALS_SUFFIX, names.MANIFEST_SUFFIX):
        try:
            present = s3.get_object_tagging(Bucket=bucket, Key=base + suffix)["TagSet"]
            if TAG not in present:
                others = [tag for tag in present if tag["Key"] != TAG["Key"]]
                s3.put_object_tagging(Bucket=bucket, Key=base + suffix, Tagging={"TagSet": [*others, TAG]})
        except botocore.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                continue
            raise storage_error(error, Bucket=bucket, Key=base + suffix) from error
        except botocore.exceptions.BotoCoreError as error:
            raise storage_error(error, Bucket=bucket, Key=base + suffix) from error


def _remove(dump: Path) -> None:
    base = dump.name.removesuffix(names.DUMP_SUFFIX)
    # The manifest first: a backup without one is not taken for whole.
    for suffix in reversed(_SUFFIXES):
        try:
            dump.with_name(base + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentLacksError(f"{dump.parent} cannot be cleaned", detail=str(error)) from error
