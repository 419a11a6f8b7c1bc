"""Where a dump's bytes come from: a file, an S3 object or standard input, compressed with gzip or plain.

A :class:`DumpSource` can be read several times, but for a large stream, and gives the same bytes each time, or raises.
None keeps more than a few pieces in memory.
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import io
import os
import stat
import sys
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from recovery.errors import BadDumpError, EnvironmentLacksError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

READ_BYTES = 1024 * 1024
# How every gzip member begins.
GZIP_FIRST = b"\x1f"
# Reading a dump of this size twice costs a moment; a larger one is checked while it loads into the side database, which
# finds the same faults before the target is touched, only later.
CHECK_FIRST_BYTES = 4 * 1024 * 1024
# pg_restore seeks in an archive, which is kept for it; more than this on a task's small disk would be the next
# accident.
SPOOL_LIMIT_BYTES = 1024 * 1024 * 1024
# Large enough that S3's answering time does not count, small enough that several fit in the memory of a client.
_S3_RANGE_BYTES = 4 * 1024 * 1024
_S3_RANGES_AHEAD = 4


class DumpSource(abc.ABC):
    """A dump's stored bytes.  ``name`` is for people, ``size`` counts stored (compressed) bytes.

    What can be read ``once`` has its size only when it has been.
    """

    name: str
    size: int
    once: bool = False
    # What another source of the same unchanged dump has, too; None where there can be no other one.
    identity: dict[str, str | int] | None = None

    @abc.abstractmethod
    def stored(self) -> Iterator[bytes]:
        """Read all stored bytes from the start; may be called again.

        Raises BadDumpError when the bytes changed since the source was opened, EnvironmentLacksError when they cannot
        be read.
        """

    @property
    def length(self) -> int | None:
        """How many bytes :meth:`stored` yields, None where that is not known before its end."""
        return self.size

    def head(self, count: int) -> bytes:
        """Return up to ``count`` stored bytes from the start."""
        head = b""
        chunks = self.stored()
        for chunk in chunks:
            head += chunk
            if len(head) >= count:
                break
        return head[:count]

    def close(self) -> None:  # noqa: B027  # most sources hold nothing between reads
        """Give back what the source holds; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FileSource(DumpSource):
    """A regular file, known by inode, size and time of change so that a swap between two reads is noticed."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        try:
            with path.open("rb") as file:
                self._identity = _identity(file)
        except FileNotFoundError as error:
            raise BadDumpError(
                f"there is no dump at {path}", hint="`recovery backups list` shows what there is"
            ) from error
        except IsADirectoryError as error:
            raise BadDumpError(
                f"{path} is a folder, not a dump",
                hint="it has no toc.dat, so it is no directory-format archive either; give one .sql or .sql.gz file",
            ) from error
        except OSError as error:
            raise EnvironmentLacksError(f"the dump {path} cannot be read", detail=str(error)) from error
        self.size = self._identity[1]
        self.identity = dict(zip(("inode", "size", "modified"), self._identity, strict=True))

    def stored(self) -> Iterator[bytes]:
        """Read the file; raises BadDumpError when it is no longer the file that was opened first."""
        try:
            with self._path.open("rb") as file:
                self._refuse_change(file)
                while chunk := file.read(READ_BYTES):
                    yield chunk
                self._refuse_change(file)
        except OSError as error:
            raise EnvironmentLacksError(f"the dump {self.name} can no longer be read", detail=str(error)) from error

    def _refuse_change(self, file: IO[bytes]) -> None:
        if _identity(file) != self._identity:
            raise BadDumpError(
                f"the dump {self.name} changed while it was being read",
                detail="its inode, size or modification time is not what it was",
                hint="wait until whatever writes it is done, then start again",
            )


class StreamSource(DumpSource):
    """A stream that can be read once, such as standard input.  Its beginning is kept, or all of a small one.

    ``size`` is what has been read so far.
    """

    def __init__(self, name: str, stream: IO[bytes], *, owned: bool = False) -> None:
        self.name = name
        self._stream = stream
        self._owned = owned
        self._begun = False
        self.size = 0
        self._kept = b"".join(self._until(CHECK_FIRST_BYTES + 1))
        self.once = self.size > CHECK_FIRST_BYTES

    @property
    def length(self) -> int | None:
        """Known of a small one only."""
        return None if self.once else self.size

    def head(self, count: int) -> bytes:
        """Return the first of what is kept."""
        return self._kept[:count]

    def stored(self) -> Iterator[bytes]:
        """Yield what is kept, then the rest as it comes, which can be had once.

        Raises RefusedError the second time.
        """
        if self.once and self._begun:
            raise RefusedError(
                f"the dump on {self.name} can be read only once",
                hint="store it in a file or in S3 and restore it from there",
            )
        self._begun = True
        for start in range(0, len(self._kept), READ_BYTES):
            yield self._kept[start : start + READ_BYTES]
        if self.once:
            self._kept = b""
            yield from self._until(None)

    def _until(self, enough: int | None) -> Iterator[bytes]:
        """Read on until so much is there in all, or to the end."""
        # What is there is taken as soon as it is: the other end of a pipe may be slow.
        read = self._stream.read1 if isinstance(self._stream, io.BufferedIOBase) else self._stream.read
        try:
            while enough is None or self.size < enough:
                chunk = read(READ_BYTES)
                if not chunk:
                    return
                self.size += len(chunk)
                yield chunk
        except OSError as error:
            raise EnvironmentLacksError(f"the dump on {self.name} cannot be read", detail=str(error)) from error

    def close(self) -> None:
        """Close the stream, unless it is somebody else's."""
        if self._owned:
            self._stream.close()


