"""Watches the SQL that pg_dump writes as it passes by, and notes where data begins and ends and what it is.

It is a lexer of just what is needed: it knows strings, dollar quotes, quoted names and comments, so that text inside a
function's body is never taken for a COPY, and it jumps over COPY data at the speed of a search for its end.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from recovery.dumps.rowsum import Content, RowSum
from recovery.dumps.statements import UNSAFE_ENCODINGS, codec_of
from recovery.errors import BadDumpError

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = r'(?:"(?:[^"]|"")+"|[^\s".,();]+)'
_COPY = re.compile(rf"COPY ({_NAME})\.({_NAME}) ?(?:\((.*)\))? ?FROM stdin;\Z".encode(), re.DOTALL)
_SETVAL = re.compile(rb"SELECT pg_catalog\.setval\('((?:[^']|'')*)', (-?\d+), (true|false)\);\Z")
_QUALIFIED = re.compile(rf"({_NAME})\.({_NAME})\Z")
_NAMES = re.compile(_NAME)
_CLIENT_ENCODING = re.compile(rb"SET client_encoding = '([A-Za-z0-9_]+)';\Z")
_DATA_STATEMENT = re.compile(rb"(COPY |SELECT pg_catalog\.(setval|lo_|lowrite))")

# What can begin something in plain SQL that hides text, and the end of a statement.
_INTERESTING = re.compile(rb"'|\"|\$|--|/\*|;|\\")
# What pg_dump writes before each entry, between two lines that are empty comments. A name can hold anything but the
# end of a line.
_ENTRY = re.compile(rb" (Data for )?Name: (.*); Type: ([^;]+); Schema: (.*); Owner: (.*)\Z")
_EMPTY_COMMENT = b"--\n"
_LAST_LINE = b" PostgreSQL database dump complete"
_DOLLAR_TAG = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_BACKSLASHED = re.compile(rb"[^'\\]*(?:\\.[^'\\]*|''[^'\\]*)*", re.DOTALL)

_COPY_END = b"\\.\n"
# A statement longer than this is not remembered: it is a large object's or a function's, not a COPY or a setval.
_LONGEST_HEAD = 512 * 1024


@dataclasses.dataclass
class Block:
    """A COPY block: `offset` of its first row, `length` of its rows in bytes, their number and sum."""

    schema: str
    name: str
    columns: tuple[str, ...]
    offset: int
    length: int = 0
    sum: RowSum = dataclasses.field(default_factory=RowSum)

    @property
    def title(self) -> str:
        """The table's name for people."""
        return f"{self.schema}.{self.name}"

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.sum.rows

    def add(self, text: bytes) -> None:
        """Take more of the block's text."""
        self.sum.feed(text)
        self.length += len(text)


@dataclasses.dataclass
class SequenceSetting:
    """A setval line."""

    schema: str
    name: str
    value: int
    is_called: bool


@dataclasses.dataclass(frozen=True)
class Entry:
    """What pg_dump says of what comes next, from `offset` on: its own words, in the dump's encoding.

    `kind` is empty for the end of the dump.
    """

    offset: int
    kind: str
    schema: bytes = b""
    name: bytes = b""


