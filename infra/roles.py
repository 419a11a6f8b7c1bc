"""IAM: the roles S3 and tasks act as, each allowed what its work needs, and the service-linked roles of the account.

All of it is made by `primary`, long before a disaster: IAM's control plane is in us-east-1 and goes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra import names
from infra.storage import BACKUP_LOCK, DRILLS_PREFIX, DUMPS_PREFIX

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RoleArgs:
    """One role: `trust` is who may take it on, `policy` what it may then do, both as documents or their JSON."""

    role_name: str
    description: str
    trust: Document
    policy: pulumi.Input[str]


class Role(pulumi.ComponentResource):
    """A role and its one inline policy. `ready` is the policy: what uses the role at once should wait for it."""

    arn: pulumi.Output[str]
    ready: aws.iam.RolePolicy

    def __init__(self, name: str, args: RoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Role", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            f"{name}-role",
            name=args.role_name,
            description=args.description,
            assume_role_policy=json.dumps(args.trust),
            opts=child,
        )
        self.ready = aws.iam.RolePolicy(
            f"{name}-policy", name=args.role_name, role=role.name, policy=args.policy, opts=child
        )
        self.arn = role.arn
        self.register_outputs({"arn": self.arn})


class ServiceLinkedRoles(pulumi.ComponentResource):
    """The roles AWS services act as. AWS makes them on first use, by a call to IAM that fails during a disaster."""

    def __init__(self, name: str, services: Sequence[str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:ServiceLinkedRoles", name, None, opts)
        for service in services:
            aws.iam.ServiceLinkedRole(
                f"{name}-{service.partition('.')[0]}",
                aws_service_name=service,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})


def trust_s3() -> Document:
    """Return the trust of the replication role. S3 documents no source condition for it; PassRole guards its use."""
    return _document(
        {
            "Sid": "ReplicationByS3",
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )


def trust_tasks(account: str, region: str) -> Document:
    """Return the trust of a task's role: ECS, on behalf of this account's tasks in `region` only."""
    return _document(
        {
            "Sid": "TasksOfThisAccount",
            "Effect": "Allow",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnLike": {"aws:SourceArn": f"arn:aws:ecs:{region}:{account}:*"},
            },
        }
    )


def replication_policy(
    *,
    source_region: str,
    sources: Sequence[str],
    source_key: str,
    destinations: Mapping[str, tuple[str, str]],
) -> Document:
    """Return what S3 may do to copy `sources` (buckets) to `destinations` (bucket -> its region, its key's ARN).

    Replicas and their tags may be written, nothing deleted: delete markers are not replicated. The encryption context
    is the bucket's ARN where its bucket key is used and the object's where an upload turned that off.
    """
    statements: list[Document] = [
        {
            "Sid": "ReadTheConfiguration",
            "Effect": "Allow",
            "Action": ["s3:GetReplicationConfiguration", "s3:ListBucket"],
            "Resource": [_bucket(bucket) for bucket in sources],
        },
        {
            "Sid": "ReadVersions",
            "Effect": "Allow",
            "Action": [
                "s3:GetObjectVersionAcl",
                "s3:GetObjectVersionForReplication",
                "s3:GetObjectVersionTagging",
            ],
            "Resource": [f"{_bucket(bucket)}/*" for bucket in sources],
        },
        {
            "Sid": "WriteReplicas",
            "Effect": "Allow",
            "Action": ["s3:ReplicateObject", "s3:ReplicateTags"],
            "Resource": [f"{_bucket(bucket)}/*" for bucket in destinations],
        },
        _use_of_key_by_s3("DecryptOriginals", ["kms:Decrypt"], source_region, source_key, sources),
    ]
    for number, (bucket, (region, key)) in enumerate(destinations.items(), start=1):
        statements.append(
            _use_of_key_by_s3(f"EncryptReplicas{number}", ["kms:Encrypt", "kms:GenerateDataKey"], region, key, [bucket])
        )
    return _document(*statements)


def backup_policy(*, account: str, region: str, bucket: str, key: str, database: str) -> Document:
    """Return what the backup task may do: write, read back, lock and tag dumps, and log in to the database.

    It deletes nothing but its own lock, and of that no version.
    """
    return _document(
        *_list_prefixes(bucket, [DUMPS_PREFIX]),
        {
            "Sid": "WriteAndReadBackDumps",
            "Effect": "Allow",
            "Action": [
                "s3:AbortMultipartUpload",
                "s3:GetObject",
                "s3:GetObjectAttributes",
                "s3:GetObjectTagging",
                "s3:GetObjectVersion",
                "s3:ListMultipartUploadParts",
                "s3:PutObject",
                "s3:PutObjectRetention",
                "s3:PutObjectTagging",
            ],
            "Resource": f"{_bucket(bucket)}/{DUMPS_PREFIX}*",
        },
        {
            # The lock decides how a dump is written; uploads that a killed backup left are aborted by the next.
            "Sid": "AskForObjectLockAndUploads",
            "Effect": "Allow",
            "Action": ["s3:GetBucketObjectLockConfiguration", "s3:ListBucketMultipartUploads"],
            "Resource": _bucket(bucket),
        },
        {
            # A lock that stays would refuse the next backup until it expires. The bucket keeps what was deleted.
            "Sid": "GiveBackTheLock",
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": f"{_bucket(bucket)}/{BACKUP_LOCK}",
        },
        _use_of_key_by_s3("EncryptDumps", ["kms:Decrypt", "kms:GenerateDataKey"], region, key, [bucket]),
        _master_secret(account, region, database),
        _decrypt_secrets(region, key),
    )


def recovery_task_policy(*, account: str, region: str, environment: str, bucket: str, key: str) -> Document:
    """Return what the recovery task may do: read the DR bucket and the secrets of DR environments, write nothing."""
    prefixes = [DUMPS_PREFIX, DRILLS_PREFIX, "snapshots/", "telemetry/"]
    return _document(
        *_list_prefixes(bucket, prefixes),
        {
            "Sid": "ReadReplicas",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectTagging", "s3:GetObjectVersion"],
            "Resource": [f"{_bucket(bucket)}/{prefix}*" for prefix in prefixes],
        },
        _use_of_key_by_s3("DecryptReplicas", ["kms:Decrypt"], region, key, [bucket]),
        _master_secret(account, region, f"{names.recovery_prefix(environment)}*"),
        {
            "Sid": "ReadTheCacheToken",
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": f"arn:aws:secretsmanager:{region}:{account}:secret:{names.recovery_prefix(environment)}*",
        },
        _decrypt_secrets(region, key),
    )


def execution_policy(*, account: str, region: str, environment: str) -> Document:
    """Return what ECS may do to start the recovery task: pull its image and write its log."""
    return _document(
        {
            # The action knows no resources.
            "Sid": "LogInToTheRegistry",
            "Effect": "Allow",
            "Action": "ecr:GetAuthorizationToken",
            "Resource": "*",
        },
        {
            "Sid": "PullTheImage",
            "Effect": "Allow",
            "Action": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            "Resource": f"arn:aws:ecr:{region}:{account}:repository/{names.RECOVERY_REPOSITORY}",
        },
        {
            "Sid": "WriteTheLog",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            # IAM's reference binds CreateLogStream to the group and PutLogEvents to the stream: the end matches both.
            "Resource": f"arn:aws:logs:{region}:{account}:log-group:{names.recovery_prefix(environment)}*",
        },
    )


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _bucket(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def _list_prefixes(bucket: str, prefixes: Sequence[str]) -> tuple[Document, Document]:
    return (
        {
            "Sid": "ListObjects",
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
            "Resource": _bucket(bucket),
            # Reading a key that is not there is judged by this statement too, without a prefix: denied here, S3 would
            # answer 403 for what is merely missing.
            "Condition": {"StringLikeIfExists": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        },
        {
            "Sid": "AskAboutTheBucket",
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetBucketVersioning"],
            "Resource": _bucket(bucket),
        },
    )


def _use_of_key_by_s3(sid: str, actions: list[str], region: str, key: str, buckets: Sequence[str]) -> Document:
    contexts = [context for bucket in buckets for context in (_bucket(bucket), f"{_bucket(bucket)}/*")]
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": key,
        "Condition": {
            "StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"},
            "StringLike": {"kms:EncryptionContext:aws:s3:arn": contexts},
        },
    }


def _master_secret(account: str, region: str, database: str) -> Document:
    # RDS chooses the name of a secret it manages; the tag it puts on it says whose master user it is.
    return {
        "Sid": "ReadTheMasterPassword",
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": f"arn:aws:secretsmanager:{region}:{account}:secret:rds!db-*",
        # A tag's value is text to IAM, also when it reads as an ARN: operators for ARNs are not meant for it.
        "Condition": {
            "StringLike": {
                "aws:ResourceTag/aws:rds:primaryDBInstanceArn": f"arn:aws:rds:{region}:{account}:db:{database}"
            }
        },
    }


def _decrypt_secrets(region: str, key: str) -> Document:
    return {
        "Sid": "DecryptSecrets",
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": key,
        "Condition": {"StringEquals": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}},
    }
