r"""Cut a dump's text into statements, COPY blocks and psql commands, as psql itself would cut it.

The reader works on large pieces of bytes with compiled searches and keeps one statement, or a few megabytes of COPY
data, in memory.  It follows psqlscan.l: strings with and without backslash escapes, dollar quotes, nested comments,
parentheses (a semicolon inside CREATE RULE's does not end it), BEGIN ATOMIC bodies, ``\.`` after COPY data.  What it
cannot follow for certain it refuses with the line number, because a statement cut at the wrong place would restore
something other than what was dumped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from recovery.dumps.scan import statement_end
from recovery.dumps.statements import (
    UNSAFE_ENCODINGS,
    CopyBlock,
    Inserts,
    Item,
    Label,
    PsqlCommand,
    Statement,
    codec_of,
    read_copy,
    table_name,
)
from recovery.dumps.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

_SMALL_PIECE_BYTES = 512 * 1024
_LONG_ROW_BYTES = 1024 * 1024

_SPACE = re.compile(rb"[ \t\r\n\f\v]*")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_WORD = re.compile(rb"[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*")
_SETTING = re.compile(
    rb"SET\s+(?:SESSION\s+)?(standard_conforming_strings|client_encoding)\s*(?:=|TO)\s*'?([A-Za-z0-9_]+)'?\s*;\Z",
    re.IGNORECASE,
)
_PSQL = re.compile(rb"\\(\S+)[ \t]*([^\r\n]*)")


class Lexer:
    """Reads one dump from its pieces of text, which may be cut anywhere.

    After :meth:`items` is exhausted, ``is_pg_dump`` says whether the text claims to be pg_dump's, ``complete`` whether
    it ends as pg_dump ends, ``server_version`` and ``pg_dump_version`` what it says about its origin.  ``codec`` is
    Python's name of the encoding in force, ``encoding`` PostgreSQL's, None before the text has said one.
    """

    def __init__(self, text: Iterator[bytes]) -> None:
        self._window = Window(text)
        self._plain_strings = True  # standard_conforming_strings
        self.codec = "utf-8"
        self.encoding: str | None = None
        self._label: Label | None = None
        self.is_pg_dump = False
        self.is_cluster_dump = False
        self.complete = False
        self.server_version: str | None = None
        self.pg_dump_version: str | None = None

    def items(self) -> Iterator[Item]:
        """Yield everything in order, INSERTs that belong together as one item.

        Raises BadDumpError at what is cut off or cannot be understood.
        """
        while self._skip_to_next():
            if self._window.buffer[self._window.start : self._window.start + 1] == b"\\":
                yield self._psql_command()
                continue
            statement = self._statement()
            self._note_settings(statement.text)
            first = _WORD.match(statement.text)
            if first is not None and first.group().upper() == b"COPY":
                block = self._copy_block(statement)
                yield block
                for _ in block.pieces:  # whatever the caller left
                    pass
            else:
                yield statement

    # -- between statements

    def _skip_to_next(self) -> bool:
        """Move to the next statement or psql command, reading comments on the way; False at the end."""
        while True:
            space = _SPACE.match(self._window.buffer, self._window.start)
            self._window.consume(space.end() if space else self._window.start)
            left = self._window.waiting
            if left < 2 and self._window.fill():
                continue
            if left == 0:
                return False
            opening = self._window.buffer[self._window.start : self._window.start + 2]
            if opening == b"--":
                self._line_comment()
            elif opening == b"/*":
                self._block_comment()
            else:
                return True

    def _line_comment(self) -> None:
        end = self._window.line_end()
        self._read_comment(self._window.consume(end)[2:].strip())

    def _read_comment(self, text: bytes) -> None:
        if not text:
            return
        if text == b"PostgreSQL database dump":
            self.is_pg_dump = True
            self.complete = False  # another one after a whole one has to be whole as well
        elif text == b"PostgreSQL database cluster dump":
            self.is_cluster_dump = True
        elif text == b"PostgreSQL database dump complete":
            self.complete = True
            self._label = None
        elif text.startswith(b"Dumped from database version "):
            self.server_version = text[29:].decode("utf-8", "backslashreplace")
        elif text.startswith(b"Dumped by pg_dump version "):
            self.pg_dump_version = text[26:].decode("utf-8", "backslashreplace")
        elif (label := Label.read(text)) is not None:
            self._label = label

    def _block_comment(self) -> None:
        line, depth = self._window.line, 0
        while True:
            edge = _COMMENT_EDGE.search(self._window.buffer, self._window.start)
            if edge is None:
                # Keep the last byte: it may be half of an edge.
                self._window.consume(max(self._window.start, len(self._window.buffer) - 1))
                if not self._window.fill():
                    raise self._window.cut_off("a comment", line)
                continue
            depth += 1 if edge.group() == b"/*" else -1
            self._window.consume(edge.end())
            if depth == 0:
                return

    def _psql_command(self) -> PsqlCommand:
        line = self._window.line
        end = self._window.line_end()
        text = self._window.consume(end)
        found = _PSQL.match(text)
        if found is None:
            raise self._window.bad("a backslash that is no psql command", line=line)
        name, argument = (part.decode("utf-8", "backslashreplace").strip() for part in found.groups())
        return PsqlCommand(name, argument, line)

    # -- statements

    def _statement(self) -> Statement:
        line = self._window.line
        if self._plain_strings and (inserts := Inserts.match(self._window.buffer, self._window.start)) is not None:
            table = table_name(inserts["table"], self.codec)
            return Inserts(self._window.consume(inserts.end()), line, self._label, table=table)
        text = self._window.consume(statement_end(self._window, plain_strings=self._plain_strings))
        if len(text) > _LONG_ROW_BYTES:
            self._window.let_go()
        return Statement(text, line, self._label)

    def _note_settings(self, text: bytes) -> None:
        found = _SETTING.match(text) if len(text) < 200 else None
        if found is None:
            return
        name, value = found.group(1).lower(), found.group(2).upper()
        if name == b"standard_conforming_strings":
            self._plain_strings = value in {b"ON", b"TRUE", b"YES", b"1"}
        elif value in UNSAFE_ENCODINGS:
            raise self._window.bad(
                f"the dump is written in {value.decode()}, whose characters can contain quotes and backslashes",
                hint="dump again with `pg_dump --encoding=UTF8`",
            )
        else:
            self.codec, self.encoding = codec_of(value), value.decode("ascii")

    # -- COPY

    def _copy_block(self, statement: Statement) -> CopyBlock:
        read = read_copy(statement.text, self.codec)
        if read is None:
            raise self._window.bad(
                "a COPY that is not `COPY table (columns) FROM stdin` as pg_dump writes it",
                line=statement.line,
                hint="files and programs of the server, and COPY with options, are never used by a dump",
            )
        end = self._window.line_end()
        if end == len(self._window.buffer):
            raise self._window.cut_off(f"the rows of {read[0]}", statement.line)
        if self._window.buffer[self._window.start : end].strip():
            raise self._window.bad("text after the semicolon of a COPY", line=statement.line)
        self._window.consume(end + 1)
        block = CopyBlock(statement, *read, pieces=iter(()))
        block.pieces = self._rows(block)
        return block

    def _rows(self, block: CopyBlock) -> Iterator[bytes]:
        at_row_start = True
        while True:
            end = self._end_of_rows(at_row_start=at_row_start)
            if end is not None:
                if end > self._window.start:
                    yield self._hand_out(block, end)
                self._window.consume(self._after_end_of_rows(end))
                return
            cut = self._last_row_end()
            if cut > self._window.start and self._window.waiting >= _SMALL_PIECE_BYTES:
                yield self._hand_out(block, cut)
                at_row_start = True
            elif cut <= self._window.start and self._window.waiting >= _LONG_ROW_BYTES:
                # One row longer than a piece: its end is not here yet.  A last backslash is kept back, so that a
                # newline it may escape is never taken for the row's end.
                yield self._hand_out(block, len(self._window.buffer) - self._window.buffer.endswith(b"\\"))
                at_row_start = False
            elif not self._window.fill():
                raise self._window.cut_off(f"the rows of {block.table}", block.statement.line)

    def _hand_out(self, block: CopyBlock, end: int) -> bytes:
        before = self._window.line
        piece = self._window.consume(end)
        block.rows += self._window.line - before
        return piece

    def _last_row_end(self) -> int:
        r"""Position after the last newline that ends a row: one not preceded by an odd number of backslashes."""
        end = len(self._window.buffer)
        while (newline := self._window.buffer.rfind(b"\n", self._window.start, end)) >= 0:
            backslashes = 0
            while newline - backslashes > self._window.start and self._window.buffer[newline - backslashes - 1] == 0x5C:
                backslashes += 1
            if backslashes % 2 == 0:
                return newline + 1
            end = newline
        return self._window.start

    def _end_of_rows(self, *, at_row_start: bool) -> int | None:
        r"""Position of the ``\.`` line, None when it is not in the buffer."""
        position = self._window.start
        if not at_row_start or not self._window.buffer.startswith(b"\\.", position):
            # Most pieces hold no end, and that rfind says two to three times as fast as find.
            if self._window.buffer.rfind(b"\n\\.", position) < 0:
                return None
            position = self._window.buffer.find(b"\n\\.", position) + 1
        while len(self._window.buffer) < position + 4:
            offset = position - self._window.start
            more = self._window.fill()
            position = self._window.start + offset
            if not more:
                break
        tail = self._window.buffer[position + 2 : position + 4]
        if tail[:1] == b"\n" or tail == b"\r\n" or not tail:
            return position
        raise self._window.bad(r"a row that begins with \. but is not the end of the rows")

    def _after_end_of_rows(self, position: int) -> int:
        newline = self._window.buffer.find(b"\n", position)
        return len(self._window.buffer) if newline < 0 else newline + 1