class S3Source(DumpSource):
    """One version of an S3 object, read by ranges: a cut connection costs one range, not the download."""

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        self.name = f"s3://{bucket}/{key}"
        self._client = client
        self._where: dict[str, str] = {"Bucket": bucket, "Key": key}
        head = self._ask(lambda: cast("dict[str, Any]", client.head_object(Bucket=bucket, Key=key)))
        self.size = int(head["ContentLength"])
        self._pinned = {**self._where, "IfMatch": str(head["ETag"])}
        if head.get("VersionId") not in (None, "null"):
            self._pinned["VersionId"] = str(head["VersionId"])
        self.identity = {
            "address": self.name,
            "size": self.size,
            "etag": self._pinned["IfMatch"],
            "version": self._pinned.get("VersionId", "none"),
        }

    def head(self, count: int) -> bytes:
        """Read one small range, not the first of the large ones."""
        last = min(count, self.size) - 1
        head: bytes = self._ask(lambda: self._range(0, last)) if last >= 0 else b""
        return head

    def stored(self) -> Iterator[bytes]:
        """Read the object that was there when the source was opened, a few ranges ahead of the reader."""
        pool = concurrent.futures.ThreadPoolExecutor(_S3_RANGES_AHEAD, thread_name_prefix="dump-fetch")
        waiting: deque[concurrent.futures.Future[bytes]] = deque()
        try:
            for offset in range(0, self.size, _S3_RANGE_BYTES):
                count = min(_S3_RANGE_BYTES, self.size - offset)
                waiting.append(pool.submit(self._whole_range, offset, count))
                if len(waiting) >= _S3_RANGES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _whole_range(self, offset: int, count: int) -> bytes:
        data: bytes = self._ask(lambda: self._range(offset, offset + count - 1))
        if len(data) != count:
            raise BadDumpError(f"S3 gave {len(data)} of {count} bytes at {offset} of {self.name}")
        return data

    @stamina.retry(on=lambda error: isinstance(error, BotoCoreError | OSError), attempts=5, timeout=120)
    def _range(self, first: int, last: int) -> bytes:
        request: Any = {**self._pinned, "Range": f"bytes={first}-{last}"}
        with contextlib.closing(self._client.get_object(**request)["Body"]) as body:
            return body.read()

    def _ask(self, call: Any) -> Any:
        try:
            return call()
        except ClientError as error:
            raise _s3_problem(self.name, error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise EnvironmentLacksError(
                f"{self.name} cannot be read: no AWS credentials", hint="set AWS_PROFILE or the AWS_* variables"
            ) from error
        except (BotoCoreError, OSError) as error:
            raise EnvironmentLacksError(f"{self.name} cannot be read", detail=str(error)) from error


def open_dump(
    source: str,
    *,
    s3: S3Client | None = None,
    region: str | None = None,
    stdin: IO[bytes] | None = None,
) -> DumpSource:
    """Open a dump given as FILE, FOLDER, ``s3://bucket/key`` or ``-`` (standard input).

    An archive of pg_dump (custom, tar or directory format) is read as the SQL that pg_restore makes of it.
    An S3 client is made for ``region`` unless one is given; a bucket of another region is found by S3's redirect.
    Raises UsageError for an address that is none, BadDumpError when there is no dump, EnvironmentLacksError when it
    cannot be read.
    """
    # The archives' module needs this one's sources.
    from recovery.dumps.archive import as_text, directory_archive  # noqa: PLC0415

    path = Path(source)
    if not source.startswith("s3://") and path.is_dir() and (archive := directory_archive(path)) is not None:
        return archive
    return as_text(_open(source, s3=s3, region=region, stdin=stdin))


def text_size_of(source: str, *, s3: S3Client | None = None) -> int | None:
    """Return how many bytes of text a dump has, None where it is compressed, an archive or can be read only once.

    Raises as :func:`open_dump` for an S3 object; a file that is not there has no size.
    """
    from recovery.dumps.archive import HEAD_BYTES, archive_format  # noqa: PLC0415  # as above

    if not source.startswith("s3://") and not Path(source).is_file():
        return None
    with _open(source, s3=s3, region=None, stdin=None) as dump:
        head = dump.head(HEAD_BYTES)
        return None if head.startswith(GZIP_FIRST) or archive_format(head) else dump.size


def _open(source: str, *, s3: S3Client | None, region: str | None, stdin: IO[bytes] | None) -> DumpSource:
    if source == "-":
        return StreamSource("standard input", stdin if stdin is not None else sys.stdin.buffer)
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        if not bucket or not key or key.endswith("/"):
            raise UsageError(f"{source} names no object", hint="write s3://BUCKET/KEY")
        return S3Source(s3 if s3 is not None else s3_client(region), bucket, key)
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError:
        return FileSource(path)  # which says what is wrong
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
        return StreamSource(source, path.open("rb"), owned=True)
    return FileSource(path)


def s3_client(region: str | None) -> S3Client:
    """Return an S3 client that answers or fails within a minute, in ``region`` or the environment's own."""
    config = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 4, "mode": "standard"})
    try:
        return boto3.client("s3", region_name=region, config=config)
    except BotoCoreError as error:
        raise EnvironmentLacksError("no S3 client can be made", detail=str(error), hint="name a region") from error


def _identity(file: IO[bytes]) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _s3_problem(name: str, error: ClientError) -> BadDumpError | EnvironmentLacksError:
    response: Any = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in {"NoSuchKey", "NoSuchBucket", "NotFound", "404"} or status == 404:
        return BadDumpError(
            f"there is no dump at {name}", detail=code, hint="`recovery backups list` shows what there is"
        )
    if code == "PreconditionFailed" or status == 412:
        return BadDumpError(f"the dump {name} was replaced while it was being read", hint="start again")
    if status in {401, 403}:
        return EnvironmentLacksError(
            f"{name} may not be read",
            detail=str(error),
            hint="the role needs s3:GetObject on it and kms:Decrypt on its key",
        )
    return EnvironmentLacksError(f"{name} cannot be read", detail=str(error))
