"""Find where one SQL statement ends, by the rules of psql's own scanner (psqlscan.l)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.dumps.window import Window

# A statement is sent in one piece and therefore held whole.  With COPY the longest is a function's body.  With
# --inserts it is a row: one of 100 MB of bytes is 200 MB of digits, and PostgreSQL, which refuses a message of 1 GB,
# makes several copies of it.  A longer one is more likely a trap for memory than a dump that anyone has restored.
MAX_STATEMENT_BYTES = 256 * 1024 * 1024

_SPECIAL = re.compile(rb"""['"$;()\\\0]|--|/\*""")
_SPECIAL_IN_ROUTINE = re.compile(
    rb"""['"$;()\\\0]|--|/\*|(?<![A-Za-z0-9_$\x80-\xff])(?:begin|case|end)(?![A-Za-z0-9_$\x80-\xff])""", re.IGNORECASE
)
_LONGEST_SPECIAL = 5  # begin
_ATOMIC = re.compile(rb"[ \t\r\n\f\v]+atomic(?![A-Za-z0-9_$\x80-\xff])", re.IGNORECASE)
_ATOMIC_BYTES = 64  # more than pg_dump writes between the two words
_ROUTINE = re.compile(rb"create\s+(?:or\s+replace\s+)?(?:function|procedure)\s", re.IGNORECASE)
_ESCAPE_PREFIX = re.compile(rb"(?:^|[^A-Za-z0-9_$\x80-\xff])[eE]\Z")
_ESCAPED_END = re.compile(rb"[\\']")
_CONTINUED = re.compile(rb"(?:[ \t\f\v]*[\r\n][ \t\r\n\f\v]*)?'")
_MAYBE_CONTINUED = re.compile(rb"[ \t\r\n\f\v]*\Z")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_DOLLAR = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")
_MAYBE_DOLLAR = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\Z")
_WORD_BEFORE = re.compile(rb"[A-Za-z0-9_$\x80-\xff]*\Z")
_LONGEST_WORD = 200  # names have 63 bytes; only the run before a dollar sign is looked at
_WORD_START = re.compile(rb"[A-Za-z_\x80-\xff]")


def statement_end(window: Window, *, plain_strings: bool) -> int:
    """Return the buffer position behind the semicolon of the statement that begins at the window's start.

    ``plain_strings`` is the dump's standard_conforming_strings.  Raises BadDumpError when the text ends first, at a
    psql command inside the statement, and at what cannot be cut for certain.
    """
    return _Scan(window, plain_strings=plain_strings).end()


class _Scan:
    """One statement being scanned.  Offsets count from the window's start and stay good when it is filled."""

    def __init__(self, window: Window, *, plain_strings: bool) -> None:
        self._window = window
        self._plain_strings = plain_strings
        self._parentheses = 0
        self._blocks = 0  # open BEGIN ATOMIC and CASE ... END
        self._special = _SPECIAL
        self._looked_for_routine = False

    def end(self) -> int:
        window = self._window
        offset = 0
        while True:
            found = self._special.search(window.buffer, window.start + offset)
            at_edge = found is not None and found.end() == len(window.buffer) and found.group().isalpha()
            if found is None or (at_edge and not window.ended):
                # What the buffer ends with may be half of a token.
                offset = max(offset, window.waiting - _LONGEST_SPECIAL)
                if at_edge and found is not None:
                    offset = found.start() - window.start
                self._more("a statement")
                continue
            token, after = found.group(), found.end() - window.start
            if token == b";" and self._parentheses == 0 and self._blocks == 0:
                return found.end()
            offset = self._skip(token, after)

    def _skip(self, token: bytes, after: int) -> int:
        """Return the offset behind what ``token``, which ends at ``after``, begins."""
        match token:
            case b"'":
                return self._string(after)
            case b'"':
                return self._find(b'"', after, "a quoted name") + 1
            case b"$":
                return self._dollar(after)
            case b"--":
                return self._comment_line(after)
            case b"/*":
                return self._comment(after)
            case b"\\":
                raise self._window.bad("a psql command inside a statement", hint="pg_dump writes none")
            case b"\0":
                raise self._window.bad("a zero byte: this is not SQL text")
            case b"(":
                self._parentheses += 1
                self._look_for_routine()
            case b")":
                self._parentheses = max(0, self._parentheses - 1)
            case b";":
                pass
            case _:
                self._block(token.lower(), after)
        return after

    def _more(self, inside: str) -> None:
        window = self._window
        if window.waiting > MAX_STATEMENT_BYTES:
            raise window.bad(
                f"a statement of more than {MAX_STATEMENT_BYTES:,} bytes",
                hint="dump again with COPY, without --inserts and --rows-per-insert: its rows have no such limit",
            )
        if not window.fill():
            raise window.cut_off(inside, window.line)

    def _find(self, what: bytes, offset: int, inside: str) -> int:
        window = self._window
        while (found := window.buffer.find(what, window.start + offset)) < 0:
            offset = max(offset, window.waiting - len(what) + 1)
            self._more(inside)
        return found - window.start

    def _string(self, after: int) -> int:
        window = self._window
        opening = window.start + after - 1
        before = window.buffer[max(window.start, opening - 2) : opening]
        if self._plain_strings and not _ESCAPE_PREFIX.search(before):
            # A doubled quote ends one string and begins the next, which comes to the same.
            return self._find(b"'", after, "a string") + 1
        return self._escaped_string(after)

    def _escaped_string(self, offset: int) -> int:
        window = self._window
        while True:
            found = _ESCAPED_END.search(window.buffer, window.start + offset)
            if found is None:
                offset = window.waiting
                self._more("a string")
                continue
            offset = found.end() - window.start
            if found.group() == b"\\":
                offset += 1
                while offset > window.waiting:
                    self._more("a string")
                continue
            # A string that goes on after a doubled quote or on the next line keeps its escapes.
            while _MAYBE_CONTINUED.match(window.buffer, window.start + offset) and not window.ended:
                self._more("a statement")
            continued = _CONTINUED.match(window.buffer, window.start + offset)
            if continued is None:
                return offset
            offset = continued.end() - window.start

    def _dollar(self, after: int) -> int:
        window = self._window
        offset = after - 1
        while _MAYBE_DOLLAR.match(window.buffer, window.start + offset) and not window.ended:
            self._more("a statement")
        position = window.start + offset
        opening = _DOLLAR.match(window.buffer, position)
        if opening is None:
            return after  # a parameter, or part of a name
        word = _WORD_BEFORE.search(window.buffer[max(window.start, position - _LONGEST_WORD) : position])
        if word is not None and word.group():
            if _WORD_START.match(word.group()):
                return after  # names may contain dollar signs
            raise window.bad("a dollar sign after a number: it cannot be told whether a string begins there")
        tag = opening.group()
        return self._find(tag, offset + len(tag), "a dollar-quoted string") + len(tag)

    def _comment_line(self, offset: int) -> int:
        window = self._window
        while (found := window.buffer.find(b"\n", window.start + offset)) < 0:
            offset = window.waiting
            self._more("a statement")
        return found - window.start

    def _comment(self, offset: int) -> int:
        window = self._window
        depth = 1
        while depth:
            edge = _COMMENT_EDGE.search(window.buffer, window.start + offset)
            if edge is None:
                offset = max(offset, window.waiting - 1)
                self._more("a comment")
                continue
            depth += 1 if edge.group() == b"/*" else -1
            offset = edge.end() - window.start
        return offset

    def _look_for_routine(self) -> None:
        # A routine's name is always followed by a parenthesis, so its first one is early enough to know.
        if not self._looked_for_routine:
            self._looked_for_routine = True
            if _ROUTINE.match(self._window.buffer, self._window.start):
                self._special = _SPECIAL_IN_ROUTINE

    def _block(self, word: bytes, after: int) -> None:
        if self._parentheses:
            return
        if word == b"begin":
            # Alone it is a name: pg_dump writes it without quotes, and psql loses count at it.
            self._blocks += self._is_atomic(after)
        elif word == b"case" and self._blocks:
            self._blocks += 1
        elif word == b"end" and self._blocks:
            self._blocks -= 1

    def _is_atomic(self, after: int) -> bool:
        window = self._window
        while window.waiting < after + _ATOMIC_BYTES and not window.ended:
            window.fill()
        return _ATOMIC.match(window.buffer, window.start + after) is not None
