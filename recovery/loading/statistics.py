"""Statistics of a restored database, so that its first queries are planned well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery.errors import printable
from recovery.loading.pool import Pool, Work
from recovery.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from recovery.dumps.statements import Statement
    from recovery.loading.session import Session

_TABLES = """
SELECT c.oid::pg_catalog.int8, pg_catalog.textsend(pg_catalog.format('%I.%I', n.nspname, c.relname))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY pg_catalog.pg_relation_size(c.oid) DESC
"""


def collect(
    sessions: Sequence[Session],
    settings: Mapping[str, Statement],
    progress: Progress,
    *,
    passing_over: Collection[int] = (),
) -> None:
    """Collect statistics over the sessions, the largest table first, and close them.

    Tables ``passing_over`` whose object identifiers they are have them already.
    Raises RecoveryError or psycopg.Error when a connection breaks; what the server refuses is noted.
    """
    pool = Pool(sessions)
    try:
        every = sessions[0].connection.execute(_TABLES).fetchall()
        found = [(oid, name) for oid, name in every if oid not in passing_over]
        for oid, name in found:
            title = printable(name.decode("utf-8", "backslashreplace"))
            pool.submit(Work(f"ANALYZE {title}", {}, _analyze(oid, title), settings))

        def report() -> None:
            progress(ProgressEvent("analyze", len(found) - pool.left, len(found), "tables", ", ".join(pool.names)))

        pool.wait(meanwhile=report)
    finally:
        pool.close()


def _analyze(oid: int, title: str) -> Callable[[Session], None]:
    return lambda session: session.analyze(oid, title)
