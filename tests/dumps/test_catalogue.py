"""Which backups count, whatever arrived, and what becomes of old ones."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps import retention
from recovery.dumps.catalogue import Backup, find_backup, list_backups, list_local_backups, newest_sealed
from recovery.dumps.reader import check
from recovery.dumps.reread import reread_backup
from recovery.dumps.retention import prune
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError, RecoveryError

NOW = dt.datetime(2026, 11, 23, 2, 0, tzinfo=dt.UTC)
MONTH = dt.timedelta(days=30)


@pytest.fixture
def filled(database: str) -> str:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS x FROM generate_series(1, 20000) i")
    return database


def at(days: float, *, sealed: bool = True) -> Backup:
    created = NOW - dt.timedelta(days=days)
    name = f"db_full_{created:%Y%m%d_%H%M%S}"
    return Backup(name, f"{name}.sql.gz", 1, created, sealed, path=Path("/nowhere") / f"{name}.sql.gz")


def test_replicas_in_the_other_region_are_listed_the_same(
    filled: str, s3: Any, s3_west: Any, bucket: str, bucket_west: str
) -> None:
    backup = take_backup(filled, s3=s3, bucket=bucket)
    for suffix in (".sql.gz", ".manifest.json", ".globals.sql"):
        key = f"db/{backup.backup_id}{suffix}"
        s3_west.copy_object(Bucket=bucket_west, Key=key, CopySource={"Bucket": bucket, "Key": key})
    found = newest_sealed(list_backups(s3_west, bucket_west))
    assert (found.backup_id, found.bucket, found.manifest) == (backup.backup_id, bucket_west, backup.manifest)
    assert reread_backup(found, s3=s3_west).problems == []


def test_a_bucket_in_another_region_is_found_where_s3_says_that_it_is(
    filled: str, s3_west: Any, bucket_west: str, fake_aws: str
) -> None:
    backup = take_backup(filled, s3=s3_west, bucket=bucket_west)
    elsewhere = boto3.client("s3", region_name="us-east-1", endpoint_url=fake_aws)
    sent_away: list[str] = []

    def as_s3_answers(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """S3 redirects what was signed for another region than the bucket's; the S3 of the tests does not care."""
        if b"/us-west-2/s3/" in as_bytes(request.headers["Authorization"]):
            return None
        sent_away.append(str(request.method))
        body = b"<Error><Code>PermanentRedirect</Code><Message>Use the region's endpoint</Message></Error>"
        answer = AWSResponse(request.url, 301, {"x-amz-bucket-region": "us-west-2"}, None)
        answer._content = b"" if request.method == "HEAD" else body
        return answer

    elsewhere.meta.events.register("before-send.s3", as_s3_answers)
    (found,) = list_backups(elsewhere, bucket_west)
    assert (found.sealed, found.manifest) == (True, backup.manifest)
    assert reread_backup(found, s3=elsewhere).good
    fresh = boto3.client("s3", region_name="us-east-1", endpoint_url=fake_aws)
    fresh.meta.events.register("before-send.s3", as_s3_answers)
    with open_dump(backup.address, s3=fresh) as dump:
        assert check(dump, backup.manifest).text_done > 0
    assert {"GET", "HEAD"} <= set(sent_away)


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def test_what_arrives_half_is_shown_with_its_problem_and_not_used(filled: str, s3: Any, bucket: str) -> None:
    first, second = (take_backup(filled, s3=s3, bucket=bucket) for _ in range(2))
    s3.delete_object(Bucket=bucket, Key=second.key)
    listed = list_backups(s3, bucket)
    assert [(b.sealed, b.problem) for b in listed] == [(False, "its dump is missing"), (True, None)]
    assert find_backup(listed, "latest").backup_id == first.backup_id
    s3.put_object(Bucket=bucket, Key=second.key, Body=b"x" * second.size)
    assert "not written by the tool" in str(list_backups(s3, bucket)[0].problem)
    s3.put_object(Bucket=bucket, Key=second.key, Body=b"x" * second.size, ChecksumAlgorithm="SHA256")
    assert "its dump has the checksum" in str(list_backups(s3, bucket)[0].problem)
    s3.put_object(Bucket=bucket, Key=second.key, Body=b"x")
    assert "its dump has 1 bytes" in str(list_backups(s3, bucket)[0].problem)
    first_manifest = s3.get_object(Bucket=bucket, Key=f"db/{first.backup_id}.manifest.json")["Body"].read()
    s3.put_object(Bucket=bucket, Key=f"db/{second.backup_id}.manifest.json", Body=first_manifest)
    assert list_backups(s3, bucket)[0].problem == f"its manifest is the one of {first.backup_id}"


def test_a_dump_of_the_time_before_manifests_is_listed_as_unsealed(tmp_path: Path) -> None:
    (tmp_path / "db_full_20260109_020000.sql.gz").write_bytes(b"old")
    (tmp_path / "latest.sql.gz").write_bytes(b"old")
    (tmp_path / "db_full_20269999_020000.sql.gz").write_bytes(b"no date")
    (backup,) = list_local_backups(tmp_path)
    assert (backup.sealed, backup.problem, backup.size) == (False, "it has no manifest", 3)
    assert backup.created_at == dt.datetime(2026, 1, 9, 2, tzinfo=dt.UTC)
    with pytest.raises(RecoveryError, match="no sealed backup"):
        newest_sealed([backup])
    assert list_local_backups(tmp_path / "absent") == []


