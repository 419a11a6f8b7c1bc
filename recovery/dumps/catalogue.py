"""Which backups there are, in a bucket or a folder, and which of them are whole.

A backup is sealed when its manifest is intact and its dump is there with the manifest's size and checksum.  Dump,
manifest and `latest.sql.gz` may arrive in any order (replication) or not at all (a crash), so nothing is believed
because of a name: `latest.sql.gz` is for people, readers take the newest sealed pair.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions

from recovery.dumps import names
from recovery.dumps.manifest import LARGEST_MANIFEST, Manifest
from recovery.dumps.upload import storage_error
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# S3 reads of one listing that run at a time.
_PARALLEL = 8

# The object metadata by which a dump names its backup.
METADATA_ID = "backup-id"

# What keeps an old backup, of the time before manifests, from being sealed; it may be whole nevertheless.
NO_MANIFEST = "it has no manifest"


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup: in S3 (`bucket` and `key`) or in a folder (`path`).

    `size` in bytes, 0 where the dump is missing; `created_at` is the recovery point of a sealed backup, else the time
    in the name.  `problem` says why a backup is not sealed; `notes` what went wrong after one was.
    """

    backup_id: str
    filename: str
    size: int
    created_at: dt.datetime
    sealed: bool
    bucket: str | None = None
    key: str | None = None
    path: Path | None = None
    manifest: Manifest | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where the dump is: an s3:// address or a path."""
        return f"s3://{self.bucket}/{self.key}" if self.bucket is not None else str(self.path)

    @property
    def manifest_address(self) -> str:
        """Where the manifest is, or would be."""
        return self.address.removesuffix(names.DUMP_SUFFIX) + names.MANIFEST_SUFFIX


def list_backups(s3_client: Any, bucket: str, prefix: str = names.DEFAULT_PREFIX) -> list[Backup]:
    """Return every backup under the prefix of a bucket, sealed or not, newest first.

    Raises EnvironmentLacksError when the bucket is not there or cannot be read.
    """
    found: dict[str, dict[str, int]] = {}
    try:
        for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                parts = names.split(entry["Key"].removeprefix(prefix))
                if parts is not None:
                    found.setdefault(parts[0], {})[parts[1]] = entry["Size"]
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL, thread_name_prefix="catalogue") as pool:
            backups = list(pool.map(lambda item: _in_bucket(s3_client, bucket, prefix, *item), found.items()))
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise storage_error(error, Bucket=bucket, Key=prefix) from error
    return _newest_first(backups)


def backup_at(s3_client: Any, bucket: str, key: str) -> Backup | None:
    """Return the backup whose dump is this object, None for an object that has no backup's name.

    Nothing is listed: a role that may read the two objects needs no more.  Raises EnvironmentLacksError when the bucket
    cannot be asked.
    """
    prefix, slash, filename = key.rpartition("/")
    parts = names.split(filename)
    if parts is None or parts[1] != names.DUMP_SUFFIX:
        return None
    folder = f"{prefix}{slash}"
    suffixes = (names.DUMP_SUFFIX, names.MANIFEST_SUFFIX)
    found = {suffix: _size_of(s3_client, bucket, f"{folder}{parts[0]}{suffix}") for suffix in suffixes}
    sizes = {suffix: size for suffix, size in found.items() if size is not None}
    try:
        return _in_bucket(s3_client, bucket, folder, parts[0], sizes)
    except botocore.exceptions.BotoCoreError as error:
        raise storage_error(error, Bucket=bucket, Key=key) from error


