"""What goes wrong in a drill: bad dumps, impatient people, a killed process; each clear, each without leftovers."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from recovery.dumps.catalogue import METADATA_ID, list_backups, newest_sealed

if TYPE_CHECKING:
    from conftest import Cloud

pytestmark = pytest.mark.slow

at_every_kind_of_moment = pytest.mark.parametrize(
    "moment",
    [
        ("environment", "step-progress"),
        ("network", "step-done"),
        ("restore", "task-started"),
        ("verify", "task-started"),
        ("teardown", "step-started"),
    ],
    ids="-".join,
)


def wait_for_event(cloud: Cloud, process: subprocess.Popen[str], before: set[str], moment: tuple[str, str]) -> str:
    """Wait until the journal of a new drill holds this step's event; return the drill's id."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for journal in cloud.drills.glob("*/journal.jsonl"):
            if journal.parent.name in before:
                continue
            whole = [line for line in journal.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
            if any((event["step"], event["event"]) == moment for event in map(json.loads, whole)):
                return journal.parent.name
        time.sleep(0.05)
    raise AssertionError(f"no {moment} in any new journal")


def drills(cloud: Cloud) -> set[str]:
    return {path.name for path in cloud.drills.glob("*")}


def interrupt(process: subprocess.Popen[str]) -> None:
    """Send what Ctrl-C sends: SIGINT to the whole process group."""
    os.killpg(process.pid, signal.SIGINT)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=200)
    return output, errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # Without the time of day, which would be part of the name of a test that both processes have to call the same.
        pytest.param(None, "nowhere.sql.gz", id="absent"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(gzip.compress(b"SELECT 1;\n" * 4000, mtime=0)[:-5], "ends", id="cut off"),
        pytest.param(gzip.compress(b"this is not SQL at all\n" * 50, mtime=0), "SQL", id="no SQL"),
    ],
)
def test_a_bad_dump_is_found_before_anything_is_built(
    cloud: Cloud, tmp_path: Path, content: bytes | None, words: str
) -> None:
    dump = tmp_path / "nowhere.sql.gz"
    if content is not None:
        dump.write_bytes(content)
    done = cloud.recovery("--yes", "drill", "quarterly", "--dump", str(dump))
    assert done.returncode in {1, 2, 4}, done.stderr
    assert words.lower() in (done.stderr + done.stdout).lower()
    assert "Traceback" not in done.stderr
    assert cloud.leftovers() == []


@pytest.fixture
def enormous(cloud: Cloud) -> Iterator[str]:
    """A sealed backup in the DR region, newer than all others, whose manifest speaks of ten terabytes of text."""
    s3, bucket = cloud.client("s3"), "agentverse-backups-dr"
    newest = newest_sealed(list_backups(s3, bucket))
    assert newest.manifest is not None
    assert newest.manifest.layout is not None
    now = datetime.now(UTC)
    name = f"db_full_{now:%Y%m%d_%H%M%S}"
    layout = newest.manifest.layout.model_copy(update={"uncompressed_size": 10**13})
    manifest = newest.manifest.model_copy(
        update={"backup_id": name, "filename": f"{name}.sql.gz", "snapshot_time": now, "layout": layout}
    ).seal()
    content = s3.get_object(Bucket=bucket, Key=newest.key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=f"db/{name}.sql.gz", Body=content, Metadata={METADATA_ID: name})
    s3.put_object(Bucket=bucket, Key=f"db/{name}.manifest.json", Body=manifest.to_bytes())
    yield name
    for suffix in (".sql.gz", ".manifest.json"):
        s3.delete_object(Bucket=bucket, Key=f"db/{name}{suffix}")


def test_a_restore_that_is_estimated_not_to_fit_on_the_databases_disk_is_not_begun(cloud: Cloud, enormous: str) -> None:
    done = cloud.recovery("--json", "--yes", "drill", "quarterly")
    assert done.returncode == 4, done.stderr
    report = json.loads(done.stdout)
    assert report["backup"]["backup_id"] == enormous
    failure = report["failure"]
    assert (failure["step"], failure["code"]) == ("space", 4)
    # Both figures, the first of them said to be what it is; and what to turn.
    assert "about 13969.8 GiB needed (an estimate" in failure["detail"]
    assert "has 100 GiB in all" in failure["detail"]
    assert "databaseStorageGb" in failure["hint"]
    outcomes = {step["name"]: step["outcome"] for step in report["steps"]}
    assert (outcomes["restore"], outcomes["sweep"]) == ("skipped", "done")
    assert cloud.leftovers() == []


@at_every_kind_of_moment
def test_ctrl_c_at_any_moment_tears_down_and_says_so(cloud: Cloud, moment: tuple[str, str]) -> None:
    before = drills(cloud)
    process = cloud.begin("--yes", "drill", "quarterly")
    wait_for_event(cloud, process, before, moment)
    interrupt(process)
    _, errors = finish(process)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert cloud.leftovers() == []
    assert cloud.processes() == []


def test_a_second_ctrl_c_stops_at_once_and_names_what_finishes_the_job(cloud: Cloud) -> None:
    before = drills(cloud)
    process = cloud.begin("--yes", "drill", "quarterly")
    wait_for_event(cloud, process, before, ("restore", "task-started"))
    interrupt(process)
    wait_for_event(cloud, process, before, ("teardown", "step-started"))
    interrupt(process)
    _, errors = finish(process)
    assert process.returncode == 130
    assert "recovery --local environment reap" in errors or "environment reap" in errors
    reaped = cloud.recovery("--yes", "environment", "reap")
    assert reaped.returncode == 0, reaped.stderr
    assert cloud.leftovers() == []


@at_every_kind_of_moment
def test_a_killed_drill_is_reaped_with_nothing_left(cloud: Cloud, moment: tuple[str, str]) -> None:
    before = drills(cloud)
    process = cloud.begin("--yes", "drill", "quarterly")
    drill = wait_for_event(cloud, process, before, moment)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    planned = cloud.recovery("--json", "--yes", "environment", "reap", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    json.loads(planned.stdout)
    reaped = cloud.recovery("--yes", "environment", "reap")
    assert reaped.returncode == 0, reaped.stderr
    assert cloud.leftovers() == []
    assert cloud.processes() == []
    journal = cloud.drills / drill / "journal.jsonl"
    assert journal.read_text(encoding="utf-8").endswith("\n")
    # What was there before is still there: production is nobody's leftover.
    assert "primary" in cloud.stacks()


def test_a_living_drill_is_not_reaped(cloud: Cloud) -> None:
    before = drills(cloud)
    process = cloud.begin("--yes", "drill", "quarterly")
    drill = wait_for_event(cloud, process, before, ("restore", "task-started"))
    reaped = cloud.recovery("--json", "--yes", "environment", "reap")
    _, errors = finish(process)
    assert reaped.returncode == 0, reaped.stderr
    assert process.returncode == 0, errors
    assert psutil.pid_exists(process.pid) is False
    assert drill in drills(cloud)
    assert cloud.leftovers() == []
