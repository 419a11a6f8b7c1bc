"""Foreign keys of and to partitioned tables come back as psql makes them, in every part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.restore import restore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # real servers in every test

SCRIPT = """
CREATE TABLE a (x int PRIMARY KEY);
CREATE TABLE p (x int PRIMARY KEY, y int REFERENCES a) PARTITION BY RANGE (x);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (x);
CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (100) TO (500);
CREATE TABLE "P ""22" PARTITION OF p2 DEFAULT;
CREATE TABLE q (x int REFERENCES p, y int REFERENCES a ON DELETE CASCADE) PARTITION BY LIST (y);
CREATE TABLE q1 PARTITION OF q DEFAULT;
CREATE TABLE b (x int REFERENCES p DEFERRABLE INITIALLY DEFERRED, y int REFERENCES a);
ALTER TABLE q1 ADD CONSTRAINT own FOREIGN KEY (x) REFERENCES a;
INSERT INTO a SELECT generate_series(0, 999);
INSERT INTO p SELECT i, 999 - i FROM generate_series(0, 999) i;
INSERT INTO q SELECT i, 999 - i FROM generate_series(0, 999) i;
INSERT INTO b SELECT i, 999 - i FROM generate_series(0, 999) i;
"""
KEYS = """
SELECT conrelid::regclass::text, confrelid::regclass::text, pg_get_constraintdef(oid), convalidated,
       conparentid <> 0, count(*)
  FROM pg_constraint WHERE contype = 'f' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""


def keys(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(KEYS.encode()).fetchall()


@pytest.mark.parametrize("major", [16, 18])
def test_every_key_is_there_and_validated_in_every_part(
    major: int, programs: Any, make_database: Callable[..., str], make_database18: Callable[..., str], tmp_path: Path
) -> None:
    make = make_database if major == 16 else make_database18
    source, theirs, ours = make(), make(), make()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(SCRIPT.encode())
    dump = programs.pg_dump(source, major=major)
    (tmp_path / "dump.sql").write_bytes(dump)
    programs.psql(theirs, dump, major=major)
    restore(str(tmp_path / "dump.sql"), ours, jobs=4)
    assert keys(ours) == keys(theirs)
    assert {validated for _, _, _, validated, _, _ in keys(ours)} == {True}
    programs.assert_same(ours, theirs, major)
