r"""Rows as COPY writes them, a mebibyte or two at a time, from a session of psql in an exported snapshot.

libpq hands out the rows of a COPY one by one, and what Python does for each costs several times what server and network
do where rows are short.  psql writes them to a pipe, from which they are read by the mebibyte.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import sql

from recovery.dumps import session
from recovery.dumps.pipes import pass_on, widen
from recovery.errors import EnvironmentLacksError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# No row of COPY's text format is this: a backslash in a value is written as two.
_END = rb"\."
# psql's own quoting, in which a backslash is written as two.
_SAY_END = b"\\echo '\\\\.'\n"

# The rows that the heap holds, in its order, as COPY of a table reads them: an index may be broken, and others ask it.
_HEAP_IN_ORDER = {
    "enable_seqscan": "on",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "enable_tidscan": "on",
    "max_parallel_workers_per_gather": "0",
}

# With VERBOSITY=verbose the code stands behind the word for ERROR or FATAL, which is in the server's language.
_CODE = re.compile(r"^(?:psql:[^\n]*?: )?[^\s:]+:\s+([0-9A-Z]{5}): ", re.MULTILINE)
_NO_ERRORS = ("00", "01", "02")
_POSITION = re.compile(r"^psql:<stdin>:\d+: ", re.MULTILINE)
_LOCATION = re.compile(r"^LOCATION: .*\n?", re.MULTILINE)
_MOST_COMPLAINT = 2000
_END_SECONDS = 5.0


class CopyOut:
    """A session of psql with the fixed settings of `recovery.dumps.session`.

    Used by one thread at a time, but for `cancel`.
    """

    def __init__(self, dsn: str, programs: int, *, lock_timeout_seconds: float = session.LOCK_TIMEOUT_SECONDS) -> None:
        """Begin a session, by psql of the major version `programs` or a newer one.

        Raises EnvironmentLacksError where there is no psql; what keeps it from connecting is raised by `begin`.
        """
        self._dsn = dsn
        environment, connection_string = session.client_environment(dsn)
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._process = subprocess.Popen(
            [
                str(session.client_programs(programs) / "psql"),
                "--no-psqlrc",
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--no-password",
                "--set=ON_ERROR_STOP=1",
                "--set=VERBOSITY=verbose",
                f"--dbname={connection_string}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment | {"PGCLIENTENCODING": "UTF8"},
        )
        if self._process.stdout is not None:
            widen(self._process.stdout)
        self._is_busy = self._is_cancelled = False
        self._lock_timeout_milliseconds = int(lock_timeout_seconds * 1000)

    def begin(self, snapshot: str) -> None:
        """Begin a read-only transaction that sees exactly what the exporting one sees.

        Raises psycopg's error of the server's code, EnvironmentLacksError where the server cannot be reached or lets
        nobody in.
        """
        lines = [_set(name, value) for name, value in {**session.FIXED_SETTINGS, **_HEAP_IN_ORDER}.items()]
        lines.append(_set("lock_timeout", str(self._lock_timeout_milliseconds)))
        lines.append(_set_if_known("transaction_timeout", "0"))
        check = "client_connection_check_interval"
        # Its own machine may not be able to do that, which is no reason to stop.
        lines.append(b"\\set ON_ERROR_STOP off")
        lines.append(_set_if_known(check, session.PEER_CHECKS[check]))
        lines.append(b"\\set ON_ERROR_STOP on")
        lines.append(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        lines.append(sql.SQL("SET TRANSACTION SNAPSHOT {};").format(sql.Literal(snapshot)).as_bytes())
        try:
            self._run(b"\n".join(lines), lambda _: None)
        except psycopg.OperationalError as error:
            if error.sqlstate is not None:
                raise
            raise EnvironmentLacksError(
                "the database cannot be connected to",
                detail=f"{session.place_of(self._dsn)}: {error}",
                hint="another session of this work could: the server may allow no more of them (max_connections,"
                " CONNECTION LIMIT of role or database): fewer --jobs need fewer",
            ) from error
        self._complaints.seek(0)
        self._complaints.truncate()

    def lock(self, tables: Iterable[sql.Identifier]) -> None:
        """Lock tables for reading (ACCESS SHARE); raises psycopg's LockNotAvailable where one is not granted."""
        lines = [sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE;").format(table).as_bytes() for table in tables]
        self._run(b"\n".join(lines), lambda _: None)

    def touch(self) -> None:
        """Give a sign of life: the server ends a transaction that gives none for long, and networks forget sessions."""
        self._run(b"SELECT 1;", lambda _: None)

    def rows(self, query: sql.Composable, take: Callable[[bytes], None]) -> None:
        """Run a COPY ... TO STDOUT in the text format and hand on its rows, in pieces cut at their ends if possible.

        Raises psycopg's error of the server's code, OperationalError where the connection is lost.
        """
        # As a string that psql hands to the server unread: where an extension's own text is part of it, a backslash or
        # a colon would be psql's to act on.
        self._run(sql.SQL("SELECT {} \\gexec").format(sql.Literal(query.as_string())).as_bytes(), take)

    def cancel(self) -> None:
        """End the session, whatever it does; may be called by any thread."""
        self._is_cancelled = True
        # The server notices when it writes to it next, or looks at the connection.
        self._process.terminate()

    def close(self) -> None:
        """End the session; a second call does nothing."""
        if self._is_busy:
            self._process.terminate()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # of what psql has not read any more
                    stream.close()
        try:
            self._process.wait(_END_SECONDS)  # an idle one ends where its commands do
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, commands: bytes, take: Callable[[bytes], None]) -> None:
        given, answers = self._process.stdin, self._process.stdout
        if given is None or answers is None:
            raise AssertionError("both are pipes")
        self._is_busy = True
        try:
            given.write(commands + b"\n" + _SAY_END)
            given.flush()
        except BrokenPipeError as error:
            raise self._failure() from error
        if not pass_on(answers.fileno(), take, until=_END):
            raise self._failure()
        self._is_busy = False

    def _failure(self) -> psycopg.Error:
        code = self._process.wait()
        if self._is_cancelled:
            return psycopg.errors.QueryCanceled("the session was ended before its query was")
        self._complaints.seek(0)
        said = self._complaints.read(_MOST_COMPLAINT).decode("utf-8", "replace")
        words = _POSITION.sub("", _LOCATION.sub("", _CODE.sub("", said))).strip() or f"psql ended with exit code {code}"
        # The last, for what was tolerated came before; and no notice or warning.
        codes = [code for code in _CODE.findall(said) if not code.startswith(_NO_ERRORS)]
        if codes:
            with contextlib.suppress(KeyError):  # a code that psycopg does not know
                return psycopg.errors.lookup(codes[-1])(words)
        return psycopg.OperationalError(words)


def _set(name: str, value: str) -> bytes:
    query = sql.SQL("SELECT pg_catalog.set_config({}, {}, false);")
    return query.format(sql.Literal(name), sql.Literal(value)).as_bytes()


def _set_if_known(name: str, value: str) -> bytes:
    query = sql.SQL("SELECT pg_catalog.set_config(s.name, {}, false) FROM pg_catalog.pg_settings s WHERE s.name = {};")
    return query.format(sql.Literal(value), sql.Literal(name)).as_bytes()