class CopyScanner:
    """Feed it the dump's bytes in order; it collects `blocks`, `sequences` and the bounds of the data.

    `data_start` and `data_end` are None until a statement that sets data was seen.  `in_copy` tells whether the bytes
    fed so far end inside COPY data.  `on_entry` is called with each entry before anything behind its offset counts, and
    may insert a block there.
    """

    def __init__(self, on_entry: Callable[[Entry], None] | None = None) -> None:
        self._on_entry = on_entry
        self._entry_offset: int | None = None  # of an empty comment, which may begin one
        self._dashes: int | None = None  # the offset of the last comment
        self.blocks: list[Block] = []
        self.sequences: list[SequenceSetting] = []
        self.data_start: int | None = None
        self.data_end: int | None = None
        self.position = 0
        self.pg_dump_version: str | None = None
        # pg_dump writes names in the encoding of the database, and says which one that is before the first of them.
        self._encoding = b"UTF8"
        self._pending = b""  # bytes from self._base on that are not consumed yet
        self._base = 0
        self._state = "plain"
        self._tag = b""
        self._depth = 0
        self._statement_start: int | None = None
        self._head = bytearray()
        self._line_started = True

    @property
    def in_copy(self) -> bool:
        """Whether what was fed so far ends within COPY data."""
        return self._state == "copy"

    @property
    def settled(self) -> int:
        """The offset before which no entry begins that is not known yet."""
        begun = self._dashes if self._state == "line" and self._dashes is not None else self._base
        if self._entry_offset is not None and begun == self._entry_offset + len(_EMPTY_COMMENT):
            return self._entry_offset
        return begun

    def insert(self, block: Block, begin: int, end: int) -> None:
        """Note a block that is written before the entry that is told of; where its COPY begins and its data ends."""
        self.blocks.append(block)
        self._note_data(begin, end)

    def shift(self, length: int) -> None:
        """Note that so many bytes are written before the entry that is told of."""
        self.position += length
        self._base += length

    def contents(self) -> dict[tuple[str, str], Content]:
        """What the blocks hold, by (schema, name) of their tables.

        A table has several where its partitions are loaded through it, and no checksum where their columns' orders
        differ.
        """
        sums: dict[tuple[str, str], RowSum] = {}
        columns: dict[tuple[str, str], set[tuple[str, ...]]] = {}
        for block in self.blocks:
            name = block.schema, block.name
            columns.setdefault(name, set()).add(block.columns)
            sums.setdefault(name, RowSum()).merge(block.sum)
        return {
            name: Content(found.rows, found.checksum(first) if not others else None, first)
            for name, found in sums.items()
            for first, *others in (sorted(columns[name]),)
        }

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self.position += len(data)
        buffer = self._pending + data if self._pending else data
        consumed = 0
        while consumed < len(buffer):
            step = self._copy(buffer, consumed) if self._state == "copy" else self._sql(buffer, consumed)
            if step is None:
                break
            consumed = step
        self._pending = buffer[consumed:]
        self._base += consumed

    def finish(self) -> None:
        """Say that the dump has ended; raises BadDumpError when it ends inside something."""
        if self._state == "line" or (self._state == "plain" and not self._pending.strip(b"\n\r\t ")):
            return
        if self._state == "plain" and self._pending:
            # The last bytes were held back because more could have followed them.
            self.feed(b"\n")
            if self._state == "plain":
                return
        raise BadDumpError(
            "the dump ends in the middle of a statement", detail=f"after {self.position} bytes, inside {self._state}"
        )

    def _copy(self, buffer: bytes, start: int) -> int | None:
        """Consume COPY data; rows end with newlines, and the data with a line that is `\\.`."""
        block = self.blocks[-1]
        end = self._end_of_copy(buffer, start)
        if end >= 0:
            block.add(buffer[start:end])
            self._state, self._line_started = "plain", True
            self.data_end = self._base + end + len(_COPY_END)
            return end + len(_COPY_END)
        # All of it is data, except a last line of a byte or two that may turn out to begin the end mark.
        line = buffer.rfind(b"\n", start) + 1 or start
        at_line_start = line > start or self._line_started
        held = at_line_start and len(buffer) - line < len(_COPY_END) and _COPY_END.startswith(buffer[line:])
        end = line if held else len(buffer)
        if end == start:
            return None
        block.add(buffer[start:end])
        self._line_started = held
        return end

    def _end_of_copy(self, buffer: bytes, start: int) -> int:
        """Where the line is that ends the data, or -1."""
        if self._line_started and buffer.startswith(_COPY_END, start):
            return start
        # Mostly there is none, and searching from behind finds that out in half the time.
        if buffer.rfind(b"\n" + _COPY_END, start) < 0:
            return -1
        return buffer.find(b"\n" + _COPY_END, start) + 1

    def _sql(self, buffer: bytes, start: int) -> int | None:
        handler = {
            "plain": self._plain,
            "string": self._string,
            "escape": self._escape_string,
            "name": self._quoted_name,
            "dollar": self._dollar,
            "line": self._line_comment,
            "comment": self._block_comment,
        }[self._state]
        return handler(buffer, start)

    def _take(self, buffer: bytes, start: int, end: int) -> int:
        """Consume bytes that belong to the current statement."""
        if self._statement_start is not None:
            if len(self._head) < _LONGEST_HEAD:
                self._head += buffer[start:end]
        else:
            text = buffer[start:end]
            stripped = text.lstrip(b" \t\r\n")
            if stripped:
                self._statement_start = self._base + end - len(stripped)
                self._head = bytearray(stripped)
        return end

    def _plain(self, buffer: bytes, start: int) -> int | None:  # noqa: PLR0911  # one return per kind of mark
        found = _INTERESTING.search(buffer, start)
        if found is None:
            # The last byte may begin a comment or be the E of an E'' string.
            end = len(buffer) - 2
            return self._take(buffer, start, end) if end > start else None
        mark, at = found.group(), found.start()
        if mark == b";":
            if at + 1 == len(buffer):
                # Whether a COPY's data begins here shows in the next byte.
                return self._take(buffer, start, at) if at > start else None
            return self._end_statement(buffer, self._take(buffer, start, at + 1))
        if mark == b"'":
            escaped = at > start and buffer[at - 1 : at] in b"eE" and not _is_word(buffer[max(at - 2, 0) : at - 1])
            self._state = "escape" if escaped else "string"
            return self._take(buffer, start, at + 1)
        if mark == b'"':
            self._state = "name"
            return self._take(buffer, start, at + 1)
        if mark == b"--":
            # A comment between statements is no part of one.
            self._take(buffer, start, at)
            self._state, self._dashes = "line", self._base + at
            return at + 2
        if mark == b"/*":
            self._take(buffer, start, at)
            self._state, self._depth = "comment", 1
            return at + 2
        if mark == b"\\":
            if self._statement_start is None and not buffer[start:at].strip():
                # A psql command such as \restrict: it ends with its line.
                self._state, self._dashes = "line", None
                return at + 1
            return self._take(buffer, start, at + 1)
        return self._dollar_sign(buffer, start, at)

    def _dollar_sign(self, buffer: bytes, start: int, at: int) -> int | None:
        tag = _DOLLAR_TAG.match(buffer, at)
        if tag is None:
            if len(buffer) - at < 130 and b"\n" not in buffer[at:]:  # a tag has 63 bytes at most; wait for the rest
                # The byte before stays too: it tells a tag from a name.
                return self._take(buffer, start, at - 1) if at - 1 > start else None
            return self._take(buffer, start, at + 1)
        if at > 0 and _is_word(buffer[at - 1 : at]):  # a$b$c is a name
            return self._take(buffer, start, at + 1)
        self._state, self._tag = "dollar", tag.group()
        return self._take(buffer, start, tag.end())

    def _string(self, buffer: bytes, start: int) -> int | None:
        end = buffer.find(b"'", start)
        if end < 0:
            return self._take(buffer, start, len(buffer))
        self._state = "plain"  # a doubled quote simply opens the next string
        return self._take(buffer, start, end + 1)

    def _escape_string(self, buffer: bytes, start: int) -> int | None:
        found = _BACKSLASHED.match(buffer, start)
        end = found.end() if found else start
        if end + 1 < len(buffer) and buffer[end : end + 1] == b"'":
            self._state = "plain"
            return self._take(buffer, start, end + 1)
        return self._take(buffer, start, end) if end > start else None

    def _quoted_name(self, buffer: bytes, start: int) -> int | None:
        end = buffer.find(b'"', start)
        if end < 0:
            return self._take(buffer, start, len(buffer))
        self._state = "plain"
        return self._take(buffer, start, end + 1)

    def _dollar(self, buffer: bytes, start: int) -> int | None:
        end = buffer.find(self._tag, start)
        if end < 0:
            keep = len(buffer) - len(self._tag) + 1
            return self._take(buffer, start, keep) if keep > start else None
        self._state = "plain"
        return self._take(buffer, start, end + len(self._tag))

    def _line_comment(self, buffer: bytes, start: int) -> int | None:
        end = buffer.find(b"\n", start)
        if end < 0:
            return None if len(buffer) - start < 64 * 1024 else len(buffer)
        if self._dashes == self._base + start - 2:  # not the rest of a longer line
            self._entry(self._dashes, buffer[start:end])
        if self.pg_dump_version is None and buffer.startswith(b" Dumped by pg_dump version ", start):
            self.pg_dump_version = buffer[start + 27 : end].decode("utf-8", "replace")
        self._state = "plain"
        return end + 1

    def _entry(self, offset: int, comment: bytes) -> None:
        """Look at a comment, without its dashes, which are at this offset."""
        begun, self._entry_offset = self._entry_offset, None
        if self._on_entry is None or self._statement_start is not None:
            return
        if not comment:
            self._entry_offset = offset
        elif begun is not None and offset == begun + len(_EMPTY_COMMENT):
            if (found := _ENTRY.match(comment)) is not None:
                _, name, kind, schema, _ = found.groups()
                self._on_entry(Entry(begun, kind.decode("ascii", "replace"), schema, name))
            elif comment == _LAST_LINE:
                self._on_entry(Entry(begun, ""))

    def _block_comment(self, buffer: bytes, start: int) -> int | None:
        edge = _COMMENT_EDGE.search(buffer, start)
        if edge is None:
            return len(buffer) - 1 if len(buffer) - 1 > start else None
        self._depth += 1 if edge.group() == b"/*" else -1
        if self._depth == 0:
            self._state = "plain"
        return edge.end()

    def _end_statement(self, buffer: bytes, end: int) -> int:
        statement, begin = bytes(self._head), self._statement_start
        self._head, self._statement_start = bytearray(), None
        if begin is None:
            return end
        if (encoding := _CLIENT_ENCODING.match(statement)) is not None:
            self._encoding = encoding.group(1).upper()
            if self._encoding in UNSAFE_ENCODINGS:
                raise BadDumpError(
                    f"the dump is written in {self._encoding.decode()}, whose characters can contain backslashes",
                    hint="dump again with `pg_dump --encoding=UTF8`",
                )
        if _DATA_STATEMENT.match(statement) is None:
            return end
        copy = _COPY.match(statement)
        if copy is None:
            self._note_data(begin, self._base + end)
            self._setval(statement)
            return end
        self._note_data(begin, self._base + end)
        schema, name, columns = (self._text(part) if part else "" for part in copy.groups())
        self._state, self._line_started = "copy", True
        if buffer[end : end + 1] != b"\n":  # pg_dump writes the line's end right after the semicolon
            raise BadDumpError("a COPY statement of the dump does not end its line", detail=repr(statement[:200]))
        self.blocks.append(
            Block(
                _unquoted(schema),
                _unquoted(name),
                tuple(_unquoted(column) for column in _NAMES.findall(columns)),
                self._base + end + 1,
            )
        )
        return end + 1

    def _setval(self, statement: bytes) -> None:
        found = _SETVAL.match(statement)
        if found is None:
            return
        qualified = _QUALIFIED.match(self._text(found.group(1)).replace("''", "'"))
        if qualified is not None:
            schema, name = _unquoted(qualified.group(1)), _unquoted(qualified.group(2))
            self.sequences.append(SequenceSetting(schema, name, int(found.group(2)), found.group(3) == b"true"))

    def _text(self, name: bytes) -> str:
        try:
            return name.decode(codec_of(self._encoding))
        except UnicodeDecodeError as error:
            raise BadDumpError(
                "a name in the dump cannot be read in the dump's own encoding",
                detail=f"{self._encoding.decode()}: {name[:100]!r}",
                hint="rename the object to letters of that encoding, or to ASCII",
            ) from error

    def _note_data(self, begin: int, end: int) -> None:
        if self.data_start is None:
            self.data_start = begin
        self.data_end = end


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _is_word(byte: bytes) -> bool:
    return byte.isalnum() or byte in (b"_", b"$") or byte > b"\x7f"
