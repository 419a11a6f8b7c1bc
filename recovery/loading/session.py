"""Connections that restore, and how what a server says about a statement becomes an error or a note."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.session import KEEPALIVES, PEER_CHECKS
from recovery.dumps.statements import Inserts
from recovery.errors import ConnectionLostError, EnvironmentLacksError, RecoveryError
from recovery.loading import expected, rules
from recovery.loading.notes import strict_hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recovery.dumps.statements import CopyBlock, Statement
    from recovery.loading.notes import Notes
    from recovery.loading.rules import Rulebook

Connection = psycopg.Connection[tuple[Any, ...]]

_WRITE_BYTES = 256 * 1024
# What a unix socket takes before its writer has to wait, of which Linux by itself gives 208 kB: a backend has enough to
# go on with while this process is busy elsewhere.  Other sockets grow by themselves, unless they are given a size.
_SOCKET_BYTES = 1024 * 1024

_NAME_OF = (
    b"SELECT pg_catalog.textsend(pg_catalog.format('%I.%I', n.nspname, c.relname)) FROM pg_catalog.pg_class c"
    b" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = "
)

# Sessions that an administrator, a crash or a shutdown ends.
_ENDED = frozenset({"57P01", "57P02", "57P03"})

# A value in an error's context is a person's data: it belongs in no log.
_CONTEXT_VALUE = re.compile(r': "(?:.|\n)*"')

# Whatever role or database says: a restore takes as long as it takes, and a policy must hide nothing.
_SESSION_SETTINGS = (
    b"SET statement_timeout = 0",
    b"SET lock_timeout = 0",
    b"SET idle_in_transaction_session_timeout = 0",
    b"SET idle_session_timeout = 0",
    b"SET transaction_timeout = 0",
    b"SET row_security = off",
    b"SET default_transaction_read_only = off",
    # So that the server, too, soon notices a client that is gone, even in the middle of building an index.
    *(f"SET {name} = {value}".encode() for name, value in PEER_CHECKS.items()),
)


def connect(dsn: str, *, database: str | None = None, purpose: str = "restore") -> Connection:
    """Open an autocommit connection, to ``database`` instead of the DSN's own when given.

    Raises ConnectionLostError when the server does not let us in, EnvironmentLacksError when the address is none; their
    texts never hold the password.
    """
    try:
        given = conninfo_to_dict(dsn)
        parameters: dict[str, Any] = {"connect_timeout": "15", **KEEPALIVES, **{k: v for k, v in given.items() if v}}
        parameters["application_name"] = f"agentverse-dr {purpose}"
        if database is not None:
            parameters["dbname"] = database
        if database in {"postgres", "template1"}:
            parameters["client_encoding"] = "UTF8"  # without an encoding of their own they give names as bytes
        connection = psycopg.connect(make_conninfo(**parameters), autocommit=True)
        try:
            for setting in _SESSION_SETTINGS:
                # Newer than the server: then it has no such limit.  Refused: its machine cannot check that.
                with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                    connection.execute(setting)
        except BaseException:
            connection.close()
            raise
    except psycopg.ProgrammingError as error:
        raise EnvironmentLacksError(
            "the address of the database cannot be understood", detail=type(error).__name__
        ) from None
    except psycopg.OperationalError as error:
        raise ConnectionLostError(
            "the database server cannot be reached or does not let us in",
            detail=str(error).strip(),
            hint="check host, port, user, password and the security group",
        ) from error
    return connection


def explain(error: psycopg.Error, *, what: str, hint: str | None = None) -> RecoveryError:
    """Turn a server's error into ours: ``what`` says where in the restore it happened, ``hint`` what to do about it."""
    state = error.sqlstate
    primary = error.diag.message_primary or str(error).strip() or type(error).__name__
    parts = [f"SQLSTATE {state}" if state else "no SQLSTATE: the connection broke"]
    if error.diag.message_detail and not (state or "").startswith("23"):
        parts.append(error.diag.message_detail)
    if error.diag.context:
        parts.append(_CONTEXT_VALUE.sub("", error.diag.context.splitlines()[0]))
    kind: type[RecoveryError] = RecoveryError
    if state is None or state[:2] == "08" or state in _ENDED:
        kind = ConnectionLostError
    elif state[:2] in {"53", "57", "58"}:
        kind = EnvironmentLacksError
    return kind(f"{what}: {primary}", detail="; ".join(parts), hint=hint or error.diag.message_hint)


def _widen(descriptor: int) -> None:
    """Let a unix socket take more at once, as far as the system lets it."""
    with socket.socket(fileno=os.dup(descriptor)) as same, contextlib.suppress(OSError):
        if same.family == socket.AF_UNIX:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)


