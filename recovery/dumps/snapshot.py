"""One consistent view of a database, held open while several connections and pg_dump read it.

MVCC alone does not protect a reader: TRUNCATE and rewriting ALTER TABLE take rows away from older snapshots.  So every
table is locked in ACCESS SHARE mode first, which holds off exactly those, and the snapshot is taken only then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any, Self, cast

import psycopg
from psycopg import sql

from recovery.dumps import session
from recovery.dumps.relations import Relation, list_relations, with_sizes
from recovery.dumps.session import LOCK_TIMEOUT_SECONDS
from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

# The session that holds the snapshot is idle while others work in it.  A NAT gateway drops a connection that is silent
# for 350 s, and the server one that is for session.ABANDONED_AFTER.
SIGN_OF_LIFE_SECONDS = 60.0

_ATTEMPTS = 10
_LOCKED_AT_ONCE = 200

_FACTS = """
SELECT pg_catalog.statement_timestamp(), pg_catalog.pg_export_snapshot(),
       (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_insert_lsn() END)::pg_catalog.text,
       pg_catalog.current_database()::pg_catalog.text, pg_catalog.current_setting('server_version')
"""


@dataclasses.dataclass
class Snapshot:
    """An open, exported snapshot; within its context the session that holds it is kept alive.

    `time` is the server's clock just before the snapshot was taken: everything committed by then is in it.  `lsn` is a
    WAL position that is at or after every commit in it.  `newest_commit_time` is the newest commit known to be in it,
    None where the server does not track commit times.
    """

    connection: psycopg.Connection[tuple[object, ...]]
    identifier: str
    time: dt.datetime
    lsn: str | None
    newest_commit_time: dt.datetime | None
    database: str
    server_version: str
    major: int
    relations: list[Relation]

    _ended: threading.Event = dataclasses.field(default_factory=threading.Event, init=False, repr=False)
    _keeper: threading.Thread | None = dataclasses.field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        self._keeper = threading.Thread(target=self._keep, name="snapshot-keeper", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
        self.connection.close()

    def _keep(self) -> None:
        # It goes on after an error: one of a failed transaction is a sign of life too, and a lost session is found by
        # whoever uses it next.
        while not self._ended.wait(SIGN_OF_LIFE_SECONDS):
            self.still_open()

    def still_open(self) -> bool:
        """Ask the server whether the transaction is alive; a lost one makes what was read since worthless."""
        try:
            self.connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True


def take_snapshot(dsn: str, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS, locks: bool = True) -> Snapshot:
    """Lock every table for reading, take a snapshot and export it.

    The timeout is for all locks together: whoever waits for a table that is locked already waits for the rest as well.
    Raises RefusedError when the role may not read a table or a policy would hide rows from it, RecoveryError when a
    lock is not granted in time or tables come and go too fast, EnvironmentLacksError when the server goes away.
    Nothing is left behind on failure.
    """
    connection = session.connect(dsn, lock_timeout_seconds=lock_timeout_seconds)
    deadline = time.monotonic() + lock_timeout_seconds
    try:
        with explained("no snapshot of the database could be taken", lock_timeout_seconds=lock_timeout_seconds):
            try:
                return _take(connection, deadline, locks=locks)
            except psycopg.errors.QueryCanceled as error:  # by the deadline: all else here takes no time
                raise psycopg.errors.LockNotAvailable(str(error)) from error
    except BaseException:
        connection.close()
        raise


def _take(connection: psycopg.Connection[tuple[object, ...]], deadline: float, *, locks: bool) -> Snapshot:
    for _ in range(_ATTEMPTS):
        relations = list_relations(connection)
        if locks:
            refuse_unreadable(relations)
        newest = _newest_commit_time(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            if locks:
                _lock(connection, relations, deadline)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            connection.execute("ROLLBACK")
            continue
        row = cast("tuple[Any, ...]", connection.execute(_FACTS).fetchone())
        taken, identifier, lsn, database, version = row
        seen = list_relations(connection)
        if locks and {(r.oid, r.schema, r.name) for r in seen} != {(r.oid, r.schema, r.name) for r in relations}:
            # A table was made, renamed or dropped between the list and the locks.
            connection.execute("ROLLBACK")
            continue
        _limit(connection, deadline)
        sized = with_sizes(connection, seen)
        _limit(connection, None)
        return Snapshot(
            connection=connection,
            identifier=identifier,
            time=taken.astimezone(dt.UTC),
            lsn=lsn,
            newest_commit_time=newest.astimezone(dt.UTC) if newest else None,
            database=database,
            server_version=version,
            major=session.major_of(connection),
            relations=sized,
        )
    raise RecoveryError(
        f"the tables of the database changed during each of {_ATTEMPTS} attempts to lock them",
        hint="take the backup when no migration is running",
    )


def refuse_unreadable(relations: list[Relation]) -> None:
    """Raise RefusedError when this role would not see every row of every table."""
    unreadable = [relation.title for relation in relations if not relation.readable]
    if unreadable:
        raise RefusedError(
            f"the role may not read {len(unreadable)} of the tables",
            detail=_some(unreadable),
            hint="connect as owner or grant SELECT on them and USAGE on their schemas (from 14 on: pg_read_all_data)",
        )
    hidden = [relation.title for relation in relations if relation.hidden_rows]
    if hidden:
        raise RefusedError(
            f"row security would hide rows of {len(hidden)} tables from the role",
            detail=_some(hidden),
            hint="connect as the tables' owner (without FORCE ROW LEVEL SECURITY) or as a role with BYPASSRLS",
        )


@contextlib.contextmanager
def explained(what: str, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS) -> Iterator[None]:
    """Turn the server's errors into this package's own; `what` is the line of fact where the cause has none."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise RecoveryError(
            f"a table or index is locked by somebody else for longer than {lock_timeout_seconds:g} s",
            detail=str(error).strip(),
            hint="look at pg_locks for an ACCESS EXCLUSIVE lock: a migration, TRUNCATE, CLUSTER, VACUUM FULL, REINDEX"
            " or REFRESH MATERIALIZED VIEW",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise RefusedError(
            "the role may not read all of the database",
            detail=str(error).strip(),
            hint="connect as the owner of what the detail names, or grant what is missing",
        ) from error
    except psycopg.errors.CharacterNotInRepertoire as error:
        raise RecoveryError(
            "a name or a definition in the database is not UTF-8, and the database says no encoding (SQL_ASCII)",
            detail=str(error).strip(),
            hint="rename the object, or dump with pg_dump alone: `recovery restore` restores such a dump",
        ) from error
    except psycopg.errors.QueryCanceled as error:
        raise RecoveryError(
            what,
            detail=str(error).strip(),
            hint="an administrator or a limit of the server's cancelled it: see its log",
        ) from error
    except psycopg.OperationalError as error:
        # Disk, memory and connections run out without the session's end.
        lost = error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
        said = "the connection to the database was lost" if lost else what
        raise EnvironmentLacksError(said, detail=str(error).strip()) from error
    except psycopg.Error as error:
        raise RecoveryError(
            what,
            detail=str(error).strip(),
            hint="something may have been dropped meanwhile: try again when no migration is running",
        ) from error


