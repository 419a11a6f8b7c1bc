"""Network, database, cache and tasks through the real engine: what the dr stack is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pulumi
import pulumi_aws as aws
import pytest

# The automation server of a program that ends leaves its event loop to the collector, which says so.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

_REGION = "us-west-2"
_ROLE = "arn:aws:iam::123456789012:role/provider-tests"


def _network(text: str) -> tuple[list[aws.ec2.Subnet], aws.ec2.SecurityGroup]:
    zones = aws.get_availability_zones(state="available", region=_REGION)
    vpc = aws.ec2.Vpc(
        "vpc",
        cidr_block="10.8.0.0/16",
        enable_dns_hostnames=True,
        enable_dns_support=True,
        region=_REGION,
        tags={"t": text},
    )
    subnets = [
        aws.ec2.Subnet(
            f"subnet-{i}", vpc_id=vpc.id, cidr_block=f"10.8.{i}.0/24", availability_zone=zones.names[i], region=_REGION
        )
        for i in range(2)
    ]
    table = aws.ec2.RouteTable("table", vpc_id=vpc.id, region=_REGION)
    for i, subnet in enumerate(subnets):
        aws.ec2.RouteTableAssociation(f"way-{i}", subnet_id=subnet.id, route_table_id=table.id, region=_REGION)
    group = aws.ec2.SecurityGroup("group", vpc_id=vpc.id, region=_REGION)
    door = aws.ec2.VpcEndpoint(
        "s3",
        vpc_id=vpc.id,
        service_name=f"com.amazonaws.{_REGION}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[table.id],
        region=_REGION,
    )
    aws.ec2.VpcEndpoint(
        "logs",
        vpc_id=vpc.id,
        service_name=f"com.amazonaws.{_REGION}.logs",
        vpc_endpoint_type="Interface",
        private_dns_enabled=True,
        subnet_ids=[subnet.id for subnet in subnets],
        security_group_ids=[group.id],
        region=_REGION,
    )
    common: dict[str, Any] = {"security_group_id": group.id, "region": _REGION}
    aws.vpc.SecurityGroupIngressRule(
        "in",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        referenced_security_group_id=group.id,
        description=text,
        **common,
    )
    aws.vpc.SecurityGroupEgressRule(
        "out", ip_protocol="tcp", from_port=443, to_port=443, prefix_list_id=door.prefix_list_id, **common
    )
    aws.vpc.SecurityGroupEgressRule("inside", ip_protocol="-1", cidr_ipv4="10.8.0.0/16", **common)
    pulumi.export("vpc", vpc.id)
    pulumi.export("main", vpc.main_route_table_id)
    pulumi.export("group", group.id)
    return subnets, group


def _data(text: str, subnets: list[aws.ec2.Subnet], group: aws.ec2.SecurityGroup) -> aws.rds.Instance:
    ids = [subnet.id for subnet in subnets]
    where = aws.rds.SubnetGroup("db-subnets", subnet_ids=ids, region=_REGION)
    parameters = [
        {"name": "rds.force_ssl", "value": "0"},
        {"name": "log_min_duration_statement", "value": "500" if text == "a" else "600"},
    ]
    settings = aws.rds.ParameterGroup("db-settings", family="postgres16", parameters=parameters, region=_REGION)
    database = aws.rds.Instance(
        "db",
        identifier="provider-tests",
        engine="postgres",
        engine_version="16",
        instance_class="db.t4g.medium",
        allocated_storage=20,
        max_allocated_storage=100,
        storage_type="gp3",
        storage_encrypted=True,
        db_name="app",
        username="app",
        password="pass-for-tests",
        db_subnet_group_name=where.name,
        parameter_group_name=settings.name,
        vpc_security_group_ids=[group.id],
        backup_retention_period=1 if text == "a" else 2,
        backup_window="03:00-04:00",
        maintenance_window="sun:05:00-sun:06:00",
        copy_tags_to_snapshot=True,
        iam_database_authentication_enabled=True,
        enabled_cloudwatch_logs_exports=["postgresql"],
        skip_final_snapshot=True,
        region=_REGION,
        tags={"t": text},
    )
    pulumi.export("address", database.address)
    pulumi.export("endpoint", database.endpoint)
    pulumi.export("port", database.port)
    return database


def _tasks(text: str, database: aws.rds.Instance) -> None:
    cluster = aws.ecs.Cluster(
        "cluster", name="provider-tests", settings=[{"name": "containerInsights", "value": "enabled"}], region=_REGION
    )
    log = {"logDriver": "awslogs", "options": {"awslogs-group": text}}
    container = {
        "name": "recovery",
        "image": "agentverse-recovery:latest",
        "command": ["b", "a"],
        "environment": [{"name": "HOST", "value": database.address}],
        "logConfiguration": log,
    }
    task = aws.ecs.TaskDefinition(
        "task",
        family="provider-tests",
        cpu="256",
        memory="512",
        network_mode="awsvpc",
        requires_compatibilities=["FARGATE"],
        execution_role_arn=_ROLE,
        task_role_arn=_ROLE,
        runtime_platform={"cpu_architecture": "ARM64", "operating_system_family": "LINUX"},
        container_definitions=pulumi.Output.json_dumps([container]),
        region=_REGION,
    )
    pulumi.export("cluster", cluster.id)
    pulumi.export("task", task.arn)
    pulumi.export("family", task.id)


def _platform(text: str) -> Callable[[], None]:
    def run() -> None:
        subnets, group = _network(text)
        _tasks(text, _data(text, subnets, group))

    return run


def test_a_platform_settles_changes_is_replaced_where_it_must_shows_drift_and_goes(
    deployment: Any, client: Callable[..., Any]
) -> None:
    stack = deployment()
    assert stack.preview(_platform("a"))["create"] == 18
    stack.up(_platform("a"))
    stack.settle()
    ec2, rds, ecs = client("ec2", _REGION), client("rds", _REGION), client("ecs", _REGION)
    assert stack.output("endpoint") == f"{stack.output('address')}:{stack.output('port')}"
    assert stack.output("family") == "provider-tests"
    assert stack.output("cluster").endswith(":cluster/provider-tests")
    assert stack.output("main").startswith("rtb-")
    (group,) = ec2.describe_security_groups(GroupIds=[stack.output("group")])["SecurityGroups"]
    assert not any(peer["CidrIp"] == "0.0.0.0/0" for rule in group["IpPermissionsEgress"] for peer in rule["IpRanges"])
    address, port = stack.output("address"), stack.output("port")
    with psycopg.connect(host=address, port=port, dbname="app", user="app", password="pass-for-tests") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    first = stack.output("task")
    assert stack.up(_platform("b")) == {"same": 13, "update": 4, "replace": 1}
    stack.settle()
    assert stack.output("task") != first
    (instance,) = rds.describe_db_instances(DBInstanceIdentifier="provider-tests")["DBInstances"]
    assert instance["BackupRetentionPeriod"] == 2

    rds.modify_db_instance(DBInstanceIdentifier="provider-tests", BackupRetentionPeriod=5, ApplyImmediately=True)
    ec2.modify_vpc_attribute(VpcId=stack.output("vpc"), EnableDnsHostnames={"Value": False})
    ecs.deregister_task_definition(taskDefinition=stack.output("task"))
    summary = stack.refresh()
    assert (summary["update"], summary["delete"]) == (2, 1)
    assert stack.up() == {"same": 15, "update": 2, "create": 1}
    stack.settle()

    stack.destroy()
    assert rds.describe_db_instances()["DBInstances"] == []
    assert ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.8.0.0/16"]}])["Vpcs"] == []
    assert ecs.describe_clusters(clusters=["provider-tests"])["clusters"][0]["status"] == "INACTIVE"


def test_a_cache_settles_changes_in_place_keeps_its_token_secret_and_goes(
    deployment: Any, client: Callable[..., Any]
) -> None:
    stack = deployment()

    def program(text: str) -> Callable[[], None]:
        def run() -> None:
            vpc = aws.ec2.Vpc("vpc", cidr_block="10.9.0.0/16", region=_REGION)
            subnet = aws.ec2.Subnet("subnet", vpc_id=vpc.id, cidr_block="10.9.0.0/24", region=_REGION)
            where = aws.elasticache.SubnetGroup("where", subnet_ids=[subnet.id], region=_REGION)
            cache = aws.elasticache.ReplicationGroup(
                "cache",
                replication_group_id="provider-tests",
                description=text,
                engine="redis",
                engine_version="7.1",
                node_type="cache.t4g.micro",
                num_cache_clusters=2,
                automatic_failover_enabled=True,
                multi_az_enabled=True,
                subnet_group_name=where.name,
                at_rest_encryption_enabled=True,
                transit_encryption_enabled=True,
                auth_token="never-in-the-clear-0123456789",
                region=_REGION,
            )
            pulumi.export("address", cache.primary_endpoint_address)
            pulumi.export("members", cache.member_clusters)

        return run

    stack.up(program("a"))
    stack.settle()
    assert len(stack.output("members")) == 2
    assert "never-in-the-clear" not in stack.stored()
    assert stack.up(program("b")) == {"same": 4, "update": 1}
    stack.settle()
    elasticache = client("elasticache", _REGION)
    elasticache.modify_replication_group(
        ReplicationGroupId="provider-tests", ReplicationGroupDescription="drifted", ApplyImmediately=True
    )
    assert stack.refresh()["update"] == 1
    assert stack.up() == {"same": 4, "update": 1}
    stack.destroy()
    assert elasticache.describe_replication_groups()["ReplicationGroups"] == []
    assert elasticache.describe_cache_subnet_groups()["CacheSubnetGroups"] == []
