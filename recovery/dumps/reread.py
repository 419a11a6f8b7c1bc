"""Reads a backup's content again and compares it with its manifest: what a listing cannot know."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import botocore.exceptions
import pydantic
from isal import isal_zlib

from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.upload import storage_error
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError
from recovery.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.dumps.catalogue import Backup

_CHUNK = 1024 * 1024
_REPORT_EVERY = 64 * _CHUNK
_GZIP_FORMAT = 31

_InflateError = cast("type[Exception]", isal_zlib.error)  # isal's stubs do not know it for a class


class Reread(pydantic.BaseModel):
    """What reading a backup found: `problems` is empty for a good one; sizes in bytes."""

    model_config = pydantic.ConfigDict(frozen=True)

    backup_id: str
    address: str
    size: int
    sha256: str
    uncompressed_size: int
    tables: int
    rows: int
    compared_with_manifest: bool
    problems: list[str]

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def reread_backup(backup: Backup, *, s3: Any = None, progress: Progress = silent) -> Reread:
    """Read the dump whole, inflate it, and count its rows; compare all with the manifest where there is one.

    Raises EnvironmentLacksError when the dump cannot be read at all; damage is a problem in the result.
    """
    digest, scanner, members = hashlib.sha256(), CopyScanner(), _Members()
    size = reported = 0
    problems: list[str] = [] if backup.sealed or backup.problem is None else [backup.problem]
    for chunk in _content(backup, s3):
        digest.update(chunk)
        size += len(chunk)
        if members.damage is None:
            try:
                for text in members.inflate(chunk):
                    scanner.feed(text)
            except (BadDumpError, _InflateError) as error:
                members.damage = f"it cannot be read from byte {size - len(chunk)} on: {error}"
        if size - reported >= _REPORT_EVERY:
            reported = size
            progress(ProgressEvent("reread", size, backup.size, "bytes", backup.filename))
    if members.damage is None and not members.complete:
        members.damage = f"it ends in the middle of a gzip member after {size} bytes"
    if members.damage is None:
        try:
            scanner.finish()
        except BadDumpError as error:
            members.damage = str(error)
    if members.damage is not None:
        problems.append(members.damage)
    problems += _differences(backup, size, digest.hexdigest(), scanner, intact=members.damage is None)
    progress(ProgressEvent("reread", size, size, "bytes", backup.filename))
    return Reread(
        backup_id=backup.backup_id,
        address=backup.address,
        size=size,
        sha256=digest.hexdigest(),
        uncompressed_size=scanner.position,
        tables=len(scanner.blocks),
        rows=sum(block.rows for block in scanner.blocks),
        compared_with_manifest=backup.manifest is not None,
        problems=problems,
    )


def _differences(backup: Backup, size: int, sha256: str, scanner: CopyScanner, *, intact: bool) -> list[str]:
    manifest = backup.manifest
    if manifest is None:
        return []
    problems = []
    if size != manifest.size:
        problems.append(f"it has {size} bytes, its manifest says {manifest.size}")
    if sha256 != manifest.sha256:
        problems.append(f"its SHA-256 is {sha256}, its manifest says {manifest.sha256}")
    if intact:
        found: dict[tuple[str, str], int] = {}
        for block in scanner.blocks:
            found[block.schema, block.name] = found.get((block.schema, block.name), 0) + block.rows
        stated = {(table.schema_name, table.name): table.rows for table in manifest.tables}
        problems += [
            f"{'.'.join(name)}: {found.get(name, 'no')} rows, its manifest says {stated.get(name, 'none')}"
            for name in sorted(found.keys() | stated.keys())
            if found.get(name) != stated.get(name)
        ][:10]
    return problems


class _Members:
    """Inflates gzip members one after another, in pieces of bounded size whatever they inflate to."""

    def __init__(self) -> None:
        self.damage: str | None = None
        self.complete = False
        self._inflater = isal_zlib.decompressobj(_GZIP_FORMAT)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater.eof:
                self._inflater = isal_zlib.decompressobj(_GZIP_FORMAT)
            self.complete = False
            text = self._inflater.decompress(data, _CHUNK)
            if text:
                yield text
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            while not data and not self._inflater.eof:
                # All input is taken, but more output than one piece may be waiting inside.
                text = self._inflater.decompress(b"", _CHUNK)
                if not text:
                    break
                yield text
            self.complete = self._inflater.eof
            if self._inflater.eof:
                data = data or self._inflater.unused_data


def _content(backup: Backup, s3: Any) -> Iterator[bytes]:
    if backup.bucket is None or backup.key is None:
        if backup.path is None:
            raise RecoveryError(f"{backup.backup_id} is nowhere")
        try:
            with backup.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise EnvironmentLacksError(f"{backup.path} cannot be read", detail=str(error)) from error
        return
    try:
        body = s3.get_object(Bucket=backup.bucket, Key=backup.key)["Body"]
        with body:
            yield from body.iter_chunks(_CHUNK)
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise storage_error(error, Bucket=backup.bucket, Key=backup.key) from error
