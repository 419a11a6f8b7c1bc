"""Every table of a restored database has statistics, collected once, of all that its dump says there are to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.restore import restore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # real servers in every test

TABLES = b"""CREATE TABLE public.parent (id int NOT NULL, a int, b int);
CREATE TABLE public.child (id int NOT NULL, parent int);
COPY public.child (id, parent) FROM stdin;
%b\\.
COPY public.parent (id, a, b) FROM stdin;
%b\\.
ALTER TABLE ONLY public.parent
    ADD CONSTRAINT parent_pkey PRIMARY KEY (id);
CREATE INDEX child_sum ON public.child USING btree (((id + parent)));
%b
ALTER TABLE ONLY public.child
    ADD CONSTRAINT child_parent_fkey FOREIGN KEY (parent) REFERENCES public.parent(id);
CREATE MATERIALIZED VIEW public.seen AS
 SELECT id FROM public.child
  WITH NO DATA;
REFRESH MATERIALIZED VIEW public.seen;
"""


def restored(tmp_path: Path, dsn: str, between: bytes = b"", *, analyze: bool = True) -> Any:
    path = tmp_path / "dump.sql"
    child = b"".join(b"%d\t%d\n" % (number, number % 50) for number in range(500))
    parent = b"".join(b"%d\t%d\t%d\n" % (number, number % 5, number % 5) for number in range(50))
    path.write_bytes(TABLES % (child, parent, between))
    return restore(str(path), dsn, analyze=analyze)


def rows(dsn: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(text.encode()).fetchall()


COUNTS = "SELECT relname, analyze_count FROM pg_stat_user_tables ORDER BY 1"


def test_tables_keys_and_views_are_collected_once_the_expressions_of_indexes_too(database: str, tmp_path: Path) -> None:
    notes = restored(tmp_path, database).notes
    assert [note for note in notes if note.kind != "completeness"] == []
    assert rows(database, COUNTS) == [("child", 1), ("parent", 1), ("seen", 1)]
    known = "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public' ORDER BY 1, 2"
    assert rows(database, known) == [
        ("child", "id"),
        ("child", "parent"),
        ("child_sum", "expr"),
        ("parent", "a"),
        ("parent", "b"),
        ("parent", "id"),
        ("seen", "id"),
    ]
    assert rows(database, "SELECT convalidated FROM pg_constraint WHERE contype = 'f'") == [(True,)]


@pytest.mark.parametrize(
    ("between", "asked", "answer"),
    [
        (
            b"CREATE STATISTICS public.together (dependencies) ON a, b FROM public.parent;",
            "SELECT count(*) FROM pg_statistic_ext_data",
            1,
        ),
        (
            b"ALTER INDEX public.child_sum ALTER COLUMN 1 SET STATISTICS 7;",
            "SELECT array_length(histogram_bounds::text::int[], 1) FROM pg_stats WHERE tablename = 'child_sum'",
            8,
        ),
    ],
)
def test_what_a_dump_says_of_its_statistics_before_its_keys_is_heeded(
    database: str, tmp_path: Path, between: bytes, asked: str, answer: int
) -> None:
    restored(tmp_path, database, between)
    assert rows(database, asked) == [(answer,)]
    assert rows(database, COUNTS) == [("child", 1), ("parent", 1), ("seen", 1)]


def test_no_statistics_are_collected_when_told_so(database: str, tmp_path: Path) -> None:
    restored(tmp_path, database, analyze=False)
    assert rows(database, COUNTS) == [("child", 0), ("parent", 0), ("seen", 0)]
    assert rows(database, "SELECT count(*) FROM pg_stats WHERE schemaname = 'public'") == [(0,)]
