"""Rows of partitions that a dump has as rows of the table at the top: counted, restored and proven there."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps import assembly
from recovery.dumps.reader import check
from recovery.dumps.reread import reread_backup
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify

pytestmark = pytest.mark.slow  # backups and restores of real servers

BY_MOOD = """
CREATE TYPE mood AS ENUM ('bad', 'so-so', 'good');
CREATE TABLE moods (m mood, n int, label text DEFAULT 'x') PARTITION BY LIST (n);
CREATE TABLE moods_of_1 PARTITION OF moods FOR VALUES IN (1) PARTITION BY HASH (m);
CREATE TABLE moods_of_1_a PARTITION OF moods_of_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE moods_of_1_b PARTITION OF moods_of_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE moods_of_2 (n int, label text, m mood);
ALTER TABLE moods ATTACH PARTITION moods_of_2 FOR VALUES IN (2);
CREATE TABLE by_number (n int) PARTITION BY HASH (n);
CREATE TABLE by_number_0 PARTITION OF by_number FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO moods SELECT (ARRAY['bad', 'so-so', 'good'])[1 + g % 3]::mood, 1 + g % 2, g FROM generate_series(1, 900) g;
INSERT INTO by_number SELECT generate_series(1, 100);
"""


# Numbers of enum values decide where a row goes: in the databases here they are others.
OTHER_NUMBERS = "CREATE TYPE before AS ENUM ('a', 'b', 'c', 'd', 'e'); DROP TYPE before"


def fill(dsn: str, text: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode())


def outcomes(dsn: str, **reference: Any) -> dict[str, Outcome]:
    return {rung.name: rung.outcome for rung in verify(dsn, **reference).rungs}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("major", [16, 18])
def test_partitions_by_the_hash_of_an_enum_are_backed_up_restored_and_proven(  # fixtures
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    major: int, *, beside: bool,
) -> None:  # fmt: skip
    if beside:
        monkeypatch.setattr(assembly, "LEAST_BYTES", 0)
    make: Callable[..., str] = request.getfixturevalue(f"make_database{'' if major == 16 else major}")
    source, target = make(), make()
    fill(source, BY_MOOD)
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.path is not None
    assert backup.manifest is not None
    ours, theirs = gzip.decompress(backup.path.read_bytes()), programs.pg_dump(source, major=major)
    assert [line for line in ours.splitlines() if b"restrict" not in line] == [
        line for line in theirs.splitlines() if b"restrict" not in line
    ]
    rows = {table.name: table.rows for table in backup.manifest.tables}
    assert rows == {"moods": 450, "moods_of_2": 450, "by_number_0": 100}
    assert reread_backup(backup).problems == []
    fill(target, OTHER_NUMBERS)
    restore(str(backup.path), target, manifest=backup.manifest)
    found = outcomes(target, manifest=backup.manifest)
    assert Outcome.FAIL not in found.values()
    assert (found["rows"], found["content"]) == (Outcome.PASS, Outcome.PASS)
    fill(target, "UPDATE moods SET label = 'other' WHERE label = '1'")
    assert {name for name, each in outcomes(target, manifest=backup.manifest).items() if each is Outcome.FAIL} == {
        "content"
    }
    fill(target, "DELETE FROM moods WHERE label = 'other'")
    assert {name for name, each in outcomes(target, manifest=backup.manifest).items() if each is Outcome.FAIL} == {
        "rows", "content",
    }  # fmt: skip


@pytest.mark.parametrize(
    "style", [(), ("--load-via-partition-root",), ("--load-via-partition-root", "--column-inserts")]
)
def test_a_dump_whose_rows_go_through_the_root_proves_them_by_its_own_text(
    make_database: Callable[..., str], programs: Any, tmp_path: Path, style: tuple[str, ...]
) -> None:
    source, target = make_database(), make_database()
    fill(source, BY_MOOD)
    path = tmp_path / "dump.sql"
    path.write_bytes(programs.pg_dump(source, *style))
    with open_dump(str(path)) as dump:
        facts = check(dump, sums=True).facts
    through_root = {("public", "moods"): 900, ("public", "by_number"): 100}
    some = {("public", "moods"): 450, ("public", "moods_of_2"): 450, ("public", "by_number_0"): 100}
    assert facts.tables == (through_root if style else some)
    restore(str(path), target)
    found = outcomes(target, facts=facts)
    assert (found["schema"], found["rows"]) == (Outcome.PASS, Outcome.PASS)
    # INSERTs do not tell the text of a row, and a partition of `moods` has its columns in another order.
    assert found["content"] is (Outcome.NOT_RUN if style else Outcome.PASS)
    fill(target, "INSERT INTO moods VALUES ('good', 2)")
    assert outcomes(target, facts=facts)["rows"] is Outcome.FAIL
    fill(target, "DROP TABLE moods_of_1_a")
    assert outcomes(target, facts=facts)["schema"] is Outcome.FAIL


def test_partitions_with_another_order_of_columns_have_rows_but_no_checksum(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    fill(source, BY_MOOD)
    fill(
        source,
        "DROP TABLE moods_of_1_b; CREATE TABLE moods_of_1_b (n int, m mood, label text);"
        " ALTER TABLE moods_of_1 ATTACH PARTITION moods_of_1_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        " INSERT INTO moods SELECT m, 1 FROM unnest(ARRAY['bad', 'so-so', 'good']::mood[]) m, generate_series(1, 100)",
    )
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert {table.name for table in backup.manifest.tables if table.checksum is None} == {"moods"}
    assert reread_backup(backup).problems == []
    restore(str(backup.path), target, manifest=backup.manifest)
    found = outcomes(target, manifest=backup.manifest)
    assert (found["rows"], found["content"]) == (Outcome.PASS, Outcome.NOT_RUN)


def test_text_that_depends_on_the_dumping_session_is_unproven_under_the_root_as_well(
    make_database: Callable[..., str], programs: Any, tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    fill(
        source,
        "CREATE TABLE times (t timestamptz) PARTITION BY RANGE (t); CREATE TABLE all_times PARTITION OF times DEFAULT;"
        " INSERT INTO times SELECT now() - n * interval '1 h' FROM generate_series(1, 50) n",
    )
    path = tmp_path / "dump.sql"
    abroad = psycopg.conninfo.make_conninfo(source, options="-c timezone=Asia/Kolkata")
    path.write_bytes(programs.pg_dump(abroad, "--load-via-partition-root"))
    with open_dump(str(path)) as dump:
        facts = check(dump, sums=True).facts
    restore(str(path), target)
    found = outcomes(target, facts=facts)
    assert (found["rows"], found["content"]) == (Outcome.PASS, Outcome.NOT_RUN)
