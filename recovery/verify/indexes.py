"""Asks the extension amcheck whether heaps and B-tree indexes are sound and agree, and unique indexes by query."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import queue
import threading
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql

from recovery.dumps import session
from recovery.errors import RecoveryError
from recovery.verify import uniqueness
from recovery.verify.result import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What the extension offers here: heaps can be checked from 14 on, uniqueness by the index itself from 17 on.
_FUNCTIONS = """
SELECT n.nspname, p.proname, p.pronargs::pg_catalog.int4,
       pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
   AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
  JOIN pg_catalog.pg_proc p ON p.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE e.extname = 'amcheck' AND p.proname IN ('bt_index_check', 'verify_heapam')
 ORDER BY p.pronargs
"""
_ARGUMENTS_WITH_UNIQUENESS = 3
_FIRST_WITH_HEAP_CHECK = 14

_RELATIONS = """
SELECT c.oid::pg_catalog.int8, c.oid::pg_catalog.regclass::pg_catalog.text, c.relkind = 'i',
       coalesce(i.indisunique, false)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_am am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE c.oid >= 16384 AND c.relpersistence <> 't'
   AND ((c.relkind = 'i' AND am.amname = 'btree' AND i.indisvalid) OR (c.relkind IN ('r', 'm') AND am.amname = 'heap'))
 ORDER BY c.relpages DESC, 2
