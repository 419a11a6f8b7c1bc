"""Whether foreign keys hold, asked of the data and not of the catalogue's word."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from recovery.dumps import session
from recovery.dumps.pieces import FIRST_WITH_TID_RANGE_SCANS, within
from recovery.dumps.workers import in_snapshot

if TYPE_CHECKING:
    import psycopg

_FIRST_WITH_PERIODS = 18

# Tables of more than this many blocks of 8 KiB are asked in parts, at most one per session: each part may read the
# whole table that is referred to.
PART_BLOCKS = 128 * 1024

# Keys that stand for themselves: the copies that partitions inherit are covered by asking the partitioned table.
_FOREIGN_KEYS = """
SELECT n.nspname, t.relname, k.conname, k.convalidated, {enforced}, {period}, k.confmatchtype::pg_catalog.text,
       t.relkind::pg_catalog.text, CASE WHEN am.amname = 'heap' THEN t.relpages ELSE 0 END,
       rn.nspname, r.relname, r.relkind::pg_catalog.text,
       ARRAY(SELECT ARRAY[fa.attname, pa.attname, opn.nspname, op.oprname,
                          CASE WHEN fa.attcollation <> pa.attcollation THEN cn.nspname END,
                          CASE WHEN fa.attcollation <> pa.attcollation THEN co.collname END]::pg_catalog.text[]
               FROM pg_catalog.generate_subscripts(k.conkey, 1) i
               JOIN pg_catalog.pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = k.conkey[i]
               JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = k.confkey[i]
               JOIN pg_catalog.pg_operator op ON op.oid = k.conpfeqop[i]
               JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
               LEFT JOIN pg_catalog.pg_collation co ON co.oid = pa.attcollation
               LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
              ORDER BY i)
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class t ON t.oid = k.conrelid LEFT JOIN pg_catalog.pg_am am ON am.oid = t.relam
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
  JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
 ORDER BY n.nspname, t.relname, k.conname
"""


# The tables that hold the rows of a partitioned one, with their sizes as they were last counted.
_LEAVES = """
SELECT n.nspname, c.relname, CASE WHEN am.amname = 'heap' THEN c.relpages ELSE 0 END
  FROM pg_catalog.pg_partition_tree(%s::pg_catalog.text::pg_catalog.regclass) p
  JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
 WHERE p.isleaf AND c.relkind <> 'p'
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """A foreign key; `columns` gives per column (its name, the referenced name, operator, collation or None).

    `blocks` is the size of its table as it was last counted.
    """

    schema: str
    table: str
    name: str
    validated: bool
    enforced: bool
    period: bool
    match_full: bool
    partitioned: bool
    blocks: int
    referenced_schema: str
    referenced_table: str
    referenced_partitioned: bool
    columns: tuple[tuple[str, str, tuple[str, str], tuple[str, str] | None], ...]

    @property
    def title(self) -> str:
        """The constraint's name for people."""
        return f"{self.schema}.{self.table}.{self.name}"


def list_foreign_keys(connection: psycopg.Connection[tuple[object, ...]]) -> list[Key]:
    """Return every foreign key of the database that is not a partition's copy of another."""
    modern = session.major_of(connection) >= _FIRST_WITH_PERIODS
    query = _FOREIGN_KEYS.format(
        enforced="k.conenforced" if modern else "true", period="k.conperiod" if modern else "false"
    )
    keys = []
    for row in cast("list[tuple[Any, ...]]", connection.execute(query.encode()).fetchall()):
        schema, table, name, validated, enforced, period, match, kind, blocks, to_schema, to_table, to_kind, columns = (
            row
        )
        keys.append(
            Key(
                schema,
                table,
                name,
                validated,
                enforced,
                period,
                match == "f",
                kind == "p",
                blocks,
                to_schema,
                to_table,
                to_kind == "p",
                tuple((c[0], c[1], (c[2], c[3]), (c[4], c[5]) if c[4] else None) for c in columns),
            )
        )
    return keys


@dataclasses.dataclass(frozen=True)
class _Part:
    """Tables with rows of the key at `index` of the list of keys, or blocks of one; None is no bound."""

    index: int
    tables: tuple[tuple[str, str], ...]
    first_block: int | None = None
    end_block: int | None = None
    blocks: int = 0


