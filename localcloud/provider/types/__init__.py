"""The table of types: what this provider serves, one module per service."""

from __future__ import annotations

from localcloud.provider.kind import Kind
from localcloud.provider.types import (
    cloudwatch,
    ec2,
    ec2_endpoints,
    ec2_groups,
    ecr,
    ecs,
    elasticache,
    iam,
    kms,
    rds,
    s3,
    secretsmanager,
)

_MODULES = (s3, kms, iam, secretsmanager, cloudwatch, ecr, ec2, ec2_groups, ec2_endpoints, rds, elasticache, ecs)

KINDS: dict[str, Kind] = {kind.pulumi_type: kind for module in _MODULES for kind in module.KINDS}
