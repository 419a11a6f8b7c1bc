"""A dump's stored bytes turned into its text: every gzip member checked by our own code.

The deflate streams are inflated raw and the wrapping is checked here, because decoders differ in what they check of it:
some take an end at a member's edge, a wrong length or garbage after the last member for a good file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from isal import igzip_lib, isal_zlib

from recovery.errors import BadDumpError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Large enough that Python's part per piece does not count, small enough that many under way stay below 150 MB.
PIECE_BYTES = 1024 * 1024

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


def inflate(chunks: Iterator[bytes], name: str, piece: int = PIECE_BYTES) -> Iterator[bytes]:
    """Turn stored bytes into the dump's text, in pieces of at most ``piece`` bytes.

    The reader's own thread does it.  Inflating ahead of it in others, each a member that the manifest tells, takes a
    fifth more CPU time and four times the memory, and restores no sooner where the server needs the cores.

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
    """The members of one gzip stream, one after the other."""

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
