"""The journal: on disk before it says so, chained, whole after any death, free of secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from recovery.errors import CheckFailedError, RefusedError
from recovery.evidence import BucketMirror, event_key
from recovery.journal import Journal, is_being_written, read_journal, verify_chain

DRILL = "20260109-020000-1a2b"


def test_events_are_numbered_chained_and_read_back_as_written(journal: Journal) -> None:
    journal.append("run-started", {"steps": []})
    journal.append("step-started", {"where": "here"}, step="one")
    events = read_journal(journal.path)
    assert [event.seq for event in events] == [0, 1]
    assert events == journal.events
    verify_chain(events)


def test_a_torn_last_line_is_cut_and_the_journal_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, DRILL) as first:
        first.append("a")
        first.append("b")
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[1]) + 1):
        path.write_bytes(whole[:-cut])
        with Journal(path, DRILL) as again:
            assert [event.event for event in again.events] == ["a"]
            again.append("c")
        verify_chain(read_journal(path))
        path.write_bytes(whole)


def test_a_changed_event_breaks_the_chain_and_is_named(journal: Journal) -> None:
    for name in ("a", "b", "c"):
        journal.append(name, {"rows": 1})
    text = journal.path.read_text().replace('"rows":1', '"rows":2', 1)
    journal.path.write_text(text)
    with pytest.raises(CheckFailedError, match="event 0"):
        journal.verify()


def test_a_removed_event_breaks_the_chain(journal: Journal) -> None:
    for name in ("a", "b", "c"):
        journal.append(name)
    lines = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text(lines[0] + lines[2])
    with pytest.raises(CheckFailedError, match="its number is 2, not 1"):
        journal.verify()


def test_a_second_writer_is_refused_and_a_living_one_is_seen(journal: Journal) -> None:
    with pytest.raises(RefusedError, match="being written"):
        Journal(journal.path, DRILL)
    assert is_being_written(journal.path)
    journal.close()
    assert not is_being_written(journal.path)


def test_another_drills_journal_is_refused(journal: Journal) -> None:
    journal.append("a")
    journal.close()
    with pytest.raises(RefusedError, match="belongs to"):
        Journal(journal.path, "20270101-000000-ffff")


def test_threads_write_one_unbroken_chain(journal: Journal) -> None:
    def write(name: str) -> None:
        for number in range(20):
            journal.append("step-progress", {"number": number}, step=name)

    threads = [threading.Thread(target=write, args=(f"s{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_journal(journal.path)
    assert len(events) == 160
    verify_chain(events)


def test_secrets_never_reach_the_file(journal: Journal) -> None:
    journal.append(
        "step-done",
        {
            "password": "hunter2hunter2",
            "dsn": "postgresql://app:hunter2hunter2@db/agentverse",
            "secret_arn": "arn:aws:secretsmanager:us-west-2:1:secret:x",
            "text": "connect failed: password=hunter2hunter2 host=db",
        },
    )
    text = journal.path.read_text()
    assert "hunter2" not in text
    assert "arn:aws:secretsmanager:us-west-2:1:secret:x" in text


_WRITER = """
import os, signal, sys
from pathlib import Path
from recovery.journal import Journal
journal = Journal(Path(sys.argv[1]), sys.argv[2])
for number in range(int(sys.argv[3])):
    journal.append("step-progress", {"number": number}, step="s")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_writer_killed_after_any_event_leaves_every_event_and_a_free_lock(tmp_path: Path, count: int) -> None:
    path = tmp_path / "journal.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", _WRITER, str(path), DRILL, str(count)], check=False, env={**os.environ}
    )
    assert ended.returncode == -signal.SIGKILL
    events = read_journal(path)
    assert len(events) == count
    verify_chain(events)
    assert not is_being_written(path)


class _Bucket:
    """An S3 client at the boto edge that fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803  # boto's names
        assert (Bucket, ContentType) == ("evidence", "application/json")
        if self.failures:
            self.failures -= 1
            raise EndpointConnectionError(endpoint_url="https://s3")
        self.objects[Key] = Body


def test_each_event_is_mirrored_as_an_object_of_its_own(tmp_path: Path) -> None:
    bucket = _Bucket(failures=0)
    mirror = BucketMirror(bucket, "evidence")  # type: ignore[arg-type]  # the one method that is used
    with Journal(tmp_path / "journal.jsonl", DRILL, mirror=mirror) as journal:
        for name in ("a", "b", "c"):
            journal.append(name)
        assert mirror.flush() == []
    assert sorted(bucket.objects) == [event_key(DRILL, seq) for seq in range(3)]
    assert json.loads(bucket.objects[event_key(DRILL, 1)])["event"] == "b"


def test_a_failed_copy_is_kept_and_sent_at_the_flush(tmp_path: Path) -> None:
    bucket = _Bucket(failures=1)
    mirror = BucketMirror(bucket, "evidence")  # type: ignore[arg-type]  # as above
    with Journal(tmp_path / "journal.jsonl", DRILL, mirror=mirror) as journal:
        for name in ("a", "b", "c"):
            journal.append(name)
        assert mirror.flush() == []
    assert len(bucket.objects) == 3


def test_a_bucket_that_is_away_stops_nothing_and_what_is_missing_is_said(tmp_path: Path) -> None:
    mirror = BucketMirror(_Bucket(failures=1000), "evidence")  # type: ignore[arg-type]  # as above
    with Journal(tmp_path / "journal.jsonl", DRILL, mirror=mirror) as journal:
        journal.append("a")
        journal.append("b")
        assert mirror.flush() == [0, 1]
    assert mirror.first_problem is not None
    assert len(read_journal(tmp_path / "journal.jsonl")) == 2