"""

_NOT_INSTALLED = "the extension amcheck is not installed in the database, and nothing is installed unless asked"
_OUTDATED = "the extension amcheck is too old to check heaps (ALTER EXTENSION amcheck UPDATE)"
_MOST = 20  # problems listed in evidence; the counts are always whole

# What keeps amcheck from looking and says nothing of what it would have seen: privileges, locks, unsupported kinds.
_UNSEEN = ("42501", "55P03", "0A000")


def install(dsn: str) -> str | None:
    """Install amcheck; returns None when it is there then, else why not."""
    try:
        with session.connect(dsn, read_only=False) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA public")
    except (psycopg.Error, RecoveryError) as error:
        return f"amcheck cannot be installed: {str(error).strip()}"
    return None


@dataclasses.dataclass
class _Found:
    """What was looked at, and what came of it."""

    indexes: int = 0
    heaps: int = 0
    unique: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    unseen: list[str] = dataclasses.field(default_factory=list)  # by amcheck
    unproven: list[str] = dataclasses.field(default_factory=list)  # unique by its definition alone
    guard: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def check(
    dsn: str, snapshot: str, *, jobs: int, not_installed: str | None = None
) -> tuple[Outcome, str, dict[str, Any]]:
    """Check every heap and B-tree index, over `jobs` connections; returns (outcome, reason, evidence).

    Whether unique indexes are unique is asked by query where amcheck does not tell, or could not be installed:
    `not_installed` is why.  Without amcheck, and unless it was to be installed, nothing is checked.  Raises what
    connecting raises, and psycopg's OperationalError when a connection is lost.
    """
    with session.connect(dsn) as connection:
        functions = {
            name: (sql.Identifier(schema, name), count, allowed)
            for schema, name, count, allowed in cast(
                "list[tuple[str, str, int, bool]]", connection.execute(_FUNCTIONS).fetchall()
            )
        }
        modern = session.major_of(connection) >= _FIRST_WITH_HEAP_CHECK
        relations = cast("list[tuple[int, str, bool, bool]]", connection.execute(_RELATIONS).fetchall())
    function, count, indexes_allowed = functions.get("bt_index_check", (None, 0, False))
    by_amcheck = indexes_allowed and count >= _ARGUMENTS_WITH_UNIQUENESS
    found = _Found()
    work: list[Callable[[psycopg.Connection[tuple[object, ...]]], None]] = []
    for oid, title, is_index, is_unique in relations:
        if is_index and indexes_allowed:
            flags = sql.SQL(", true" if by_amcheck and is_unique else "")
            query = sql.SQL("SELECT {}({}::pg_catalog.oid::pg_catalog.regclass, true{})").format(
                function, sql.Literal(oid), flags
            )
            work.append(functools.partial(_check_index, found, query, title, by_amcheck and is_unique))
        elif not is_index and functions.get("verify_heapam", (None, 0, False))[2]:
            query = sql.SQL("SELECT blkno, msg FROM {}({}::pg_catalog.oid::pg_catalog.regclass) LIMIT 5").format(
                functions["verify_heapam"][0], sql.Literal(oid)
            )
            work.append(functools.partial(_check_heap, found, query, title))
    _spread(dsn, work, jobs=jobs)
    # By query it takes as long as making the index anew: not where nobody asked for a check of indexes.
    if not by_amcheck and (functions or not_installed is not None):
        try:
            unique = uniqueness.check_all(dsn, snapshot, jobs=jobs)
        except psycopg.errors.LockNotAvailable as error:  # a lock on one table keeps the server from writing out any
            unique = uniqueness.Uniqueness(unseen=[f"unique indexes: {str(error).strip()}"])
        found.unique += unique.checked
        found.problems += unique.problems
        found.unproven += unique.unseen
    forbidden = sorted(name for name, (_, _, allowed) in functions.items() if not allowed)
    absent = None if functions else not_installed or _NOT_INSTALLED
    if functions and modern and "verify_heapam" not in functions:
        absent = _OUTDATED
    return _answer(found, absent, forbidden)


def _answer(found: _Found, absent: str | None, forbidden: list[str]) -> tuple[Outcome, str, dict[str, Any]]:
    evidence: dict[str, Any] = {"indexes": found.indexes, "heaps": found.heaps, "unique": found.unique}
    if found.unseen or found.unproven:
        evidence["not_checked"] = [*found.unseen, *found.unproven][:_MOST]
    if found.problems:
        evidence["problems"] = found.problems[:_MOST]
        return Outcome.FAIL, f"{len(found.problems)} problems were found: {found.problems[0]}", evidence
    parts = []
    if found.indexes or found.heaps:
        parts.append(f"{found.indexes} B-tree indexes and {found.heaps} heaps are sound")
    if found.unique:
        parts.append(f"{found.unique} unique indexes hold no value twice")
    if found.unproven:
        parts.append(f"{len(found.unproven)} more could not be asked: {found.unproven[0]}")
    if absent is None and forbidden:
        absent = f"the role may not call amcheck's {', '.join(forbidden)}"
    if absent is None and found.unseen:
        absent = f"amcheck could not look at {len(found.unseen)}: {found.unseen[0]}"
    if absent is not None:
        return Outcome.NOT_RUN, "; ".join([absent, *parts]), evidence
    return Outcome.PASS, "; ".join(parts), evidence


def _check_index(
    found: _Found,
    query: sql.Composed,
    title: str,
    with_uniqueness: bool,  # noqa: FBT001  # bound by functools.partial
    connection: psycopg.Connection[tuple[object, ...]],
) -> None:
    if _asked(found, query, title, connection) is None:
        return
    with found.guard:
        found.indexes += 1
        found.unique += with_uniqueness


def _check_heap(
    found: _Found, query: sql.Composed, title: str, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    rows = _asked(found, query, title, connection)
    if rows is None:
        return
    with found.guard:
        found.heaps += 1
        found.problems += [f"{title} block {block}: {message}" for block, message in rows]


def _asked(
    found: _Found, query: sql.Composed, title: str, connection: psycopg.Connection[tuple[object, ...]]
) -> list[tuple[Any, ...]] | None:
    """The answer, or None where there is none; why not is with what was found."""
    try:
        return cast("list[tuple[Any, ...]]", connection.execute(query).fetchall())
    except psycopg.Error as error:
        if connection.closed:
            raise
        with found.guard:
            (found.unseen if error.sqlstate in _UNSEEN else found.problems).append(f"{title}: {str(error).strip()}")
        return None


def _spread(dsn: str, work: Sequence[Callable[[psycopg.Connection[tuple[object, ...]]], None]], *, jobs: int) -> None:
    """Do all of it over `jobs` connections.

    They share no snapshot: amcheck reads what is there now, and an index may be too new for an older one.
    """
    pending: queue.SimpleQueue[Callable[[psycopg.Connection[tuple[object, ...]]], None]] = queue.SimpleQueue()
    for each in work:
        pending.put(each)

    def drain() -> None:
        with session.connect(dsn) as connection:
            while True:
                try:
                    pending.get_nowait()(connection)
                except queue.Empty:
                    return

    if not work:
        return
    workers = min(jobs, len(work))
    with concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="amcheck") as pool:
        for future in [pool.submit(drain) for _ in range(workers)]:
            future.result()
