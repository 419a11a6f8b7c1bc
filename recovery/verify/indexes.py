"""Asks the extension amcheck whether heaps and B-tree indexes are sound and agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql

from recovery.dumps import session

if TYPE_CHECKING:
    from recovery.verify.result import Outcome

_FIRST_WITH_HEAP_CHECK = 14

_SCHEMA = """
SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'amcheck'
"""

_RELATIONS = """
SELECT c.oid::pg_catalog.int8, c.oid::pg_catalog.regclass::pg_catalog.text, c.relkind = 'i'
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_am am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE c.oid >= 16384 AND c.relpersistence <> 't'
   AND ((c.relkind = 'i' AND am.amname = 'btree' AND i.indisvalid) OR (c.relkind IN ('r', 'm') AND am.amname = 'heap'))
 ORDER BY 2
"""

NOT_INSTALLED = "the extension amcheck is not installed in the database, and nothing is installed unless asked"


def install(dsn: str) -> str | None:
    """Install amcheck; returns None when it is there then, else why not."""
    try:
        with session.connect(dsn, read_only=False) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA public")
    except psycopg.Error as error:
        return f"amcheck cannot be installed: {str(error).strip()}"
    return None


def check(
    connection: psycopg.Connection[tuple[object, ...]], outcome: type[Outcome]
) -> tuple[Outcome, str, dict[str, Any]]:
    """Check every heap and B-tree index; returns (outcome, reason, evidence)."""
    row = cast("tuple[str] | None", connection.execute(_SCHEMA).fetchone())
    if row is None:
        return outcome.NOT_RUN, NOT_INSTALLED, {}
    problems: list[str] = []
    checked = {"indexes": 0, "heaps": 0}
    heaps = session.major_of(connection) >= _FIRST_WITH_HEAP_CHECK
    for oid, title, is_index in cast("list[tuple[Any, ...]]", connection.execute(_RELATIONS).fetchall()):
        if not is_index and not heaps:
            continue
        try:
            if is_index:
                query = sql.SQL("SELECT {}.bt_index_check({}::pg_catalog.oid::pg_catalog.regclass, true)")
                connection.execute(query.format(sql.Identifier(row[0]), sql.Literal(oid)))
                checked["indexes"] += 1
            else:
                query = sql.SQL(
                    "SELECT blkno, msg FROM {}.verify_heapam({}::pg_catalog.oid::pg_catalog.regclass) LIMIT 5"
                )
                found = connection.execute(query.format(sql.Identifier(row[0]), sql.Literal(oid))).fetchall()
                problems += [f"{title} block {block}: {message}" for block, message in found]
                checked["heaps"] += 1
        except psycopg.errors.InsufficientPrivilege as error:
            return outcome.NOT_RUN, f"the role may not call amcheck: {str(error).strip()}", dict(checked)
        except psycopg.Error as error:
            problems.append(f"{title}: {str(error).strip()}")
    if problems:
        return outcome.FAIL, f"amcheck found {len(problems)} problems", {**checked, "problems": problems[:20]}
    return outcome.PASS, f"{checked['indexes']} B-tree indexes and {checked['heaps']} heaps are sound", dict(checked)
