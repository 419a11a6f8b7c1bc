"""What the roles may do, as IAM would read it: one question is one action on one resource with its condition keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest

from infra import names, roles
from recovery.dumps.names import DEFAULT_PREFIX, LOCK

ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/1"
SOURCE_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/2"
DRILL_DATABASE = names.database(names.recovery("prod", "20260109-020000-1a2b"))

# IAM's reference gives these operators for keys of type String; any other operator here would have to be added.
_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, pattern: value == pattern,
    "StringLike": fnmatchcase,
    "StringLikeIfExists": lambda value, pattern: not value or fnmatchcase(value, pattern),
}


def allowed(policy: Mapping[str, Any], action: str, resource: str, **context: str) -> bool:
    """Tell whether a policy without Deny allows `action` on `resource`; context keys are those of IAM, by their end."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        conditions = [
            any(_OPERATORS[operator](_value(context, key), pattern) for pattern in _texts(patterns))
            for operator, keys in statement.get("Condition", {}).items()
            for key, patterns in keys.items()
        ]
        if (
            any(fnmatchcase(action, pattern) for pattern in _texts(statement["Action"]))
            and any(fnmatchcase(resource, pattern) for pattern in _texts(statement["Resource"]))
            and all(conditions)
        ):
            return True
    return False


def _value(context: Mapping[str, str], key: str) -> str:
    return context.get(key.rpartition(":")[2], "")


def _texts(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


@pytest.fixture
def replication() -> roles.Document:
    return roles.replication_policy(
        source_region="us-east-1",
        sources=["agentverse-backups"],
        source_key=SOURCE_KEY,
        destinations={"agentverse-backups-dr": ("us-west-2", KEY)},
    )


@pytest.fixture
def execution() -> roles.Document:
    return roles.execution_policy(account=ACCOUNT, region="us-west-2", environment="prod")


@pytest.fixture
def task() -> roles.Document:
    return roles.recovery_task_policy(
        account=ACCOUNT, region="us-west-2", environment="prod", bucket="agentverse-backups-dr", key=KEY
    )


@pytest.mark.parametrize("context", ["arn:aws:s3:::agentverse-backups", "arn:aws:s3:::agentverse-backups/db/x.sql.gz"])
def test_replication_decrypts_with_a_bucket_key_and_without(replication: roles.Document, context: str) -> None:
    via = {"ViaService": "s3.us-east-1.amazonaws.com", "arn": context}
    assert allowed(replication, "kms:Decrypt", SOURCE_KEY, **via)
    assert not allowed(replication, "kms:Decrypt", SOURCE_KEY, **{**via, "arn": "arn:aws:s3:::somebody-elses"})
    assert not allowed(replication, "kms:Decrypt", SOURCE_KEY, arn=context)


@pytest.mark.parametrize("action", ["kms:Encrypt", "kms:GenerateDataKey"])
def test_replication_encrypts_through_s3_of_the_destinations_region(replication: roles.Document, action: str) -> None:
    context = "arn:aws:s3:::agentverse-backups-dr"
    assert allowed(replication, action, KEY, ViaService="s3.us-west-2.amazonaws.com", arn=context)
    assert not allowed(replication, action, KEY, ViaService="s3.us-east-1.amazonaws.com", arn=context)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetReplicationConfiguration", "arn:aws:s3:::agentverse-backups"),
        ("s3:ListBucket", "arn:aws:s3:::agentverse-backups"),
        ("s3:GetObjectVersionForReplication", "arn:aws:s3:::agentverse-backups/db/x"),
        ("s3:GetObjectVersionAcl", "arn:aws:s3:::agentverse-backups/db/x"),
        ("s3:GetObjectVersionTagging", "arn:aws:s3:::agentverse-backups/db/x"),
        ("s3:ReplicateObject", "arn:aws:s3:::agentverse-backups-dr/db/x"),
        ("s3:ReplicateTags", "arn:aws:s3:::agentverse-backups-dr/db/x"),
    ],
)
def test_replication_has_what_s3_asks_for(replication: roles.Document, action: str, resource: str) -> None:
    assert allowed(replication, action, resource)
    assert not allowed(replication, "s3:ReplicateDelete", resource)


