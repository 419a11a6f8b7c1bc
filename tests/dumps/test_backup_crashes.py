"""A backup that ends in the middle, by whatever: the previous one is the latest, and the next one works.

Moments that are not a step of their own are a sample with a fixed seed.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps.catalogue import Backup, list_backups, list_local_backups, newest_sealed
from recovery.dumps.destinations import Bucket, Folder
from recovery.dumps.reread import reread_backup
from recovery.dumps.writer import take_backup
from recovery.errors import RecoveryError, RefusedError

pytestmark = pytest.mark.slow  # many backups of real servers

RANDOM = random.Random(20260103)  # noqa: S311  # the same moments each time
TABLE = "CREATE TABLE t AS SELECT g AS id, md5(g::text) || md5((-g)::text) AS v FROM generate_series(1, {}) g"

# The backup of a process of its own, in small parts and with a lock that expires soon.
INTO_S3 = """
import datetime, sys, boto3
from recovery.dumps import lock, upload
from recovery.dumps.writer import take_backup
lock.BucketLock.__init__.__kwdefaults__["lifetime"] = datetime.timedelta(seconds=3)
upload.part_size = lambda _: 5 * 1024 * 1024
take_backup(sys.argv[1], s3=boto3.client("s3"), bucket=sys.argv[2])
"""


def moments(dsn: str, folder: Path, count: int) -> tuple[Backup, list[float]]:
    """Take a backup and return it with seconds into another one, spread over all of it and a little beyond."""
    began = time.monotonic()
    backup = take_backup(dsn, local_dir=folder)
    took = time.monotonic() - began
    return backup, [(number + RANDOM.random()) / count * 1.2 * took for number in range(count)]


class CrashError(BaseException):
    """Nothing that anybody catches."""


def fill(dsn: str, rows: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE.format(rows).encode())


def gone(dsn: str) -> None:
    """No session of a backup is left, as soon as the server has noticed that its client is gone."""
    deadline = time.monotonic() + 20
    with psycopg.connect(dsn, autocommit=True) as connection:
        while left := connection.execute(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'agentverse-recovery'"
        ).fetchall():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


def same_text(backup: Backup, path: Path) -> bool:
    assert backup.manifest is not None
    return hashlib.sha256(path.read_bytes()).hexdigest() == backup.manifest.sha256


STEPS = ("dump", ".globals.sql", ".manifest.json", "latest.sql.gz")


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [Folder, Bucket])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_the_newest_sealed_backup_good(  # noqa: PLR0917  # fixtures
    database: str, s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    step: str, kind: type[Any], *, done: bool,
) -> None:  # fmt: skip
    fill(database, 100)
    previous = take_backup(database, s3=s3, bucket=bucket, local_dir=tmp_path)
    method = {"dump": "dump", "latest.sql.gz": "point_latest"}.get(step, "put")
    work = getattr(kind, method)

    def crash(self: Any, filename: str, *rest: Any) -> Any:
        if method == "put" and not filename.endswith(step):
            return work(self, filename, *rest)
        if done and method != "dump":
            work(self, filename, *rest)
        elif done:
            with work(self, filename) as sink:
                sink.write(b"the beginning")
                raise CrashError
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(kind, method, crash)
        with pytest.raises(CrashError):
            take_backup(database, s3=s3, bucket=bucket, local_dir=tmp_path)
    sealing = [(".manifest.json", True), ("latest.sql.gz", False), ("latest.sql.gz", True)]
    # The folder comes before the bucket: what crashes at a step in the bucket has done it in the folder.
    beyond = STEPS.index(step) >= STEPS.index(".manifest.json")
    sealed_here = (step, done) in sealing if kind is Folder else beyond
    sealed_there = (step, done) in sealing if kind is Bucket else step == "latest.sql.gz"
    here, there = newest_sealed(list_local_backups(tmp_path)), newest_sealed(list_backups(s3, bucket))
    assert (here.backup_id != previous.backup_id) == sealed_here
    assert (there.backup_id != previous.backup_id) == sealed_there
    for found in (here, there):
        assert reread_backup(found, s3=s3).problems == []
    if step != "latest.sql.gz":
        assert same_text(previous, tmp_path / "latest.sql.gz")
        latest = s3.get_object(Bucket=bucket, Key="db/latest.sql.gz")["Body"].read()
        assert hashlib.sha256(latest).hexdigest() == previous.manifest.sha256 if previous.manifest else False
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert list(tmp_path.glob(".*.partial")) == []
    gone(database)
    after = take_backup(database, s3=s3, bucket=bucket, local_dir=tmp_path)
    assert newest_sealed(list_backups(s3, bucket)).backup_id == after.backup_id
    assert same_text(after, tmp_path / "latest.sql.gz")


def fails_in_words(dsn: str, folder: Path, end: Callable[[], object], moment: float) -> bool:
    """Take a backup while something ends it; tells whether it failed, which it did in words and soon."""
    timer = threading.Timer(moment, end)
    timer.start()
    began = time.monotonic()
    failed = False
    try:
        take_backup(dsn, local_dir=folder)
    except RecoveryError:
        failed = True
    finally:
        timer.join()
    assert time.monotonic() - began < 60
    return failed


def test_a_backup_whose_backends_are_ended_at_any_moment_fails_in_words(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    dsn = make_database()
    fill(dsn, 300_000)
    previous, when = moments(dsn, tmp_path, 10)

    def end() -> None:
        with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentverse-recovery'"
            )

    failed = 0
    for moment in when:
        if fails_in_words(dsn, tmp_path, end, moment):
            failed += 1
            assert newest_sealed(list_local_backups(tmp_path)).backup_id == previous.backup_id
        else:
            previous = newest_sealed(list_local_backups(tmp_path))
        assert list(tmp_path.glob(".*.partial")) == []
        gone(dsn)
    assert failed
    assert reread_backup(newest_sealed(list_local_backups(tmp_path))).problems == []


def test_a_backup_whose_network_is_cut_at_any_moment_fails_in_words(
    make_database: Callable[..., str], server16: Any, cutters: Callable[..., Any], tmp_path: Path
) -> None:
    dsn = make_database()
    fill(dsn, 300_000)
    previous, when = moments(dsn, tmp_path, 6)
    failed = 0
    for moment in when:
        with cutters(server16) as cutter:
            if fails_in_words(cutter.dsn(dsn), tmp_path, cutter.cut, moment):
                failed += 1
                assert newest_sealed(list_local_backups(tmp_path)).backup_id == previous.backup_id
            else:
                previous = newest_sealed(list_local_backups(tmp_path))
        gone(dsn)
    assert failed
    assert reread_backup(newest_sealed(list_local_backups(tmp_path))).problems == []


def test_a_backup_whose_server_dies_at_any_moment_fails_in_words(own_server: Any, tmp_path: Path) -> None:
    dsn = own_server.dsn()
    fill(dsn, 300_000)
    previous, when = moments(dsn, tmp_path, 5)
    failed = 0
    for moment in when:
        if fails_in_words(dsn, tmp_path, own_server.kill, moment):
            failed += 1
            assert newest_sealed(list_local_backups(tmp_path)).backup_id == previous.backup_id
        own_server.start()
        previous = newest_sealed(list_local_backups(tmp_path))
        gone(dsn)
    assert failed
    assert take_backup(dsn, local_dir=tmp_path).sealed


def test_a_killed_backup_into_a_bucket_leaves_a_lock_that_expires_and_parts_that_the_next_removes(
    database: str, s3: Any, bucket: str
) -> None:
    fill(database, 100)
    previous = take_backup(database, s3=s3, bucket=bucket)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE t")
    fill(database, 800_000)
    foreign = s3.create_multipart_upload(Bucket=bucket, Key="db/of-somebody-else")["UploadId"]
    process = subprocess.Popen([sys.executable, "-c", INTO_S3, database, bucket])

    def uploads() -> list[str]:
        return [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    deadline = time.monotonic() + 60
    while len(uploads()) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(RefusedError, match="another backup is running"):
        take_backup(database, s3=s3, bucket=bucket)
    assert newest_sealed(list_backups(s3, bucket)).backup_id == previous.backup_id
    assert len(uploads()) == 2
    time.sleep(4)
    after = take_backup(database, s3=s3, bucket=bucket)
    assert uploads() == ["db/of-somebody-else"]
    s3.abort_multipart_upload(Bucket=bucket, Key="db/of-somebody-else", UploadId=foreign)
    latest = newest_sealed(list_backups(s3, bucket))
    assert latest.backup_id == after.backup_id
    assert reread_backup(latest, s3=s3).problems == []
    gone(database)
