"""One backup at a time, in a bucket: the lock, its retries, and who may seal."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

import pytest

from recovery.dumps.catalogue import list_backups
from recovery.dumps.lock import BucketLock
from recovery.dumps.writer import take_backup
from recovery.errors import RecoveryError, RefusedError
from recovery.progress import ProgressEvent

pytestmark = pytest.mark.slow  # backups of a real server

LOCK = "db/backup.lock"


def body(token: str, *, minutes: float) -> bytes:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    return json.dumps({"token": token, "pid": 7, "host": "other", "expires": expires.isoformat()}).encode()


class AnswersLost:
    """A client of S3 whose every write is carried out and repeated, as botocore does when the answer is lost."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def put_object(self, **arguments: Any) -> Any:
        self._s3.put_object(**arguments)
        return self._s3.put_object(**arguments)


def test_two_backups_at_a_time_are_refused(database: str, s3: Any, bucket: str) -> None:
    with BucketLock(s3, bucket, "db/"), pytest.raises(RefusedError, match="another backup is running"):
        take_backup(database, s3=s3, bucket=bucket)
    assert take_backup(database, s3=s3, bucket=bucket).sealed


def test_the_lock_of_a_dead_backup_is_taken_over_when_it_expired(database: str, s3: Any, bucket: str) -> None:
    expired = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)).isoformat()
    s3.put_object(Bucket=bucket, Key=LOCK, Body=json.dumps({"expires": expired}).encode())
    assert take_backup(database, s3=s3, bucket=bucket).sealed


def test_a_lock_is_not_lost_to_its_own_repeated_requests(s3: Any, bucket: str) -> None:
    lossy = AnswersLost(s3)
    with BucketLock(lossy, bucket, "db/", lifetime=dt.timedelta(seconds=2)) as lock:
        lock.check()
        time.sleep(3)  # renewed every half second
        lock.check()
        with pytest.raises(RefusedError, match="another backup is running"), BucketLock(lossy, bucket, "db/"):
            pass
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=LOCK, Body=body("dead", minutes=-1))
    with BucketLock(lossy, bucket, "db/") as lock:
        lock.check()


def test_a_lock_that_somebody_else_took_over_is_lost_and_left_to_them(s3: Any, bucket: str) -> None:
    # As it is for a process that was suspended past the end of its lock: no renewal has told it.
    with BucketLock(s3, bucket, "db/") as lock:
        s3.put_object(Bucket=bucket, Key=LOCK, Body=body("other", minutes=5))
        with pytest.raises(RecoveryError, match="was lost"):
            lock.check()
    assert json.loads(s3.get_object(Bucket=bucket, Key=LOCK)["Body"].read())["token"] == "other"


@pytest.mark.parametrize("left", [True, False], ids=["still held", "given back"])
def test_a_lock_lost_meanwhile_keeps_the_backup_from_being_sealed(
    database: str, s3: Any, bucket: str, *, left: bool
) -> None:
    def lose(event: ProgressEvent) -> None:
        if event.text == "written":
            s3.put_object(Bucket=bucket, Key=LOCK, Body=body("other", minutes=5))
            if not left:
                s3.delete_object(Bucket=bucket, Key=LOCK)

    with pytest.raises(RecoveryError, match="lock on backups was lost"):
        take_backup(database, s3=s3, bucket=bucket, progress=lose)
    assert [backup.problem for backup in list_backups(s3, bucket)] == ["it has no manifest"]
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert (LOCK in keys) == left
    assert "db/latest.sql.gz" not in keys
