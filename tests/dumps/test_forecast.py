"""What a restore says of its end while it runs; how near it comes is measured by benchmarks/forecast.py."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps.manifest import Manifest, Sizes
from recovery.dumps.writer import take_backup
from recovery.loading import forecast, loader
from recovery.loading.forecast import Forecast
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = Sizes(tables=1000, indexes=400)


def seconds(text: str) -> int:
    found = re.fullmatch(r"done in about (?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)?", text)
    assert found is not None, text
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def test_nothing_is_said_before_rows_were_loaded_for_a_moment() -> None:
    told = Forecast(1000, SIZES)
    assert told.say(50.0, 10) == ""
    told.rows_begin(100.0, 10)
    assert told.say(100.5, 20) == ""
    assert told.say(102.0, 10) == ""


def test_without_the_sizes_of_the_source_only_the_rows_are_foretold() -> None:
    for sizes in (None, Sizes(tables=0, indexes=0)):
        told = Forecast(1000, sizes)
        told.rows_begin(100.0, 0)
        assert told.say(110.0, 100) == "rows loaded in about 1 min 30 s, then indexes"
        assert told.say(210.0, 1000, ended=200.0) == ""


def test_where_nobody_knows_how_much_is_to_come_only_what_follows_the_rows_is_foretold() -> None:
    told = Forecast(None, SIZES)
    told.rows_begin(0.0, 0)
    assert told.say(10.0, 5000) == ""
    assert told.say(11.0, 5000, ended=10.0).startswith("done in about")


def test_no_time_is_negative_when_more_was_read_than_there_was_to_be() -> None:
    told = Forecast(1000, None)
    told.rows_begin(0.0, 0)
    assert told.say(10.0, 5000) == "rows loaded in about 0 s, then indexes"


@given(st.integers(11, 10**6), st.floats(0.01, 0.99), st.integers(0, 10**6), st.integers(0, 10**12))
def test_at_an_even_pace_the_same_end_is_foretold_at_every_moment(
    loading: int, share: float, began: int, skipped: int
) -> None:
    told = Forecast(skipped + loading * 1000, SIZES)
    told.rows_begin(float(began), skipped)
    after = loading * 0.4 * forecast._INDEX_BYTE + loading * forecast._REST
    now = max(1.0, loading * share)
    left = seconds(told.say(began + now, skipped + round(now * 1000)))
    # Hours are told without seconds.
    assert left == pytest.approx(loading - now + after, abs=61 if left >= 3600 else 1)
    left = seconds(told.say(began + loading + 1.0, skipped + loading * 1000, ended=float(began + loading)))
    assert left == pytest.approx(after - 1, abs=61 if left >= 3600 else 1)


def test_what_takes_longer_than_foretold_is_said_to() -> None:
    told = Forecast(1000, Sizes(tables=1000, indexes=0))
    told.rows_begin(0.0, 0)
    assert told.say(10.0, 1000, ended=10.0).startswith("done in about")
    assert told.say(30.0, 1000, ended=10.0) == "takes longer than expected"


def test_a_restore_with_a_manifest_foretells_its_end_and_one_without_only_its_rows(
    database: str, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(loader, "_REPORT_SECONDS", 0.0)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS x FROM generate_series(1, 200000) i")
        connection.execute("CREATE INDEX ON t (x)")
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.manifest.sizes is not None
    with psycopg.connect(database) as connection:
        sizes = connection.execute("SELECT pg_table_size('t'), pg_indexes_size('t')").fetchone()
    assert (backup.manifest.sizes.tables, backup.manifest.sizes.indexes) == sizes

    def told(manifest: Manifest | None) -> str:
        texts: list[str] = []
        restore(str(backup.path), make_database(), manifest=manifest, progress=lambda event: texts.append(event.text))
        return "\n".join(texts)

    assert "done in about" in told(backup.manifest)
    assert "rows loaded in about" in told(None)
