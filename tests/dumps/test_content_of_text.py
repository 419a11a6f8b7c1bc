"""A dump without a manifest proves the content by its own rows, but for what the dumping server's settings decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.dumps.facts import DumpFacts

pytestmark = pytest.mark.slow  # real servers in every test


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def facts_of(path: Path) -> DumpFacts:
    with open_dump(str(path)) as dump:
        return check(dump, sums=True).facts


@pytest.fixture
def source(make_database: Callable[..., str]) -> str:
    dsn = make_database()
    run(
        dsn,
        "CREATE TYPE mood AS ENUM ('well', 'ill')",
        "CREATE TABLE plain (id int, label text, at timestamp, tags text[], doc jsonb, feels mood,"
        " twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "INSERT INTO plain SELECT i, E'a\\tb\\\\' || i, '2026-01-01', '{x,\"y z\"}', '{\"a\": 1.50}', 'well'"
        " FROM generate_series(1, 500) i",
        "CREATE TABLE zoned (id int, at timestamptz)",
        "INSERT INTO zoned VALUES (1, '2026-01-01 00:00+00')",
        "CREATE TABLE nothing (id int)",
        "CREATE TABLE elsewhere (id int)",
        "INSERT INTO elsewhere VALUES (1)",
    )
    return dsn


def test_rows_are_proven_equal_and_one_that_differs_is_found(
    source: str, make_database: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    path, target = tmp_path / "dump.sql", make_database()
    path.write_bytes(programs.pg_dump(source))
    restore(str(path), target)
    facts = facts_of(path)
    found = verify(target, facts=facts).rung("content")
    assert (found.outcome, found.reason) == (Outcome.PASS, "the content of 4 tables is the original's")
    run(target, "UPDATE plain SET doc = '{\"a\": 1.5}' WHERE id = 77")
    found = verify(target, facts=facts).rung("content")
    assert (found.outcome, found.evidence["different"]) == (Outcome.FAIL, ["public.plain"])


def test_what_a_time_zone_writes_otherwise_is_not_run_and_a_row_too_many_still_fails(
    source: str, make_database: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    path, target = tmp_path / "dump.sql", make_database()
    path.write_bytes(programs.pg_dump(make_conninfo(source, options="-c timezone=Asia/Kolkata")))
    restore(str(path), target)
    facts = facts_of(path)
    found = verify(target, facts=facts).rung("content")
    assert (found.outcome, found.evidence["unproven"]) == (Outcome.NOT_RUN, ["public.zoned"])
    assert found.reason.startswith("the content of 3 tables is the original's; of 1 it is not proven")
    run(target, "INSERT INTO zoned VALUES (2, '2026-01-02 00:00+00')")
    found = verify(target, facts=facts).rung("content")
    assert (found.outcome, found.evidence["different"]) == (Outcome.FAIL, ["public.zoned"])


@pytest.mark.parametrize("change", ["INSERT", "no header", "line ends"])
def test_text_that_no_server_wrote_so_proves_nothing_and_blames_nobody(
    source: str, make_database: Callable[..., str], programs: Any, tmp_path: Path, change: str
) -> None:
    path, target = tmp_path / "dump.sql", make_database()
    text = programs.pg_dump(source, *(["--inserts"] if change == "INSERT" else []))
    if change == "no header":
        text = text.replace(b"-- PostgreSQL database dump\n", b"-- by hand\n")
    if change == "line ends":
        text = text.replace(b"\n", b"\r\n")
    path.write_bytes(text)
    restore(str(path), target)
    assert verify(target, facts=facts_of(path)).rung("content").outcome is Outcome.NOT_RUN
