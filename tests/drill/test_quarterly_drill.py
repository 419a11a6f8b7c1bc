"""The quarterly drill from end to end: the real engine, real servers, nothing left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Cloud

pytestmark = pytest.mark.slow


def outcome_of(report: dict[str, Any], name: str) -> str:
    found = [check["outcome"] for check in report["checks"] if check["name"] == name]
    assert len(found) == 1, f"{name}: {found} among {[check['name'] for check in report['checks']]}"
    return str(found[0])


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(step for step in report["steps"] if step["name"] == name)


@pytest.mark.parametrize("dark", [None, "us-east-1"])
def test_the_seeded_platform_is_recovered_proven_and_taken_down(cloud: Cloud, dark: str | None) -> None:
    done = cloud.recovery("--json", "--yes", "drill", "quarterly", *(["--blackout", dark] if dark else []))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "PASS"
    for name in ("server", "schema", "rows", "content", "sequences", "foreign-keys"):
        assert outcome_of(report, name) == "PASS"
    # An honest clock: what it says fits the journal of the run, and no more than what was asked for is claimed.
    assert 0 < report["rto_seconds"] < report["seconds"]
    assert report["rpo_seconds"] > 0
    assert step(report, "deploy")["outcome"] == "not-run"
    assert step(report, "restore")["where"] == "task"
    # Nobody measures a disk of the embedded cloud: said with its reason, and no figure is made up.
    assert step(report, "space")["outcome"] == "not-run"
    assert "free space NOT KNOWN (CloudWatch has no measurement yet" in step(report, "space")["text"]
    # The restore begins when the database is there, not when the whole environment is.
    assert (
        step(report, "restore")["offset"]
        < step(report, "environment")["offset"] + step(report, "environment")["seconds"]
    )
    folder = cloud.drills / report["drill"]
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "journal.jsonl").exists()
    assert cloud.leftovers() == []
    assert cloud.processes() == []
    assert cloud.status()["dark_regions"] == []


def test_a_dump_nobody_here_wrote_is_recovered_in_the_dark_and_its_owners_are_reported(
    cloud: Cloud, shared: Path
) -> None:
    dump = shared / "data" / "chinook.sql.gz"
    done = cloud.recovery("--json", "--yes", "drill", "quarterly", "--dump", str(dump), "--blackout", "us-east-1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "PASS"
    assert outcome_of(report, "rows") == "PASS"
    assert outcome_of(report, "content") == "PASS"  # by the dump's own rows
    # Only a manifest tells when it was taken, and there is none: said, not guessed.
    assert report["rpo_seconds"] is None
    assert any("postgres" in json.dumps(note) for note in report["notes"])
    assert cloud.leftovers() == []


def test_the_evidence_of_a_drill_is_in_its_bucket_and_can_be_read_again(cloud: Cloud) -> None:
    done = cloud.recovery("--json", "--yes", "drill", "quarterly")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    s3 = cloud.client("s3")
    keys = [
        item["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="agentverse-evidence-dr")
        for item in page.get("Contents", ())
    ]
    events = (cloud.drills / report["drill"] / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    mine = [key for key in keys if report["drill"] in key]
    assert len([key for key in mine if key.endswith(".json") and "report" not in key]) >= len(events) - 1
    listed = json.loads(cloud.recovery("--json", "drills", "list").stdout)
    assert report["drill"] in json.dumps(listed)
    shown = cloud.recovery("drills", "show", report["drill"])
    assert shown.returncode == 0
    assert "teardown" in shown.stdout.lower() or "tear down" in shown.stdout.lower()
    again = cloud.recovery("drills", "report", report["drill"])
    assert again.returncode == 0, again.stderr
