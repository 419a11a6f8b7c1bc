"""S3 through the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

# The automation server of a program that ends leaves its event loop to the collector, which says so.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_a_bucket_comes_up_settles_changes_in_place_is_replaced_and_goes(
    deployment: Any, client: Callable[..., Any]
) -> None:
    stack = deployment()

    def program(team: str = "a", name: str | None = None) -> Callable[[], None]:
        def run() -> None:
            bucket = aws.s3.Bucket("media", bucket=name, tags={"team": team}, region="us-west-2", force_destroy=True)
            pulumi.export("bucket", bucket.id)
            pulumi.export("arn", bucket.arn)
            pulumi.export("domain", bucket.bucket_regional_domain_name)

        return run

    assert stack.preview(program())["create"] == 2
    stack.up(program())
    first = stack.output("bucket")
    assert first.startswith("media-")
    assert stack.output("arn") == f"arn:aws:s3:::{first}"
    assert stack.output("domain") == f"{first}.s3.us-west-2.amazonaws.com"
    stack.settle()
    assert stack.up(program("b")) == {"same": 1, "update": 1}
    s3 = client("s3", "us-west-2")
    assert s3.get_bucket_tagging(Bucket=first)["TagSet"] == [{"Key": "team", "Value": "b"}]
    s3.put_bucket_tagging(Bucket=first, Tagging={"TagSet": [{"Key": "team", "Value": "drifted"}]})
    assert stack.refresh().get("update") == 1
    assert stack.up() == {"same": 1, "update": 1}
    assert s3.get_bucket_tagging(Bucket=first)["TagSet"] == [{"Key": "team", "Value": "b"}]
    s3.put_object(Bucket=first, Key="k", Body=b"x")
    assert stack.up(program("b", "provider-tests-media")).get("replace") == 1
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["provider-tests-media"]
    stack.destroy()
    assert s3.list_buckets()["Buckets"] == []


_TLS_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Tls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:*"],
            "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
}


def _bucket_with_everything(days: int = 30) -> None:
    key = aws.s3.Bucket("source", force_destroy=True, object_lock_enabled=True)
    target = aws.s3.Bucket("target", force_destroy=True, region="us-west-2")
    versions = [
        aws.s3.BucketVersioning(name, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, region=region)
        for name, bucket, region in (("source-v", key, "us-east-1"), ("target-v", target, "us-west-2"))
    ]
    aws.s3.BucketServerSideEncryptionConfiguration(
        "sse",
        bucket=key.id,
        rules=[
            {
                "apply_server_side_encryption_by_default": {
                    "sse_algorithm": "aws:kms",
                    "kms_master_key_id": "arn:aws:kms:us-east-1:123456789012:key/1",
                },
                "bucket_key_enabled": True,
            }
        ],
    )
    aws.s3.BucketPublicAccessBlock(
        "block",
        bucket=key.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
    )
    aws.s3.BucketOwnershipControls("owner", bucket=key.id, rule={"object_ownership": "BucketOwnerEnforced"})
    aws.s3.BucketPolicy("policy", bucket=target.id, policy=json.dumps(_TLS_ONLY), region="us-west-2")
    aws.s3.BucketObjectLockConfiguration("lock", bucket=key.id, object_lock_enabled="Enabled")
    aws.s3.BucketLifecycleConfiguration(
        "lifecycle",
        bucket=key.id,
        rules=[
            {
                "id": "superseded",
                "status": "Enabled",
                "filter": {"and_": {"prefix": "db/", "tags": {"state": "superseded"}}},
                "expiration": {"days": days},
            },
            {
                "id": "noncurrent",
                "status": "Enabled",
                "filter": {"prefix": ""},
                "noncurrent_version_expiration": {"noncurrent_days": 30},
                "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
            },
            {
                "id": "tagged",
                "status": "Enabled",
                "filter": {"tag": {"key": "a", "value": "b"}},
                "expiration": {"days": 9},
            },
        ],
    )
    aws.s3.BucketReplicationConfig(
        "replication",
        bucket=key.id,
        role="arn:aws:iam::123456789012:role/replication",
        rules=[
            {
                "id": "all",
                "priority": 1,
                "status": "Enabled",
                "filter": {"prefix": "db/"},
                "delete_marker_replication": {"status": "Enabled"},
                "source_selection_criteria": {"sse_kms_encrypted_objects": {"status": "Enabled"}},
                "destination": {
                    "bucket": target.arn,
                    "storage_class": "STANDARD",
                    "encryption_configuration": {"replica_kms_key_id": "arn:aws:kms:us-west-2:123456789012:key/2"},
                },
            }
        ],
        opts=pulumi.ResourceOptions(depends_on=versions),
    )
    pulumi.export("source", key.id)


def test_every_setting_of_a_bucket_settles_changes_and_shows_drift(deployment: Any, client: Callable[..., Any]) -> None:
    stack = deployment()
    assert stack.preview(_bucket_with_everything)["create"] == 12
    stack.up(_bucket_with_everything)
    stack.settle()
    assert stack.up(lambda: _bucket_with_everything(31)) == {"same": 11, "update": 1}
    stack.settle()
    s3, bucket = client("s3"), stack.output("source")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": False})
    assert stack.refresh()["update"] == 1
    assert stack.up()["update"] == 1
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    stack.destroy()
    assert s3.list_buckets()["Buckets"] == []
