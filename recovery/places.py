"""Where in a drill's environment things are, asked of the services themselves.

The restore begins before the stack is complete, so nothing here comes from stack outputs: names and tags say where to
look, a describe call says what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recovery.clients import AwsError, aws_problem
from recovery.errors import CheckFailedError
from recovery.tags import TAG_DRILL

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

    from recovery.clients import Clients

# What a task needs to start, log, read its dump and fetch its secrets in a network without a way out.
TASK_ENDPOINTS = ("ecr.api", "ecr.dkr", "s3", "logs", "secretsmanager", "sts", "kms")
HTTPS = 443
CONTAINER = "recovery"


# States that a database being made does not leave by waiting.
_FAILED = frozenset(
    {
        "failed",
        "inaccessible-encryption-credentials",
        "inaccessible-encryption-credentials-recoverable",
        "incompatible-create",
        "incompatible-network",
        "incompatible-parameters",
        "insufficient-capacity",
        "storage-full",
    }
)


@dataclass(frozen=True, kw_only=True)
class DatabasePlace:
    """A database that answers: its address, initial database, master user and the ARN of the secret with both."""

    identifier: str
    host: str
    port: int
    name: str
    user: str
    secret_arn: str
    version: str


@dataclass(frozen=True, kw_only=True)
class TaskPlace:
    """Everything RunTask needs, and where the task's log will be."""

    cluster_arn: str
    task_definition_arn: str
    container: str
    subnet_ids: tuple[str, ...]
    security_group_id: str
    log_group: str
    stream_prefix: str


def find_database(clients: Clients, identifier: str) -> DatabasePlace | None:
    """Return the database once it is available, None while it is being made.

    Raises CheckFailedError when it has failed for good, or has no secret.
    """
    try:
        found = clients("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    except clients("rds").exceptions.DBInstanceNotFoundFault:
        return None
    except AwsError as exc:
        raise aws_problem(f"Database {identifier} cannot be described.", exc) from exc
    instance = found[0]
    status = instance.get("DBInstanceStatus", "")
    if status in _FAILED:
        raise CheckFailedError(
            f"Database {identifier} is {status}.", hint="Its events in RDS say why: aws rds describe-events."
        )
    if status != "available":
        return None
    secret = instance.get("MasterUserSecret", {}).get("SecretArn")
    if not secret:
        raise CheckFailedError(f"Database {identifier} has no managed master password.")
    return DatabasePlace(
        identifier=identifier,
        host=instance["Endpoint"]["Address"],
        port=instance["Endpoint"]["Port"],
        name=instance.get("DBName", "postgres"),
        user=instance["MasterUsername"],
        secret_arn=secret,
        version=instance.get("EngineVersion", ""),
    )


def find_task_place(clients: Clients, drill_id: str, environment: str) -> tuple[TaskPlace | None, str]:
    """Return where tasks of this drill run, or None and what is still missing."""
    try:
        return _find_task_place(clients, drill_id, f"agentverse-{environment}-dr-{drill_id}")
    except AwsError as exc:
        raise aws_problem(f"The environment of drill {drill_id} cannot be described.", exc) from exc


def _find_task_place(clients: Clients, drill_id: str, base: str) -> tuple[TaskPlace | None, str]:
    ecs, ec2 = clients("ecs"), clients("ec2")
    clusters = ecs.describe_clusters(clusters=[base])["clusters"]
    cluster = next((item for item in clusters if item["status"] == "ACTIVE"), None)
    if cluster is None:
        return None, "the cluster"
    vpcs = ec2.describe_vpcs(Filters=[{"Name": f"tag:{TAG_DRILL}", "Values": [drill_id]}])["Vpcs"]
    if len(vpcs) != 1:
        return None, "the network"
    inside: FilterTypeDef = {"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}
    endpoints = {
        endpoint["ServiceName"].split(".", 3)[-1]
        for endpoint in ec2.describe_vpc_endpoints(Filters=[inside])["VpcEndpoints"]
        if endpoint["State"].lower() == "available"
    }
    missing = [name for name in TASK_ENDPOINTS if name not in endpoints]
    if missing:
        return None, f"endpoints {', '.join(missing)}"
    subnets = [item["SubnetId"] for item in ec2.describe_subnets(Filters=[inside])["Subnets"]]
    groups = {
        item["GroupName"]: item["GroupId"] for item in ec2.describe_security_groups(Filters=[inside])["SecurityGroups"]
    }
    group = groups.get(f"{base}-task")
    if group is None or not subnets:
        return None, "subnets and the tasks' security group"
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": list(groups.values())}])
    ways_out = {
        rule.get("FromPort")
        for rule in rules["SecurityGroupRules"]
        if rule.get("IsEgress") and rule["GroupId"] == group
    }
    ways_in = {rule.get("FromPort") for rule in rules["SecurityGroupRules"] if not rule.get("IsEgress")}
    # Both halves of each pair: tasks may call the endpoints, and something besides (the database) is let in too.
    if HTTPS not in ways_out & ways_in or len(ways_out & ways_in) < 2:
        return None, "the tasks' security group rules"
    return _with_definition(clients, cluster["clusterArn"], base, tuple(sorted(subnets)), group)


def _with_definition(
    clients: Clients, cluster: str, base: str, subnets: tuple[str, ...], group: str
) -> tuple[TaskPlace | None, str]:
    ecs = clients("ecs")
    arns = ecs.list_task_definitions(familyPrefix=f"{base}-recovery", sort="DESC", maxResults=1)["taskDefinitionArns"]
    if not arns:
        return None, "the task definition"
    definition = ecs.describe_task_definition(taskDefinition=arns[0])["taskDefinition"]
    container = next(item for item in definition["containerDefinitions"] if item["name"] == CONTAINER)
    options = container.get("logConfiguration", {}).get("options", {})
    return (
        TaskPlace(
            cluster_arn=cluster,
            task_definition_arn=arns[0],
            container=CONTAINER,
            subnet_ids=subnets,
            security_group_id=group,
            log_group=options.get("awslogs-group", ""),
            stream_prefix=options.get("awslogs-stream-prefix", ""),
        ),
        "",
    )
