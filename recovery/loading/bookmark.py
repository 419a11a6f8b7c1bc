"""How far a restore has come, kept in its side database's comment, so that a later one can go on from there.

Every statement and COPY block of a dump has an ordinal.  From the first rows on, the effect of each and the entry that
says it is done are committed in one transaction: the entry is neither ahead of the database nor behind it.  That holds
when the server crashes too, although commits do not wait for the disk: what is left then is a prefix of what was
committed, in the order of the write-ahead log, and of one transaction either all or nothing.

What comes before the first rows is done one statement after the other and is entered with the first rows.  Rows of one
table that several sessions copy are committed by each of them: that this has begun is entered before, and the last
one's commit enters that it is done; in between such a table is emptied and loaded again.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import zlib
from typing import TYPE_CHECKING, Any

import psycopg
from isal import isal_zlib
from psycopg.pq import TransactionStatus

from recovery.dumps.statements import literal, quote, text_literal
from recovery.errors import BadDumpError, RecoveryError
from recovery.loading.pool import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from recovery.dumps.statements import CopyBlock, Statement
    from recovery.loading.notes import Notes
    from recovery.loading.session import Session

# Commands that do all they do in the transaction they run in, so that doing them and entering it is one thing; but not
# those whose work is gone with the session, or may be after a crash.
_TRANSACTIONAL = re.compile(
    rb"(?:(?:CREATE|ALTER|COMMENT|GRANT|REVOKE|SECURITY|DROP|REFRESH)\b"
    rb"|SELECT\s+(?:\*\s+FROM\s+)?pg_catalog\.(?:lo_[a-z]+|lowrite|pg_restore_[a-z_]+)\s*\(|;\Z)",
    re.IGNORECASE,
)
_PASSING = re.compile(
    rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b"
    rb"|CREATE\s+UNLOGGED\s+TABLE\b.*\bAS\s+(?:\(\s*)*(?:SELECT|WITH|VALUES|TABLE|EXECUTE)\b",
    re.IGNORECASE | re.DOTALL,
)
_BEGINS = re.compile(rb"(?:BEGIN|START\s+TRANSACTION)\b[^;]*;\Z", re.IGNORECASE)
_ENDS = re.compile(rb"(?:COMMIT|END)\s*;\Z", re.IGNORECASE)

# Notes on statements that failed and must not be tried again: what was not there to drop then is there now.
_NOT_AGAIN = frozenset({"clean", "exists"})

_LOST = (
    b"SELECT c.relpersistence = 'u' FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%b)",
    b"SELECT NOT EXISTS (SELECT FROM ONLY %b)",
)
# Whether a table takes room that may be given back.
_ROOM = (
    b"SELECT pg_catalog.pg_relation_size(c.oid) > 0 AND pg_catalog.has_table_privilege(c.oid, 'TRUNCATE')"
    b" FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%b)"
)


@dataclasses.dataclass
class Rows:
    """The rows of one COPY block: how many sessions copy them, how many are done, how many rows the server took.

    ``whole`` is said when the dump has been read to the block's end, ``crc`` is then that of its text.  ``exact`` says
    that the server must take as many as the block has.
    """

    ordinal: int
    block: CopyBlock
    exact: bool = False
    sessions: int = 1
    finished: int = 0
    taken: int = 0
    crc: int = 0
    whole: bool = False
    indivisible: bool = False

    def __str__(self) -> str:
        return str(self.block.table)

    def seen(self, piece: bytes) -> None:
        """Count a piece in."""
        self.crc = isal_zlib.crc32(piece, self.crc)


class Bookmark:
    """What of a dump is certainly in a side database.  Used by the main session and by the pool's.

    ``mark`` is what else the comment says.  ``earlier`` is the progress of the interrupted restore that is resumed,
    ``never`` why this one could not be.
    """

    def __init__(
        self,
        database: str,
        mark: Mapping[str, Any],
        notes: Notes,
        *,
        earlier: Mapping[str, Any] | None = None,
        never: str | None = None,
    ) -> None:
        self._database = database
        self._mark = mark
        self._notes = notes
        self._never = never
        self._lock = threading.RLock()
        self._unsure = False  # an entry failed: whether the server has it nobody knows
        self._begun = earlier is not None
        self._inside: list[tuple[int, int]] = []  # done in a transaction of the dump's own that is not committed
        before: Mapping[str, Any] = earlier or {}
        self._done = bytearray(zlib.decompress(base64.b64decode(before["done"]))) if before else bytearray()
        self._parts = {int(ordinal): int(steps) for ordinal, steps in before.get("parts", {}).items()}
        self._split = {int(ordinal) for ordinal in before.get("split", ())}
        self._digest = int(before.get("digest", "0"), 16)
        self._tables = int(before.get("tables", 0))
        self._rows = int(before.get("rows", 0))
        self._earlier = bytes(self._done)
        self._earlier_parts = dict(self._parts)
        self._unseen = self._digest
        self.resumes = earlier is not None
        self.is_written = self.resumes
        self.tables_kept = 0
        self.rows_kept = 0
        for kind, subject, text in before.get("notes", ()):
            notes.add(kind, subject, text)

    @property
    def never(self) -> str | None:
        """Why this restore could not be resumed, None when it could."""
        return self._never

    @property
    def has_begun(self) -> bool:
        """Whether what is done from now on is entered, or never will be."""
        return self._begun or self._never is not None

    def comment(self) -> str:
        """The comment: a JSON document in ASCII."""
        progress: dict[str, Any] = {"never": self._never}
        if self._never is None and self._begun:
            progress = {
                "done": base64.b64encode(zlib.compress(bytes(self._done), 1)).decode(),
                "digest": f"{self._digest:016x}",
                "parts": self._parts,
                "split": sorted(self._split),
                "tables": self._tables,
                "rows": self._rows,
                "notes": self._notes.lasting(),
            }
        return json.dumps({**self._mark, "progress": progress})

    # -- what the interrupted restore did

    def has(self, ordinal: int) -> bool:
        """Whether the interrupted restore did this."""
        return ordinal >> 3 < len(self._earlier) and bool(self._earlier[ordinal >> 3] >> (ordinal & 7) & 1)

    def steps_done(self, ordinal: int) -> int:
        """How many steps of a statement that runs in several the interrupted restore did."""
        return self._earlier_parts.get(ordinal, 0)

    def passes_over(self, statement: Statement, ordinal: int) -> bool:
        """Whether the interrupted restore did this statement, so that it is not done again."""
        if not self.has(ordinal):
            return False
        self._unseen ^= _digest(ordinal, isal_zlib.crc32(statement.text))
        return True

    def pass_over(self, session: Session, rows: Rows) -> None:
        """Take rows as loaded by the interrupted restore, after they were read.

        Raises RecoveryError where the server lost them: a crash empties unlogged tables.
        """
        self._unseen ^= _digest(rows.ordinal, rows.crc)
        rows.taken = rows.block.rows
        self.tables_kept += 1
        self.rows_kept += rows.taken
        table = rows.block.table
        if rows.taken and session.is_true(_LOST[0] % text_literal(table.sql)) and session.is_true(_LOST[1] % table.sql):
            raise RecoveryError(
                f"the interrupted restore cannot be resumed: the rows of {table} are no longer there",
                detail="it is an unlogged table, which a server empties when it comes up after a crash",
                hint="restore again without --resume",
            )

    def prove(self) -> None:
        """Raise BadDumpError unless what was passed over is, to the byte, what the interrupted restore did."""
        if self._unseen:
            raise BadDumpError(
                "the dump is not the one whose interrupted restore was resumed",
                detail="what had been loaded from it then has another checksum than the same part of it now",
                hint="restore again without --resume; the target is as it was",
            )

    # -- what this one does

    def execute(self, session: Session, statement: Statement, ordinal: int) -> None:
        """Run a statement on the main session and enter it."""
        text, status = statement.text, session.connection.info.transaction_status
        inside = status != TransactionStatus.IDLE
        begins, ends = not inside and _BEGINS.match(text), inside and _ENDS.match(text)
        lasting = _TRANSACTIONAL.match(text) and not _PASSING.match(text)
        if self._never is None and not (begins or ends or lasting):
            self.close(session, f"line {statement.line} of the dump ({statement.subject}) may not be run twice")
        if self._never is not None:
            session.execute(statement)
        elif inside or begins:
            self._inside.append((ordinal, isal_zlib.crc32(text)))
            if ends:
                self._enter_inside(session)
            session.execute(statement)
        else:
            self._execute(session, statement, ordinal)

    def _execute(self, session: Session, statement: Statement, ordinal: int) -> None:
        with self._entering():
            self._turn(ordinal, isal_zlib.crc32(statement.text))
            try:
                done = session.execute(statement, also=self._sql() if self._begun else b"")
            except psycopg.errors.ActiveSqlTransaction:  # one of the few that refuse to share a transaction
                self._turn(ordinal, isal_zlib.crc32(statement.text))
                self.close(session, f"line {statement.line} of the dump ({statement.subject}) runs in no transaction")
                session.execute(statement)
                return
            if not done and session.excuse not in _NOT_AGAIN:
                self._turn(ordinal, isal_zlib.crc32(statement.text))  # tried again, and noted again, by who resumes

    def step(
        self, session: Session, step: Statement, statement: Statement, ordinal: int, *, number: int, of: int
    ) -> None:
        """Run one of the steps that stand for a statement, on any session, and enter it."""
        entered = self._begun and self._never is None
        if entered:
            session.connection.execute(b"BEGIN")
        session.execute(step)
        with self._entering():
            if number + 1 < of:
                self._parts[ordinal] = number + 1
            else:
                self._parts.pop(ordinal, None)
                self._turn(ordinal, isal_zlib.crc32(statement.text))
            if entered:
                session.commit(step, also=self._sql())

    def begin(self, session: Session, rows: Rows) -> None:
        """Say on the main session that rows come; what an interrupted restore had copied of them in parts goes."""
        if session.connection.info.transaction_status != TransactionStatus.IDLE:
            return
        self._begun = self._begun or self._never is None
        if rows.ordinal in self._split:
            with self._entering():
                self._split.discard(rows.ordinal)
                # No key refers to the table and no index is on it: whatever needs its rows waits for all of them.
                session.connection.execute(b"TRUNCATE ONLY %b;%b" % (rows.block.table.sql, self._sql()))

    def look(self, session: Session, rows: Rows) -> None:
        """See before any of these rows comes whether the table holds others, as an extension's own may.

        Where it does not, what an interrupted COPY of them left, which nobody can see, gives its room back.
        """
        if self._never is not None:
            return
        table = rows.block.table.sql
        rows.indivisible = not session.is_true(_LOST[1] % table)
        if self.resumes and not rows.indivisible and session.is_true(_ROOM % text_literal(table)):
            session.connection.execute(b"TRUNCATE ONLY " + table)

    def may_split(self, session: Session, rows: Rows) -> bool:
        """Whether another session may copy part of these rows; entered on the main session before the first does.

        Not where the table held rows before: it could not be emptied for a second try.
        """
        if self._never is not None or rows.sessions > 1:
            return True
        if rows.indivisible:
            return False
        with self._entering():
            self._split.add(rows.ordinal)
            session.connection.execute(self._sql())
        return True

    def copy(self, session: Session, rows: Rows, pieces: Iterable[bytes]) -> None:
        """Copy rows, or one session's share of them, and enter them when they are all there.

        Raises StoppedError when the dump could not be read to the block's end: what came of it is rolled back.  Raises
        RecoveryError when the server took another number of rows and they are to be exact.
        """
        inside = session.connection.info.transaction_status != TransactionStatus.IDLE
        entered = self._begun and self._never is None and not inside
        if entered:
            session.connection.execute(b"BEGIN")
        taken = session.copy(rows.block, pieces)
        if not rows.whole:
            raise StoppedError
        with self._entering():
            rows.taken += taken
            rows.finished += 1
            last = rows.finished == rows.sessions
            if last and rows.taken != rows.block.rows:
                text = f"the dump has {rows.block.rows} rows, the server took {rows.taken}"
                if rows.exact:
                    raise RecoveryError(
                        f"line {rows.block.statement.line} of the dump, rows of {rows}: {text}",
                        detail="by its manifest, or by --strict rows, none of them may be kept out or added",
                        hint="a trigger or a rule that the dump makes before the rows does this: the database would not"
                        " be the one that was backed up; without the manifest the difference is only noted",
                    )
                self._notes.add("rows", str(rows), text)
            if inside:
                self._inside.append((rows.ordinal, rows.crc))
            elif entered and last:
                self._turn(rows.ordinal, rows.crc)
                self._split.discard(rows.ordinal)
                self._tables += 1
                self._rows += rows.taken
                session.commit(rows.block.statement, f"rows of {rows}", also=self._sql())
            elif entered:
                session.commit(rows.block.statement, f"rows of {rows}")

    def close(self, session: Session, reason: str) -> None:
        """Enter on the main session that this restore could not be resumed from here on."""
        with self._entering():
            if self._never is None:
                self._never = reason
                # In a transaction of the dump's own it goes the way of what follows: the reader refuses ROLLBACK.
                session.connection.execute(self._sql())

    def _enter_inside(self, session: Session) -> None:
        with self._entering():
            for ordinal, crc in self._inside:
                self._turn(ordinal, crc)
            self._inside.clear()
            if self._begun:
                session.connection.execute(self._sql())

    @contextlib.contextmanager
    def _entering(self) -> Iterator[None]:
        """Make one entry after the other; after one that failed none, for the next would say of it that it is done.

        Raises StoppedError then.
        """
        with self._lock:
            if self._unsure:
                raise StoppedError
            try:
                yield
            except BaseException:
                self._unsure = True
                raise

    def _turn(self, ordinal: int, crc: int) -> None:
        """Enter an item that is not entered; take back one that is."""
        missing = (ordinal >> 3) + 1 - len(self._done)
        if missing > 0:
            self._done.extend(bytes(missing))
        self._done[ordinal >> 3] ^= 1 << (ordinal & 7)
        self._digest ^= _digest(ordinal, crc)

    def _sql(self) -> bytes:
        self.is_written = True
        # The side database's name and the document are ASCII, whatever encoding the dump has chosen.
        return f"\nCOMMENT ON DATABASE {quote(self._database)} IS {literal(self.comment())};\n".encode("ascii")


def _digest(ordinal: int, crc: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d %d" % (ordinal, crc), digest_size=8).digest(), "big")
