"""Both committed stacks on the real engine and the embedded cloud: up, up again unchanged, policy, destroy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Pulumi = Callable[..., str]


def _localcloud(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "localcloud", *arguments], capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.fixture(scope="module")
def cloud() -> Iterator[Mapping[str, str]]:
    """An embedded cloud of this module's own; yields the environment that points at it."""
    # Short and under /var/tmp: database servers run unprivileged, and socket paths have a limit.
    with tempfile.TemporaryDirectory(prefix="av-infra-", dir="/var/tmp") as home:  # see above
        Path(home).chmod(0o755)
        _localcloud("start", "--port", "0", "--home", home)
        try:
            yield json.loads(_localcloud("env", "--json", "--home", home))["env"]
        finally:
            _localcloud("stop", "--home", home)


@pytest.fixture(scope="module")
def engine(
    cloud: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory, root: Path, pulumi: Path
) -> Callable[..., str]:
    """Run the Pulumi command line on a copy of the committed project and stack files; returns what it printed."""
    folder = tmp_path_factory.mktemp("project")
    for stack in ("primary", "dr"):
        shutil.copy(root / f"Pulumi.{stack}.yaml", folder)
    project = yaml.safe_load((root / "Pulumi.yaml").read_text())
    project["main"] = str(root / "infra")
    project["runtime"]["options"]["virtualenv"] = sys.prefix
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    environment = {**os.environ, **cloud, "PATH": f"{pulumi.parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [str(pulumi), *arguments, "--non-interactive", "--color", "never"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert (done.returncode != 0) is fails, done.stdout
        return done.stdout

    for stack in ("primary", "dr"):
        run("stack", "init", stack)
    return run


@pytest.fixture(scope="module")
def primary(engine: Pulumi) -> dict[str, Any]:
    """The outputs of the primary stack, brought up once."""
    return _up(engine, "primary")


@pytest.fixture(scope="module")
def dr(engine: Pulumi, primary: dict[str, Any]) -> dict[str, Any]:
    """The outputs of the dr stack, brought up once beside the primary one."""
    assert primary
    return _up(engine, "dr")


def test_dr_alone_says_that_primary_comes_first(engine: Pulumi) -> None:
    assert "pulumi up -s primary" in engine("preview", "-s", "dr", fails=True)


def test_outputs_have_no_holes(primary: dict[str, Any], dr: dict[str, Any]) -> None:
    for outputs in (primary, dr):
        assert outputs["schemaVersion"] == 1
        assert [name for name, value in outputs.items() if value in (None, "", [])] == []


@pytest.mark.parametrize("stack", ["primary", "dr"])
@pytest.mark.usefixtures("primary", "dr")
def test_a_second_up_and_a_refresh_change_nothing(engine: Pulumi, stack: str) -> None:
    engine("up", "-s", stack, "--yes", "--skip-preview", "--expect-no-changes")
    engine("refresh", "-s", stack, "--yes", "--skip-preview", "--expect-no-changes")


@pytest.mark.parametrize("stack", ["primary", "dr"])
@pytest.mark.usefixtures("primary", "dr")
def test_the_policy_pack_passes_what_stands(engine: Pulumi, root: Path, stack: str) -> None:
    assert "agentverse-dr@v1.0.0" in engine("preview", "-s", stack, "--policy-pack", str(root / "policy"))


@pytest.mark.usefixtures("primary")
def test_the_policy_pack_stops_who_takes_the_protection_off_production(engine: Pulumi, root: Path) -> None:
    said = engine(
        *("preview", "-s", "primary", "--policy-pack", str(root / "policy")),
        *("--config", "agentverse-dr:protect=false"),
        fails=True,
    )
    assert "databases-are-safe" in said


@pytest.mark.usefixtures("primary")
def test_a_dump_put_into_the_backups_arrives_in_the_dr_region(cloud: Mapping[str, str]) -> None:
    here, there = (_s3(cloud, region) for region in ("us-east-1", "us-west-2"))
    here.put_object(Bucket="agentverse-backups", Key="db/probe.sql.gz", Body=b"dump")
    there.get_waiter("object_exists").wait(
        Bucket="agentverse-backups-dr", Key="db/probe.sql.gz", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert there.get_object(Bucket="agentverse-backups-dr", Key="db/probe.sql.gz")["Body"].read() == b"dump"
    for client, bucket in ((here, "agentverse-backups"), (there, "agentverse-backups-dr")):
        for version in client.list_object_versions(Bucket=bucket)["Versions"]:
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])


@pytest.mark.usefixtures("dr")
def test_a_drill_is_destroyed_to_the_last_resource_and_production_is_not(engine: Pulumi) -> None:
    engine("destroy", "-s", "dr", "--yes", "--skip-preview")
    assert _custom_resources(engine, "dr") == []
    refused = engine("destroy", "-s", "primary", "--yes", "--skip-preview", fails=True)
    assert re.search("protect", refused)
    engine("up", "-s", "primary", "--yes", "--skip-preview", "--config", "agentverse-dr:protect=false")
    engine("destroy", "-s", "primary", "--yes", "--skip-preview")
    assert _custom_resources(engine, "primary") == []


def _up(engine: Pulumi, stack: str) -> dict[str, Any]:
    engine("up", "-s", stack, "--yes", "--skip-preview")
    outputs: dict[str, Any] = json.loads(engine("stack", "output", "-s", stack, "--json"))
    return outputs


def _custom_resources(engine: Pulumi, stack: str) -> list[str]:
    exported = json.loads(engine("stack", "export", "-s", stack))
    return [resource["urn"] for resource in exported["deployment"].get("resources") or [] if resource.get("custom")]


def _s3(cloud: Mapping[str, str], region: str) -> Any:
    return boto3.client(
        "s3",
        region_name=region,
        endpoint_url=cloud["AWS_ENDPOINT_URL"],
        aws_access_key_id=cloud["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=cloud["AWS_SECRET_ACCESS_KEY"],
    )
