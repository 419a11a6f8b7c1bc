"""Which tables' rows have the same text whatever the settings of the session that writes it.

pg_dump itself fixes the style of dates, times, intervals and floating point numbers.  What it leaves to role, database
and server are the time zone (timestamptz), the form of bytea, the currency (money), and what they do to ranges and
composites of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

Name = tuple[str, str]

# Types that have one text per value; floating point numbers are not among them, since servers before 12 wrote them with
# other digits.
_ONE_TEXT = (
    "bool", "int2", "int4", "int8", "numeric", "oid", "text", "varchar", "bpchar", "char", "name", "uuid", "json",
    "jsonb", "date", "time", "timetz", "timestamp", "interval", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit",
    "int4range", "int8range", "numrange", "daterange", "tsrange",
)  # fmt: skip

_OTHERS = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND EXISTS (
   SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     JOIN pg_catalog.pg_type one ON one.oid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE t.oid END
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND one.typtype <> 'e'
      AND NOT (one.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND one.typname = ANY ({types})))
"""


def unsettled(connection: psycopg.Connection[tuple[object, ...]], tables: Iterable[Name]) -> set[Name]:
    """Return those of the tables in which a value of the same meaning may have another text; changes nothing."""
    query = sql.SQL(_OTHERS).format(types=sql.Literal(list(_ONE_TEXT)))
    others = {(str(schema), str(name)) for schema, name in connection.execute(query).fetchall()}
    return set(tables) & others
