"""Archives of pg_dump (custom, tar and directory format) read as the SQL that pg_restore makes of them.

`pg_restore --file=-` connects to nothing: it writes the text that pg_dump would have written as a plain dump.  So an
archive goes through the same reader, the same rules and the same loader as a plain dump, and what is true of one (all
or nothing, what RDS refuses is noted, rows are counted) is true of the other.

An archive carries no checksum of its own.  pg_restore ends with an error where it is cut off or cannot be inflated,
and the text must end with pg_dump's own last line; what it inflates to is not proven otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from machine.programs import ProgramNotFoundError, postgresql_client_folder
from recovery.dumps.archive_contents import TABLE_OF_CONTENTS, refuse_foreign_files, refuse_foreign_members
from recovery.dumps.session import NEWEST_PROGRAMS, OLDEST_SERVER
from recovery.dumps.source import READ_BYTES, SPOOL_LIMIT_BYTES, DumpSource, FileSource
from recovery.errors import BadDumpError, EnvironmentLacksError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What the first bytes of an archive tell: a custom format's magic, and that of a tar whose first member pg_dump names.
HEAD_BYTES = 512
_CUSTOM = b"PGDMP"
_TAR_FIRST_MEMBER = b"toc.dat\0"
_TAR_MAGIC = slice(257, 262)
_TAR_END = 1024

_MADE_BY = re.compile(r"^;\s+Dumped by pg_dump version: (\d+)", re.MULTILINE)
_MOST_COMPLAINT = 2000
# It reads a local file and waits for nobody: after this long it is lost in a damaged one, as some versions are.
SILENCE_SECONDS = 600
_NEWER_ARCHIVE = "unsupported version"


def archive_format(head: bytes) -> str | None:
    """Return "custom" or "tar" for the first HEAD_BYTES of such an archive, None for anything else."""
    if head.startswith(_CUSTOM):
        return "custom"
    if head.startswith(_TAR_FIRST_MEMBER) and head[_TAR_MAGIC] == b"ustar":
        return "tar"
    return None


def as_text(source: DumpSource) -> DumpSource:
    """Return a source that gives an archive's SQL; any other source is returned as it is.

    An archive that is no file of this machine is first kept in a temporary one, which takes it up to SPOOL_LIMIT_BYTES.
    Raises RefusedError for a larger one, EnvironmentLacksError when this machine has no pg_restore that is new enough,
    BadDumpError when pg_restore cannot read its table of contents.
    """
    form = archive_format(source.head(HEAD_BYTES))
    if form is None:
        return source
    try:
        if isinstance(source, FileSource):
            return ArchiveSource(source.name, Path(source.name), form, source.size, source)
        return ArchiveSource(source.name, None, form, source.size, source)
    except BaseException:
        source.close()
        raise


def directory_archive(folder: Path) -> ArchiveSource | None:
    """Return the source of a directory-format archive, None for any other folder."""
    if not (folder / TABLE_OF_CONTENTS).is_file():
        return None
    try:
        size = sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise EnvironmentLacksError(f"the archive {folder} cannot be read", detail=str(error)) from error
    return ArchiveSource(str(folder), folder, "directory", size, None)


class ArchiveSource(DumpSource):
    """The SQL of one archive.  `size` counts the archive's own bytes, `form` is custom, tar or directory."""

    def __init__(self, name: str, path: Path | None, form: str, size: int, original: DumpSource | None) -> None:
        self.name = name
        self.size = size
        self.form = form
        self._original = original
        self._kept: IO[bytes] | None = None
        if path is None and original is not None:
            self._kept = _keep(original)
            self.size = original.size
        self._path = path if path is not None else Path(f"/dev/fd/{self._kept.fileno()}") if self._kept else Path()
        self._identity = self._look()
        try:
            if form == "tar":
                self._refuse_cut_tar()
            self._program = self._fitting_program()
            if form == "directory":
                refuse_foreign_files(self._path)
            self.identity = self._identify()
        except BaseException:
            self.close()
            raise

    @property
    def length(self) -> int | None:
        """Nobody knows how much pg_restore will write."""
        return None

    def stored(self) -> Iterator[bytes]:
        """Run pg_restore and yield what it writes.

        Raises BadDumpError with pg_restore's words when it fails, or when the archive changed since it was opened.
        """
        if self._look() != self._identity:
            raise self._changed()
        with tempfile.TemporaryFile() as complaints, self._started(["--file=-"], complaints) as process:
            try:
                if process.stdout is not None:
                    while chunk := self._read(process.stdout):
                        yield chunk
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            if code != 0:
                raise self._damaged(_words(complaints))
        if self._look() != self._identity:
            raise self._changed()

    def head(self, count: int) -> bytes:
        """Return the first bytes of the text."""
        with contextlib.closing(self.stored()) as chunks:  # type: ignore[type-var]  # a generator, which can be closed
            return next(chunks, b"")[:count]

    def close(self) -> None:
        """Remove the temporary file, if there is one."""
        if self._kept is not None:
            self._kept.close()
        if self._original is not None:
            self._original.close()

    def _read(self, output: IO[bytes]) -> bytes:
        """Read what pg_restore has written, or nothing at its end; raises BadDumpError when it writes no more."""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(SILENCE_SECONDS):
                raise self._damaged(f"pg_restore has written nothing for {SILENCE_SECONDS} seconds")
        return os.read(output.fileno(), READ_BYTES)

    def _fitting_program(self) -> Path:
        """The oldest pg_restore that is at least as new as the pg_dump that made the archive."""
        programs = _programs()
        if not programs:
            raise EnvironmentLacksError(
                f"{self.name} is a {self.form}-format archive and this machine has no pg_restore",
                hint="install the PostgreSQL client programs of the server's major version",
            )
        newest = max(programs)
        self._program = programs[newest]
        with tempfile.TemporaryFile() as complaints:
            with self._started(["--list"], complaints) as process:
                output, _ = process.communicate()
            if process.returncode != 0:
                words = _words(complaints)
                if _NEWER_ARCHIVE in words:
                    raise EnvironmentLacksError(
                        f"{self.name} was made by a pg_dump that is newer than this machine's newest pg_restore, "
                        f"PostgreSQL {newest}'s",
                        detail=words,
                        hint="install the client programs of the major version that made it",
                    )
                raise self._damaged(words)
        found = _MADE_BY.search(output.decode("utf-8", "replace"))
        made_by = int(found.group(1)) if found else newest
        if made_by > newest:
            raise EnvironmentLacksError(
                f"{self.name} was made by pg_dump {made_by}; this machine's newest pg_restore is of {newest}",
                hint=f"install postgresql-client-{made_by}, or put its programs on PATH",
            )
        return next(program for major, program in sorted(programs.items()) if major >= made_by)

    def _refuse_cut_tar(self) -> None:
        """Follow the tar from header to header: pg_restore reads for ever at the end of one that is cut off."""
        try:
            with self._path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as members:
                refuse_foreign_members(self.name, members)
                end = max(((member.offset_data + member.size) for member in members), default=0)
                file.seek(max(0, self.size - _TAR_END))
                last = file.read()
        except tarfile.TarError as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise EnvironmentLacksError(f"the archive {self.name} cannot be read", detail=str(error)) from error
        if end > self.size - _TAR_END or last.strip(b"\0"):
            raise self._damaged("it is cut off: the two empty blocks that end a tar are missing")

    def _started(self, arguments: list[str], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
        # Nothing that libpq or pg_restore read from the environment has a say here, and messages are in English.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        kept = [self._kept.fileno()] if self._kept is not None else []
        if self._kept is not None:
            self._kept.seek(0)
        try:
            return subprocess.Popen(
                [self._program, *arguments, "--exit-on-error", f"--format={self.form}", self._path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**environment, "LC_ALL": "C"},
                pass_fds=kept,
            )
        except OSError as error:
            raise EnvironmentLacksError(f"{self._program} does not run", detail=str(error)) from error

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of change of every file of the archive."""
        try:
            files = sorted(self._path.iterdir()) if self.form == "directory" else [self._path]
            looks = ((file.name, file.stat(follow_symlinks=self.form != "directory")) for file in files)
            return tuple((name, look.st_size, look.st_mtime_ns) for name, look in looks)
        except OSError as error:
            raise EnvironmentLacksError(f"the archive {self.name} can no longer be read", detail=str(error)) from error

    def _identify(self) -> dict[str, str | int] | None:
        """The archive and the program that reads it, whose text may differ from another version's."""
        if self.form == "directory":
            files = hashlib.sha256(repr(self._identity).encode()).hexdigest()
            return {"files": files, "program": str(self._program)}
        known = self._original.identity if self._original is not None else None
        return None if known is None else {**known, "program": str(self._program)}

    def _damaged(self, words: str) -> BadDumpError:
        return BadDumpError(
            f"the {self.form}-format archive {self.name} is damaged: pg_restore cannot read it",
            detail=words,
            hint="restore another copy or an older backup: `recovery backups list`",
        )

    def _changed(self) -> BadDumpError:
        return BadDumpError(
            f"the archive {self.name} changed while it was being read",
            hint="wait until whatever writes it is done, then start again",
        )


def _programs() -> Mapping[int, Path]:
    found: dict[int, Path] = {}
    for major in range(OLDEST_SERVER, NEWEST_PROGRAMS + 1):
        with contextlib.suppress(ProgramNotFoundError):
            found[major] = postgresql_client_folder(major) / "pg_restore"
    return found


def _keep(source: DumpSource) -> IO[bytes]:
    """Copy an archive to a temporary file that nobody else can see: pg_restore seeks in it."""
    kept = tempfile.TemporaryFile(prefix="recovery-archive-")  # noqa: SIM115  # lives as long as the source
    try:
        _refuse_excess(source)
        for chunk in source.stored():
            _refuse_excess(source)
            kept.write(chunk)
        kept.flush()
    except OSError as error:
        kept.close()
        raise EnvironmentLacksError(f"{source.name} cannot be kept for reading", detail=str(error)) from error
    except BaseException:
        kept.close()
        raise
    return kept


def _refuse_excess(source: DumpSource) -> None:
    if source.size > SPOOL_LIMIT_BYTES:
        size = f"more than {SPOOL_LIMIT_BYTES:,}" if source.once else f"{source.size:,}"
        raise RefusedError(
            f"{source.name} is an archive of {size} bytes; up to {SPOOL_LIMIT_BYTES:,} are kept in a temporary file",
            hint="download it and restore the file, or take backups as plain SQL, which needs no temporary file",
        )


def _words(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(0, size - _MOST_COMPLAINT))
    return complaints.read().decode("utf-8", "replace").strip() or "it said nothing"
