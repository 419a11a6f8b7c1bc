"""RDS PostgreSQL: the instance, its subnet group, its parameter group and, where logs are exported, their group.

The master password is made, kept and rotated by RDS in Secrets Manager; it is never in code, state or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra import firewall, names
from infra.settings import DatabaseSettings

# (name, value, when it takes effect): `pending-reboot` is for what PostgreSQL reads at its start only.
PARAMETERS: Final = (
    ("log_lock_waits", "1", "immediate"),
    ("log_temp_files", "0", "immediate"),
    # Nobody reaches the database without TLS, whatever their sslmode.
    ("rds.force_ssl", "1", "immediate"),
    # The newest commit time is what a recovery point is compared with.
    ("track_commit_timestamp", "1", "pending-reboot"),
)


@dataclass(frozen=True, kw_only=True)
class DatabaseArgs:
    """One instance. `protect` couples deletion protection, final snapshot and kept backups: all or none of them.

    `backup_retention_days` of 0 makes no automated backups. `log_retention_days` of None exports no logs.
    """

    region: str
    identifier: str
    settings: DatabaseSettings
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    backup_retention_days: int
    log_retention_days: int | None
    protect: bool = True


class Database(pulumi.ComponentResource):
    """An encrypted PostgreSQL in private subnets, reached over TLS only."""

    identifier: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    port: pulumi.Output[int]
    secret_arn: pulumi.Output[str]

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Database", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        subnets = aws.rds.SubnetGroup(
            f"{name}-subnets",
            region=args.region,
            name=args.identifier,
            description=f"Private subnets of {args.identifier}",
            subnet_ids=list(args.subnet_ids),
            opts=child,
        )
        parameters = aws.rds.ParameterGroup(
            f"{name}-parameters",
            region=args.region,
            name=args.identifier,
            description=f"Parameters of {args.identifier}",
            family=f"postgres{args.settings.major_version}",
            parameters=[
                aws.rds.ParameterGroupParameterArgs(name=parameter, value=value, apply_method=method)
                for parameter, value, method in PARAMETERS
            ],
            opts=child,
        )
        logs: list[pulumi.Resource] = []
        if args.log_retention_days is not None:
            # Made before the instance: RDS would make it itself, without retention, and leave it behind.
            logs.append(
                aws.cloudwatch.LogGroup(
                    f"{name}-logs",
                    region=args.region,
                    name=names.database_log_group(args.identifier),
                    retention_in_days=args.log_retention_days,
                    kms_key_id=args.key_arn,
                    opts=child,
                )
            )
        instance = aws.rds.Instance(
            f"{name}-instance",
            region=args.region,
            identifier=args.identifier,
            engine="postgres",
            engine_version=args.settings.major_version,
            instance_class=args.settings.instance_class,
            allocated_storage=args.settings.storage_gb,
            max_allocated_storage=args.settings.max_storage_gb,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=args.key_arn,
            db_name=args.settings.name,
            port=firewall.POSTGRESQL,
            username=args.settings.username,
            manage_master_user_password=True,
            master_user_secret_kms_key_id=args.key_arn,
            multi_az=args.settings.multi_az,
            publicly_accessible=False,
            db_subnet_group_name=subnets.name,
            vpc_security_group_ids=[args.security_group_id],
            parameter_group_name=parameters.name,
            enabled_cloudwatch_logs_exports=["postgresql"] if logs else None,
            backup_retention_period=args.backup_retention_days,
            copy_tags_to_snapshot=True,
            delete_automated_backups=not args.protect,
            deletion_protection=args.protect,
            skip_final_snapshot=not args.protect,
            final_snapshot_identifier=f"{args.identifier}-final" if args.protect else None,
            auto_minor_version_upgrade=args.protect,
            opts=pulumi.ResourceOptions(parent=self, depends_on=logs),
        )
        self.identifier = instance.identifier
        self.endpoint = instance.address
        self.port = instance.port
        self.secret_arn = instance.master_user_secrets.apply(_secret_arn)
        self.register_outputs({"identifier": self.identifier, "endpoint": self.endpoint})


def _secret_arn(secrets: Sequence[aws.rds.outputs.InstanceMasterUserSecret]) -> str:
    if not secrets or secrets[0].secret_arn is None:
        raise RuntimeError("RDS names no secret for the master user, though manage_master_user_password was asked for")
    return secrets[0].secret_arn