def _size_of(s3: Any, bucket: str, key: str) -> int | None:
    """Return an object's size, None where there is none that may be read."""
    try:
        return int(s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
    except botocore.exceptions.ClientError as error:
        # Whoever may not list is told of a missing object that it may not be read.
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in {403, 404}:
            return None
        raise storage_error(error, Bucket=bucket, Key=key) from error
    except botocore.exceptions.BotoCoreError as error:
        raise storage_error(error, Bucket=bucket, Key=key) from error


def list_local_backups(folder: Path) -> list[Backup]:
    """Return every backup in a folder, sealed or not, newest first; a folder that is not there holds none.

    A dump's size is compared, its content is not read: `backups verify` does that.
    """
    found: dict[str, dict[str, int]] = {}
    try:
        for entry in folder.iterdir():
            parts = names.split(entry.name)
            if parts is not None and entry.is_file():
                found.setdefault(parts[0], {})[parts[1]] = entry.stat().st_size
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentLacksError(f"the folder {folder} cannot be read", detail=str(error)) from error
    return _newest_first([_in_folder(folder, *item) for item in found.items()])


def newest_sealed(backups: Iterable[Backup]) -> Backup:
    """Return the sealed backup with the newest recovery point; raises RecoveryError when there is none."""
    backups = list(backups)
    sealed = [backup for backup in backups if backup.sealed]
    if not sealed:
        problems = "; ".join(f"{backup.filename}: {backup.problem}" for backup in backups[:5])
        raise RecoveryError(
            "there is no sealed backup",
            detail=problems or "nothing with the name of a backup was found",
            hint="restore an unsealed dump by naming it, or look in the other region's bucket",
        )
    return max(sealed, key=lambda backup: (backup.created_at, backup.backup_id))


def find_backup(backups: Iterable[Backup], wanted: str) -> Backup:
    """Return the backup that is `latest` (the newest sealed one) or has this id or filename.

    Raises RecoveryError when there is none.
    """
    backups = list(backups)
    if wanted == "latest":
        return newest_sealed(backups)
    for backup in backups:
        if wanted in (backup.backup_id, backup.filename):
            return backup
    raise RecoveryError(
        f"there is no backup {wanted!r}",
        detail=f"the newest are {', '.join(backup.backup_id for backup in backups[:5]) or 'none'}",
        hint="`recovery backups list` shows all",
    )


def _in_bucket(s3: Any, bucket: str, prefix: str, identifier: str, sizes: Mapping[str, int]) -> Backup:
    filename = identifier + names.DUMP_SUFFIX
    key = prefix + filename

    def read() -> bytes:
        return bytes(s3.get_object(Bucket=bucket, Key=prefix + identifier + names.MANIFEST_SUFFIX)["Body"].read())

    manifest, problem = _judge(identifier, sizes, read)
    if manifest is not None and problem is None:
        problem = _object_problem(s3, bucket, key, manifest)
    return _backup(identifier, sizes, manifest, problem, bucket=bucket, key=key)


def _in_folder(folder: Path, identifier: str, sizes: Mapping[str, int]) -> Backup:
    manifest, problem = _judge(identifier, sizes, (folder / (identifier + names.MANIFEST_SUFFIX)).read_bytes)
    return _backup(identifier, sizes, manifest, problem, path=folder / (identifier + names.DUMP_SUFFIX))


def _judge(  # noqa: PLR0911  # one return per thing that can be wrong
    identifier: str, sizes: Mapping[str, int], read: Any
) -> tuple[Manifest | None, str | None]:
    """Read the manifest and compare what the listing says; returns (manifest, problem)."""
    if names.MANIFEST_SUFFIX not in sizes:
        return None, NO_MANIFEST
    if sizes[names.MANIFEST_SUFFIX] > LARGEST_MANIFEST:
        return None, f"its manifest is larger than any ({sizes[names.MANIFEST_SUFFIX]} bytes)"
    try:
        manifest = Manifest.from_bytes(read(), origin="its manifest")
    except BadDumpError as error:
        return None, error.message
    except (OSError, botocore.exceptions.ClientError) as error:
        return None, f"its manifest cannot be read: {error}"
    if manifest.backup_id != identifier or manifest.filename != identifier + names.DUMP_SUFFIX:
        return manifest, f"its manifest is the one of {manifest.backup_id}"
    if names.DUMP_SUFFIX not in sizes:
        return manifest, "its dump is missing"
    if sizes[names.DUMP_SUFFIX] != manifest.size:
        return manifest, f"its dump has {sizes[names.DUMP_SUFFIX]} bytes, its manifest says {manifest.size}"
    return manifest, None


def _object_problem(s3: Any, bucket: str, key: str, manifest: Manifest) -> str | None:
    try:
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    except botocore.exceptions.ClientError as error:
        return f"its dump cannot be read: {error}"
    if head["ContentLength"] != manifest.size:
        return f"its dump has {head['ContentLength']} bytes, its manifest says {manifest.size}"
    stated = head.get("ChecksumSHA256")
    if stated is not None and stated in manifest.object_checksums():
        return None
    if stated is not None and _same_shape(stated, manifest):
        return f"its dump has the checksum {stated}, its manifest says {manifest.object_checksum}"
    # A store that states no SHA-256, or a copy cut into other parts: the name the writer gave the object must do.
    if head.get("Metadata", {}).get(METADATA_ID) != manifest.backup_id:
        return "its dump was not written by the tool that wrote its manifest"
    return None


def _same_shape(stated: str, manifest: Manifest) -> bool:
    """Whether the stated checksum is of the whole or of as many parts as the writer's: then the two can be compared."""
    own = manifest.object_checksum
    return "-" not in stated or (own is not None and stated.partition("-")[2] == own.partition("-")[2])


def _backup(
    identifier: str, sizes: Mapping[str, int], manifest: Manifest | None, problem: str | None, **place: Any
) -> Backup:
    named = names.time_of(identifier)
    created = manifest.snapshot_time if manifest is not None and problem is None else named
    return Backup(
        backup_id=identifier,
        filename=identifier + names.DUMP_SUFFIX,
        size=sizes.get(names.DUMP_SUFFIX, 0),
        created_at=created or dt.datetime.fromtimestamp(0, dt.UTC),
        sealed=problem is None,
        manifest=manifest,
        problem=problem,
        **place,
    )


def _newest_first(backups: list[Backup]) -> list[Backup]:
    return sorted(backups, key=lambda backup: (backup.created_at, backup.backup_id), reverse=True)
