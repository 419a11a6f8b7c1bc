"""S3 replication: which prefixes of a bucket are copied where, encrypted with which key, and how soon.

It copies what is written after it was set up. What was there before is copied once by S3 Batch Replication
(docs/infrastructure.md). Deletions stay behind: the copy is what is left when somebody deletes the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.roles import Role
from infra.storage import DataBucket

# The only value S3 Replication Time Control takes: 99.99 % of objects within it, with an event for each that is later.
_TIME_CONTROL_MINUTES: Final = 15


@dataclass(frozen=True, kw_only=True)
class ReplicationRule:
    """Copy what is under `prefix` to `bucket`, encrypted with `key_arn` (of that bucket's region).

    `to` is the destination's short name in the rule's id. `time_control` binds S3 to 15 minutes; without it a copy is
    made when S3 gets to it, metrics all the same.
    """

    prefix: str
    to: str
    bucket: DataBucket
    key_arn: pulumi.Input[str]
    time_control: bool


@dataclass(frozen=True, kw_only=True)
class ReplicationArgs:
    """All rules of one source bucket: S3 keeps a single configuration per bucket, a second would replace the first."""

    region: str
    source: DataBucket
    role: Role
    rules: Sequence[ReplicationRule]


class Replication(pulumi.ComponentResource):
    """The replication configuration of one bucket."""

    def __init__(self, name: str, args: ReplicationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Replication", name, None, opts)
        aws.s3.BucketReplicationConfig(
            f"{name}-config",
            region=args.region,
            bucket=args.source.bucket,
            role=args.role.arn,
            rules=[_rule(priority, rule) for priority, rule in enumerate(args.rules, start=1)],
            opts=pulumi.ResourceOptions(
                parent=self,
                # S3 refuses a configuration while either side is unversioned, and fails copies its role may not make.
                depends_on=[
                    args.role.ready,
                    args.source.versioning,
                    *(rule.bucket.versioning for rule in args.rules),
                ],
            ),
        )
        self.register_outputs({})


def _rule(priority: int, rule: ReplicationRule) -> aws.s3.BucketReplicationConfigRuleArgs:
    return aws.s3.BucketReplicationConfigRuleArgs(
        id=f"{rule.prefix.rstrip('/')}-to-{rule.to}",
        priority=priority,
        status="Enabled",
        filter=aws.s3.BucketReplicationConfigRuleFilterArgs(prefix=rule.prefix),
        delete_marker_replication=aws.s3.BucketReplicationConfigRuleDeleteMarkerReplicationArgs(status="Disabled"),
        # Without it S3 passes over every object encrypted with a KMS key, which here is every object.
        source_selection_criteria=aws.s3.BucketReplicationConfigRuleSourceSelectionCriteriaArgs(
            sse_kms_encrypted_objects=aws.s3.BucketReplicationConfigRuleSourceSelectionCriteriaSseKmsEncryptedObjectsArgs(
                status="Enabled"
            )
        ),
        destination=aws.s3.BucketReplicationConfigRuleDestinationArgs(
            bucket=rule.bucket.bucket.apply(lambda bucket: f"arn:aws:s3:::{bucket}"),
            storage_class="STANDARD",
            encryption_configuration=aws.s3.BucketReplicationConfigRuleDestinationEncryptionConfigurationArgs(
                replica_kms_key_id=rule.key_arn
            ),
            metrics=_metrics(time_control=rule.time_control),
            replication_time=aws.s3.BucketReplicationConfigRuleDestinationReplicationTimeArgs(
                status="Enabled",
                time=aws.s3.BucketReplicationConfigRuleDestinationReplicationTimeTimeArgs(
                    minutes=_TIME_CONTROL_MINUTES
                ),
            )
            if rule.time_control
            else None,
        ),
    )


def _metrics(*, time_control: bool) -> aws.s3.BucketReplicationConfigRuleDestinationMetricsArgs:
    if not time_control:
        return aws.s3.BucketReplicationConfigRuleDestinationMetricsArgs(status="Enabled")
    return aws.s3.BucketReplicationConfigRuleDestinationMetricsArgs(
        status="Enabled",
        event_threshold=aws.s3.BucketReplicationConfigRuleDestinationMetricsEventThresholdArgs(
            minutes=_TIME_CONTROL_MINUTES
        ),
    )
