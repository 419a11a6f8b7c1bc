"""Where the sequences of a database stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

_LIST = """
SELECT n.nspname, c.relname, s.seqincrement FROM pg_catalog.pg_sequence s
  JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relpersistence <> 't' ORDER BY 1, 2
"""
_AT_ONCE = 200


def read_sequences(
    connection: psycopg.Connection[tuple[object, ...]],
) -> dict[tuple[str, str], tuple[int, bool, int]]:
    """Return (value, is_called, increment) of every sequence, by (schema, name)."""
    listed = cast("list[tuple[str, str, int]]", connection.execute(_LIST).fetchall())
    found: dict[tuple[str, str], tuple[int, bool, int]] = {}
    for start in range(0, len(listed), _AT_ONCE):
        batch = listed[start : start + _AT_ONCE]
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, last_value, is_called FROM {}").format(
                sql.Literal(start + index), sql.Identifier(schema, name)
            )
            for index, (schema, name, _) in enumerate(batch)
        )
        for index, value, is_called in cast("list[tuple[Any, ...]]", connection.execute(query).fetchall()):
            schema, name, increment = listed[index]
            found[schema, name] = (value, is_called, increment)
    return found


def at_or_past(now: tuple[int, bool, int], then: tuple[int, bool]) -> bool:
    """Whether a sequence would hand out nothing it had handed out then."""
    value, is_called, increment = now
    forward = 1 if increment > 0 else -1
    if value != then[0]:
        return (value - then[0]) * forward > 0
    return is_called or not then[1]
