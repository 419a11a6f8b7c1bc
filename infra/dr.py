"""The `dr` program: an isolated copy of the platform in the second region, from nothing to destroyed again.

It works while the primary region is gone. So it makes nothing in IAM, Route 53 or S3, whose control planes are in
us-east-1 (roles and buckets are there, made by `primary`), and asks the primary region nothing.
"""

from __future__ import annotations

from typing import Any

import pulumi_aws as aws

from infra import keys, names, network, tags
from infra.cache import Cache, CacheArgs
from infra.database import Database, DatabaseArgs
from infra.endpoints import Endpoints, EndpointsArgs
from infra.firewall import Firewall, FirewallArgs
from infra.network import Network, NetworkArgs
from infra.service import RecoveryService, RecoveryServiceArgs
from infra.settings import Settings

# Secrets Manager's own default and longest wait before a deleted secret is gone.
_SECRET_RECOVERY_DAYS = 30


def declare(settings: Settings) -> dict[str, Any]:
    """Declare one DR environment and return the stack's outputs; raises KeyNotFoundError before `primary` was run."""
    recovery = settings.recovery
    if recovery is None:
        raise ValueError(f"the dr program was given the settings of {settings.program}")
    tags.tag_everything(tags.of(settings))
    region = settings.dr_region
    label = names.recovery(settings.environment, recovery.drill_id)
    failover = recovery.mode == "failover"
    account = aws.get_caller_identity().account_id
    key_arn = keys.find(names.key_alias(settings.environment), region)

    net = Network(
        "network",
        NetworkArgs(region=region, label=label, cidr=settings.network_cidr, zones=network.two_zones(region)),
    )
    wall = Firewall("firewall", FirewallArgs(region=region, label=label, vpc_id=net.vpc_id, endpoints=True))
    if wall.endpoint_group_id is None:
        raise AssertionError("a firewall with endpoints has a group for them")
    database = Database(
        "database",
        DatabaseArgs(
            region=region,
            identifier=names.database(label),
            settings=settings.database,
            subnet_ids=net.subnet_ids,
            security_group_id=wall.database_group_id,
            key_arn=key_arn,
            # A drill's database is gone in hours: backups would slow its restore, exported logs would outlive it.
            backup_retention_days=settings.database.backup_retention_days if failover else 0,
            log_retention_days=settings.log_retention_days if failover else None,
            protect=failover,
        ),
    )
    cache = Cache(
        "cache",
        CacheArgs(
            region=region,
            group_id=names.cache_group(label),
            label=label,
            settings=settings.cache,
            subnet_ids=net.subnet_ids,
            security_group_id=wall.cache_group_id,
            key_arn=key_arn,
            # A deleted secret keeps its name for that long, and a drill leaves nothing behind.
            secret_recovery_days=_SECRET_RECOVERY_DAYS if failover else 0,
            protect=failover,
        ),
    )
    Endpoints(
        "endpoints",
        EndpointsArgs(
            region=region,
            label=label,
            account=account,
            vpc_id=net.vpc_id,
            subnet_ids=net.subnet_ids,
            route_table_id=net.route_table_id,
            endpoint_group_id=wall.endpoint_group_id,
            task_group_id=wall.task_group_id,
            readable_buckets=[settings.dr_backups_bucket],
        ),
    )
    service = RecoveryService(
        "recovery",
        RecoveryServiceArgs(
            region=region,
            label=label,
            image=recovery.image or names.recovery_image(account, region),
            cpu=recovery.cpu,
            memory_mb=recovery.memory_mb,
            ephemeral_storage_gb=recovery.ephemeral_storage_gb,
            task_role_arn=names.role_arn(account, settings.environment, "dr-task"),
            execution_role_arn=names.role_arn(account, settings.environment, "dr-execution"),
            key_arn=key_arn,
            log_retention_days=settings.log_retention_days,
            insights=failover,
        ),
    )
    return {
        "schemaVersion": 1,
        "program": settings.program,
        "account": account,
        "region": region,
        "drillId": recovery.drill_id,
        "mode": recovery.mode,
        "expiresAt": recovery.expires_at,
        "owner": recovery.owner,
        "vpcId": net.vpc_id,
        "subnetIds": net.subnet_ids,
        "taskSecurityGroupId": wall.task_group_id,
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
        "clusterArn": service.cluster_arn,
        "recoveryTaskDefinitionArn": service.task_definition_arn,
        "recoveryContainerName": names.RECOVERY_CONTAINER,
        "logGroupName": service.log_group_name,
        "backupsBucket": settings.dr_backups_bucket,
        "evidenceBucket": settings.evidence_bucket,
    }