# IAM's reference names the group for CreateLogStream; the errors of AWS name a stream of it.
@pytest.mark.parametrize("end", ["", ":*", ":log-stream:", ":log-stream:recovery/recovery/0123"])
@pytest.mark.parametrize("action", ["logs:CreateLogStream", "logs:PutLogEvents"])
def test_a_drills_log_can_be_written_however_aws_names_it(execution: roles.Document, action: str, end: str) -> None:
    group = f"arn:aws:logs:us-west-2:{ACCOUNT}:log-group:"
    assert allowed(execution, action, f"{group}agentverse-prod-dr-manual-recovery{end}")
    assert not allowed(execution, action, f"{group}agentverse-prod-recovery{end}")


@pytest.mark.parametrize("action", ["BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"])
def test_only_the_recovery_image_can_be_pulled(execution: roles.Document, action: str) -> None:
    repository = f"arn:aws:ecr:us-west-2:{ACCOUNT}:repository/"
    assert allowed(execution, f"ecr:{action}", f"{repository}agentverse-recovery")
    assert not allowed(execution, f"ecr:{action}", f"{repository}another")
    assert allowed(execution, "ecr:GetAuthorizationToken", "*")


def test_the_task_reads_the_master_password_of_a_drill_and_never_productions(task: roles.Document) -> None:
    secret = f"arn:aws:secretsmanager:us-west-2:{ACCOUNT}:secret:rds!db-0f1e-AbCdEf"
    database = f"arn:aws:rds:us-west-2:{ACCOUNT}:db:"
    read = "secretsmanager:GetSecretValue"
    assert allowed(task, read, secret, primaryDBInstanceArn=f"{database}{DRILL_DATABASE}")
    assert not allowed(task, read, secret, primaryDBInstanceArn=f"{database}{names.database('agentverse-prod')}")
    assert not allowed(task, read, secret)
    assert allowed(task, "kms:Decrypt", KEY, ViaService="secretsmanager.us-west-2.amazonaws.com")


def test_the_task_lists_what_recovery_needs_and_is_told_when_a_key_is_missing(task: roles.Document) -> None:
    bucket = "arn:aws:s3:::agentverse-backups-dr"
    assert allowed(task, "s3:ListBucket", bucket, prefix="db/")
    assert not allowed(task, "s3:ListBucket", bucket, prefix="exports/")
    # S3 answers 404 for a missing key to those who may list, asked without a prefix; 403 to all others.
    assert allowed(task, "s3:ListBucket", bucket)


def test_the_backup_gives_back_its_lock_and_can_delete_no_dump_and_no_version() -> None:
    backup = roles.backup_policy(
        account=ACCOUNT, region="us-east-1", bucket="agentverse-backups", key=SOURCE_KEY, database="agentverse-prod-db"
    )
    lock = f"arn:aws:s3:::agentverse-backups/{DEFAULT_PREFIX}{LOCK}"
    assert allowed(backup, "s3:DeleteObject", lock)
    assert allowed(backup, "s3:PutObject", lock)
    assert not allowed(backup, "s3:DeleteObjectVersion", lock)
    dump = "arn:aws:s3:::agentverse-backups/db/db_full_20260109_020000.sql.gz"
    assert allowed(backup, "s3:GetBucketObjectLockConfiguration", "arn:aws:s3:::agentverse-backups")
    assert allowed(backup, "s3:ListBucketMultipartUploads", "arn:aws:s3:::agentverse-backups")
    assert allowed(backup, "s3:PutObjectRetention", dump)
    assert not allowed(backup, "s3:BypassGovernanceRetention", dump)
    assert not allowed(backup, "s3:DeleteObject", "arn:aws:s3:::agentverse-backups/db/latest.sql.gz")


def test_the_task_writes_and_deletes_nothing(task: roles.Document) -> None:
    actions = [action for statement in task["Statement"] for action in _texts(statement["Action"])]
    assert all(action.partition(":")[2].startswith(("Get", "List", "Decrypt")) for action in actions)
