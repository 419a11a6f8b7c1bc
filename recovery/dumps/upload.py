"""Streams one object into S3 while it is being made, every part with a checksum that S3 verifies."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, Self

import botocore.exceptions

from recovery.errors import EnvironmentLacksError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MIB = 1024 * 1024

# S3 takes 10,000 parts of 5 MiB to 5 GiB.  Parts are held in memory while they are sent, so they are small as long as
# the number allows: 39 GiB in parts of 8 MiB, 62 GiB more in parts of 16 MiB sent one at a time; past these 100 GiB of
# compressed dump memory grows with the parts.
_PART_SIZES = ((5000, 8 * MIB), (9000, 16 * MIB), (9700, 64 * MIB), (10_000, 4096 * MIB))

_PARALLEL = 2


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """What S3 says of a complete object; `checksum` is its SHA-256 form: plain or composite ("…-3"), base64."""

    size: int
    checksum: str


def part_size(number: int) -> int:
    """The size in bytes of part `number`, counted from 1."""
    for last, size in _PART_SIZES:
        if number <= last:
            return size
    raise RecoveryError("the dump is larger than one S3 object can be")


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
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._digests: list[bytes] = []
        self._parts: dict[int, dict[str, Any]] = {}
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
        if not self._finished and self._upload_id is not None:
            try:
                self._s3.abort_multipart_upload(**self._where, UploadId=self._upload_id)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as problem:
                # The lifecycle removes incomplete uploads; what led here matters more than this.
                if error is not None:
                    error.add_note(f"the incomplete upload {self._upload_id} could not be aborted: {problem}")

    def write(self, data: bytes) -> None:
        """Take the next bytes; waits while enough parts are on their way."""
        self._buffer += data
        self._size += len(data)
        while len(self._buffer) >= (size := part_size(len(self._digests) + 1)):
            self._send(size)

    def finish(self) -> Uploaded:
        """Send the rest, complete the object and read back its size and checksum."""
        try:
            if self._upload_id is None:
                self._put_whole()
            else:
                if self._buffer:
                    self._send(len(self._buffer))
                self._wait(0)
                self._s3.complete_multipart_upload(
                    **self._where,
                    UploadId=self._upload_id,
                    MultipartUpload={"Parts": [self._parts[number] for number in sorted(self._parts)]},
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
        body = bytes(self._buffer)
        self._buffer.clear()
        self._digests.append(hashlib.sha256(body).digest())
        checksum = base64.b64encode(self._digests[0]).decode()
        self._s3.put_object(
            **self._where, Body=body, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum, **self._settings
        )

    def _send(self, size: int) -> None:
        try:
            if self._upload_id is None:
                started = self._s3.create_multipart_upload(
                    **self._where, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE", **self._settings
                )
                self._upload_id = started["UploadId"]
            body = bytes(self._buffer[:size])
            del self._buffer[:size]
            digest = hashlib.sha256(body).digest()
            self._digests.append(digest)
            self._wait(_PARALLEL - 1 if size <= _PART_SIZES[0][1] else 0)
            self._running.add(self._pool.submit(self._part, len(self._digests), body, digest))
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, **self._where) from error

    def _part(self, number: int, body: bytes, digest: bytes) -> None:
        checksum = base64.b64encode(digest).decode()
        answer = self._s3.upload_part(
            **self._where, UploadId=self._upload_id, PartNumber=number, Body=body, ChecksumSHA256=checksum
        )
        self._parts[number] = {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

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