def test_a_bucket_that_is_not_there_is_an_environment_error(s3: Any) -> None:
    with pytest.raises(EnvironmentLacksError, match="does not exist"):
        list_backups(s3, "no-such-bucket-here")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "swapped", "bomb"])
def test_reading_a_backup_again_finds_damage_that_a_listing_cannot_see(
    filled: str, tmp_path: Path, damage: str
) -> None:
    backup = take_backup(filled, local_dir=tmp_path)
    assert backup.path is not None
    assert reread_backup(backup).problems == []
    content = bytearray(backup.path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "truncated":
        del content[-5:]
    elif damage == "swapped":
        content[:] = take_backup(filled, local_dir=tmp_path / "other").path.read_bytes()  # type: ignore[union-attr]
        content[9] ^= 1  # the header's operating system: another file with the same text
    else:
        content += gzip.compress(bytes(50_000_000))
    backup.path.write_bytes(content)
    found = reread_backup(backup)
    assert any("SHA-256" in problem for problem in found.problems)
    assert not found.good


@given(st.lists(st.tuples(st.floats(-1, 400), st.booleans()), max_size=12))
def test_pruning_never_supersedes_the_newest_sealed_backup_nor_anything_young(pairs: list[tuple[float, bool]]) -> None:
    backups = [at(days, sealed=sealed) for days, sealed in pairs]
    old, kept = retention.superseded(backups, retention=MONTH, now=NOW)
    assert {b.backup_id for b in old} | kept.keys() == {b.backup_id for b in backups}
    sealed = [b for b in backups if b.sealed]
    if not sealed:
        assert old == []
    else:
        newest = newest_sealed(backups)
        assert newest.backup_id in kept
        assert all(b.created_at <= newest.created_at for b in old)
    assert all(NOW - b.created_at > MONTH for b in old)


def test_pruning_a_bucket_tags_and_deletes_nothing(filled: str, s3: Any, bucket: str) -> None:
    first, second = (take_backup(filled, s3=s3, bucket=bucket) for _ in range(2))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    backups = list_backups(s3, bucket)
    planned = prune(backups, retention=MONTH, s3=s3, now=later)
    assert (planned.dry_run, planned.superseded) == (True, [first.backup_id])
    assert s3.get_object_tagging(Bucket=bucket, Key=first.key)["TagSet"] == []
    assert prune(backups, retention=MONTH, s3=s3, dry_run=False, now=later).superseded == planned.superseded
    for suffix in (".sql.gz", ".manifest.json", ".globals.sql"):
        assert s3.get_object_tagging(Bucket=bucket, Key=f"db/{first.backup_id}{suffix}")["TagSet"] == [retention.TAG]
        assert s3.get_object_tagging(Bucket=bucket, Key=f"db/{second.backup_id}{suffix}")["TagSet"] == []
    assert [b.sealed for b in list_backups(s3, bucket)] == [True, True]


def test_pruning_a_folder_removes_what_is_superseded(filled: str, tmp_path: Path) -> None:
    first, second = (take_backup(filled, local_dir=tmp_path) for _ in range(2))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    prune(list_local_backups(tmp_path), retention=MONTH, dry_run=False, now=later)
    assert [b.backup_id for b in list_local_backups(tmp_path)] == [second.backup_id]
    assert not any(first.backup_id in entry.name for entry in tmp_path.iterdir())


def flip(path: Path | None) -> None:
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_pruning_a_folder_keeps_the_last_one_that_is_whole(filled: str, tmp_path: Path) -> None:
    oldest, older, newest = (take_backup(filled, local_dir=tmp_path) for _ in range(3))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    flip(newest.path)
    assert [backup.sealed for backup in list_local_backups(tmp_path)] == [True, True, True]  # its size is right
    planned = prune(list_local_backups(tmp_path), retention=MONTH, now=later)
    assert (planned.superseded, "damaged" in planned.kept[newest.backup_id]) == ([oldest.backup_id], True)
    assert planned.kept[older.backup_id] == "it is the newest sealed backup"
    done = prune(list_local_backups(tmp_path), retention=MONTH, dry_run=False, now=later)
    assert (done.superseded, done.kept) == (planned.superseded, planned.kept)
    assert [b.backup_id for b in list_local_backups(tmp_path)] == [newest.backup_id, older.backup_id]
    flip(older.path)
    nothing = prune(list_local_backups(tmp_path), retention=MONTH, dry_run=False, now=later)
    assert nothing.superseded == []
    assert len(list_local_backups(tmp_path)) == 2


def test_pruning_a_bucket_gives_up_nothing_for_a_dump_with_another_checksum(filled: str, s3: Any, bucket: str) -> None:
    _, older, newest = (take_backup(filled, s3=s3, bucket=bucket) for _ in range(3))
    content = bytearray(s3.get_object(Bucket=bucket, Key=newest.key)["Body"].read())
    content[len(content) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=newest.key, Body=bytes(content), ChecksumAlgorithm="SHA256")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    planned = prune(list_backups(s3, bucket), retention=MONTH, s3=s3, now=later)
    assert planned.kept == {
        newest.backup_id: "it is newer than the newest sealed backup",
        older.backup_id: "it is the newest sealed backup",
    }


def test_a_backup_is_found_by_id_or_filename_and_nothing_else() -> None:
    backups = [at(1), at(2)]
    assert find_backup(backups, backups[1].filename) == backups[1]
    assert find_backup(backups, backups[0].backup_id) == backups[0]
    assert find_backup([dataclasses.replace(backups[0], sealed=False), backups[1]], "latest") == backups[1]
    with pytest.raises(RecoveryError, match="no backup 'db_full_x'"):
        find_backup(backups, "db_full_x")
