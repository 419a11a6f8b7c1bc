"""What files an archive of pg_dump names, so that none is read but its own.

pg_restore's reader of the directory format opens the folder's path with whatever name `toc.dat` or a list of large
objects gives, `../../etc/passwd` as well, and follows symbolic links: an archive from elsewhere could bring a file of
this machine into a table.  Only what pg_dump itself writes is let through.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from recovery.errors import BadDumpError, EnvironmentLacksError, RefusedError

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from pathlib import Path

TABLE_OF_CONTENTS = "toc.dat"

_DATA = re.compile(rb"\d+\.dat\Z")
_LARGE_OBJECTS = re.compile(rb"blobs(_\d+)?\.toc\Z")
_LARGE_OBJECT = re.compile(rb"\d+ blob_\d+\.dat\Z")

# Versions of the table of contents' form that are understood: of pg_dump 9.0 to 18.
_OLDEST, _NEWEST = 12, 16
_WITH_ACCESS_METHOD = 14
_WITH_COMPRESSION_BYTE = 15
_WITH_RELKIND = 16

_INT_BYTES = 4
_HEADER_INTS = 7  # the seven fields of the time of the dump


def refuse_foreign_files(folder: Path) -> None:
    """Raise BadDumpError when a directory-format archive would have pg_restore read anything but its own files.

    Raises RefusedError for a form of the table of contents that is not known, EnvironmentLacksError when the archive
    cannot be read.
    """
    try:
        for entry in sorted(folder.iterdir()):
            if not stat.S_ISREG(entry.lstat().st_mode):
                raise _foreign(folder, f"{entry.name} is no regular file")
            if ".toc." in entry.name:
                raise _foreign(folder, f"{entry.name} is a list of large objects that cannot be looked into")
        for description, name in _named_files(folder, (folder / TABLE_OF_CONTENTS).read_bytes()):
            form = _LARGE_OBJECTS if description == b"BLOBS" else _DATA
            if not form.match(name):
                raise _foreign(folder, f"{TABLE_OF_CONTENTS} names {name[:200]!r}")
        for entry in folder.glob("*.toc"):
            for line in entry.read_bytes().removesuffix(b"\n").split(b"\n"):
                if line and not _LARGE_OBJECT.match(line):
                    raise _foreign(folder, f"{entry.name} names {line[:200]!r}")
    except OSError as error:
        raise EnvironmentLacksError(f"the archive {folder} cannot be read", detail=str(error)) from error


def refuse_foreign_members(name: str, members: tarfile.TarFile) -> None:
    """Raise BadDumpError when a tar-format archive holds anything but plain files without a folder."""
    for member in members:
        if not member.isreg() or "/" in member.name or member.name in {".", ".."}:
            raise _foreign(name, f"its member {member.name[:200]!r} is not one that pg_dump writes")


def _foreign(archive: object, what: str) -> BadDumpError:
    return BadDumpError(
        f"the archive {archive} holds or names files that are not pg_dump's",
        detail=what,
        hint="nothing was read of it; restore a copy that nobody has changed",
    )


def _named_files(folder: Path, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield what kind of entry names which file, for each entry of the table of contents that has one."""
    fields = _Fields(folder, content)
    minor = fields.header()
    for _ in range(fields.integer()):
        fields.integer()  # its number
        fields.integer()  # whether it has data
        _table, _oid, _tag = fields.text(), fields.text(), fields.text()
        description = fields.text() or b""
        fields.integer()  # its section
        # Definition, DROP, COPY, schema, tablespace.
        for _ in range(5):
            fields.text()
        if minor >= _WITH_ACCESS_METHOD:
            fields.text()
        if minor >= _WITH_RELKIND:
            fields.integer()
        _owner, _with_oids = fields.text(), fields.text()
        while fields.text() is not None:
            pass  # what it depends on
        if name := fields.text():
            yield description, name
    fields.end()


class _Fields:
    """Reads the fields of a table of contents as pg_restore does."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self._folder = folder
        self._content = content
        self._position = 0

    def header(self) -> int:
        """Read what comes before the number of entries; return the minor version of the form."""
        if self._take(5) != b"PGDMP":
            raise self._damaged("it does not begin as one")
        major, minor, _revision, int_bytes, _offset_bytes, _format = self._take(6)
        if major != 1 or not _OLDEST <= minor <= _NEWEST or int_bytes != _INT_BYTES:
            raise RefusedError(
                f"the archive {self._folder} has a form that is not known here: {major}.{minor}",
                detail=f"1.{_OLDEST} to 1.{_NEWEST} are, of pg_dump 9.0 to 18",
                hint="turn it into SQL with `pg_restore -f dump.sql ARCHIVE`, and restore that",
            )
        if minor >= _WITH_COMPRESSION_BYTE:
            self._take(1)
        else:
            self.integer()
        for _ in range(_HEADER_INTS):
            self.integer()
        _database, _server, _program = self.text(), self.text(), self.text()
        return minor

    def integer(self) -> int:
        """Read a number: a byte for its sign and four for what it is, the lowest first."""
        sign, *_ = self._take(1)
        value = int.from_bytes(self._take(_INT_BYTES), "little", signed=True)
        return -value if sign else value

    def text(self) -> bytes | None:
        """Read a text, None where there is none."""
        length = self.integer()
        return None if length < 0 else self._take(length)

    def end(self) -> None:
        """Raise BadDumpError when anything follows."""
        if self._position != len(self._content):
            raise self._damaged(f"something follows after byte {self._position:,}")

    def _take(self, count: int) -> bytes:
        taken = self._content[self._position : self._position + count]
        if len(taken) != count:
            raise self._damaged(f"it ends at byte {len(self._content):,}, inside a field")
        self._position += count
        return taken

    def _damaged(self, what: str) -> BadDumpError:
        return BadDumpError(
            f"the archive {self._folder} is damaged: its {TABLE_OF_CONTENTS} cannot be read",
            detail=what,
            hint="restore another copy or an older backup: `recovery backups list`",
        )
