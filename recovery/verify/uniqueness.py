"""Whether unique indexes hold no value twice, asked of the heap: an index that is damaged cannot answer for itself."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql

from recovery.dumps import session
from recovery.dumps.workers import in_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST_WITH_NULLS_NOT_DISTINCT = 15

# Per index: its table, its predicate, whether NULLs are equal to each other, and per key the server's own text, the
# collation, and whether GROUP BY means the same as the index does: the operators are its type's own, or compare bytes.
_INDEXES = """
SELECT i.indexrelid::pg_catalog.regclass::pg_catalog.text, n.nspname, t.relname,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid), {nulls},
       ARRAY(SELECT ARRAY[pg_catalog.pg_get_indexdef(i.indexrelid, k.key, false), cn.nspname, co.collname,
                          CASE WHEN o.opcdefault OR o.opcname IN ('text_pattern_ops', 'varchar_pattern_ops',
                                                                  'bpchar_pattern_ops') AND o.oid < 16384
                               THEN 'known' END]::pg_catalog.text[]
               FROM pg_catalog.generate_series(1, i.indnkeyatts) k (key)
               JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[k.key - 1]
               LEFT JOIN pg_catalog.pg_collation co ON co.oid = i.indcollation[k.key - 1]
               LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
              ORDER BY k.key)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
  JOIN pg_catalog.pg_am am ON am.oid = c.relam AND am.amname = 'btree'
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'm') AND t.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace AND n.nspname !~ '^pg_toast'
 WHERE i.indisunique AND i.indisvalid AND i.indexrelid >= 16384
   AND (t.relkind <> 'm' OR t.relispopulated)
 ORDER BY t.relpages DESC, 1
"""


@dataclasses.dataclass(frozen=True)
class _Index:
    title: str
    table: sql.Identifier
    predicate: str | None
    nulls_are_equal: bool
    keys: tuple[tuple[str, tuple[str, str] | None, bool], ...]


@dataclasses.dataclass
class Uniqueness:
    """How many were checked, which hold something twice, and which could not be checked and why."""

    checked: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    unseen: list[str] = dataclasses.field(default_factory=list)


def check_all(dsn: str, snapshot: str, *, jobs: int) -> Uniqueness:
    """Look for values that stand twice under a unique index, in the exported snapshot, over `jobs` connections."""
    with session.connect(dsn) as connection:
        session.import_snapshot(connection, snapshot)
        listed = _list(connection)
    found = Uniqueness()
    guard = threading.Lock()

    def work(worker: psycopg.Connection[tuple[object, ...]], index: _Index) -> None:
        problem, unseen = _check(worker, index)
        with guard:
            found.checked += unseen is None
            found.problems += [problem] if problem else []
            found.unseen += [unseen] if unseen else []

    if listed:
        in_snapshot(dsn, snapshot, listed, work, jobs=jobs, stop=threading.Event())
    return found


def _list(connection: psycopg.Connection[tuple[object, ...]]) -> Sequence[_Index]:
    modern = session.major_of(connection) >= _FIRST_WITH_NULLS_NOT_DISTINCT
    query = _INDEXES.format(nulls="i.indnullsnotdistinct" if modern else "false")
    return [
        _Index(
            title,
            sql.Identifier(schema, table),
            predicate,
            nulls_are_equal,
            tuple((text, (where, name) if name else None, known is not None) for text, where, name, known in keys),
        )
        for title, schema, table, predicate, nulls_are_equal, keys in cast(
            "list[tuple[Any, ...]]", connection.execute(query.encode()).fetchall()
        )
    ]


def _check(connection: psycopg.Connection[tuple[object, ...]], index: _Index) -> tuple[str | None, str | None]:
    """Return (what is wrong, why it could not be checked)."""
    if not all(known for _, _, known in index.keys):
        return None, f"{index.title}: it has operators of its own"
    try:
        with connection.transaction():
            for setting in ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"):
                connection.execute("SELECT pg_catalog.set_config(%s, 'off', true)", (setting,))
            twice = int(cast("tuple[int]", connection.execute(_query(index)).fetchone())[0])
    except psycopg.Error as error:
        if connection.closed or isinstance(error, psycopg.errors.QueryCanceled):
            raise
        said = f"{index.title}: {str(error).strip()}"
        # XX is what is damaged, 58 what the disk does not give; all else is of the expression or the role.
        return (said, None) if str(error.sqlstate)[:2] in ("XX", "58") else (None, said)
    return (f"{index.title}: {twice} values stand there more than once" if twice else None), None


def _query(index: _Index) -> sql.Composed:
    """The query that counts the values that stand in the table more than once."""
    columns = []
    for number, (text, collation, _) in enumerate(index.keys):
        # The server's own text, as it would put it into CREATE INDEX.
        column: sql.Composable = sql.SQL(cast("Any", text))
        if collation is not None:
            column = sql.SQL("({}) COLLATE {}").format(column, sql.Identifier(*collation))
        columns.append(sql.SQL("{} AS {}").format(column, sql.Identifier(f"k{number}")))
    names = [sql.Identifier(f"k{number}") for number in range(len(columns))]
    present = [sql.SQL("{} IS DISTINCT FROM NULL").format(name) for name in names]
    return sql.SQL(
        "SELECT pg_catalog.count(*) FROM (SELECT FROM (SELECT {} FROM ONLY {} WHERE {}) s WHERE {}"
        " GROUP BY {} HAVING pg_catalog.count(*) > 1) d"
    ).format(
        sql.SQL(", ").join(columns),
        index.table,
        sql.SQL(cast("Any", index.predicate or "true")),
        sql.SQL("true") if index.nulls_are_equal else sql.SQL(" AND ").join(present),
        sql.SQL(", ").join(names),
    )
