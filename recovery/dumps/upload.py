"""Streams one object into S3 while it is being made, every part with a checksum that S3 verifies.

Memory is flat whatever the object's size: small parts are held in memory while they are sent, and large ones, which an
object of terabytes needs since S3 takes 10,000 parts, in temporary files.
"""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import botocore.exceptions

from recovery.errors import EnvironmentLacksError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MIB = 1024 * 1024

# S3 takes 10,000 parts of 5 MiB to 5 GiB: 37 GiB in parts that fit in memory, and past them parts of 1 GiB, up to
# 5.1 TiB in all.  S3 itself takes objects of 48.8 TiB, other stores of 5 TiB.
_PARTS_IN_MEMORY = 4800
_PART_IN_MEMORY = 8 * MIB
_PART_ON_DISK = 1024 * MIB
_MOST_PARTS = 10_000

# In memory one part is filled while two are on their way; on disk one is, so that two files is all there ever are.
_PARALLEL = 2

# Where large parts are kept unless TMPDIR says otherwise: /tmp may be memory.
_DISK = Path("/var/tmp")  # noqa: S108  # the files in it have no name


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """What S3 says of a complete object; `checksum` is its SHA-256 form: plain or composite ("…-3"), base64."""

    size: int
    checksum: str


def part_size(number: int) -> int:
    """The size in bytes of part `number`, counted from 1."""
    if number > _MOST_PARTS:
        raise RecoveryError("the dump is larger than one S3 object can be")
    return _PART_IN_MEMORY if number <= _PARTS_IN_MEMORY else _PART_ON_DISK


