"""Keys, roles, secrets, logs and repositories through the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest

# The automation server of a program that ends leaves its event loop to the collector, which says so.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def _policy(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


_TRUST = _policy(Principal={"Service": "ecs-tasks.amazonaws.com"}, Action="sts:AssumeRole")
_EXPIRY = {
    "rulePriority": 1,
    "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14},
    "action": {"type": "expire"},
}


def _account(text: str, days: int = 7) -> None:
    key = aws.kms.Key(
        "key",
        description=text,
        deletion_window_in_days=7,
        enable_key_rotation=True,
        policy=_policy(Principal={"AWS": "arn:aws:iam::123456789012:root"}, Action="kms:*", Resource="*"),
    )
    aws.kms.Alias("alias", name="alias/provider-tests", target_key_id=key.key_id)
    role = aws.iam.Role("role", assume_role_policy=_TRUST, description=text, name="provider-tests")
    aws.iam.RolePolicy("grants", name="grants", role=role.id, policy=_policy(Action=["s3:GetObject"], Resource="*"))
    aws.iam.ServiceLinkedRole("linked", aws_service_name="rds.amazonaws.com", description=text)
    secret = aws.secretsmanager.Secret("secret", recovery_window_in_days=0, kms_key_id=key.arn, description=text)
    token = aws.secretsmanager.get_random_password_output(password_length=20, exclude_punctuation=True)
    version = aws.secretsmanager.SecretVersion(
        "version",
        secret_id=secret.id,
        secret_string=token.random_password,
        opts=pulumi.ResourceOptions(ignore_changes=["secretString"]),
    )
    logs = aws.cloudwatch.LogGroup("logs", name="/provider/tests", retention_in_days=days)
    repository = aws.ecr.Repository(
        "images",
        name="provider-tests",
        image_tag_mutability="IMMUTABLE",
        image_scanning_configuration={"scan_on_push": True},
        encryption_configurations=[{"encryption_type": "KMS", "kms_key": key.arn}],
        force_delete=True,
    )
    aws.ecr.LifecyclePolicy(
        "expiry", repository=repository.name, policy=json.dumps({"rules": [{**_EXPIRY, "description": text}]})
    )
    pulumi.export("key", key.key_id)
    pulumi.export("role", role.arn)
    pulumi.export("secret", secret.arn)
    pulumi.export("token", version.secret_string)
    pulumi.export("version", version.id)
    pulumi.export("logs", logs.arn)
    pulumi.export("url", repository.repository_url)


def test_an_account_settles_changes_in_place_shows_drift_and_goes(deployment: Any, client: Callable[..., Any]) -> None:
    stack = deployment()
    assert stack.preview(lambda: _account("a"))["create"] == 11
    stack.up(lambda: _account("a"))
    stack.settle()
    assert stack.output("role") == "arn:aws:iam::123456789012:role/provider-tests"
    assert stack.output("logs") == "arn:aws:logs:us-east-1:123456789012:log-group:/provider/tests"
    assert stack.output("url").endswith(".amazonaws.com/provider-tests")
    assert stack.output("version").startswith(stack.output("secret") + "|")

    assert stack.up(lambda: _account("b")) == {"same": 6, "update": 5}
    stack.settle()
    assert client("kms").describe_key(KeyId=stack.output("key"))["KeyMetadata"]["Description"] == "b"

    client("logs").delete_retention_policy(logGroupName="/provider/tests")
    client("iam").put_role_policy(
        RoleName="provider-tests", PolicyName="grants", PolicyDocument=_policy(Action="s3:*", Resource="*")
    )
    assert stack.refresh()["update"] == 2
    assert stack.up() == {"same": 9, "update": 2}
    stack.settle()

    client("ecr").delete_lifecycle_policy(repositoryName="provider-tests")
    assert stack.refresh()["delete"] == 1
    assert stack.up() == {"same": 10, "create": 1}

    key = stack.output("key")
    stack.destroy()
    assert client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert client("iam").list_roles()["Roles"] == []
    assert client("secretsmanager").list_secrets()["SecretList"] == []
    assert client("logs").describe_log_groups()["logGroups"] == []


def test_secrets_are_encrypted_in_the_exported_state(deployment: Any, client: Callable[..., Any]) -> None:
    stack = deployment()

    def program() -> None:
        secret = aws.secretsmanager.Secret("secret", recovery_window_in_days=0)
        aws.secretsmanager.SecretVersion("version", secret_id=secret.id, secret_string="in-the-clear-never")
        pulumi.export("id", secret.id)

    stack.up(program)
    assert (
        client("secretsmanager").get_secret_value(SecretId=stack.output("id"))["SecretString"] == "in-the-clear-never"
    )
    assert "in-the-clear-never" not in stack.stored()
    assert "ciphertext" in stack.stored()


def test_default_tags_reach_everything_and_a_change_of_them_is_an_update(
    deployment: Any, client: Callable[..., Any]
) -> None:
    stack = deployment()

    def program(owner: str) -> Callable[[], None]:
        def run() -> None:
            provider = aws.Provider(
                "explicit",
                region="eu-central-1",
                default_tags={"tags": {"owner": owner, "stage": "test"}},
            )
            bucket = aws.s3.Bucket("bucket", tags={"stage": "own"}, opts=pulumi.ResourceOptions(provider=provider))
            vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", opts=pulumi.ResourceOptions(provider=provider))
            pulumi.export("bucket", bucket.id)
            pulumi.export("all", bucket.tags_all)
            pulumi.export("vpc", vpc.id)

        return run

    stack.up(program("a"))
    assert stack.output("all") == {"owner": "a", "stage": "own"}
    stack.settle()
    assert stack.up(program("b"))["update"] >= 2
    stack.settle()
    (vpc,) = client("ec2", "eu-central-1").describe_vpcs(VpcIds=[stack.output("vpc")])["Vpcs"]
    assert {tag["Key"]: tag["Value"] for tag in vpc["Tags"]} == {"owner": "b", "stage": "test"}


def test_a_change_of_region_replaces_and_leaves_nothing_behind(deployment: Any, client: Callable[..., Any]) -> None:
    stack = deployment()

    def program(region: str) -> Callable[[], None]:
        return lambda: pulumi.export("name", aws.cloudwatch.LogGroup("logs", name="/moving", region=region).name)

    stack.up(program("us-east-1"))
    assert stack.up(program("us-west-2"))["replace"] == 1
    assert client("logs", "us-east-1").describe_log_groups(logGroupNamePrefix="/moving")["logGroups"] == []
    assert len(client("logs", "us-west-2").describe_log_groups(logGroupNamePrefix="/moving")["logGroups"]) == 1


def test_what_exists_can_be_imported_and_then_settles(deployment: Any, client: Callable[..., Any]) -> None:
    client("logs").create_log_group(logGroupName="/made/by/hand")
    client("logs").put_retention_policy(logGroupName="/made/by/hand", retentionInDays=7)
    stack = deployment()

    def program() -> None:
        options = pulumi.ResourceOptions(import_="/made/by/hand")
        aws.cloudwatch.LogGroup("logs", name="/made/by/hand", retention_in_days=7, opts=options)

    stack.up(program)
    stack.settle()
