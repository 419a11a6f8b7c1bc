"""Where a dump's bytes come from: a file, an S3 object or standard input, compressed with gzip or plain.

A :class:`DumpSource` can be read several times and gives the same bytes each time, or raises.  :func:`inflate` turns
those bytes into text and checks every gzip member itself: header, CRC-32 and length of each one, nothing missing at
the end, nothing that does not belong there.  Neither keeps more than a few pieces in memory.
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from isal import igzip_lib, isal_zlib

from recovery.errors import BadDumpError, EnvironmentLacksError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

READ_BYTES = 1024 * 1024
# Large enough that Python's part per piece does not count, small enough that many under way stay below 150 MB.
PIECE_BYTES = 1024 * 1024
# Standard input has to be kept to be read twice; more than this on a task's small disk would be the next accident.
SPOOL_LIMIT_BYTES = 1024 * 1024 * 1024
_S3_PART_BYTES = 8 * 1024 * 1024
_S3_PARTS_AHEAD = 3

# The package's own type hints call this class an instance.
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)

_OTHER_FORMATS = {
    b"PGDMP": ("a pg_dump custom-format archive", "turn it into SQL with `pg_restore -f dump.sql ARCHIVE` first"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "decompress it first with `zstd -d`"),
    b"BZh": ("compressed with bzip2", "decompress it first with `bunzip2`"),
    b"\xfd7zXZ\x00": ("compressed with xz", "decompress it first with `unxz`"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "decompress it first with `lz4 -d`"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
}


class DumpSource(abc.ABC):
    """A dump's stored bytes.  ``name`` is for people, ``size`` counts stored (compressed) bytes."""

    name: str
    size: int

    @abc.abstractmethod
    def stored(self) -> Iterator[bytes]:
        """Read all stored bytes from the start; may be called again.

        Raises BadDumpError when the bytes changed since the source was opened, EnvironmentLacksError when they cannot
        be read.
        """

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


class SpoolSource(DumpSource):
    """A stream that can be read once, kept in a temporary file that nobody else can see."""

    def __init__(self, name: str, stream: IO[bytes], limit: int = SPOOL_LIMIT_BYTES) -> None:
        self.name = name
        self.size = 0
        self._file = tempfile.TemporaryFile(prefix="recovery-dump-")  # noqa: SIM115  # lives as long as the source
        try:
            while chunk := stream.read(READ_BYTES):
                self.size += len(chunk)
                self._refuse_excess(limit)
                self._file.write(chunk)
        except OSError as error:
            self._file.close()
            raise EnvironmentLacksError(f"the dump on {name} cannot be kept for reading", detail=str(error)) from error
        except BaseException:
            self._file.close()
            raise

    def _refuse_excess(self, limit: int) -> None:
        if self.size > limit:
            raise RefusedError(
                f"the dump on {self.name} is larger than {limit:,} bytes, the most that is kept in a temporary file",
                hint="store it in a file or in S3 and restore it from there",
            )

    def stored(self) -> Iterator[bytes]:
        """Read the temporary file from its start."""
        offset = 0
        while True:
            self._file.seek(offset)
            chunk = self._file.read(READ_BYTES)
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


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

    def head(self, count: int) -> bytes:
        """Read one small range, not the first of the large ones."""
        last = min(count, self.size) - 1
        head: bytes = self._ask(lambda: self._range(0, last)) if last >= 0 else b""
        return head

    def stored(self) -> Iterator[bytes]:
        """Read the object that was there when the source was opened, a few ranges ahead of the reader."""
        pool = concurrent.futures.ThreadPoolExecutor(_S3_PARTS_AHEAD, thread_name_prefix="s3-read")
        offsets = iter(range(0, self.size, _S3_PART_BYTES))
        waiting: deque[concurrent.futures.Future[bytes]] = deque()
        try:
            for offset in offsets:
                waiting.append(pool.submit(self._part, offset))
                if len(waiting) >= _S3_PARTS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _part(self, offset: int) -> bytes:
        last = min(offset + _S3_PART_BYTES, self.size) - 1
        part: bytes = self._ask(lambda: self._range(offset, last))
        if len(part) != last - offset + 1:
            raise BadDumpError(f"S3 gave {len(part)} of {last - offset + 1} bytes at {offset} of {self.name}")
        return part

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


def _open(source: str, *, s3: S3Client | None, region: str | None, stdin: IO[bytes] | None) -> DumpSource:
    if source == "-":
        return SpoolSource("standard input", stdin if stdin is not None else sys.stdin.buffer)
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
        with path.open("rb") as stream:
            return SpoolSource(source, stream)
    return FileSource(path)


def s3_client(region: str | None) -> S3Client:
    """Return an S3 client that answers or fails within a minute, in ``region`` or the environment's own."""
    config = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 4, "mode": "standard"})
    try:
        return boto3.client("s3", region_name=region, config=config)
    except BotoCoreError as error:
        raise EnvironmentLacksError("no S3 client can be made", detail=str(error), hint="name a region") from error


