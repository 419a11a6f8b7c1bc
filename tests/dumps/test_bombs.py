"""Bombs that are right in every other way, with a COPY that ends as it should, are refused before they fill a disk."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recovery.dumps import reader
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.errors import BadDumpError
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

pytestmark = pytest.mark.slow  # restores into real servers

MIB = 1024 * 1024
BEFORE = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE public.t (x text);\nCOPY public.t (x) FROM stdin;\n"
AFTER = b"\\.\n\n\n--\n-- PostgreSQL database dump complete\n--\n"
SHAPES = {"many rows": b"x" * 99 + b"\n", "one row": b"x"}


def bomb(shape: str, megabytes: int) -> bytes:
    """A whole dump of one table, hundreds of times as long as what is stored."""
    row = SHAPES[shape]
    rows = row * (megabytes * MIB // len(row))
    return gzip.compress(BEFORE + rows + (b"" if rows.endswith(b"\n") else b"\n") + AFTER, 9)


def tables(dsn: str) -> Any:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT count(*) FROM pg_class WHERE relname = 't'").fetchone()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_dump_that_inflates_hundreds_of_times_is_refused(database: str, tmp_path: Path, shape: str) -> None:
    path = tmp_path / "dump.sql.gz"
    path.write_bytes(bomb(shape, 600))
    assert path.stat().st_size < 3 * MIB
    with pytest.raises(BadDumpError, match="200 times its size") as caught:
        restore(str(path), database)
    assert "decompress it" in str(caught.value.hint)
    assert tables(database) == (0,)
    assert drop_interrupted(database, dry_run=True) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_one_that_is_found_while_it_loads_leaves_nothing(
    database: str, tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ALWAYS_ALLOWED_TEXT", 16 * MIB)
    path = tmp_path / "dump.sql.gz"
    path.write_bytes(bomb(shape, 64))
    with pytest.raises(BadDumpError, match="200 times its size"):
        restore(str(path), database, check_first=False)
    assert tables(database) == (0,)
    assert drop_interrupted(database, dry_run=True) == []


def test_equal_rows_are_restored_with_their_manifest_or_decompressed(
    database: str, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "ALWAYS_ALLOWED_TEXT", MIB)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 40000)")
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.path is not None
    text = gzip.decompress(backup.path.read_bytes())
    packed, plain = tmp_path / "packed.sql.gz", tmp_path / "plain.sql"
    packed.write_bytes(gzip.compress(text, 9))
    plain.write_bytes(text)
    assert len(text) > 200 * packed.stat().st_size
    assert restore(str(backup.path), make_database(), manifest=backup.manifest).rows == 40000
    with pytest.raises(BadDumpError, match="200 times"):
        restore(str(packed), make_database())
    assert restore(str(plain), make_database()).rows == 40000


def test_a_bomb_in_the_place_of_a_sealed_dump_ends_where_the_manifests_text_ends(
    database: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT md5(i::text) AS x FROM generate_series(1, 20000) i")
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.path is not None
    assert backup.manifest is not None
    assert backup.manifest.layout is not None
    content = bomb("many rows", 50)
    backup.path.write_bytes(content + bytes(backup.size - len(content)))  # padding, which gzip ignores
    with open_dump(str(backup.path)) as dump:
        seen = reader.DumpReader(dump, backup.manifest)
        with pytest.raises(BadDumpError, match="not the one its manifest describes") as caught:
            for _ in seen.items():
                pass
        assert "goes on after" in str(caught.value.detail)
        assert seen.text_done < backup.manifest.layout.uncompressed_size + 2 * MIB
        assert check(dump).text_done > 50 * MIB  # it is whole, and without the manifest not long enough to be refused
    target = make_database()
    with pytest.raises(BadDumpError, match="not the one its manifest describes"):
        restore(str(backup.path), target, manifest=backup.manifest)
    assert tables(target) == (0,)
