"""With a manifest the rows of every table are compared before the names are swapped; what differs ends the restore."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.writer import take_backup
from recovery.errors import BadDumpError, RecoveryError
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.dumps.manifest import Manifest

pytestmark = pytest.mark.slow  # real servers in every test

# A trigger that stands before the rows, as no pg_dump writes it, and keeps some of them out.
SWALLOWING = b"""
CREATE TABLE public.t (id integer);
CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN NEW.id > 1 THEN NEW END; END';
CREATE TRIGGER keep BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();
COPY public.t (id) FROM stdin;
1
2
3
\\.
"""


@pytest.fixture
def kept(database: str) -> str:
    """A target that holds something."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE kept (x int)")
    return database


@pytest.fixture
def manifest(make_database: Callable[..., str], tmp_path: Path) -> tuple[str, Manifest]:
    """A backup's file and its manifest: three rows in t, none in empty."""
    source = make_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2), (3); CREATE TABLE empty (x int)")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    return str(backup.path), backup.manifest


def names(dsn: str) -> list[str]:
    """The target's tables, and the databases whose name begins with its name."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(dsn) as connection:
        tables = connection.execute("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        found = [str(row[0]) for row in tables]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        beside = connection.execute("SELECT datname::text FROM pg_database WHERE starts_with(datname, %s)", [name])
        return found + [str(row[0]).replace(name, "target") for row in beside]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"t": 4, "empty": 0}, "public.t: 3 rows, the manifest says 4"),
        ({"t": 3}, ""),
        ({"empty": 0}, "public.t: 3 rows, the manifest says none"),
        ({"t": 3, "empty": 0, "lost": 0}, "public.lost: no rows, the manifest says 0"),
    ],
)
def test_a_dump_without_the_rows_of_its_manifest_ends_the_restore_before_the_swap(
    manifest: tuple[str, Manifest], kept: str, changed: dict[str, int], said: str, *, first: bool
) -> None:
    path, true = manifest
    table = true.tables[0]
    tables = tuple(table.model_copy(update={"name": name, "rows": rows}) for name, rows in changed.items())
    other = true.model_copy(update={"tables": tables}).seal()
    if not said:  # a table without rows that nobody counted
        restore(path, kept, manifest=other, replace=True, check_first=first)
        return
    with pytest.raises(BadDumpError, match="does not hold the rows that its manifest states") as failed:
        restore(path, kept, manifest=other, replace=True, check_first=first)
    assert said in str(failed.value.detail)
    assert names(kept) == ["kept", "target"]


def test_rows_that_the_server_does_not_take_end_a_restore_with_a_manifest_and_are_noted_without_one(
    manifest: tuple[str, Manifest], kept: str, tmp_path: Path
) -> None:
    path = tmp_path / "swallowing.sql"
    path.write_bytes(SWALLOWING)
    tables = tuple(table for table in manifest[1].tables if table.name == "t")
    digest = hashlib.sha256(SWALLOWING).hexdigest()
    facts: dict[str, Any] = {"size": len(SWALLOWING), "sha256": digest, "tables": tables}
    stated = manifest[1].model_copy(update=facts).seal()
    with pytest.raises(RecoveryError, match=r"rows of public\.t: the dump has 3 rows, the server took 2") as failed:
        restore(str(path), kept, manifest=stated, replace=True)
    assert "without the manifest" in str(failed.value.hint)
    assert names(kept) == ["kept", "target"]
    result = restore(str(path), kept, replace=True)
    assert [note.object for note in result.notes if note.kind == "rows"] == ["public.t"]
    assert names(kept) == ["t", "target"]
