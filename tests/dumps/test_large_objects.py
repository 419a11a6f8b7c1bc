"""The checksum of large objects: the same for the same content, another for any other, whatever their size."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps import large_objects
from recovery.dumps.large_objects import PAGE_BYTES
from recovery.dumps.snapshot import take_snapshot
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recovery.dumps.manifest import Manifest

pytestmark = pytest.mark.slow  # megabytes into real servers

PAGES = [bytes([number]) * PAGE_BYTES for number in range(3)]
SIZES = [0, 1, 2047, 2048, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 3 * PAGE_BYTES, 3 * PAGE_BYTES + 7]


def store(dsn: str, contents: dict[int, bytes]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        for number, content in contents.items():
            connection.execute("SELECT lo_from_bytea(%s, %s)", (number, content))


def checksum(dsn: str, contents: dict[int, bytes], jobs: int = 1) -> str:
    store(dsn, contents)
    with take_snapshot(dsn) as snapshot:
        found = large_objects.measure(dsn, snapshot.identifier, jobs=jobs)
    assert found.count == len(contents)
    assert found.checksum is not None
    return found.checksum


def test_the_order_of_pages_their_object_and_the_length_make_a_difference(database: str) -> None:
    a, b, c = PAGES
    candidates = [
        {},
        {7: b""},
        {8: b""},
        {7: b"", 8: b""},
        {7: a},
        {7: a[:-1]},
        {7: a + b"\0"},
        {7: a, 8: b""},
        {7: a, 8: b},
        {7: b, 8: a},
        {7: a + b + c},
        {7: b + a + c},
        {7: a + c + b},
        {7: a + b, 8: c},
    ]
    sums = [checksum(database, contents) for contents in candidates]
    assert len(set(sums)) == len(candidates)
    assert checksum(database, {7: a + b + c}) == sums[10]


def test_objects_in_pieces_over_several_sessions_have_the_checksum_of_the_whole(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {1000 + index: secrets.token_bytes(size) for index, size in enumerate(SIZES)}
    whole = checksum(database, contents)
    monkeypatch.setattr(large_objects, "PIECE_BYTES", PAGE_BYTES)
    monkeypatch.setattr(large_objects, "_AT_ONCE", 2)
    assert checksum(database, contents, jobs=3) == whole


def test_one_with_a_hole_is_as_one_of_zeros(database: str) -> None:
    zeros = checksum(database, {7: bytes(2 * PAGE_BYTES) + b"x"})
    store(database, {7: b""})
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT lo_put(7, %s, 'x')", (2 * PAGE_BYTES,))
    with take_snapshot(database) as snapshot:
        assert large_objects.measure(database, snapshot.identifier, jobs=1).checksum == zeros


def test_one_whose_text_is_larger_than_any_value_of_the_server_is_read(database: str) -> None:
    store(database, {7: b""})
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT lo_put(7, 600000000, 'x')")  # a hole: nothing of it is on the disk
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute("SELECT encode(lo_get(7), 'hex')")
    with take_snapshot(database) as snapshot:
        found = large_objects.measure(database, snapshot.identifier, jobs=2)
    assert found.count == 1
    assert (found.checksum or "").startswith("pagehash1:")


def without_recipe(manifest: Manifest | None) -> Manifest:
    """The manifest as it was written when a large object's checksum was made of its whole content."""
    assert manifest is not None
    assert manifest.large_objects is not None
    changed = manifest.large_objects.model_copy(update={"checksum": f"rowhash1:{'0' * 48}"})
    return manifest.model_copy(update={"large_objects": changed}).seal()


