"""Dumps of the time before manifests: a whole one is good and unsealed, and what a restore refuses is found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps.catalogue import list_backups, list_local_backups
from recovery.dumps.reread import Reread, reread_backup
from recovery.errors import BadDumpError
from recovery.restore import restore

pytestmark = pytest.mark.slow  # dumps of a real server

NAME = "db_full_20260109_020000.sql.gz"
HTML = b"<!DOCTYPE html><html><body>Service&nbsp;Unavailable</body></html>"


@pytest.fixture
def dump(database: str, programs: Any) -> bytes:
    """What pg_dump writes of two tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE a AS SELECT i FROM generate_series(1, 3000) i")
        connection.execute("CREATE TABLE b AS SELECT i FROM generate_series(1, 2000) i")
    text: bytes = programs.pg_dump(database)
    return text


def reread(folder: Path, content: bytes) -> Reread:
    (folder / NAME).write_bytes(content)
    (backup,) = list_local_backups(folder)
    assert not backup.sealed
    return reread_backup(backup)


def test_a_whole_dump_without_a_manifest_is_good(dump: bytes, tmp_path: Path, s3: Any, bucket: str) -> None:
    stored = gzip.compress(dump)
    found = reread(tmp_path, stored)
    assert (found.good, found.problems, found.compared_with_manifest) == (True, [], False)
    assert (found.tables, found.rows, found.size, found.uncompressed_size) == (2, 5000, len(stored), len(dump))
    s3.put_object(Bucket=bucket, Key=f"db/{NAME}", Body=stored)
    (backup,) = list_backups(s3, bucket)
    there = reread_backup(backup, s3=s3)
    assert there.model_copy(update={"address": found.address}) == found


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("cut after the first table", "cut off"),
        ("cut before the last line", "cut off"),
        ("cut inside gzip", "ends inside"),
        ("empty", "empty"),
        ("empty gzip", "no SQL statement"),
        ("html", "is not SQL"),
        ("no dump of pg_dump", "nothing proves"),
        ("an archive", "custom-format"),
    ],
)
def test_what_a_restore_refuses_is_found_without_a_manifest(
    dump: bytes, tmp_path: Path, make_database: Callable[..., str], what: str, said: str
) -> None:
    stored = {
        "cut after the first table": gzip.compress(dump[: dump.index(b"\n\\.\n") + 4]),
        "cut before the last line": gzip.compress(dump[: dump.index(b"-- PostgreSQL database dump complete")]),
        "cut inside gzip": gzip.compress(dump)[:-20],
        "empty": b"",
        "empty gzip": gzip.compress(b""),
        "html": gzip.compress(HTML),
        "no dump of pg_dump": gzip.compress(b"CREATE TABLE t (a int);\n"),
        "an archive": b"PGDMP" + bytes(100),
    }[what]
    found = reread(tmp_path, stored)
    assert not found.good
    assert said in found.problems[0]
    if what not in {"no dump of pg_dump", "an archive"}:
        with pytest.raises(BadDumpError):
            restore(str(tmp_path / NAME), make_database())


def test_a_manifest_that_is_damaged_stays_a_problem_of_a_dump_that_is_whole(dump: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME.replace(".sql.gz", ".manifest.json")).write_bytes(b"{}")
    found = reread(tmp_path, gzip.compress(dump))
    assert (len(found.problems), "schema version" in found.problems[0]) == (1, True)
