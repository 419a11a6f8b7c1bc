"""Where a backup goes: a folder, a bucket, or both, written at the same time.

Nothing has its final name before it is whole: a file is written under a temporary name and moved, an object appears
when its upload completes.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import botocore.exceptions

from recovery.dumps import names
from recovery.dumps.catalogue import METADATA_ID
from recovery.dumps.upload import StreamingUpload, storage_error
from recovery.errors import EnvironmentLacksError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1024 * 1024


class Sink(Protocol):
    """Takes a dump's bytes; `finish` makes it visible, checks what is there, and returns S3's checksum or None."""

    def write(self, data: bytes) -> None: ...
    def finish(self, size: int, sha256: str) -> str | None: ...


class Destination(Protocol):
    """A place for backups."""

    def taken(self, identifier: str) -> bool:
        """Tell whether a backup of this id is there already, whole or not."""

    def dump(self, identifier: str) -> contextlib.AbstractContextManager[Sink]:
        """Open the place of a dump; leaving without `finish` leaves nothing behind."""

    def put(self, filename: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    def point_latest(self, filename: str) -> None:
        """Make `latest.sql.gz` this dump."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder on this machine."""

    path: Path

    def clear(self) -> None:
        """Remove what a killed backup left half written; only while holding the folder's lock."""
        try:
            for entry in self.path.glob(".*.partial"):
                name = entry.name[1:].removesuffix(".partial")
                if name == names.LATEST or names.split(name) is not None:
                    entry.unlink(missing_ok=True)
        except OSError as error:
            raise _folder_error(self.path, error) from error

    def taken(self, identifier: str) -> bool:
        return any(
            (self.path / (identifier + suffix)).exists() for suffix in (names.DUMP_SUFFIX, names.MANIFEST_SUFFIX)
        )

    @contextlib.contextmanager
    def dump(self, identifier: str) -> Iterator[Sink]:
        try:
            file = _File(self.path / (identifier + names.DUMP_SUFFIX))
        except OSError as error:
            raise _folder_error(self.path, error) from error
        try:
            yield file
        finally:
            file.discard()

    def put(self, filename: str, data: bytes) -> None:
        temporary = self.path / f".{filename}.partial"
        try:
            with open(temporary, "wb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / filename)
            _sync_folder(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _folder_error(self.path, error) from error

    def point_latest(self, filename: str) -> None:
        temporary = self.path / f".{names.LATEST}.partial"
        try:
            temporary.unlink(missing_ok=True)
            try:
                temporary.hardlink_to(self.path / filename)
            except OSError:  # a file system without hard links
                temporary.symlink_to(filename)
            temporary.replace(self.path / names.LATEST)
            _sync_folder(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _folder_error(self.path, error) from error


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A prefix of an S3 bucket; `retain_until` locks dump and manifest where the bucket has object lock."""

    s3: Any
    name: str
    prefix: str
    kms_key_id: str | None = None
    retain_until: dt.datetime | None = None

    def clear(self) -> None:
        """Abort the uploads that killed backups left incomplete; only while holding the bucket's lock.

        Their parts are paid for and in no listing.  A role that may not look leaves them to the bucket's lifecycle.
        """
        try:
            pages = self.s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=self.prefix)
            for upload in [each for page in pages for each in page.get("Uploads", [])]:
                name = upload["Key"].removeprefix(self.prefix)
                if name == names.LATEST or names.split(name) is not None:
                    self._abort(upload["Key"], upload["UploadId"])
        except botocore.exceptions.ClientError as error:
            if _code(error) != "AccessDenied":
                raise storage_error(error, Bucket=self.name, Key=self.prefix) from error
        except botocore.exceptions.BotoCoreError as error:
            raise storage_error(error, Bucket=self.name, Key=self.prefix) from error

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self.s3.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload_id)
        except botocore.exceptions.ClientError as error:
            if _code(error) != "NoSuchUpload":  # which somebody else has aborted
                raise

    def taken(self, identifier: str) -> bool:
        try:
            listed = self.s3.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}{identifier}.", MaxKeys=1)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, Bucket=self.name, Key=self.prefix) from error
        return bool(listed.get("KeyCount", 0))

    @contextlib.contextmanager
    def dump(self, identifier: str) -> Iterator[Sink]:
        settings = {
            "ContentType": "application/gzip",
            "Metadata": {METADATA_ID: identifier},
            **self._encryption(),
            **self._retention(),
        }
        with StreamingUpload(self.s3, self.name, self.prefix + identifier + names.DUMP_SUFFIX, settings) as upload:
            yield _Object(upload)

    def put(self, filename: str, data: bytes) -> None:
        try:
            self.s3.put_object(
                Bucket=self.name,
                Key=self.prefix + filename,
                Body=data,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
                ContentType="application/json" if filename.endswith(".json") else "application/sql",
                **self._encryption(),
                **self._retention(),
            )
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, Bucket=self.name, Key=self.prefix + filename) from error

    def point_latest(self, filename: str) -> None:
        try:
            # The managed copy is server-side, and in parts past S3's limit of 5 GB for one copy.
            self.s3.copy(
                {"Bucket": self.name, "Key": self.prefix + filename},
                self.name,
                self.prefix + names.LATEST,
                ExtraArgs=self._encryption(),
            )
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, Bucket=self.name, Key=self.prefix + names.LATEST) from error

    def _encryption(self) -> dict[str, str]:
        # Without a key of our own the bucket's default encryption decides.
        if self.kms_key_id is None:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}

    def _retention(self) -> dict[str, Any]:
        if self.retain_until is None:
            return {}
        # Governance: whoever holds s3:BypassGovernanceRetention can still correct a mistake.
        return {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": self.retain_until}


def has_object_lock(s3: Any, bucket: str) -> bool | None:
    """Tell whether a bucket takes object lock, None where the role may not ask."""
    try:
        answer = s3.get_object_lock_configuration(Bucket=bucket)
    except botocore.exceptions.ClientError as error:
        code = _code(error)
        if code == "ObjectLockConfigurationNotFoundError":
            return False
        if code == "AccessDenied":
            return None
        raise storage_error(error, Bucket=bucket) from error
    except botocore.exceptions.BotoCoreError as error:
        raise storage_error(error, Bucket=bucket) from error
    return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


class _File:
    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".{target.name}.partial")
        self._file = open(self._temporary, "wb", opener=_private)  # noqa: SIM115  # closed by finish or discard

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _folder_error(self._target.parent, error) from error

    def finish(self, size: int, sha256: str) -> None:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            found_size, found_sha256 = file_facts(self._temporary)
            if (found_size, found_sha256) != (size, sha256):
                raise RecoveryError(
                    f"{self._temporary} is not what was written",
                    detail=f"{found_size} bytes, SHA-256 {found_sha256}; written {size} bytes, {sha256}",
                    hint="look at the disk and the kernel's log",
                )
            self._temporary.replace(self._target)
            _sync_folder(self._target.parent)
        except OSError as error:
            raise _folder_error(self._target.parent, error) from error

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class _Object:
    def __init__(self, upload: StreamingUpload) -> None:
        self._upload = upload

    def write(self, data: bytes) -> None:
        self._upload.write(data)

    def finish(self, size: int, sha256: str) -> str:
        del size, sha256  # the upload has counted and summed by itself, per part, and S3 with it
        return self._upload.finish().checksum


def file_facts(path: Path) -> tuple[int, str]:
    """Return (size in bytes, SHA-256 in hex) of a file by reading it."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _private(path: str, flags: int) -> int:
    # A dump holds everything the database does: readable by its owner only.
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_error(folder: Path, error: OSError) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"a backup cannot be written to {folder}", detail=str(error), hint="look at free space and permissions"
    )
