"""The same parts in the cloud as people start it: by its command line, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

pytestmark = pytest.mark.slow
Eventually = Callable[[Callable[[], Any]], Any]


class Localcloud:
    """The command line of one home, and clients of what it started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.images = home.with_suffix(".toml")
        self.images.write_text('[images]\nshell = ["/bin/sh", "-c"]\n')
        self._clients: list[Any] = []

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "localcloud", words[0], "--home", str(self.home), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> dict[str, Any]:
        self.run("start", "--port", "0", "--images", str(self.images), "--replication-delay", "0.2")
        document: dict[str, Any] = json.loads(self.run("env", "--json"))
        self.document = document
        return document

    def client(self, service: str, region: str) -> Any:
        client: Any = boto3.client(
            service,  # type: ignore[call-overload]  # any service
            region_name=region,
            endpoint_url=self.document["endpoint"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self._clients.append(client)
        return client

    def run_shell_task(self, script: str) -> tuple[Any, str]:
        ecs, ec2 = self.client("ecs", "us-west-2"), self.client("ec2", "us-west-2")
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        ecs.create_cluster(clusterName="dr")
        ecs.register_task_definition(
            family="job",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[{"name": "main", "image": "shell", "command": [script]}],
        )
        network = {"awsvpcConfiguration": {"subnets": [subnet]}}
        answer = ecs.run_task(cluster="dr", taskDefinition="job", launchType="FARGATE", networkConfiguration=network)
        return ecs, answer["tasks"][0]["taskArn"]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.run("stop")
        self.images.unlink()


@pytest.fixture
def localcloud() -> Iterator[Localcloud]:
    home = Path(tempfile.mkdtemp(prefix="av-", dir="/var/tmp"))
    home.chmod(0o711)  # the unprivileged user of its servers must get through
    cloud = Localcloud(home)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.close()
        shutil.rmtree(home)


def _alive_with(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LOCALCLOUD_TASK", "").startswith(f"{home}:"):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_replication_and_tasks_work_and_a_blackout_stops_both_until_it_ends(
    localcloud: Localcloud, eventually: Eventually
) -> None:
    east, west = localcloud.client("s3", "us-east-1"), localcloud.client("s3", "us-west-2")
    east.create_bucket(Bucket="backups")
    west.create_bucket(Bucket="backups-dr", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for bucket in ("backups", "backups-dr"):
        east.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {
        "ID": "dr",
        "Priority": 1,
        "Status": "Enabled",
        "Filter": {},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": "arn:aws:s3:::backups-dr"},
    }
    configuration = {"Role": "arn:aws:iam::123456789012:role/r", "Rules": [rule]}
    east.put_bucket_replication(Bucket="backups", ReplicationConfiguration=configuration)
    ecs, task = localcloud.run_shell_task("sleep 600")
    ecs.get_waiter("tasks_running").wait(cluster="dr", tasks=[task], WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})

    localcloud.run("blackout", "us-west-2")
    with pytest.raises(ConnectionClosedError):
        west.list_buckets()
    east.put_object(Bucket="backups", Key="db/1", Body=b"x")
    assert east.head_object(Bucket="backups", Key="db/1")["ReplicationStatus"] == "PENDING"
    assert "suspended" in localcloud.run("status")
    localcloud.run("restore", "us-west-2")
    eventually(lambda: east.head_object(Bucket="backups", Key="db/1")["ReplicationStatus"] == "COMPLETED")
    assert west.head_object(Bucket="backups-dr", Key="db/1")["ReplicationStatus"] == "REPLICA"

    localcloud.run("reset")
    assert west.list_buckets()["Buckets"] == []
    assert _alive_with(localcloud.home) == []


def test_what_a_killed_cloud_leaves_of_its_tasks_the_next_start_ends(
    localcloud: Localcloud, eventually: Eventually
) -> None:
    localcloud.run_shell_task("sleep 600 & setsid sleep 600 & wait")
    eventually(lambda: len(_alive_with(localcloud.home)) >= 3)
    os.kill(localcloud.document["pid"], signal.SIGKILL)
    localcloud.start()
    assert _alive_with(localcloud.home) == []


def test_stopping_the_cloud_ends_its_tasks(localcloud: Localcloud, eventually: Eventually) -> None:
    localcloud.run_shell_task("trap '' TERM; sleep 600 & wait; sleep 600")
    eventually(lambda: len(_alive_with(localcloud.home)) >= 2)
    localcloud.run("stop")
    assert _alive_with(localcloud.home) == []
