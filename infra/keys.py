"""KMS keys: one per region with an alias, made by `primary`, found by name in `dr`.

S3 treats multi-region keys as single-region ones, so each region simply has its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

# The longest AWS offers: time to notice that a key which opens every backup is about to go.
_DELETION_WINDOW_DAYS = 30


class KeyNotFoundError(RuntimeError):
    """The region has no key under the alias: the primary program was never run for this environment."""


@dataclass(frozen=True, kw_only=True)
class KeyArgs:
    """One region's key. `alias` begins with `alias/`."""

    region: str
    account: str
    alias: str
    description: str


class Key(pulumi.ComponentResource):
    """A rotating KMS key and its alias, usable by this account's principals as IAM allows, and by CloudWatch Logs."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: KeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Key", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        key = aws.kms.Key(
            f"{name}-key",
            region=args.region,
            description=args.description,
            enable_key_rotation=True,
            deletion_window_in_days=_DELETION_WINDOW_DAYS,
            policy=json.dumps(key_policy(args.account, args.region)),
            opts=child,
        )
        aws.kms.Alias(f"{name}-alias", region=args.region, name=args.alias, target_key_id=key.key_id, opts=child)
        self.arn = key.arn
        self.register_outputs({"arn": self.arn})


def key_policy(account: str, region: str) -> dict[str, object]:
    """Return the key policy: IAM policies of the account decide, and CloudWatch Logs of the region may use the key.

    S3, RDS, ElastiCache, ECR and Secrets Manager act with the permissions of the principal that called them, or by
    grants that it made, so the account's statement serves them: what each role may do is in `roles.py`. CloudWatch
    Logs calls as itself and needs a statement, bound to this account's log groups by the encryption context. In a key
    policy the resource `*` is the key itself.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "IamPoliciesOfThisAccountDecide",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "LogGroupsOfThisAccount",
                "Effect": "Allow",
                "Principal": {"Service": f"logs.{region}.amazonaws.com"},
                "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                "Resource": "*",
                "Condition": {
                    "ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{region}:{account}:log-group:*"}
                },
            },
        ],
    }


def find(alias: str, region: str) -> str:
    """Return the ARN of the key behind `alias` in `region`; raises KeyNotFoundError saying what makes it."""
    try:
        return aws.kms.get_alias(name=alias, region=region).target_key_arn
    except Exception as exc:
        message = (
            f"{region} has no usable key under {alias} ({exc}). The primary program makes it, and the roles and buckets"
            " this environment uses: pulumi up -s primary"
        )
        raise KeyNotFoundError(message) from exc
