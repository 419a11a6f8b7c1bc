"""The `primary` program: production's data stores, and everything a recovery in the second region stands on."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_aws as aws

from infra import names, network, protection, roles, tags
from infra.cache import Cache, CacheArgs
from infra.database import Database, DatabaseArgs
from infra.firewall import Firewall, FirewallArgs
from infra.keys import Key, KeyArgs
from infra.network import Network, NetworkArgs
from infra.registry import Registry, RegistryArgs
from infra.replication import Replication, ReplicationArgs, ReplicationRule
from infra.roles import Role, RoleArgs, ServiceLinkedRoles
from infra.settings import Settings
from infra.storage import DataBucket, DataBucketArgs, Retention

# Production's cache token can be had back for as long as Secrets Manager allows.
_SECRET_RECOVERY_DAYS = 30


def declare(settings: Settings) -> dict[str, Any]:
    """Declare what must exist before a disaster and return the stack's outputs."""
    tags.tag_everything(tags.of(settings))
    here, there = settings.primary_region, settings.dr_region
    environment = settings.environment
    label = names.production(environment)
    account = aws.get_caller_identity().account_id
    protect = settings.protect
    if protect:
        protection.protect_everything()

    # Keys
    key = Key(
        "key",
        KeyArgs(
            region=here,
            account=account,
            alias=names.key_alias(environment),
            description=f"Data of {label} in {here}",
        ),
    )
    dr_key = Key(
        "dr-key",
        KeyArgs(
            region=there,
            account=account,
            alias=names.key_alias(environment),
            description=f"Data of {label} in {there}",
        ),
    )

    # Buckets
    noncurrent = settings.noncurrent_retention_days
    objects = DataBucket(
        "objects",
        DataBucketArgs(
            region=here,
            bucket=settings.primary_bucket,
            key_arn=key.arn,
            retention=Retention(noncurrent_days=noncurrent),
        ),
    )
    backups = DataBucket(
        "backups",
        DataBucketArgs(
            region=here,
            bucket=settings.backups_bucket,
            key_arn=key.arn,
            retention=Retention(noncurrent_days=noncurrent, superseded_days=settings.superseded_retention_days),
        ),
    )
    dr_backups = DataBucket(
        "dr-backups",
        DataBucketArgs(
            region=there,
            bucket=settings.dr_backups_bucket,
            key_arn=dr_key.arn,
            retention=Retention(
                noncurrent_days=noncurrent,
                superseded_days=settings.superseded_retention_days,
                drill_objects_days=settings.drill_objects_retention_days,
            ),
        ),
    )
    evidence = DataBucket(
        "evidence",
        DataBucketArgs(
            region=there,
            bucket=settings.evidence_bucket,
            key_arn=dr_key.arn,
            retention=Retention(),
            object_lock=True,
        ),
    )

    # Roles
    ServiceLinkedRoles("service-linked-roles", settings.service_linked_roles)
    keys = pulumi.Output.all(key.arn, dr_key.arn)
    replication = Role(
        "replication",
        RoleArgs(
            role_name=names.role(environment, "replication"),
            description=f"S3 replication of {label}",
            trust=roles.trust_s3(),
            policy=keys.apply(
                lambda arns: json.dumps(
                    roles.replication_policy(
                        source_region=here,
                        sources=[settings.primary_bucket, settings.backups_bucket],
                        source_key=arns[0],
                        destinations={
                            settings.dr_backups_bucket: (there, arns[1]),
                            settings.backups_bucket: (here, arns[0]),
                        },
                    )
                )
            ),
        ),
    )
    backup = Role(
        "backup",
        RoleArgs(
            role_name=names.role(environment, "backup"),
            description=f"Nightly backup of {label}",
            trust=roles.trust_tasks(account, here),
            policy=key.arn.apply(
                lambda arn: json.dumps(
                    roles.backup_policy(
                        account=account,
                        region=here,
                        bucket=settings.backups_bucket,
                        key=arn,
                        database=names.database(label),
                    )
                )
            ),
        ),
    )
    dr_task = Role(
        "dr-task",
        RoleArgs(
            role_name=names.role(environment, "dr-task"),
            description=f"Restore and verification of {label} in {there}",
            trust=roles.trust_tasks(account, there),
            policy=dr_key.arn.apply(
                lambda arn: json.dumps(
                    roles.recovery_task_policy(
                        account=account,
                        region=there,
                        environment=environment,
                        bucket=settings.dr_backups_bucket,
                        key=arn,
                    )
                )
            ),
        ),
    )
    dr_execution = Role(
        "dr-execution",
        RoleArgs(
            role_name=names.role(environment, "dr-execution"),
            description=f"Start of recovery tasks of {label} in {there}",
            trust=roles.trust_tasks(account, there),
            policy=json.dumps(roles.execution_policy(account=account, region=there, environment=environment)),
        ),
    )

    # Replication
    def across(prefix: str) -> ReplicationRule:
        return ReplicationRule(prefix=prefix, to="dr", bucket=dr_backups, key_arn=dr_key.arn, time_control=True)

    def within(prefix: str) -> ReplicationRule:
        return ReplicationRule(prefix=prefix, to="backups", bucket=backups, key_arn=key.arn, time_control=False)

    Replication(
        "backups-replication",
        ReplicationArgs(region=here, source=backups, role=replication, rules=[across("db/")]),
    )
    Replication(
        "objects-replication",
        ReplicationArgs(
            region=here,
            source=objects,
            role=replication,
            # Exports stay in the region by the runbook: they can be made again, and the DR region does not have them.
            rules=[across("telemetry/"), across("snapshots/"), within("exports/")],
        ),
    )

    # The recovery image
    registry = Registry(
        "registry",
        RegistryArgs(region=there, repository=names.RECOVERY_REPOSITORY, key_arn=dr_key.arn),
    )

    # Production
    net = Network(
        "network", NetworkArgs(region=here, label=label, cidr=settings.network_cidr, zones=network.two_zones(here))
    )
    wall = Firewall("firewall", FirewallArgs(region=here, label=label, vpc_id=net.vpc_id, endpoints=False))
    database = Database(
        "database",
        DatabaseArgs(
            region=here,
            identifier=names.database(label),
            settings=settings.database,
            subnet_ids=net.subnet_ids,
            security_group_id=wall.database_group_id,
            key_arn=key.arn,
            backup_retention_days=settings.database.backup_retention_days,
            log_retention_days=settings.log_retention_days,
            protect=protect,
        ),
    )
    cache = Cache(
        "cache",
        CacheArgs(
            region=here,
            group_id=names.cache_group(label),
            label=label,
            settings=settings.cache,
            subnet_ids=net.subnet_ids,
            security_group_id=wall.cache_group_id,
            key_arn=key.arn,
            secret_recovery_days=_SECRET_RECOVERY_DAYS if protect else 0,
            protect=protect,
        ),
    )
    return {
        "schemaVersion": 1,
        "program": settings.program,
        "account": account,
        "region": here,
        "drRegion": there,
        "primaryBucket": objects.bucket,
        "backupsBucket": backups.bucket,
        "drBackupsBucket": dr_backups.bucket,
        "evidenceBucket": evidence.bucket,
        "kmsKeyArn": key.arn,
        "drKmsKeyArn": dr_key.arn,
        "replicationRoleArn": replication.arn,
        "backupRoleArn": backup.arn,
        "drTaskRoleArn": dr_task.arn,
        "drExecutionRoleArn": dr_execution.arn,
        "vpcId": net.vpc_id,
        "subnetIds": net.subnet_ids,
        "databaseIdentifier": database.identifier,
        "databaseEndpoint": database.endpoint,
        "databasePort": database.port,
        "databaseName": settings.database.name,
        "databaseUsername": settings.database.username,
        "databaseSecretArn": database.secret_arn,
        "cacheGroupId": cache.group_id,
        "cacheEndpoint": cache.endpoint,
        "cachePort": cache.port,
        "cacheSecretArn": cache.secret_arn,
        "recoveryRepositoryUrl": registry.url,
    }
