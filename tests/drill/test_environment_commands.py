"""Environments and past drills as an operator has them, on a real embedded cloud, each also with --json."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Operator

pytestmark = pytest.mark.slow

OTHER_ACCOUNT = "999999999999"
UNKNOWN_DRILL = "20260109-020000-1a2b"


def test_an_environment_is_made_looked_at_and_removed(operator: Operator) -> None:
    cloud = operator.cloud
    assert operator.json("environment", "up", "--dry-run")["dry_run"] is True
    assert cloud.leftovers() == []
    made = operator.json("environment", "up")
    drill = made["drill"]
    assert made["outputs"]["drillId"] == drill
    assert made["outputs"]["mode"] == "drill"
    [found] = operator.json("environment", "status")["environments"]
    assert (found["drill"], found["reap"], found["has_stack"]) == (drill, False, True)
    page = operator("environment", "status")
    assert drill in page.stdout
    assert "it is kept until" in page.stdout
    # Kept on purpose and not expired: nothing for the reaper.
    assert operator.json("environment", "reap", "--dry-run")["would_remove"] == {}
    assert operator.json("--yes", "environment", "reap")["removed"] == []
    # Another account's person, on the same cloud, can neither make nor remove.
    foreign: dict[str, Any] = {"local": False, "AGENTVERSE_ACCOUNT": OTHER_ACCOUNT, **cloud.document["env"]}
    for command in (("environment", "up"), ("environment", "down", drill)):
        refused = operator.json("--yes", *command, code=3, **foreign)["error"]
        assert OTHER_ACCOUNT in refused["message"]
        assert cloud.document["account"] in refused["message"]
    unasked = operator.json("environment", "down", drill, code=3)["error"]
    assert "--yes" in unasked["hint"]
    planned = operator.json("environment", "down", drill, "--dry-run")["would_remove"][drill]
    assert any("aws:rds/instance:Instance" in line for line in planned)
    assert cloud.leftovers() != []
    removed = operator.json("--yes", "environment", "down", drill)["removed"]
    assert [item["drill"] for item in removed] == [drill]
    assert cloud.leftovers() == []
    assert operator.json("environment", "status")["environments"] == []
    listed = {item["id"]: item for item in operator.json("drills", "list")["drills"]}
    assert (listed[drill]["verdict"], listed[drill]["kept"]) == ("PASS", False)


def test_what_never_was_is_not_said_to_be_removed(operator: Operator) -> None:
    before = set(operator.cloud.drills.glob("*"))
    error = operator.json("--yes", "environment", "down", UNKNOWN_DRILL, code=2)["error"]
    assert UNKNOWN_DRILL in error["message"]
    assert "not a drill's id" in operator.json("--yes", "environment", "down", "../x", code=2)["error"]["message"]
    assert set(operator.cloud.drills.glob("*")) == before


def test_a_failover_is_never_reaped_and_never_taken_down(operator: Operator) -> None:
    ec2 = operator.cloud.client("ec2")
    drill = f"20260109-020000-{secrets.token_hex(2)}"
    tags = {
        "agentverse:drill-id": drill, "agentverse:mode": "failover", "agentverse:expires-at": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": pairs}])["Vpc"]
    # Somebody's mistake: one thing in it is tagged as a drill's.
    pairs[1]["Value"] = "drill"
    subnet = ec2.create_subnet(
        VpcId=vpc["VpcId"], CidrBlock="10.9.0.0/24", TagSpecifications=[{"ResourceType": "subnet", "Tags": pairs}]
    )["Subnet"]
    try:
        [found] = operator.json("environment", "status")["environments"]
        assert (found["drill"], found["reap"]) == (drill, False)
        assert "only drills are reaped" in found["reason"]
        assert operator.json("--yes", "environment", "reap")["removed"] == []
        for more in ((), ("--dry-run",)):
            assert "failover" in json.dumps(operator.json("--yes", "environment", "down", drill, *more, code=3))
        assert ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"]
    finally:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def test_an_environment_interrupted_while_it_is_made_is_taken_down(operator: Operator) -> None:
    before = set(operator.cloud.drills.glob("*"))
    process = operator.begin("--json", "environment", "up")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        new = set(operator.cloud.drills.glob("*/journal.jsonl")) - {path / "journal.jsonl" for path in before}
        if any('"resources":' in journal.read_text() for journal in new):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert json.loads(output)["error"]["code"] == 130
    assert "Traceback" not in errors
    assert operator.cloud.leftovers() == []
    assert operator.cloud.processes() == []


def test_a_drill_that_is_kept_stays_until_it_is_taken_down(operator: Operator) -> None:
    cloud = operator.cloud
    report = operator.json("--yes", "drill", "quarterly", "--keep")
    drill = report["drill"]
    assert (report["verdict"], report["kept"]) == ("PASS", True)
    assert f"dr-{drill}" in cloud.stacks()
    assert operator.json("environment", "reap", "--dry-run")["would_remove"] == {}
    first = operator.json("drills", "list")["drills"][0]
    assert (first["id"], first["state"], first["kept"]) == (drill, "finished", True)
    shown = operator.json("drills", "show", drill)
    assert shown["rto_seconds"] == report["rto_seconds"]
    written = operator.json("drills", "report", drill)
    assert Path(written["html"]).read_text().startswith("<!doctype html>")
    page = operator("drills", "show", drill)
    assert page.returncode == 0
    assert f"recovery --local --yes environment down {drill}" in page.stdout
    removed = operator("--yes", "environment", "down", drill)
    assert removed.returncode == 0, removed.stderr
    assert f"{drill}: nothing is left" in removed.stdout
    assert cloud.leftovers() == []
    assert cloud.processes() == []
    again = operator.json("drills", "list")["drills"][0]
    assert (again["id"], again["kept"]) == (drill, False)