class _Part:
    """One part while it is filled and sent, and the SHA-256 of what is in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.room = part_size(number)
        self.on_disk = self.room > _PART_IN_MEMORY
        self.size = 0
        self.body: IO[bytes] = _temporary_file() if self.on_disk else io.BytesIO()
        self._digest = hashlib.sha256()

    def take(self, data: memoryview) -> int:
        """Take as much of the data as there is room for, and return how much that is."""
        taken = data[: self.room]
        try:
            self.body.write(taken)
        except OSError as error:
            raise _disk_error(error) from error
        self._digest.update(taken)
        self.room -= len(taken)
        self.size += len(taken)
        return len(taken)

    @property
    def digest(self) -> bytes:
        """The SHA-256 of what was taken."""
        return self._digest.digest()

    @property
    def checksum(self) -> str:
        """The digest as S3 writes it."""
        return base64.b64encode(self.digest).decode()


class StreamingUpload:
    """Writes an object part by part; nothing is visible under the key before :meth:`finish`.

    `settings` are further arguments of PutObject and CreateMultipartUpload (encryption, metadata, object lock).
    Leaving the context without finishing aborts the upload.  Raises EnvironmentLacksError when S3 cannot be reached
    and RecoveryError when it refuses.
    """

    def __init__(self, s3: Any, bucket: str, key: str, settings: Mapping[str, Any]) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._settings = dict(settings)
        self._part = _Part(1)
        self._upload_id: str | None = None
        self._digests: list[bytes] = []
        self._sent: dict[int, dict[str, Any]] = {}
        self._running: set[concurrent.futures.Future[None]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(_PARALLEL, thread_name_prefix="upload")
        self._size = 0
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._part.body.close()
        if not self._finished and self._upload_id is not None:
            try:
                self._s3.abort_multipart_upload(**self._where, UploadId=self._upload_id)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as problem:
                # The lifecycle removes incomplete uploads; what led here matters more than this.
                if error is not None:
                    error.add_note(f"the incomplete upload {self._upload_id} could not be aborted: {problem}")

    def write(self, data: bytes) -> None:
        """Take the next bytes; waits while enough parts are on their way."""
        self._size += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._part.take(rest) :]
            if not self._part.room:
                self._send()
                self._part = _Part(self._part.number + 1)

    def finish(self) -> Uploaded:
        """Send the rest, complete the object and read back its size and checksum."""
        try:
            if self._upload_id is None:
                self._put_whole()
            else:
                if self._part.size:
                    self._send()
                self._wait(0)
                self._s3.complete_multipart_upload(
                    **self._where,
                    UploadId=self._upload_id,
                    MultipartUpload={"Parts": [self._sent[number] for number in sorted(self._sent)]},
                )
            self._finished = True
            return self._read_back()
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, **self._where) from error

    def expected_checksum(self) -> str:
        """The checksum that S3 has for the object if it received exactly what was written here."""
        if self._upload_id is None:
            return base64.b64encode(self._digests[0]).decode()
        composite = hashlib.sha256(b"".join(self._digests)).digest()
        return f"{base64.b64encode(composite).decode()}-{len(self._digests)}"

    def _put_whole(self) -> None:
        self._digests.append(self._part.digest)
        self._part.body.seek(0)
        self._s3.put_object(
            **self._where,
            Body=self._part.body,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=self._part.checksum,
            **self._settings,
        )

    def _send(self) -> None:
        part = self._part
        try:
            if self._upload_id is None:
                started = self._s3.create_multipart_upload(
                    **self._where, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE", **self._settings
                )
                self._upload_id = started["UploadId"]
            self._digests.append(part.digest)
            self._wait(0 if part.on_disk else _PARALLEL - 1)
            self._running.add(self._pool.submit(self._upload, part))
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, **self._where) from error

    def _upload(self, part: _Part) -> None:
        with part.body as body:
            body.seek(0)
            answer = self._s3.upload_part(
                **self._where,
                UploadId=self._upload_id,
                PartNumber=part.number,
                Body=body,
                ChecksumSHA256=part.checksum,
            )
        self._sent[part.number] = {
            "PartNumber": part.number,
            "ETag": answer["ETag"],
            "ChecksumSHA256": part.checksum,
        }

    def _wait(self, most: int) -> None:
        while len(self._running) > most:
            done, self._running = concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                future.result()

    def _read_back(self) -> Uploaded:
        head = self._s3.head_object(**self._where, ChecksumMode="ENABLED")
        expected = self.expected_checksum()
        stated = head.get("ChecksumSHA256")
        if head["ContentLength"] != self._size or (
            # Some S3-compatible stores leave out the number of parts that ends a composite checksum.
            stated is not None and stated not in (expected, expected.partition("-")[0])
        ):
            raise RecoveryError(
                f"s3://{self._where['Bucket']}/{self._where['Key']} is not what was written",
                detail=f"{head['ContentLength']} bytes, checksum {stated}; written {self._size} bytes, {expected}",
                hint="somebody else may have written the same key; take the backup again",
            )
        return Uploaded(self._size, expected)


def _temporary_file() -> IO[bytes]:
    folder = None if os.environ.get("TMPDIR") or not os.access(_DISK, os.W_OK) else _DISK
    try:
        return tempfile.TemporaryFile(prefix="recovery-part-", dir=folder)
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        "a part of the dump cannot be kept in a temporary file until it is sent",
        detail=str(error),
        hint="past 37 GiB a backup to S3 needs 2 GiB free where TMPDIR says, else in /var/tmp",
    )


def storage_error(error: Exception, *, Bucket: str, Key: str = "") -> RecoveryError:  # noqa: N803  # as boto3 spells them
    """Turn an error of S3 into one that an operator can read, by what it says about the cause."""
    place = f"s3://{Bucket}/{Key}"
    if isinstance(error, botocore.exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("NoSuchBucket", "NoSuchKey", "404", "NotFound"):
            return EnvironmentLacksError(f"{place} does not exist", detail=str(error))
        if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            return EnvironmentLacksError(
                f"the credentials may not use {place}",
                detail=str(error),
                hint="look at the role's policy and the key's",
            )
        return RecoveryError(f"S3 refused a request for {place}", detail=str(error))
    return EnvironmentLacksError(
        f"S3 cannot be reached for {place}", detail=str(error), hint="check credentials, network and AWS_ENDPOINT_URL"
    )
