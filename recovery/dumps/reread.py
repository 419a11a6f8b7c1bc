"""Reads a backup's content again and compares it with its manifest: what a listing cannot know.

A dump of the time before manifests is read as a restore would read it, and whatever that refuses is found here too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import botocore.exceptions
import pydantic
from isal import isal_zlib

from recovery.dumps.catalogue import NO_MANIFEST
from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.reader import check
from recovery.dumps.rowsum import RECIPE
from recovery.dumps.source import DumpSource, FileSource, S3Source
from recovery.dumps.upload import storage_error
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError
from recovery.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recovery.dumps.catalogue import Backup
    from recovery.dumps.manifest import Globals, Manifest

_CHUNK = 1024 * 1024
_REPORT_EVERY = 64 * _CHUNK
_GZIP_FORMAT = 31
_MOST_PROBLEMS = 10

_InflateError = cast("type[Exception]", isal_zlib.error)  # isal's stubs do not know it for a class


class Reread(pydantic.BaseModel):
    """What reading a backup found: `problems` is empty for a good one; sizes in bytes.

    Without a manifest to compare with a good one is whole, and what it should hold nobody says.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    backup_id: str
    address: str
    size: int
    sha256: str
    uncompressed_size: int
    tables: int
    rows: int
    compared_with_manifest: bool
    globals_compared: bool = False
    problems: list[str]

    @property
    def good(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def reread_backup(backup: Backup, *, s3: Any = None, progress: Progress = silent) -> Reread:
    """Read the dump whole, inflate it, count and sum its rows; compare all, globals too, with the manifest.

    Raises EnvironmentLacksError when the dump cannot be read at all, BadDumpError when an unsealed one is not there;
    damage is a problem in the result.
    """
    problems: list[str] = [] if backup.problem in (None, NO_MANIFEST) else [backup.problem]
    if backup.manifest is None:
        return _read_as_a_restore_does(backup, s3, problems, progress)
    return _compare(backup, backup.manifest, s3, problems, progress)


def _read_as_a_restore_does(backup: Backup, s3: Any, problems: list[str], progress: Progress) -> Reread:
    source = _Watched(backup, s3, progress)
    tables = rows = 0
    try:
        reader = check(source)
        tables, rows = len(reader.facts.tables) + len(reader.facts.uncounted), sum(reader.facts.tables.values())
        if not reader.is_pg_dump:
            problems.append("it is not pg_dump's own text and has no manifest: nothing proves that it is whole")
        text = reader.text_done
    except BadDumpError as error:
        problems.append(f"{error.message} ({error.detail})" if error.detail else error.message)
        text = 0
    return Reread(
        backup_id=backup.backup_id,
        address=backup.address,
        size=source.size,
        sha256=source.sha256(),
        uncompressed_size=text,
        tables=tables,
        rows=rows,
        compared_with_manifest=False,
        globals_compared=False,
        problems=problems,
    )


class _Watched(DumpSource):
    """A backup's dump, summed up and told about while it is read."""

    def __init__(self, backup: Backup, s3: Any, progress: Progress) -> None:
        if backup.bucket is not None and backup.key is not None:
            self._source: DumpSource = S3Source(s3, backup.bucket, backup.key)
        else:
            self._source = FileSource(_path_of(backup))
        self.name, self.size = self._source.name, self._source.size
        self._backup, self._progress = backup, progress
        self._digest = hashlib.sha256()
        self._rest: Iterator[bytes] = iter(())

    def stored(self) -> Iterator[bytes]:
        self._rest = self._watched()
        return self._rest

    def sha256(self) -> str:
        """Return the sum of the whole dump, also where its reader stopped before its end."""
        for _ in self._rest:
            pass
        return self._digest.hexdigest()

    def _watched(self) -> Iterator[bytes]:
        done = reported = 0
        for chunk in self._source.stored():
            self._digest.update(chunk)
            done += len(chunk)
            if done - reported >= _REPORT_EVERY or done == self.size:
                reported = done
                self._progress(ProgressEvent("reread", done, self.size, "bytes", self._backup.filename))
            yield chunk


def _compare(backup: Backup, manifest: Manifest, s3: Any, problems: list[str], progress: Progress) -> Reread:
    digest, scanner, members = hashlib.sha256(), CopyScanner(), _Members()
    size = reported = 0
    for chunk in _content(backup, s3, backup.filename):
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
    problems += _differences(manifest, size, digest.hexdigest(), scanner, intact=members.damage is None)
    if manifest.globals is not None:
        problems += _differences_of_globals(backup, manifest.globals, s3)
    progress(ProgressEvent("reread", size, size, "bytes", backup.filename))
    return Reread(
        backup_id=backup.backup_id,
        address=backup.address,
        size=size,
        sha256=digest.hexdigest(),
        uncompressed_size=scanner.position,
        tables=len(scanner.blocks),
        rows=sum(block.rows for block in scanner.blocks),
        compared_with_manifest=True,
        globals_compared=manifest.globals is not None,
        problems=problems,
    )


def _differences(manifest: Manifest, size: int, sha256: str, scanner: CopyScanner, *, intact: bool) -> list[str]:
    problems = []
    if size != manifest.size:
        problems.append(f"it has {size} bytes, its manifest says {manifest.size}")
    if sha256 != manifest.sha256:
        problems.append(f"its SHA-256 is {sha256}, its manifest says {manifest.sha256}")
    if intact:
        found = scanner.contents()
        stated = {(table.schema_name, table.name): table for table in manifest.tables}
        for name in sorted(found.keys() | stated.keys()):
            if len(problems) == _MOST_PROBLEMS:
                break
            here, there = found.get(name), stated.get(name)
            if here is None or there is None or here.rows != there.rows:
                rows = [str(each.rows) if each is not None else "no" for each in (here, there)]
                problems.append(f"{'.'.join(name)}: {rows[0]} rows, its manifest says {rows[1]}")
            elif (there.checksum or "").startswith(f"{RECIPE}:") and here.checksum != there.checksum:
                problems.append(f"{'.'.join(name)}: its rows are not those that its manifest was made of")
    return problems


def _differences_of_globals(backup: Backup, stated: Globals, s3: Any) -> list[str]:
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in _content(backup, s3, stated.filename):
            digest.update(chunk)
            size += len(chunk)
    except EnvironmentLacksError as error:
        cause = error.__cause__
        answer = cause.response if isinstance(cause, botocore.exceptions.ClientError) else None
        if isinstance(cause, FileNotFoundError) or (answer and answer.get("Error", {}).get("Code") == "NoSuchKey"):
            return [f"its globals, {stated.filename}, are missing"]
        raise
    if (size, digest.hexdigest()) != (stated.size, stated.sha256):
        found = f"{size} bytes, SHA-256 {digest.hexdigest()}"
        return [f"its globals have {found}; its manifest says {stated.size} bytes, {stated.sha256}"]
    return []


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


def _content(backup: Backup, s3: Any, filename: str) -> Iterator[bytes]:
    """Read a file of the backup."""
    if backup.bucket is None or backup.key is None:
        path = _path_of(backup).with_name(filename)
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise EnvironmentLacksError(f"{path} cannot be read", detail=str(error)) from error
        return
    key = backup.key.removesuffix(backup.filename) + filename
    try:
        body = s3.get_object(Bucket=backup.bucket, Key=key)["Body"]
        with body:
            yield from body.iter_chunks(_CHUNK)
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise storage_error(error, Bucket=backup.bucket, Key=key) from error


def _path_of(backup: Backup) -> Path:
    if backup.path is None:
        raise RecoveryError(f"{backup.backup_id} is nowhere")
    return backup.path
