"""Buckets for data that must survive: versioned, encrypted with the region's key, private, reached over TLS only.

Nothing under db/ is ever deleted for its age alone: a dump expires after somebody tagged it as superseded, because the
last good backup is old exactly when backups have stopped working.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

DUMPS_PREFIX: Final = "db/"
DRILLS_PREFIX: Final = "drills/"
BACKUP_LOCK: Final = f"{DUMPS_PREFIX}backup.lock"
SUPERSEDED_TAG: Final = ("agentverse:superseded", "true")

# Parts of an upload that was given up are invisible in listings and paid for until they are removed.
_INCOMPLETE_UPLOAD_DAYS: Final = 7


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Days after which something expires; None where nothing does.

    `noncurrent_days`: overwritten and deleted versions. `superseded_days`: dumps under db/ tagged as superseded.
    `drill_objects_days`: what is under drills/.
    """

    noncurrent_days: int | None = None
    superseded_days: int | None = None
    drill_objects_days: int | None = None


@dataclass(frozen=True, kw_only=True)
class DataBucketArgs:
    """One bucket. `object_lock` lets writers lock single objects; there is never a default retention."""

    region: str
    bucket: str
    key_arn: pulumi.Input[str]
    retention: Retention
    object_lock: bool = False


class DataBucket(pulumi.ComponentResource):
    """A bucket with everything that makes it safe to keep backups in. It is never emptied by the engine."""

    bucket: pulumi.Output[str]
    versioning: aws.s3.BucketVersioning

    def __init__(self, name: str, args: DataBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:DataBucket", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            region=args.region,
            bucket=args.bucket,
            object_lock_enabled=args.object_lock,
            force_destroy=False,
            opts=child,
        )
        self.bucket = bucket.bucket
        self.versioning = aws.s3.BucketVersioning(
            f"{name}-versioning",
            region=args.region,
            bucket=self.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            region=args.region,
            bucket=self.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="aws:kms", kms_master_key_id=args.key_arn
                    ),
                    # One call to KMS for many objects: thousands of blobs would otherwise run into its rate limit.
                    bucket_key_enabled=True,
                )
            ],
            opts=child,
        )
        aws.s3.BucketPublicAccessBlock(
            f"{name}-private",
            region=args.region,
            bucket=self.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-ownership",
            region=args.region,
            bucket=self.bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=child,
        )
        aws.s3.BucketPolicy(
            f"{name}-policy",
            region=args.region,
            bucket=self.bucket,
            policy=pulumi.Output.from_input(args.key_arn).apply(
                lambda key_arn: json.dumps(bucket_policy(args.bucket, key_arn))
            ),
            opts=child,
        )
        after_versioning = pulumi.ResourceOptions(parent=self, depends_on=[self.versioning])
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            region=args.region,
            bucket=self.bucket,
            rules=lifecycle_rules(args.retention),
            opts=after_versioning,
        )
        if args.object_lock:
            aws.s3.BucketObjectLockConfiguration(
                f"{name}-lock",
                region=args.region,
                bucket=self.bucket,
                object_lock_enabled="Enabled",
                opts=after_versioning,
            )
        self.register_outputs({"bucket": self.bucket})


def bucket_policy(bucket: str, key_arn: str) -> dict[str, object]:
    """Return the policy of `bucket`: refuse plain HTTP, and uploads that ask for another encryption or another key.

    An upload that asks for nothing is encrypted with `key_arn` by the bucket's default. The refusals name the headers
    twice because a condition that compares a missing header is true: `Null` is what lets those uploads through.
    """
    arn = f"arn:aws:s3:::{bucket}"
    algorithm = "s3:x-amz-server-side-encryption"
    key = "s3:x-amz-server-side-encryption-aws-kms-key-id"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
            {
                "Sid": "NoOtherEncryption",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"{arn}/*",
                "Condition": {"Null": {algorithm: "false"}, "StringNotEquals": {algorithm: "aws:kms"}},
            },
            {
                "Sid": "NoOtherKey",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"{arn}/*",
                "Condition": {"Null": {key: "false"}, "StringNotEquals": {key: key_arn}},
            },
        ],
    }


def lifecycle_rules(retention: Retention) -> list[aws.s3.BucketLifecycleConfigurationRuleArgs]:
    """Return the lifecycle of a bucket: always the clean-up of given-up uploads, and what `retention` asks for."""
    rules = [
        aws.s3.BucketLifecycleConfigurationRuleArgs(
            id="incomplete-uploads",
            status="Enabled",
            filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
            abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                days_after_initiation=_INCOMPLETE_UPLOAD_DAYS
            ),
        )
    ]
    if retention.noncurrent_days is not None:
        rules.append(
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="noncurrent-versions",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                    noncurrent_days=retention.noncurrent_days
                ),
                # Removes delete markers that hide nothing any more; it deletes no data.
                expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(expired_object_delete_marker=True),
            )
        )
    if retention.superseded_days is not None:
        tag, value = SUPERSEDED_TAG
        rules.append(
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="superseded-dumps",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(
                    and_=aws.s3.BucketLifecycleConfigurationRuleFilterAndArgs(prefix=DUMPS_PREFIX, tags={tag: value})
                ),
                expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=retention.superseded_days),
            )
        )
    if retention.drill_objects_days is not None:
        rules.append(
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="drill-objects",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=DRILLS_PREFIX),
                expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=retention.drill_objects_days),
            )
        )
    return rules
