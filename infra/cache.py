"""ElastiCache for Redis: a replication group with TLS and AUTH, its subnet group, and the secret with its token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import firewall
from infra.settings import CacheSettings

# ElastiCache takes 16 to 128 printable characters and few signs; letters and digits alone need no quoting anywhere.
_TOKEN_LENGTH: Final = 64


@dataclass(frozen=True, kw_only=True)
class CacheArgs:
    """One group. `group_id` has at most 40 characters; `secret_recovery_days` of 0 deletes the secret at once.

    With replicas failover is automatic and over two zones. `protect` keeps a final snapshot when the group goes.
    """

    region: str
    group_id: str
    label: str
    settings: CacheSettings
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    secret_recovery_days: int
    protect: bool = True


class Cache(pulumi.ComponentResource):
    """An encrypted Redis in private subnets. The secret's value is the bare token."""

    group_id: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    port: pulumi.Output[int]
    secret_arn: pulumi.Output[str]

    def __init__(self, name: str, args: CacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Cache", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        secret = aws.secretsmanager.Secret(
            f"{name}-token",
            region=args.region,
            name=f"{args.label}-cache",
            description=f"AUTH token of {args.group_id}",
            kms_key_id=args.key_arn,
            recovery_window_in_days=args.secret_recovery_days,
            opts=child,
        )
        proposed = aws.secretsmanager.get_random_password_output(
            password_length=_TOKEN_LENGTH,
            exclude_punctuation=True,
            region=args.region,
            opts=pulumi.InvokeOutputOptions(parent=self),
        )
        version = aws.secretsmanager.SecretVersion(
            f"{name}-token-value",
            region=args.region,
            secret_id=secret.id,
            secret_string=pulumi.Output.secret(proposed.random_password),
            # Every run is offered another token; the first one stays.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["secretString"]),
        )
        subnets = aws.elasticache.SubnetGroup(
            f"{name}-subnets",
            region=args.region,
            name=f"{args.label}-cache",
            description=f"Private subnets of {args.group_id}",
            subnet_ids=list(args.subnet_ids),
            opts=child,
        )
        replicated = args.settings.replicas > 0
        group = aws.elasticache.ReplicationGroup(
            f"{name}-group",
            region=args.region,
            replication_group_id=args.group_id,
            description=f"Redis of {args.label}",
            engine="redis",
            engine_version=args.settings.engine_version,
            node_type=args.settings.node_type,
            num_cache_clusters=args.settings.replicas + 1,
            automatic_failover_enabled=replicated,
            multi_az_enabled=replicated,
            port=firewall.REDIS,
            subnet_group_name=subnets.name,
            security_group_ids=[args.security_group_id],
            at_rest_encryption_enabled=True,
            kms_key_id=args.key_arn,
            transit_encryption_enabled=True,
            auth_token=version.secret_string,
            final_snapshot_identifier=f"{args.group_id}-final" if args.protect else None,
            opts=child,
        )
        self.group_id = group.replication_group_id
        self.endpoint = group.primary_endpoint_address
        self.port = group.port.apply(lambda port: firewall.REDIS if port is None else port)
        self.secret_arn = secret.arn
        self.register_outputs({"groupId": self.group_id, "endpoint": self.endpoint})
