"""Whether text is in the order that the database's indexes and partitions were made in.

A restored database builds its indexes by its own server's rules, so that other rules than the source's are no damage:
they are named, with what may differ.  Damage is where the rules have changed under what was built with them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from recovery.dumps import describe, sorting
from recovery.dumps.workers import in_snapshot
from recovery.verify.result import Outcome

if TYPE_CHECKING:
    import psycopg

    from recovery.dumps.snapshot import Snapshot
    from recovery.verify.reference import Reference

Answer = tuple[Outcome, str, dict[str, Any]]

_MAY_DIFFER = [
    "the order of text in results, and what < and > say of it",
    "which range partition takes which text, from now on",
    "what counts as the same under a collation that is not deterministic",
]

# Leaves below a table that is divided by what a collation decides; 0 is no collation, 950 and 951 are C and POSIX.
_PARTITIONS = """
SELECT n.nspname, c.relname, pg_catalog.pg_get_partition_constraintdef(c.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relispartition AND c.relkind = 'r'
   AND EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a
                 JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid
                CROSS JOIN pg_catalog.unnest(p.partcollation::pg_catalog.oid[]) k (collation_oid)
                 JOIN pg_catalog.pg_collation co ON co.oid = k.collation_oid
                WHERE co.oid NOT IN (950, 951) AND (p.partstrat = 'r' OR NOT co.collisdeterministic))
 ORDER BY 1, 2
"""


def check(original: Reference, dsn: str, snapshot: Snapshot, *, jobs: int) -> Answer:
    """Compare the rules that indexes were built with and those of the original with what the server sorts by now.

    FAIL: a version that the database recorded is not its library's, rows stand outside their partition's bounds, or
    the default locale is another one.  Other versions than the original's alone are a PASS that names them.
    """
    connection = snapshot.connection
    with connection.transaction():
        now = describe.read_collations(connection)
        stale = describe.stale_collations(connection)
        state = describe.read_database(connection)
        evidence: dict[str, Any] = {
            "collations": {c.name: c.version for c in now},
            "database": [state.provider, state.locale or state.collate, state.collation_version],
            "stale": stale,
        }
        versions, locales = sorting.differing(original.database_state, original.collations, state, now)
        if versions or locales:
            evidence |= {"differing": {**versions, **locales}, "may_differ": _MAY_DIFFER}
        if stale or versions or locales:
            listed = cast("list[tuple[str, str, str | None]]", connection.execute(_PARTITIONS.encode()).fetchall())
            evidence["partitions_by_text"] = len(listed)
            evidence["misplaced"] = _misplaced(listed, dsn, snapshot.identifier, jobs)
    if stale:
        reason = f"{len(stale)} collations have changed under the indexes built with them: {', '.join(stale[:5])}"
        return Outcome.FAIL, reason, evidence
    if misplaced := evidence.get("misplaced"):
        reason = f"rows stand outside the bounds of {len(misplaced)} partitions: {', '.join(misplaced[:5])}"
        return Outcome.FAIL, reason, evidence
    if locales:
        return Outcome.FAIL, f"text is not sorted as it was: {_said(locales)}", evidence
    if original.database_state is None or original.collations is None:
        return Outcome.PASS, "indexes agree with the server's rules; the original's are unknown", evidence
    if versions:
        reason = f"indexes agree with the server's rules: {_said(versions)}; the order of text may differ"
        return Outcome.PASS, reason, evidence
    return Outcome.PASS, "the rules are the original's", evidence


def _misplaced(listed: list[tuple[str, str, str | None]], dsn: str, snapshot: str, jobs: int) -> list[str]:
    """Read the partitions whose bounds a collation decides, and return those which hold what is not theirs.

    Constraints and unique indexes need no such look: they were enforced by this server's rules as it was loaded.
    """
    misplaced: list[str] = []

    def look(worker: psycopg.Connection[tuple[object, ...]], partition: tuple[str, str, str | None]) -> None:
        schema, name, bounds = partition
        query = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {} WHERE ({}) IS FALSE)").format(
            sql.Identifier(schema, name),
            sql.SQL(cast("Any", bounds or "true")),  # the server's own text, as it would put it in a CHECK
        )
        if worker.execute(query).fetchone() == (True,):
            misplaced.append(f"{schema}.{name}")

    if listed:
        in_snapshot(dsn, snapshot, listed, look, jobs=jobs, stop=threading.Event())
    return sorted(misplaced)


def _said(differing: dict[str, list[str | None]]) -> str:
    name, (was, is_now) = next(iter(differing.items()))
    more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"{name} was {was}, is {is_now}{more}"