def _lock(connection: psycopg.Connection[tuple[object, ...]], relations: list[Relation], deadline: float) -> None:
    for start in range(0, len(relations), _LOCKED_AT_ONCE):
        # ONLY: partitions and children stand in the list themselves.
        batch = relations[start : start + _LOCKED_AT_ONCE]
        names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(relation.identifier) for relation in batch)
        _limit(connection, deadline)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
    _limit(connection, None)


def _limit(connection: psycopg.Connection[tuple[object, ...]], deadline: float | None) -> None:
    """Let the transaction's next statement take what is left until the deadline: lock_timeout counts for each lock.

    By SET, which takes no snapshot as a query would: one that is older than the locks would show a table empty that was
    emptied and filled again before its lock was granted.
    """
    milliseconds = 0 if deadline is None else max(1, int((deadline - time.monotonic()) * 1000))
    connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(milliseconds)))


def _newest_commit_time(connection: psycopg.Connection[tuple[object, ...]]) -> dt.datetime | None:
    """Return the newest commit's time, asked before the snapshot is taken so that the commit is surely in it."""
    row = connection.execute("SELECT pg_catalog.current_setting('track_commit_timestamp')").fetchone()
    if row != ("on",):
        return None
    found = connection.execute("SELECT timestamp FROM pg_catalog.pg_last_committed_xact()").fetchone()
    return cast("dt.datetime | None", found[0]) if found else None


def _some(names: list[str], most: int = 10) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
