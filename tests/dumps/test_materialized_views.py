"""Materialized views are filled beside each other, but not before those that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.restore import restore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # a real server in every test

SLOW = "SELECT clock_timestamp() AS began, pg_sleep(2) IS NULL AS slept, clock_timestamp() AS ended"
FUNCTION = """CREATE FUNCTION public.ended() RETURNS timestamptz LANGUAGE plpgsql AS
'BEGIN RETURN (SELECT ended FROM public.one); END';
"""


def restored(tmp_path: Path, dsn: str, views: dict[str, str], *, before: str = "") -> Any:
    path = tmp_path / "dump.sql"
    made = "".join(
        f"CREATE MATERIALIZED VIEW public.{name} AS\n {query}\n  WITH NO DATA;\n" for name, query in views.items()
    )
    filled = "".join(f"REFRESH MATERIALIZED VIEW public.{name};\n" for name in views)
    path.write_text(before + made + filled)
    return restore(str(path), dsn, jobs=3)


def one(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_views_that_do_not_need_each_other_are_filled_at_once(database: str, tmp_path: Path) -> None:
    restored(tmp_path, database, {"one": SLOW, "other": SLOW})
    assert one(database, "SELECT a.began < b.ended AND b.began < a.ended FROM one a, other b")


def test_a_view_waits_for_those_it_is_made_of_through_views_too(database: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    path.write_text(
        f"CREATE MATERIALIZED VIEW public.one AS\n {SLOW}\n  WITH NO DATA;\n"
        "CREATE VIEW public.between AS\n SELECT ended FROM public.one;\n"
        "CREATE MATERIALIZED VIEW public.two AS\n SELECT ended, clock_timestamp() AS began FROM public.between\n"
        "  WITH NO DATA;\n"
        "REFRESH MATERIALIZED VIEW public.one;\nREFRESH MATERIALIZED VIEW public.two;\n"
    )
    restore(str(path), database, jobs=3)
    assert one(database, "SELECT began >= ended FROM two")


def test_a_view_that_asks_a_function_waits_for_all_before_it(database: str, tmp_path: Path) -> None:
    views = {"one": SLOW, "two": "SELECT public.ended() AS ended, clock_timestamp() AS began"}
    restored(tmp_path, database, views, before=FUNCTION)
    assert one(database, "SELECT began >= ended FROM two")
