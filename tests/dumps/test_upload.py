"""Objects of any size go to S3 in flat memory, and what is there afterwards is what was written."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import IO, Any

import pytest

from recovery.dumps import destinations, upload
from recovery.dumps.catalogue import list_backups, list_local_backups
from recovery.dumps.manifest import Layout, Manifest
from recovery.dumps.member_index import MOST_ENTRIES, MemberIndex
from recovery.dumps.upload import MIB, StreamingUpload, part_size
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError, RecoveryError

TIB = 1024**4


def test_five_tebibytes_fit_in_the_parts_that_s3_takes() -> None:
    sizes = [part_size(number) for number in range(1, 10_001)]
    assert sum(sizes) > 5 * TIB
    assert 5 * MIB <= min(sizes) <= max(sizes) <= 1024 * MIB  # no temporary file is larger than that
    with pytest.raises(RecoveryError, match="larger than one S3 object"):
        part_size(10_001)


def test_large_parts_wait_in_two_temporary_files_at_most(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[IO[bytes]] = []
    open_at_once: list[int] = []

    def counted(**options: Any) -> IO[bytes]:
        file: IO[bytes] = original(**options)
        if str(options.get("prefix")).startswith("recovery"):  # moto makes some of its own
            made.append(file)
            open_at_once.append(sum(not each.closed for each in made))
        return file

    original = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    monkeypatch.setattr(upload, "_PART_IN_MEMORY", 5 * MIB)
    monkeypatch.setattr(upload, "_PART_ON_DISK", 6 * MIB)
    monkeypatch.setattr(upload, "_PARTS_IN_MEMORY", 2)
    content = os.urandom(5 * MIB + 5 * MIB + 4 * 6 * MIB + 12345)
    with StreamingUpload(s3, bucket, "large", {}) as to:
        for start in range(0, len(content), 700_001):
            to.write(content[start : start + 700_001])
        done = to.finish()
    assert (done.size, done.checksum.partition("-")[2]) == (len(content), "7")
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == content
    assert (len(made), max(open_at_once)) == (5, 2)
    assert all(file.closed for file in made)


def test_memory_does_not_grow_with_a_large_part(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PARTS_IN_MEMORY", 0)
    piece = bytes(MIB)
    with StreamingUpload(s3, bucket, "large", {}) as to:
        tracemalloc.start()
        try:
            for _ in range(200):
                to.write(piece)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 32 * MIB  # the server of the tests, in the same process, takes 10 MB for a moment


def test_a_disk_without_room_for_a_part_is_said(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PARTS_IN_MEMORY", 0)
    monkeypatch.setattr(upload, "_temporary_file", lambda: open("/dev/full", "wb", buffering=0))  # noqa: SIM115, PTH123  # the part closes it
    to = StreamingUpload(s3, bucket, "large", {})
    with to, pytest.raises(EnvironmentLacksError, match="temporary file") as caught:
        to.write(b"x")
    assert "TMPDIR" in str(caught.value.hint)


def test_the_members_of_a_terabyte_make_a_small_manifest_and_stay_where_members_begin() -> None:
    lengths = [(500_000 + number % 77, 2_000_000 + number % 99) for number in range(500_000)]
    index = MemberIndex()
    for compressed, uncompressed in lengths:
        index.append(compressed, uncompressed)
    assert MOST_ENTRIES / 2 <= len(index) <= MOST_ENTRIES
    begins = set(zip(*(itertools.accumulate(column, initial=0) for column in zip(*lengths, strict=True)), strict=True))
    kept = list(zip(*(itertools.accumulate(column) for column in zip(*index, strict=True)), strict=True))
    assert set(kept) <= begins
    assert kept[-1] == (sum(c for c, _ in lengths), sum(u for _, u in lengths))
    moment = dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC)
    layout = Layout(uncompressed_size=10**12, members=tuple(index), data_start=0, data_end=0, copy_blocks=())
    manifest = Manifest(
        schema_version=1,
        backup_id="db_full_20260101_020000",
        filename="db_full_20260101_020000.sql.gz",
        size=kept[-1][0],
        sha256="0" * 64,
        snapshot_time=moment,
        finished_at=moment,
        server_version="16.0",
        pg_dump_version="16.0",
        tool_version="1",
        database="large",
        tables=(),
        layout=layout,
    )
    assert len(manifest.seal().to_bytes()) < MIB


def test_few_members_are_noted_one_by_one() -> None:
    index = MemberIndex(most=4)
    for number in range(1, 5):
        index.append(number, 10 * number)
    assert list(index) == [(1, 10), (2, 20), (3, 30), (4, 40)]
    index.append(5, 50)
    index.append(6, 60)
    index.append(7, 70)
    assert list(index) == [(3, 30), (7, 70), (11, 110), (7, 70)]


def test_an_object_that_somebody_else_writes_meanwhile_is_not_sealed(
    database: str, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StreamingUpload._read_back

    def overwritten(self: StreamingUpload) -> Any:
        content = s3.get_object(**self._where)["Body"].read()
        s3.put_object(**self._where, Body=content[:-1] + bytes([content[-1] ^ 1]), ChecksumAlgorithm="SHA256")
        return original(self)

    monkeypatch.setattr(StreamingUpload, "_read_back", overwritten)
    with pytest.raises(RecoveryError, match="is not what was written"):
        take_backup(database, s3=s3, bucket=bucket)
    assert [backup.sealed for backup in list_backups(s3, bucket)] == [False]
    assert "db/latest.sql.gz" not in {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}


def test_a_file_that_the_disk_changed_is_not_sealed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = os.fsync

    def damaging(descriptor: int) -> None:
        synced(descriptor)
        for path in tmp_path.glob(".*.sql.gz.partial"):
            if content := bytearray(path.read_bytes()):  # not before anything of the dump is in the file
                content[len(content) // 2] ^= 1
                path.write_bytes(content)

    monkeypatch.setattr(destinations.os, "fsync", damaging)
    with pytest.raises(RecoveryError, match="is not what was written"):
        take_backup(database, local_dir=tmp_path)
    assert [(backup.sealed, backup.size) for backup in list_local_backups(tmp_path)] == [(False, 0)]
    assert not (tmp_path / "latest.sql.gz").exists()
