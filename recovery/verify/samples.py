"""Runs the operator's own queries and compares their answers."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any, cast

import psycopg

if TYPE_CHECKING:
    from recovery.verify.result import SampleQuery

_TIMEOUT_SECONDS = 300
_MOST_ROWS = 1000


def run_sample(connection: psycopg.Connection[tuple[object, ...]], sample: SampleQuery) -> tuple[bool, dict[str, Any]]:
    """Run one query inside the open read-only transaction; returns (came out right, evidence)."""
    evidence: dict[str, Any] = {"name": sample.name}
    try:
        with connection.transaction():
            connection.execute("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (f"{_TIMEOUT_SECONDS}s",))
            # The operator's query may name tables without their schema.
            connection.execute("SELECT pg_catalog.set_config('search_path', '\"$user\", public', true)")
            cursor = connection.execute(sample.sql.encode())
            rows = cast("list[tuple[Any, ...]]", cursor.fetchmany(_MOST_ROWS)) if cursor.description else []
    except psycopg.Error as error:
        return False, {**evidence, "error": str(error).strip()}
    found = [[plain(value) for value in row] for row in rows]
    single = len(found) == 1 and len(found[0]) == 1
    evidence["found"] = found[0][0] if single else found[:20]
    if sample.at_least is not None:
        evidence["at_least"] = sample.at_least
        if not single or not _is_number(found[0][0]):
            return False, {**evidence, "error": "at_least needs one number"}
        return float(found[0][0]) >= sample.at_least, evidence
    if sample.expected is not None:
        evidence["expected"] = sample.expected
        return _same(
            found[0][0] if single and not isinstance(sample.expected, list) else found, sample.expected
        ), evidence
    return True, evidence


def plain(value: Any) -> Any:
    """Turn a database value into one that JSON has: numbers, text, booleans and null stay what they are."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else str(value)


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, list) and isinstance(expected, list):
        # A list of plain values stands for rows of one column.
        rows = [item if isinstance(item, list) else [item] for item in expected]
        return len(found) == len(rows) and all(
            len(row) == len(wanted) and all(map(_same, row, wanted)) for row, wanted in zip(found, rows, strict=True)
        )
    expected = plain(expected)
    if _is_number(found) and _is_number(expected):
        return bool(found == expected)
    return bool(found == expected) or (isinstance(found, str) and found == str(expected))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
