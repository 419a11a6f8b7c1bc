"""Foreign keys that the source's catalogue calls valid and its rows break: restored NOT VALID, and said so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.dumps.writer import take_backup
from recovery.errors import ConnectionLostError, RecoveryError
from recovery.restore import restore
from recovery.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # real servers in every test

# Two broken keys, one of a name that needs quoting, and one that holds.
BROKEN = """
CREATE TABLE a (x int PRIMARY KEY);
CREATE TABLE b (x int REFERENCES a, y int REFERENCES a);
CREATE TABLE "B ""é" ("X" int, CONSTRAINT "k ""é" FOREIGN KEY ("X") REFERENCES a ON DELETE CASCADE);
INSERT INTO a VALUES (1);
SET session_replication_role = replica;
INSERT INTO b VALUES (1, 1), (2, 1), (3, NULL), (NULL, NULL);
INSERT INTO "B ""é" VALUES (7);
"""
PARTITIONED = """
CREATE TABLE a (x int PRIMARY KEY);
CREATE TABLE p (x int REFERENCES a) PARTITION BY LIST (x);
CREATE TABLE p1 PARTITION OF p DEFAULT;
SET session_replication_role = replica;
INSERT INTO p VALUES (7);
"""
KEYS = "SELECT conname::text, convalidated FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 ORDER BY 1"
RESTORED = [("b_x_fkey", False), ("b_y_fkey", True), ('k "é', False)]


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


def rows(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def noted(result: Any) -> set[tuple[str, str, int]]:
    return {(note.object, note.text, note.count) for note in result.notes if note.kind == "foreign key"}


def test_a_broken_key_comes_back_not_valid_and_is_reported_as_broken_at_the_source(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    run(source, BROKEN)
    backup = take_backup(source, local_dir=tmp_path)
    result = restore(str(backup.path), target, manifest=backup.manifest)
    assert noted(result) == {
        ("FK CONSTRAINT public.b b_x_fkey", "broken at the source: 2 rows point nowhere; restored NOT VALID", 1),
        ('FK CONSTRAINT public.B "é k "é', "broken at the source: 1 row points nowhere; restored NOT VALID", 1),
    }
    assert rows(target, KEYS) == RESTORED
    assert rows(target, "SELECT count(*) FROM b") == [(4,)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run(target, "INSERT INTO b VALUES (9)")
    found = verify(target, manifest=backup.manifest)
    assert found.verdict == "PASS", found
    assert "2 are broken as they were at the source" in found.rung("foreign-keys").reason


def test_an_interrupted_restore_goes_on_behind_a_broken_key_and_notes_it_once(
    make_database: Callable[..., str], server16: Any, cutters: Callable[..., Any], tmp_path: Path
) -> None:
    source = make_database()
    run(source, BROKEN)
    backup = take_backup(source, local_dir=tmp_path)
    for moment in ("before", "after"):
        target = make_database()

        def decide(query: bytes, moment: str = moment) -> str | None:
            return moment if b"b_x_fkey" in query and b"NOT VALID" in query else None

        with cutters(server16, decide) as cutter, pytest.raises(ConnectionLostError):
            restore(str(backup.path), cutter.dsn(target), manifest=backup.manifest)
        result = restore(str(backup.path), target, manifest=backup.manifest, resume=True)
        assert result.resumed_rows == 6
        assert {count for _, _, count in noted(result)} == {1}
        assert rows(target, KEYS) == RESTORED


def test_without_a_manifest_the_restore_ends_at_the_broken_key_and_says_what_to_do(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    run(source, BROKEN)
    backup = take_backup(source, local_dir=tmp_path)
    with pytest.raises(RecoveryError, match="violates foreign key") as failed:
        restore(str(backup.path), target)
    assert "SQLSTATE 23503" in str(failed.value.detail)
    assert "With the manifest" in str(failed.value.hint)
    assert rows(target, "SELECT to_regclass('a')") == [(None,)]


def test_a_broken_key_of_a_partitioned_table_ends_the_restore_where_the_server_has_no_such_keys(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    run(source, PARTITIONED)
    backup = take_backup(source, local_dir=tmp_path)
    with pytest.raises(RecoveryError, match="violates foreign key") as failed:
        restore(str(backup.path), target, manifest=backup.manifest)
    assert "on a partitioned table before PostgreSQL 18" in str(failed.value.hint)


def test_a_broken_key_of_a_partitioned_table_comes_back_not_valid_from_18_on(
    make_database18: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database18(), make_database18()
    run(source, PARTITIONED)
    backup = take_backup(source, local_dir=tmp_path)
    assert len(noted(restore(str(backup.path), target, manifest=backup.manifest))) == 1
    assert rows(target, KEYS) == [("p_x_fkey", False)]
    found = verify(target, manifest=backup.manifest)
    assert found.verdict == "PASS", found
    assert "broken as they were at the source: public.p.p_x_fkey" in found.rung("foreign-keys").reason
