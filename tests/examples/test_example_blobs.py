"""The blobs, in an S3 on loopback."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import boto3
import pytest

from examples.agentverse import blobs
from examples.agentverse.errors import EnvironmentLacksError, ExampleError
from examples.agentverse.replicas import Place, wait_for_replicas
from examples.agentverse.rows import Platform

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def _silent(_: str) -> None:
    return None


@pytest.fixture
def s3(fake_aws: str) -> S3Client:
    assert fake_aws
    return blobs.client("us-east-1")


def _contents(s3: S3Client, bucket: str) -> dict[str, bytes]:
    listing = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listing}


def test_two_buckets_of_one_seed_hold_the_same_objects(s3: S3Client) -> None:
    for bucket in ("one", "two", "three"):
        s3.create_bucket(Bucket=f"blobs-{bucket}")
    for bucket, seed in (("one", 7), ("two", 7), ("three", 8)):
        blobs.upload(s3, f"blobs-{bucket}", seed=seed, objects=40, say=_silent)
    assert _contents(s3, "blobs-one") == _contents(s3, "blobs-two")
    assert _contents(s3, "blobs-one").keys() != _contents(s3, "blobs-three").keys()


def test_all_objects_arrive_whole_under_the_three_prefixes_with_their_digest_and_media_type(s3: S3Client) -> None:
    s3.create_bucket(Bucket="blobs-whole")
    uploaded = blobs.upload(s3, "blobs-whole", seed=7, objects=50, say=_silent)
    assert uploaded.objects == {"telemetry/": 35, "snapshots/": 10, "exports/": 5}
    assert blobs.count(s3, "blobs-whole") == uploaded.objects
    contents = _contents(s3, "blobs-whole")
    assert sum(map(len, contents.values())) == uploaded.size
    for key, body in contents.items():
        head = s3.head_object(Bucket="blobs-whole", Key=key)
        assert head["Metadata"]["sha256"] == hashlib.sha256(body).hexdigest()
        assert head["ContentType"] != "binary/octet-stream"


def test_blobs_belong_to_runs_that_the_database_of_the_same_seed_has() -> None:
    platform = Platform(seed=7, projects=20)
    runs = {run.id for project in platform.each_project() for run in platform.each_run(project)}
    telemetry = [blob.key for blob in blobs.each_blob(platform, 30) if blob.key.startswith("telemetry/")]
    assert {key.rsplit("/", 1)[1].removesuffix(".jsonl") for key in telemetry} <= runs


def test_a_missing_bucket_is_named(s3: S3Client) -> None:
    with pytest.raises(EnvironmentLacksError, match="blobs-nowhere did not take a blob"):
        blobs.upload(s3, "blobs-nowhere", seed=7, objects=100, say=_silent)


def test_waiting_for_replicas_that_no_rule_promises_fails_at_once_and_names_an_object(s3: S3Client) -> None:
    s3.create_bucket(Bucket="blobs-alone")
    boto3.client("s3").put_object(Bucket="blobs-alone", Key="exports/a.csv", Body=b"1")
    with pytest.raises(ExampleError, match="no replication rule covers 1 objects") as caught:
        wait_for_replicas(s3, [Place("blobs-alone", "exports/")], timeout=60, say=_silent)
    assert caught.value.detail == "s3://blobs-alone/exports/a.csv"