def hashed(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    """Pass chunks through, feeding each to ``digest``."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def inflate(chunks: Iterator[bytes], name: str, piece: int = PIECE_BYTES) -> Iterator[bytes]:
    """Turn stored bytes into the dump's text, in pieces of at most ``piece`` bytes.

    Raises BadDumpError: nothing there, not gzip nor text, a member's header, CRC or length wrong, an end in the middle
    of a member, bytes after the last member that are no padding of zeros.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 8:
            break
    if not head:
        raise BadDumpError(f"the dump {name} is empty", hint="restore another one: `recovery backups list`")
    for magic, (what, hint) in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise BadDumpError(f"{name} is not a plain SQL dump: it is {what}", hint=hint)
    if head.startswith(b"\x1f"):
        yield from _Members(name, head, chunks, piece).text()
        return
    yield head
    yield from chunks


class _Members:
    """The members of one gzip stream, one after the other.

    The deflate streams are inflated raw and the wrapping is checked here, because decoders differ in what they check of
    it: some take an end at a member's edge, a wrong length or garbage after the last member for a good file.
    """

    def __init__(self, name: str, head: bytes, chunks: Iterator[bytes], piece: int) -> None:
        self._name = name
        self._rest = head
        self._chunks = chunks
        self._piece = piece
        self._seen = len(head)
        self._member = 0

    def text(self) -> Iterator[bytes]:
        while self._more_members():
            self._member += 1
            self._header()
            yield from self._body()

    def _bad(self, what: str) -> BadDumpError:
        return BadDumpError(
            f"the dump {self._name} is damaged: {what}",
            detail=f"gzip member {self._member}, at or before stored byte {self._seen:,}",
            hint="restore another copy or an older backup: `recovery backups list`",
        )

    def _fill(self) -> bool:
        """Append the next stored chunk; False at the end."""
        for chunk in self._chunks:
            if chunk:
                self._rest += chunk
                self._seen += len(chunk)
                return True
        return False

    def _take(self, count: int, what: str) -> bytes:
        while len(self._rest) < count:
            if not self._fill():
                raise self._bad(f"it ends inside {what}")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _more_members(self) -> bool:
        while not self._rest:
            if not self._fill():
                return False
        if self._rest[0] == 0 and self._member:
            # Tapes and block devices pad with zeros, which gzip ignores too; anything else was not written by gzip.
            while True:
                if self._rest.strip(b"\0"):
                    raise self._bad("there are bytes after the last gzip member that belong to no member")
                self._rest = b""
                if not self._fill():
                    return False
        return True

    def _header(self) -> None:
        fixed = self._take(10, "a member's header")
        if fixed[:2] != b"\x1f\x8b":
            what = "there are bytes after the last gzip member" if self._member > 1 else "it is neither gzip nor text"
            raise self._bad(what)
        method, flags = fixed[2], fixed[3]
        if method != 8 or flags & 0xE0:
            raise self._bad("a member's header is not one that gzip writes")
        header = fixed
        if flags & 4:
            length = self._take(2, "a member's header")
            header += length + self._take(int.from_bytes(length, "little"), "a member's header")
        for flag in (8, 16):  # file name, comment: both end with a zero byte
            if flags & flag:
                header += self._zero_terminated()
        if flags & 2:
            stored = int.from_bytes(self._take(2, "a member's header"), "little")
            if stored != isal_zlib.crc32(header) & 0xFFFF:
                raise self._bad("a member's header does not match its checksum")

    def _zero_terminated(self) -> bytes:
        text = b""
        while (byte := self._take(1, "a member's header")) != b"\0":
            text += byte
            if len(text) > 65536:
                raise self._bad("a member's header has no end")
        return text + b"\0"

    def _body(self) -> Iterator[bytes]:
        stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        crc, length = 0, 0
        data, self._rest = self._rest, b""
        while not stream.eof:
            if not data and stream.needs_input:
                if not self._fill():
                    raise self._bad("it ends inside compressed data")
                data, self._rest = self._rest, b""
            try:
                piece = stream.decompress(data, self._piece)
            except _ISAL_ERROR as error:
                raise self._bad(f"its compressed data cannot be inflated ({error})") from error
            data = b""
            if piece:
                crc = isal_zlib.crc32(piece, crc)
                length += len(piece)
                yield piece
        self._rest = stream.unused_data + self._rest
        trailer = self._take(8, "a member's trailer")
        if int.from_bytes(trailer[:4], "little") != crc:
            raise self._bad("a member's CRC-32 does not match its data")
        if int.from_bytes(trailer[4:], "little") != length & 0xFFFFFFFF:
            raise self._bad("a member's length does not match its data")


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
