"""The platform's database: reach it, make its schema, fill it, look at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from examples.agentverse.errors import EnvironmentLacksError, RefusedError
from examples.agentverse.rows import TABLES, Platform

_SCHEMA = Path(__file__).with_name("schema.sql")
_MARKER = "-- ==== after the data ====\n"
_SECONDS_BETWEEN_LINES = 1.0

Say = Callable[[str], None]
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """What a seeding wrote: rows by table, bytes of COPY text, seconds from the first statement to the commit."""

    rows: dict[str, int]
    copy_bytes: int
    seconds: float


@contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """Open a connection and close it. Raises EnvironmentLacksError where there is no server or it will not have us."""
    try:
        connection = psycopg.connect(dsn, connect_timeout=15, application_name="agentverse-example")
    except psycopg.OperationalError as exc:
        raise EnvironmentLacksError(
            "the database cannot be reached",
            detail=" ".join(str(exc).split()),
            hint="check host, port and credentials, and that the server runs",
        ) from exc
    with connection:
        yield connection


def counts(connection: Connection) -> dict[str, int] | None:
    """Return the rows of each table, or None where the platform's schema is not there."""
    found = connection.execute("SELECT to_regclass('public.run_events') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return None
    result: dict[str, int] = {}
    for table in TABLES:
        query = sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(table.name))
        row = connection.execute(query).fetchone()
        result[table.name] = 0 if row is None else int(row[0])
    return result


def schema_parts() -> tuple[str, str]:
    """Return the schema in two parts: types and bare tables; then keys, indexes, functions, triggers and views."""
    before, after = _SCHEMA.read_text(encoding="utf-8").split(_MARKER)
    return before, after


def seed(connection: Connection, platform: Platform, say: Say) -> Seeded:
    """Make the schema and all rows in one transaction, then gather statistics.

    Tables are filled before they have indexes and keys, and frozen as they are filled: one pass over the data. What
    fails leaves the database as it was. Raises RefusedError where the database has tables already.
    """
    taken = connection.execute(
        "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')"
    ).fetchone()
    if taken is not None and taken[0]:
        raise RefusedError(
            f"database {connection.info.dbname} on {connection.info.host} is not empty",
            detail=f"schema public has: {taken[0]}",
            hint="seed a new database; nothing was changed",
        )
    started = time.monotonic()
    before, after = schema_parts()
    progress = _Progress(say)
    rows: dict[str, int] = {}
    with connection.transaction():
        connection.execute("SET LOCAL search_path = public")
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        connection.execute(before.encode())
        for table in TABLES:
            statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FREEZE)").format(
                sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
            )
            rows[table.name] = 0
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for chunk, count in table.chunks(platform):
                    copy.write(chunk)
                    rows[table.name] += count
                    progress.add(table.name, rows[table.name], len(chunk))
        say("indexes, keys and statistics")
        connection.execute(after.encode())
        for name in ("nodes", "run_events"):
            # COPY gives identities of its own choice, so the sequence behind has to be told where it stands.
            connection.execute(
                sql.SQL("SELECT setval(pg_get_serial_sequence({}, 'id'), greatest(max(id), 1)) FROM {}").format(
                    sql.Literal(f"public.{name}"), sql.Identifier(name)
                )
            )
        connection.execute("ANALYZE projects, personas, nodes, runs, run_events, reports")
    connection.commit()
    return Seeded(rows=rows, copy_bytes=progress.written, seconds=time.monotonic() - started)


class _Progress:
    """Says a line about once a second: the table, its rows, all bytes so far, and the rate."""

    def __init__(self, say: Say) -> None:
        self.written = 0
        self._rows = 0
        self._of: dict[str, int] = {}
        self._say = say
        self._started = self._said = time.monotonic()

    def add(self, table: str, rows: int, size: int) -> None:
        self.written += size
        self._rows += rows - self._of.get(table, 0)
        self._of[table] = rows
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            rate = self._rows / (now - self._started)
            self._say(f"{table}: {rows:,} rows · {self.written / 1e6:,.0f} MB in all · {rate:,.0f} rows/s")
