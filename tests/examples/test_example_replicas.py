"""Waiting for replicas, against the embedded cloud's own replication."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest

from examples.agentverse import blobs
from examples.agentverse.errors import ExampleError
from examples.agentverse.rehearsal import embedded_cloud, environment_of
from examples.agentverse.replicas import Place, states, wait_for_replicas

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


def _silent(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    home = Path(tempfile.mkdtemp(prefix="avx-", dir="/var/tmp"))
    home.chmod(0o711)
    try:
        with embedded_cloud(_silent, home=home, port=0) as cloud, environment_of(cloud):
            yield cloud["AWS_ENDPOINT_URL"]
    finally:
        shutil.rmtree(home)


def _replicated_bucket(name: str) -> Place:
    """Make a bucket whose telemetry/ replicates to NAME-replica in the other region."""
    here = boto3.client("s3", region_name="us-east-1")
    there = boto3.client("s3", region_name="us-west-2")
    here.create_bucket(Bucket=name)
    there.create_bucket(Bucket=f"{name}-replica", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for client, bucket in ((here, name), (there, f"{name}-replica")):
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    here.put_bucket_replication(
        Bucket=name,
        ReplicationConfiguration={
            "Role": "arn:aws:iam::123456789012:role/replication",
            "Rules": [
                {
                    "ID": "telemetry",
                    "Priority": 1,
                    "Status": "Enabled",
                    "Filter": {"Prefix": "telemetry/"},
                    "DeleteMarkerReplication": {"Status": "Enabled"},
                    "Destination": {"Bucket": f"arn:aws:s3:::{name}-replica"},
                }
            ],
        },
    )
    return Place(name, "telemetry/")


def test_the_wait_ends_when_every_blob_is_in_the_other_region_with_its_digest(endpoint: str) -> None:
    assert endpoint
    place = _replicated_bucket("waits-complete")
    s3 = blobs.client("us-east-1")
    blobs.upload(s3, place.bucket, seed=7, objects=60, say=_silent)
    assert wait_for_replicas(s3, [place], timeout=60, say=_silent) == {"s3://waits-complete/telemetry/": 42}
    west = blobs.client("us-west-2")
    for key in states(s3, place):
        source = s3.head_object(Bucket=place.bucket, Key=key)
        replica = west.head_object(Bucket="waits-complete-replica", Key=key)
        assert replica["Metadata"] == source["Metadata"]
        assert replica["ContentLength"] == source["ContentLength"]


def test_a_dark_region_lets_the_wait_run_out_and_a_lit_one_lets_it_end(endpoint: str) -> None:
    place = _replicated_bucket("waits-in-vain")
    s3 = blobs.client("us-east-1")
    httpx.post(f"{endpoint}/_localcloud/blackout/us-west-2", timeout=30).raise_for_status()
    try:
        s3.put_object(Bucket=place.bucket, Key="telemetry/one.jsonl", Body=b"{}")
        with pytest.raises(ExampleError, match="1 objects are not replicated after 2 s") as caught:
            wait_for_replicas(s3, [place], timeout=2, say=_silent)
        assert caught.value.detail == "s3://waits-in-vain/telemetry/one.jsonl"
    finally:
        httpx.post(f"{endpoint}/_localcloud/restore/us-west-2", timeout=30).raise_for_status()
    assert wait_for_replicas(s3, [place], timeout=60, say=_silent) == {"s3://waits-in-vain/telemetry/": 1}


def test_a_replica_that_s3_gave_up_on_is_named_at_once(endpoint: str) -> None:
    assert endpoint
    place = _replicated_bucket("waits-failed")
    boto3.client("s3", region_name="us-west-2").delete_bucket(Bucket="waits-failed-replica")
    s3 = blobs.client("us-east-1")
    s3.put_object(Bucket=place.bucket, Key="telemetry/one.jsonl", Body=b"{}")
    with pytest.raises(ExampleError, match="S3 could not replicate 1 objects") as caught:
        wait_for_replicas(s3, [place], timeout=60, say=_silent)
    assert caught.value.detail == "s3://waits-failed/telemetry/one.jsonl"