class Session:
    """One connection to the database being loaded."""

    def __init__(self, connection: Connection, rulebook: Rulebook, notes: Notes) -> None:
        self.connection = connection
        self._rulebook = rulebook
        self._notes = notes
        self._subject = "session"
        self._adopted: dict[str, Statement] = {}
        self.excuse: str | None = None
        connection.add_notice_handler(self._notice)
        row = connection.execute("SELECT current_user").fetchone()
        self._user = None if row is None else row[0]
        # A commit need not wait for the disk: the swap's commit does, and what was logged before it is then on disk.
        connection.execute("SET synchronous_commit = off")
        _widen(connection.fileno())

    def worded(self, statement: Statement) -> Statement | None:
        """Return the statement as this server can take it, with a note where that is another one; None for none."""
        worded, why = self._rulebook.worded_for(statement, self.connection.info.server_version)
        if why is not None:
            if self._notes.is_strict(why.kind):
                what = f"line {statement.line} of the dump, {statement.subject}: {why.text}"
                raise RecoveryError(what, hint=strict_hint(why.kind, why.text))
            self._notes.add(why.kind, statement.subject, why.text)
        return worded

    def execute(self, statement: Statement, *, also: bytes = b"") -> bool:
        """Run one statement as it stands in the dump; False when a rule left it out or excused its failure.

        What is to be done ``also`` is done in the same transaction.  ``excuse`` is then the kind of the note.
        Raises RecoveryError with line, object, SQLSTATE and the server's message otherwise, also where the note would
        be of a strict kind, or ActiveSqlTransaction
        from a statement that does not share a transaction with another one.
        """
        self.excuse = None
        if isinstance(statement, Inserts):
            self._insert(statement)
            return True
        reason = self._rulebook.left_out(statement)
        if reason is not None:
            self.excuse = reason[0]
            self._notes.add(self.excuse, statement.subject, reason[1])
            return False
        self._subject = statement.subject
        known = self.worded(statement)
        if known is None:
            self.excuse = "privileges"
            return False
        statement = known
        try:
            # Without parameters psycopg uses the simple protocol and sends the bytes as they are; several statements
            # in one message are one transaction.
            self.connection.execute(statement.text + also)
        except psycopg.Error as error:
            if also and isinstance(error, psycopg.errors.ActiveSqlTransaction):
                raise
            excuse = None
            if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                excuse = self._rulebook.excuse(statement, error)
            if excuse is None or self._notes.is_strict(excuse[0]):
                hint = strict_hint(*excuse) if excuse is not None else None
                raise self._explain(error, statement, hint=hint) from error
            self.excuse = excuse[0]
            self._notes.add(self.excuse, statement.subject, excuse[1])
            return False
        return True

    def _insert(self, inserts: Inserts) -> None:
        """Run INSERTs in one message, which is one transaction; if any fails none is done, then each is run alone."""
        self._subject = inserts.subject
        try:
            self.connection.execute(inserts.text)
        except psycopg.Error as error:
            status = self.connection.info.transaction_status
            if status != psycopg.pq.TransactionStatus.IDLE or isinstance(error, psycopg.errors.QueryCanceled):
                raise self._explain(error, inserts) from error
            for statement in inserts.each():
                self.execute(statement)

    def is_true(self, query: bytes) -> bool:
        """Whether the server answers a query with one row that says true; raises psycopg.Error."""
        return self.connection.execute(query).fetchone() == (True,)

    def compress_fast(self) -> None:
        """Compress large values with lz4, several times as fast, where the server can and nobody chose otherwise.

        A column's own choice stands in the dump and stays; how a value is compressed is no part of its content.
        """
        self.connection.execute(
            "SELECT pg_catalog.set_config(name, 'lz4', false) FROM pg_catalog.pg_settings"
            " WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)"
        )

    def adopt(self, settings: Mapping[str, Statement]) -> None:
        """Take over the settings the dump has made so far on the main session."""
        for name, statement in settings.items():
            if self._adopted.get(name) is not statement:
                self.execute(statement)
                self._adopted[name] = statement

    @property
    def is_in_transaction(self) -> bool:
        """Whether the dump has begun a transaction and not ended it."""
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def is_not_itself(self) -> bool:
        """Whether it is inside a transaction or acts as another role, so that what follows belongs to it alone."""
        if self.is_in_transaction:
            return True
        row = self.connection.execute("SELECT current_user <> %s", [self._user]).fetchone()
        return row != (False,)

    def analyze(self, oid: int, title: str) -> None:
        """Collect a table's statistics; what cannot be collected is noted, since nothing of the dump is lost by it."""
        self._subject = title
        try:
            # As bytes, for a name may be of no encoding that Python has, and each session may have another one.
            for row in self.connection.execute(_NAME_OF + str(oid).encode()).fetchall():
                self.connection.execute(b"ANALYZE " + row[0])
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise explain(error, what=f"collecting statistics of {self._subject}") from error
            self._notes.add("warning", self._subject, f"no statistics: {error.diag.message_primary}")

    def copy(self, block: CopyBlock, pieces: Iterable[bytes]) -> int:
        """Send pieces of a COPY block's rows as one COPY and return how many rows the server took.

        Raises RecoveryError when it refuses one.
        """
        self._subject = str(block.table)
        try:
            with self.connection.cursor() as cursor:
                with cursor.copy(block.statement.text) as copy:
                    for piece in pieces:
                        # libpq's buffer grows to what is written at once and never shrinks.
                        view = memoryview(piece)
                        for start in range(0, len(piece), _WRITE_BYTES):
                            copy.write(view[start : start + _WRITE_BYTES])
                return cursor.rowcount
        except psycopg.Error as error:
            raise self._explain(error, block.statement, f"rows of {block.table}") from error

    def commit(self, statement: Statement, subject: str | None = None, *, also: bytes = b"") -> None:
        """End the transaction that a statement was run in, after what is to be done ``also``.

        Raises RecoveryError of the statement for what was put off until then.
        """
        try:
            self.connection.execute(also + b"COMMIT")
        except psycopg.Error as error:
            raise self._explain(error, statement, subject) from error

    def close(self) -> None:
        """Close the connection; the server rolls back what was not committed."""
        self.connection.close()

    def _explain(
        self, error: psycopg.Error, statement: Statement, subject: str | None = None, *, hint: str | None = None
    ) -> RecoveryError:
        what = f"line {statement.line} of the dump, {subject or statement.subject}"
        user = self.connection.info.parameter_status("session_authorization")  # the server reports each change of it
        hint = hint or rules.hint(statement, error, str(user), acting=user != self._user)
        return explain(error, what=what, hint=hint)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            text = expected.meaning(diagnostic)
            kind = "warning" if text is None else "expected"
            self._notes.add(kind, self._subject, text or diagnostic.message_primary or "")
