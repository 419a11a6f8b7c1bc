"""One embedded cloud with a seeded production for the session, and drills run through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
DR_REGION = "us-west-2"


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what could point a command at another cloud."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTVERSE_", "AWS_", "PULUMI_"))}
    return {**own, **more}


@dataclass
class Cloud:
    """A running embedded cloud and the folder drills are written to."""

    home: Path
    drills: Path
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to act on this cloud and no other."""
        return clean_environment(
            AGENTVERSE_LOCALCLOUD_HOME=str(self.home),
            AGENTVERSE_LOCALCLOUD_PORT="0",
            AGENTVERSE_DRILLS=str(self.drills),
        )

    def localcloud(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `localcloud`."""
        return subprocess.run(
            [sys.executable, "-m", "localcloud", *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and learn where it is."""
        started = self.localcloud("start", "--json")
        assert started.returncode == 0, started.stderr
        self.document = json.loads(started.stdout)

    def recovery(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Run `recovery --local` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `recovery --local` in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def client(self, service: str, region: str = DR_REGION) -> Any:
        """Return a boto3 client."""
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region)
        client: Any = session.client(
            service,  # type: ignore[call-overload]  # any service, by name
            endpoint_url=self.document["endpoint"],
            config=Config(retries={"total_max_attempts": 2}),
        )
        return client

    def status(self) -> dict[str, Any]:
        """Return what runs in it."""
        said = self.localcloud("status", "--json")
        assert said.returncode == 0, said.stderr
        document: dict[str, Any] = json.loads(said.stdout)
        return document

    def stacks(self) -> set[str]:
        """Return the names of the Pulumi stacks whose state this cloud keeps."""
        folder = Path(self.document["env"]["PULUMI_BACKEND_URL"].removeprefix("file://"))
        return {path.stem for path in folder.glob(".pulumi/stacks/*/*.json")}

    def leftovers(self) -> list[str]:
        """Return everything of a drill that is still there, asked of each service itself; empty when nothing is."""
        found: list[str] = []
        found += [f"stack {name}" for name in self.stacks() if name.startswith("dr-")]
        found += [
            f"{row['kind']} {row['name']}" for row in self.status()["running"]
            if row["region"] == DR_REGION and row["kind"] != "replication"
        ]  # fmt: skip
        ec2 = self.client("ec2")
        for vpc in ec2.describe_vpcs()["Vpcs"]:
            if not vpc["IsDefault"]:
                found.append(f"vpc {vpc['VpcId']}")
        found += [i["NetworkInterfaceId"] for i in ec2.describe_network_interfaces()["NetworkInterfaces"]]
        found += [d["DBInstanceIdentifier"] for d in self.client("rds").describe_db_instances()["DBInstances"]]
        cache = self.client("elasticache")
        found += [g["ReplicationGroupId"] for g in cache.describe_replication_groups()["ReplicationGroups"]]
        found += [g["CacheSubnetGroupName"] for g in cache.describe_cache_subnet_groups()["CacheSubnetGroups"]]
        ecs = self.client("ecs")
        # A deleted cluster stays discoverable as INACTIVE for a while, on AWS too.
        clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
        found += [c["clusterName"] for c in clusters if c["status"] != "INACTIVE"]
        found += ecs.list_task_definitions()["taskDefinitionArns"]
        found += [s["Name"] for s in self.client("secretsmanager").list_secrets()["SecretList"]]
        found += [g["logGroupName"] for g in self.client("logs").describe_log_groups()["logGroups"]]
        return found

    def processes(self) -> list[str]:
        """Return the command lines of this session's helpers of a drill: engine, language host, provider, tasks."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                mine = process.environ().get("AGENTVERSE_LOCALCLOUD_HOME") == str(self.home)
                tasks = str(self.home) in process.environ().get("TMPDIR", "")
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            line = " ".join(words)
            helper = any(word in line for word in ("pulumi", "language_host", "localcloud.provider", "recovery task"))
            if (mine or tasks) and helper and process.pid != os.getpid():
                found.append(line)
        return found


def _new_cloud(tmp: Path) -> Iterator[Cloud]:
    home = Path(tempfile.mkdtemp(prefix="avd-", dir="/var/tmp"))
    home.chmod(0o711)
    cloud = Cloud(home=home / "c", drills=tmp / "drills")
    try:
        cloud.start()
        yield cloud
    finally:
        stopped = cloud.localcloud("stop")
        shutil.rmtree(home, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr


def _produce(cloud: Cloud) -> None:
    """Make a small production of the example platform in it."""
    made = subprocess.run(
        [sys.executable, "-m", "examples.agentverse", "production", "up", "--megabytes", "3", "--objects", "30"],
        env={**cloud.environment, **cloud.document["env"]},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Yield a cloud with a seeded, backed up and replicated production."""
    for made in _new_cloud(tmp_path_factory.mktemp("drill")):
        _produce(made)
        yield made


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: no region dark, nothing of a drill left, so that the next one begins clean."""
    yield
    cloud: Cloud = request.getfixturevalue("cloud")
    for region in cloud.status()["dark_regions"]:
        cloud.localcloud("restore", region)
    if cloud.leftovers():
        cloud.recovery("--yes", "environment", "reap")
