"""What a restore says of itself while it runs: rate, tables, the indexes under way, and what the others wait for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from recovery.restore import restore

if TYPE_CHECKING:
    from pathlib import Path

    from recovery.progress import ProgressEvent

pytestmark = pytest.mark.slow  # real servers in every test

# What takes longer than a report is away.
SLOW = (
    b"CREATE TABLE public.t (id int);\n"
    b"CREATE FUNCTION public.slow(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS\n"
    b"'BEGIN PERFORM pg_catalog.pg_sleep(0.01); RETURN id; END';\n"
    b"CREATE MATERIALIZED VIEW public.m AS SELECT public.slow(id) FROM public.t WITH NO DATA;\n"
    b"COPY public.t (id) FROM stdin;\n" + b"".join(b"%d\n" % number for number in range(200)) + b"\\.\n"
)


def told(dump: bytes, database: str, tmp_path: Path) -> list[str]:
    """The texts of all events while the dump was loaded."""
    path = tmp_path / "dump.sql"
    path.write_bytes(SLOW + dump)
    events: list[ProgressEvent] = []
    restore(str(path), database, progress=events.append)
    loading = [event for event in events if event.stage == "load"]
    assert all(event.total == len(SLOW + dump) >= event.done for event in loading)
    return [event.text for event in loading]


def test_the_rate_the_tables_and_the_indexes_under_way_are_told(database: str, tmp_path: Path) -> None:
    texts = told(b"CREATE INDEX i ON public.t USING btree (public.slow(id));\n", database, tmp_path)
    assert all(re.match(r"\d+ tables, \d+ MB/s", text) for text in texts), texts
    assert any(re.search(r"index of (public\.)?t: building index.* \d+ %", text) for text in texts), texts


def test_a_statement_that_everything_waits_for_is_told_while_it_runs(database: str, tmp_path: Path) -> None:
    texts = told(b"REFRESH MATERIALIZED VIEW public.m;\n", database, tmp_path)
    assert len([text for text in texts if "now REFRESH MATERIALIZED VIEW public.m;" in text]) > 1, texts