def test_large_objects_are_backed_up_restored_and_proven_page_by_page(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    store(source, {7: b"".join(PAGES), 8: b""})
    backup = take_backup(source, local_dir=tmp_path)
    restore(str(backup.path), target)
    found = verify(target, manifest=backup.manifest).rung("content")
    assert (found.outcome, found.evidence["large_objects"]) == (Outcome.PASS, 2)
    old = verify(target, manifest=without_recipe(backup.manifest)).rung("content")
    assert old.outcome is Outcome.NOT_RUN
    assert "that of 2 large objects was not compared: the checksum is of another kind (rowhash1)" in old.reason
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("SELECT lo_put(7, 0, %s), lo_put(7, %s, %s)", (PAGES[1], PAGE_BYTES, PAGES[0]))
        assert verify(target, manifest=backup.manifest).rung("content").outcome is Outcome.FAIL
        connection.execute("SELECT lo_unlink(8)")
    assert verify(target, manifest=without_recipe(backup.manifest)).rung("content").outcome is Outcome.FAIL


def test_large_objects_that_the_role_may_not_read_hide_no_table_that_differs(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    database = make_database(owner=master16)
    store(database, {7: b"x"})
    master = make_conninfo(database, user=master16)
    with psycopg.connect(master, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        manifest = take_backup(database, local_dir=tmp_path).manifest
        unread = verify(master, manifest=manifest).rung("content")
        assert unread.outcome is Outcome.NOT_RUN
        assert "that of 1 large objects may not be read by the role" in unread.reason
        connection.execute("UPDATE t SET x = 2")
    assert verify(master, manifest=manifest).rung("content").outcome is Outcome.FAIL


def test_whose_large_objects_are_and_who_may_read_them_is_proven(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    source, target, masters = make_database(), make_database(), make_database(owner=master16)
    store(source, dict.fromkeys(range(1, 9), b"x"))
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE ROLE keeper_of_blobs; CREATE ROLE reader_of_blobs")
        for number in (1, 2, 3):
            connection.execute(f"ALTER LARGE OBJECT {number} OWNER TO keeper_of_blobs".encode())
        connection.execute("GRANT SELECT ON LARGE OBJECT 3 TO reader_of_blobs, PUBLIC")
        connection.execute("COMMENT ON LARGE OBJECT 8 IS 'the last'")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.manifest.large_objects is not None
    assert {(o.owner, len(o.privileges), o.count) for o in backup.manifest.large_objects.owners or ()} == {
        ("postgres", 1, 5), ("keeper_of_blobs", 1, 2), ("keeper_of_blobs", 3, 1),
    }  # fmt: skip

    def outcome(dsn: str, rung: str) -> Outcome:
        return verify(dsn, manifest=backup.manifest).rung(rung).outcome

    restore(str(backup.path), target)
    assert (outcome(target, "grants"), outcome(target, "schema")) == (Outcome.PASS, Outcome.PASS)
    # A role that may give nothing away proves that all it could do is done, and says of how many the rest is.
    restored_by_master = make_conninfo(masters, user=master16)
    restore(str(backup.path), restored_by_master)
    found = verify(restored_by_master, manifest=backup.manifest).rung("grants")
    assert (found.outcome, found.evidence["beyond_this_role"]["keeper_of_blobs"]) == (Outcome.PASS, 3)
    with psycopg.connect(target, autocommit=True) as connection:
        for change, back in (
            ("ALTER LARGE OBJECT 4 OWNER TO keeper_of_blobs", "ALTER LARGE OBJECT 4 OWNER TO postgres"),
            ("GRANT SELECT ON LARGE OBJECT 5 TO PUBLIC", "REVOKE SELECT ON LARGE OBJECT 5 FROM PUBLIC"),
            ("REVOKE SELECT ON LARGE OBJECT 3 FROM PUBLIC", "GRANT SELECT ON LARGE OBJECT 3 TO PUBLIC"),
        ):
            connection.execute(change.encode())
            assert outcome(target, "grants") is Outcome.FAIL, change
            connection.execute(back.encode())
            assert outcome(target, "grants") is Outcome.PASS, back
        connection.execute("COMMENT ON LARGE OBJECT 8 IS NULL")
        assert outcome(target, "schema") is Outcome.FAIL
