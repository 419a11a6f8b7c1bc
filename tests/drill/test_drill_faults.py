"""What goes wrong in a drill: bad dumps, impatient people, a killed process; each clear, each without leftovers."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

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
        (None, "nowhere.sql.gz"),
        (b"", "empty"),
        (gzip.compress(b"SELECT 1;\n" * 4000)[:-5], "ends"),
        (gzip.compress(b"this is not SQL at all\n" * 50), "SQL"),
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
