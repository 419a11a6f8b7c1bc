"""The part of a dump's text that is being looked at: a buffer that is filled at its end and consumed at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery.errors import BadDumpError

if TYPE_CHECKING:
    from collections.abc import Iterator


# A line that is read whole is a comment or a psql command; more than this is no such thing, but a trap for memory.
MAX_LINE_BYTES = 16 * 1024 * 1024
# From here on what waits grows by a quarter instead of doubling: still linear, with less of it twice in memory.
_LARGE_BYTES = 16 * 1024 * 1024


class Window:
    """Text from ``start`` on that is not handed out yet, and the line number at ``start``.

    :meth:`fill` moves what is waiting to the front of a new buffer, so positions are only good until the next fill;
    offsets from ``start`` stay good.
    """

    def __init__(self, text: Iterator[bytes]) -> None:
        self._text = text
        self.buffer = b""
        self.start = 0
        self.line = 1
        self.ended = False

    @property
    def waiting(self) -> int:
        """Bytes in the buffer that are not handed out."""
        return len(self.buffer) - self.start

    def fill(self) -> bool:
        """Get more text, in proportion to what is waiting so that growth stays linear; False when there is none."""
        if self.ended:
            return False
        pieces = [self.buffer[self.start :] if self.start else self.buffer]
        self.start = 0
        wanted, got = len(pieces[0]), 0
        if wanted > _LARGE_BYTES:
            wanted //= 4
        for piece in self._text:
            if piece:
                pieces.append(piece)
                got += len(piece)
                if got >= wanted:
                    break
        else:
            self.ended = True
        self.buffer = b"".join(pieces)
        return got > 0

    def consume(self, end: int) -> bytes:
        """Hand out the buffer from ``start`` to position ``end`` and count its lines."""
        taken = self.buffer[self.start : end]
        self.start = end
        # bytes.count looks at each byte by itself; this looks for the next newline with the processor's own means.
        self.line += len(taken) - len(taken.replace(b"\n", b""))
        return taken

    def let_go(self) -> None:
        """Keep nothing in memory that is handed out.  Positions are no longer good."""
        self.buffer = self.buffer[self.start :]
        self.start = 0

    def line_end(self) -> int:
        """Position of the next newline, or the end of the text when its last line has none.

        Raises BadDumpError at a line longer than MAX_LINE_BYTES.
        """
        offset = 0
        while (end := self.buffer.find(b"\n", self.start + offset)) < 0:
            offset = self.waiting
            if offset > MAX_LINE_BYTES:
                raise self.bad(f"a line of more than {MAX_LINE_BYTES:,} bytes outside of rows and statements")
            if not self.fill():
                return len(self.buffer)
        return end

    def bad(self, message: str, *, line: int | None = None, hint: str | None = None) -> BadDumpError:
        """Return the error that names the line, by default the one at ``start``."""
        return BadDumpError(f"line {self.line if line is None else line} of the dump: {message}", hint=hint)

    def cut_off(self, inside: str, line: int) -> BadDumpError:
        """Return the error for a text that ends too early."""
        return self.bad(
            f"the text ends inside {inside} that begins here: the dump is cut off",
            line=line,
            hint="restore another copy or an older backup: `recovery backups list`",
        )
