"""Whether foreign keys hold, asked of the data and not of the catalogue's word."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

from recovery.dumps import session
from recovery.dumps.checksum import in_snapshot

if TYPE_CHECKING:
    import psycopg

_FIRST_WITH_PERIODS = 18

# Keys that stand for themselves: the copies that partitions inherit are covered by asking the partitioned table.
_FOREIGN_KEYS = """
SELECT n.nspname, t.relname, k.conname, k.convalidated, {enforced}, {period}, k.confmatchtype::pg_catalog.text,
       t.relkind::pg_catalog.text, rn.nspname, r.relname, r.relkind::pg_catalog.text,
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
  JOIN pg_catalog.pg_class t ON t.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
  JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
 ORDER BY n.nspname, t.relname, k.conname
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """A foreign key; `columns` gives per column (its name, the referenced name, operator, collation or None)."""

    schema: str
    table: str
    name: str
    validated: bool
    enforced: bool
    period: bool
    match_full: bool
    partitioned: bool
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
        schema, table, name, validated, enforced, period, match, kind, to_schema, to_table, to_kind, columns = row
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
                to_schema,
                to_table,
                to_kind == "p",
                tuple((c[0], c[1], (c[2], c[3]), (c[4], c[5]) if c[4] else None) for c in columns),
            )
        )
    return keys


def violations_query(key: Key) -> sql.Composed:
    """The query that counts the rows whose key points nowhere, by the rules of the key's MATCH type."""

    def table(schema: str, name: str, *, partitioned: bool) -> sql.Composable:
        return sql.SQL("{}{}").format(sql.SQL("" if partitioned else "ONLY "), sql.Identifier(schema, name))

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
    missing = sql.SQL("NOT EXISTS (SELECT FROM {} p WHERE {})").format(
        table(key.referenced_schema, key.referenced_table, partitioned=key.referenced_partitioned), joined
    )
    # MATCH FULL: all NULL or none. MATCH SIMPLE: a NULL anywhere satisfies the key.
    glue = sql.SQL(" OR ") if key.match_full else sql.SQL(" AND ")
    return sql.SQL("SELECT pg_catalog.count(*) FROM {} f WHERE ({}) AND {}").format(
        table(key.schema, key.table, partitioned=key.partitioned), glue.join(present), missing
    )


def count_violations(connection: psycopg.Connection[tuple[object, ...]], key: Key) -> int | None:
    """Count the rows that break the key; None for keys over periods or not enforced, which promise nothing to count."""
    if key.period or not key.enforced:
        return None
    return int(cast("tuple[int]", connection.execute(violations_query(key)).fetchone())[0])


def check_all(
    dsn: str, snapshot: str, *, jobs: int, stop: threading.Event | None = None
) -> list[tuple[Key, int | None]]:
    """Count the violations of every foreign key in the exported snapshot, over `jobs` connections.

    Returns (key, violations or None) in the order of their names.
    """
    with session.connect(dsn) as connection:
        session.import_snapshot(connection, snapshot)
        keys = list_foreign_keys(connection)
    found: dict[int, int | None] = {}

    def work(worker: psycopg.Connection[tuple[object, ...]], index: int) -> None:
        found[index] = count_violations(worker, keys[index])

    if keys:
        in_snapshot(dsn, snapshot, lambda _: range(len(keys)), work, jobs=jobs, stop=stop or threading.Event())
    return [(key, found[index]) for index, key in enumerate(keys)]