def _violations_query(key: Key, part: _Part) -> sql.Composed:
    """The query that counts the rows whose key points nowhere, by the rules of the key's MATCH type."""
    equal = []
    for own, referenced, (operator_schema, operator), collation in key.columns:
        right: sql.Composable = sql.SQL("f.{}").format(sql.Identifier(own))
        if collation is not None:
            right += sql.SQL(" COLLATE {}").format(sql.Identifier(*collation))
        # An operator's name is made of operator characters only, and has no quoted form.
        equal.append(
            sql.SQL("p.{} OPERATOR({}.{}) {}").format(
                sql.Identifier(referenced), sql.Identifier(operator_schema), sql.SQL(cast("Any", operator)), right
            )
        )
    joined = sql.SQL(" AND ").join(equal)
    present = [sql.SQL("f.{} IS NOT NULL").format(sql.Identifier(column[0])) for column in key.columns]
    missing = sql.SQL("NOT EXISTS (SELECT FROM {}{} p WHERE {})").format(
        sql.SQL("" if key.referenced_partitioned else "ONLY "),
        sql.Identifier(key.referenced_schema, key.referenced_table),
        joined,
    )
    # MATCH FULL: all NULL or none. MATCH SIMPLE: a NULL anywhere satisfies the key.
    glue = sql.SQL(" OR ") if key.match_full else sql.SQL(" AND ")
    conditions = [
        sql.SQL("({})").format(glue.join(present)),
        missing,
        *within(sql.SQL("f.ctid"), part.first_block, part.end_block),
    ]
    return sql.SQL("SELECT pg_catalog.count(*) FROM {} f WHERE {}").format(
        _rows_of(key, part), sql.SQL(" AND ").join(conditions)
    )


def _rows_of(key: Key, part: _Part) -> sql.Composed:
    if len(part.tables) == 1:
        return sql.SQL("ONLY {}").format(sql.Identifier(*part.tables[0]))
    columns = sql.SQL(", ").join(sql.Identifier(column[0]) for column in key.columns)
    each = [sql.SQL("SELECT {} FROM ONLY {}").format(columns, sql.Identifier(*table)) for table in part.tables]
    return sql.SQL("({})").format(sql.SQL(" UNION ALL ").join(each))


def _parts(connection: psycopg.Connection[tuple[object, ...]], index: int, key: Key, jobs: int) -> list[_Part]:
    """Cut the key's table into what single queries ask."""
    leaves = [(key.schema, key.table, key.blocks)]
    if key.partitioned:
        title = sql.Identifier(key.schema, key.table).as_string(connection)
        leaves = cast("list[tuple[str, str, int]]", connection.execute(_LEAVES, (title,)).fetchall())
    if len(leaves) > jobs:
        # Together, since each query may read the whole table that is referred to; the heaviest first.
        shares: list[tuple[int, list[tuple[str, str]]]] = [(0, []) for _ in range(jobs)]
        for schema, table, blocks in sorted(leaves, key=lambda leaf: leaf[2], reverse=True):
            lightest = min(range(jobs), key=lambda number: (shares[number][0], len(shares[number][1])))
            shares[lightest] = (shares[lightest][0] + blocks, [*shares[lightest][1], (schema, table)])
        return [_Part(index, tuple(tables), blocks=blocks) for blocks, tables in shares]
    parts: list[_Part] = []
    for schema, table, blocks in leaves:
        count = min(jobs, -(-blocks // PART_BLOCKS))
        if count < 2 or session.major_of(connection) < FIRST_WITH_TID_RANGE_SCANS:
            parts.append(_Part(index, ((schema, table),), blocks=blocks))
            continue
        bounds = [blocks * number // count for number in range(1, count)]
        parts += [
            # Open at both ends: the size is an older one.
            _Part(index, ((schema, table),), first, end, blocks // count)
            for first, end in zip([None, *bounds], [*bounds, None], strict=True)
        ]
    return parts


def check_all(
    dsn: str, snapshot: str, *, jobs: int, stop: threading.Event | None = None
) -> list[tuple[Key, int | None]]:
    """Count the violations of every foreign key in the exported snapshot, over `jobs` connections.

    Returns (key, violations) in the order of their names; None for keys over periods or not enforced, which promise
    nothing to count.
    """
    with session.connect(dsn) as connection:
        session.import_snapshot(connection, snapshot)
        keys = list_foreign_keys(connection)
        counted = {index: key for index, key in enumerate(keys) if key.enforced and not key.period}
        parts = [part for index, key in counted.items() for part in _parts(connection, index, key, jobs)]
    found = dict.fromkeys(counted, 0)
    guard = threading.Lock()

    def work(worker: psycopg.Connection[tuple[object, ...]], part: _Part) -> None:
        query = _violations_query(keys[part.index], part)
        violations = int(cast("tuple[int]", worker.execute(query).fetchone())[0])
        with guard:
            found[part.index] += violations

    if parts:
        parts.sort(key=lambda part: part.blocks, reverse=True)
        in_snapshot(dsn, snapshot, parts, work, jobs=jobs, stop=stop or threading.Event())
    return [(key, found.get(index)) for index, key in enumerate(keys)]
