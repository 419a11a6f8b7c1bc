"""Databases of several shapes to dump and restore, each of about an asked size as plain SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from benchmarks.measure import say
from examples.agentverse.database import seed
from examples.agentverse.rows import Platform

_MIDDLE_TABLES = 40


@dataclass(frozen=True)
class Shape:
    """A kind of database: `name` for people, `fill` makes it in an empty database of about so many megabytes of SQL."""

    key: str
    name: str
    fill: Callable[[psycopg.Connection[tuple[object, ...]], int], None]


def _platform(connection: psycopg.Connection[tuple[object, ...]], megabytes: int) -> None:
    seed(connection, Platform.of_size(megabytes, seed=7), say)


def _middle(connection: psycopg.Connection[tuple[object, ...]], megabytes: int) -> None:
    rows = megabytes * 1_000_000 // _MIDDLE_TABLES // 150
    for number in range(_MIDDLE_TABLES):
        name = sql.Identifier(f"part_{number:02}")
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} AS SELECT n::bigint AS id, (n * 7919 % 100003)::integer AS owner,"
                " timestamptz '2026-01-01 00:00+00' + n * interval '1.7 s' AS at,"
                " md5(n::text || {}) || ' ' || md5(n::text) AS title, (n * 31 % 1000) / 7.0::numeric(10, 4) AS score"
                " FROM generate_series(1::bigint, {}) AS n"
            ).format(name, sql.Literal(str(number)), sql.Literal(rows))
        )
        connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(name))
        connection.execute(sql.SQL("CREATE INDEX ON {} (owner)").format(name))
        if number:
            connection.execute(sql.SQL("ALTER TABLE {} ADD FOREIGN KEY (id) REFERENCES part_00 (id)").format(name))


def _indexed(connection: psycopg.Connection[tuple[object, ...]], megabytes: int) -> None:
    connection.execute(
        sql.SQL(
            "CREATE TABLE entries AS SELECT n::bigint AS id, md5(n::text) AS token, md5((n / 5)::text) AS parent,"
            " (n * 7919 % 1000003)::integer AS a, (n * 104729 % 100003)::integer AS b,"
            " timestamptz '2026-01-01 00:00+00' + (n * 7907 % 9999991) * interval '1 s' AS at,"
            " ARRAY['t' || n % 97, 't' || n % 89] AS tags FROM generate_series(1::bigint, {}) AS n"
        ).format(sql.Literal(megabytes * 1_000_000 // 133))
    )
    connection.execute("ALTER TABLE entries ADD PRIMARY KEY (id)")
    connection.execute("ALTER TABLE entries ADD UNIQUE (token)")
    for columns in ("parent", "a", "b", "at", "a, b", "b, at", "parent, at DESC"):
        connection.execute(sql.SQL("CREATE INDEX ON entries ({})").format(sql.SQL(columns)))
    connection.execute("CREATE INDEX ON entries USING gin (tags)")
    connection.execute("CREATE INDEX ON entries (lower(token))")


def _large_values(connection: psycopg.Connection[tuple[object, ...]], megabytes: int) -> None:
    # Text of 12 to 60 kB that compresses to some half of it, as documents do.
    connection.execute(
        sql.SQL(
            "CREATE TABLE documents AS SELECT n AS id, 'document ' || n AS title, body"
            " FROM generate_series(1, {}) AS n,"
            " LATERAL (SELECT string_agg(md5((n * 4096 + i)::text) || ' some words between ', '') AS body"
            " FROM generate_series(1, 240 + n * 37 % 960) AS i) AS made"
        ).format(sql.Literal(megabytes * 1_000_000 // 37_400))
    )
    connection.execute("ALTER TABLE documents ADD PRIMARY KEY (id)")


SHAPES = (
    Shape("platform", "one table of 80 %", _platform),
    Shape("tables", f"{_MIDDLE_TABLES} mid-sized tables", _middle),
    Shape("indexes", "index-heavy", _indexed),
    Shape("values", "large TOASTed values", _large_values),
)
