"""Chooses what a drill restores: the newest sealed pair in the DR bucket, or a dump that somebody hands over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from recovery.clients import AwsError, aws_problem
from recovery.dumps.catalogue import list_backups, newest_sealed
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.errors import BadDumpError

if TYPE_CHECKING:
    from recovery.clients import Clients

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RecoveryPoint:
    """A dump in the DR bucket. Without a manifest `snapshot_time` is unknown; `given` tells it was handed over.

    `size` in bytes, `text_size` those of its text uncompressed, None where nobody counted them.
    """

    bucket: str
    key: str
    size: int
    text_size: int | None
    manifest_key: str | None
    snapshot_time: datetime | None
    backup_id: str
    given: bool

    @property
    def source(self) -> str:
        """Return the dump's s3:// address."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def manifest(self) -> str | None:
        """Return the manifest's s3:// address, if there is one."""
        return f"s3://{self.bucket}/{self.manifest_key}" if self.manifest_key else None


def newest_point(clients: Clients, bucket: str) -> RecoveryPoint:
    """Return the newest sealed pair of the bucket's db/. Raises RecoveryError when there is none."""
    try:
        backup = newest_sealed(list_backups(clients("s3"), bucket))
    except AwsError as exc:
        raise aws_problem(f"The backups in s3://{bucket}/db/ cannot be listed.", exc) from exc
    key = str(backup.key)
    return RecoveryPoint(
        bucket=bucket,
        key=key,
        size=backup.size,
        text_size=backup.manifest.layout.uncompressed_size if backup.manifest and backup.manifest.layout else None,
        manifest_key=backup.manifest_address.removeprefix(f"s3://{bucket}/"),
        snapshot_time=backup.manifest.snapshot_time if backup.manifest else None,
        backup_id=backup.backup_id,
        given=False,
    )


def given_point(
    clients: Clients, dump: str, bucket: str, drill_id: str, progress: Callable[[str], None]
) -> RecoveryPoint:
    """Check a dump that was handed over (path or s3://) and put it under drills/<id>/ of the DR bucket.

    Raises BadDumpError when it is truncated, corrupt or no SQL, EnvironmentLacksError when it cannot be read or sent.
    """
    progress(f"checking {dump}")
    with open_dump(dump, region=clients.region) as source:
        text_size = check(source).text_done
    name = PurePosixPath(dump).name
    key = f"drills/{drill_id}/{name}"
    progress(f"sending it to s3://{bucket}/{key}")
    size = _send(clients, dump, bucket, key)
    return RecoveryPoint(
        bucket=bucket,
        key=key,
        size=size,
        text_size=text_size,
        manifest_key=None,
        snapshot_time=None,
        backup_id=name,
        given=True,
    )


def _send(clients: Clients, dump: str, bucket: str, key: str) -> int:
    s3 = clients("s3")
    try:
        if dump.startswith("s3://"):
            from_bucket, _, from_key = dump.removeprefix("s3://").partition("/")
            s3.copy({"Bucket": from_bucket, "Key": from_key}, bucket, key)
        else:
            s3.upload_file(dump, bucket, key, ExtraArgs={"Metadata": {"sha256": _sha256(Path(dump))}})
        return int(s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
    except AwsError as exc:
        raise aws_problem(f"The dump could not be sent to s3://{bucket}/{key}.", exc) from exc
    except OSError as exc:
        raise BadDumpError(f"The dump {dump} cannot be read.", detail=str(exc)) from exc


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def remove_given(clients: Clients, bucket: str, drill_id: str) -> int:
    """Delete every version of what was put under drills/<id>/ of the DR bucket; return how many versions there were.

    Raises RecoveryError or EnvironmentLacksError when the bucket does not answer.
    """
    s3 = clients("s3")
    removed = 0
    try:
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"drills/{drill_id}/")
        for page in pages:
            versions: list[Any] = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            for version in versions:
                s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
            removed += len(versions)
    except AwsError as exc:
        raise aws_problem(f"s3://{bucket}/drills/{drill_id}/ could not be emptied.", exc) from exc
    return removed
