"""What the dr program declares, as a whole stack on the recording engine."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest

from infra import keys, names, storage

DRILL = "20260109-020000-1a2b"
ALLOWED_INVOKES = {
    "aws:index/getCallerIdentity:getCallerIdentity",
    "aws:index/getAvailabilityZones:getAvailabilityZones",
    "aws:kms/getAlias:getAlias",
    "aws:secretsmanager/getRandomPassword:getRandomPassword",
}
CONTRACT_OUTPUTS = [
    "schemaVersion",
    "program",
    "account",
    "region",
    "drillId",
    "mode",
    "expiresAt",
    "owner",
    "vpcId",
    "subnetIds",
    "taskSecurityGroupId",
    "databaseIdentifier",
    "databaseEndpoint",
    "databasePort",
    "databaseName",
    "databaseUsername",
    "databaseSecretArn",
    "cacheGroupId",
    "cacheEndpoint",
    "cachePort",
    "cacheSecretArn",
    "clusterArn",
    "recoveryTaskDefinitionArn",
    "recoveryContainerName",
    "logGroupName",
    "backupsBucket",
    "evidenceBucket",
]


def test_the_dr_program_creates_nothing_in_iam_route53_or_s3(run: Callable[..., Any]) -> None:
    engine = run("dr")
    assert engine.resources
    assert not [
        resource
        for resource in engine.resources
        if resource.kind.partition("/")[0] in {"iam", "route53", "s3", "s3control", "cloudfront", "kms"}
    ]


def test_the_dr_program_reads_and_declares_nothing_in_the_primary_region(run: Callable[..., Any]) -> None:
    engine = run("dr")
    assert {resource.inputs.get("region") for resource in engine.resources} == {"us-west-2"}
    assert {invoke.token for invoke in engine.invokes} == ALLOWED_INVOKES
    regional = [invoke for invoke in engine.invokes if "getCallerIdentity" not in invoke.token]
    assert {invoke.args["region"] for invoke in regional} == {"us-west-2"}
    assert "us-east-1" not in json.dumps([resource.inputs for resource in engine.resources])


def test_the_dr_stack_has_no_route_out(run: Callable[..., Any]) -> None:
    engine = run("dr")
    assert not [
        resource
        for resource in engine.resources
        if resource.kind.partition("/")[2] in {"InternetGateway", "NatGateway", "Route", "Eip", "VpcPeeringConnection"}
    ]
    assert not engine.one("ec2/RouteTable").inputs.get("routes")
    assert all(subnet.inputs["mapPublicIpOnLaunch"] is False for subnet in engine.of("ec2/Subnet"))


def test_every_rule_of_the_firewall_is_between_groups_or_to_s3_and_never_an_address(run: Callable[..., Any]) -> None:
    engine = run("dr")
    rules = engine.of("vpc/SecurityGroupIngressRule") + engine.of("vpc/SecurityGroupEgressRule")
    assert rules
    for rule in rules:
        assert not {"cidrIpv4", "cidrIpv6"} & set(rule.inputs), rule
        assert bool(rule.inputs.get("referencedSecurityGroupId")) != bool(rule.inputs.get("prefixListId")), rule
        assert rule.inputs["ipProtocol"] == "tcp", rule
    for group in engine.of("ec2/SecurityGroup"):
        assert not {"ingress", "egress"} & set(group.inputs), group


def test_tasks_reach_database_cache_endpoints_and_s3_and_nothing_else_opens_connections(
    run: Callable[..., Any],
) -> None:
    engine = run("dr")
    task = "firewall-task-id"
    egress = {
        (
            rule.inputs["securityGroupId"],
            rule.inputs.get("referencedSecurityGroupId") or rule.inputs["prefixListId"],
            rule.inputs["fromPort"],
            rule.inputs["toPort"],
        )
        for rule in engine.of("vpc/SecurityGroupEgressRule")
    }
    assert egress == {
        (task, "firewall-database-id", 5432, 5432),
        (task, "firewall-cache-id", 6379, 6379),
        (task, "firewall-endpoints-id", 443, 443),
        (task, "pl-endpoints-s3", 443, 443),
    }
    ingress = {
        (rule.inputs["securityGroupId"], rule.inputs["referencedSecurityGroupId"], rule.inputs["fromPort"])
        for rule in engine.of("vpc/SecurityGroupIngressRule")
    }
    assert ingress == {
        ("firewall-database-id", task, 5432),
        ("firewall-cache-id", task, 6379),
        ("firewall-endpoints-id", task, 443),
    }


def test_every_service_a_task_calls_has_an_endpoint_in_both_zones_under_its_own_name(run: Callable[..., Any]) -> None:
    engine = run("dr")
    interface = [end for end in engine.of("ec2/VpcEndpoint") if end.inputs["vpcEndpointType"] == "Interface"]
    assert {end.inputs["serviceName"].removeprefix("com.amazonaws.us-west-2.") for end in interface} == {
        "ecr.api",
        "ecr.dkr",
        "kms",
        "logs",
        "secretsmanager",
        "sts",
    }
    for end in interface:
        assert end.inputs["privateDnsEnabled"] is True
        assert len(end.inputs["subnetIds"]) == 2
        assert end.inputs["securityGroupIds"] == ["firewall-endpoints-id"]
        (statement,) = json.loads(end.inputs["policy"])["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "123456789012"}}


def test_the_s3_gateway_lets_tasks_read_the_dr_bucket_and_image_layers_and_write_nowhere(
    run: Callable[..., Any],
) -> None:
    engine = run("dr")
    gateway = engine.one("ec2/VpcEndpoint", "endpoints-s3")
    assert gateway.inputs["routeTableIds"] == ["network-routes-id"]
    statements = json.loads(gateway.inputs["policy"])["Statement"]
    resources = {arn for statement in statements for arn in _texts(statement["Resource"])}
    assert resources == {
        "arn:aws:s3:::agentverse-backups-dr",
        "arn:aws:s3:::agentverse-backups-dr/*",
        "arn:aws:s3:::prod-us-west-2-starport-layer-bucket/*",
    }
    actions = {action for statement in statements for action in _texts(statement["Action"])}
    assert all(action.startswith(("s3:Get", "s3:List")) for action in actions)


def test_two_zones_are_used_and_their_subnets_do_not_overlap(run: Callable[..., Any]) -> None:
    subnets = run("dr").of("ec2/Subnet")
    assert {subnet.inputs["availabilityZone"] for subnet in subnets} == {"us-west-2a", "us-west-2b"}
    one, other = (ipaddress.IPv4Network(subnet.inputs["cidrBlock"]) for subnet in subnets)
    assert not one.overlaps(other)


@pytest.mark.parametrize("stack", ["primary", "dr"])
def test_zones_without_fargate_or_current_classes_are_passed_over_by_their_id(
    run: Callable[..., Any], stack: str
) -> None:
    asked = [invoke for invoke in run(stack).invokes if invoke.token.endswith(":getAvailabilityZones")]
    assert asked
    for invoke in asked:
        # The name of this zone differs from account to account, its id does not.
        assert "use1-az3" in invoke.args["excludeZoneIds"]


def test_everything_that_can_carry_tags_carries_those_of_the_drill(run: Callable[..., Any]) -> None:
    engine = run("dr", drillId=DRILL, owner="sre@agentverse.ai", expiresAt="2026-01-09T06:00:00Z")
    untagged = {resource.kind for resource in engine.resources if "tags" not in resource.inputs}
    assert untagged == {"ec2/RouteTableAssociation", "secretsmanager/SecretVersion"}
    for resource in engine.resources:
        if resource.kind in untagged:
            continue
        assert {key: value for key, value in resource.inputs["tags"].items() if key != "Name"} == {
            "agentverse:stack": "dr",
            "agentverse:environment": "prod",
            "agentverse:drill-id": DRILL,
            "agentverse:mode": "drill",
            "agentverse:expires-at": "2026-01-09T06:00:00Z",
            "agentverse:owner": "sre@agentverse.ai",
        }, resource


def test_every_physical_name_begins_with_the_name_of_the_environment(run: Callable[..., Any]) -> None:
    engine = run("dr", drillId=DRILL)
    base = f"agentverse-prod-dr-{DRILL}"
    for resource in engine.resources:
        family = {"family"} if resource.kind == "ecs/TaskDefinition" else set()
        for prop in {"name", "identifier", "replicationGroupId"} | family:
            if prop in resource.inputs:
                assert resource.inputs[prop].startswith(base), resource


def test_a_drill_can_be_destroyed_without_leaving_a_snapshot_a_secret_or_a_log_group(run: Callable[..., Any]) -> None:
    engine = run("dr")
    database = engine.one("rds/Instance").inputs
    assert database["deletionProtection"] is False
    assert database["skipFinalSnapshot"] is True
    assert database["backupRetentionPeriod"] == 0
    assert database["deleteAutomatedBackups"] is True
    assert not database.get("enabledCloudwatchLogsExports")
    assert "finalSnapshotIdentifier" not in database
    assert "finalSnapshotIdentifier" not in engine.one("elasticache/ReplicationGroup").inputs
    assert engine.one("secretsmanager/Secret").inputs["recoveryWindowInDays"] == 0
    assert engine.one("ecs/Cluster").inputs["settings"] == [{"name": "containerInsights", "value": "disabled"}]


def test_a_failover_is_protected_as_production_is(run: Callable[..., Any]) -> None:
    engine = run("dr", mode="failover")
    database = engine.one("rds/Instance").inputs
    assert database["deletionProtection"] is True
    assert database["skipFinalSnapshot"] is False
    assert database["finalSnapshotIdentifier"] == "agentverse-prod-dr-manual-db-final"
    assert database["backupRetentionPeriod"] == 7
    assert database["enabledCloudwatchLogsExports"] == ["postgresql"]
    assert engine.one("elasticache/ReplicationGroup").inputs["finalSnapshotIdentifier"]
    assert engine.one("secretsmanager/Secret").inputs["recoveryWindowInDays"] == 30
    assert {tags["agentverse:expires-at"] for tags in (vpc.inputs["tags"] for vpc in engine.of("ec2/Vpc"))} == {"never"}


@pytest.mark.parametrize("mode", ["drill", "failover"])
def test_data_is_encrypted_with_the_key_of_the_region_in_either_mode(run: Callable[..., Any], mode: str) -> None:
    engine = run("dr", mode=mode)
    key = "arn:aws:kms:us-west-2:123456789012:key/1"
    database = engine.one("rds/Instance").inputs
    assert (database["storageEncrypted"], database["kmsKeyId"]) == (True, key)
    assert (database["manageMasterUserPassword"], database["masterUserSecretKmsKeyId"]) == (True, key)
    assert database["publiclyAccessible"] is False
    assert not {"password", "passwordWo"} & set(database)
    cache = engine.one("elasticache/ReplicationGroup").inputs
    assert (cache["atRestEncryptionEnabled"], cache["transitEncryptionEnabled"], cache["kmsKeyId"]) == (True, True, key)
    assert {group.inputs["kmsKeyId"] for group in engine.of("cloudwatch/LogGroup")} == {key}
    assert engine.one("secretsmanager/Secret").inputs["kmsKeyId"] == key


def test_the_database_refuses_connections_without_tls(run: Callable[..., Any]) -> None:
    group = run("dr").one("rds/ParameterGroup").inputs
    values = {parameter["name"]: parameter["value"] for parameter in group["parameters"]}
    assert group["family"] == "postgres16"
    assert values["rds.force_ssl"] == "1"


def test_the_caches_token_is_what_its_secret_holds(run: Callable[..., Any]) -> None:
    engine = run("dr")
    token = engine.one("secretsmanager/SecretVersion").inputs["secretString"]
    assert engine.one("elasticache/ReplicationGroup").inputs["authToken"] == token
    assert 16 <= len(_value(token)) <= 128


@pytest.mark.parametrize("replicas", [0, 1, 3])
def test_the_cache_fails_over_by_itself_when_there_is_something_to_fail_over_to(
    run: Callable[..., Any], replicas: int
) -> None:
    cache = run("dr", cacheReplicas=replicas).one("elasticache/ReplicationGroup").inputs
    assert cache["numCacheClusters"] == replicas + 1
    assert (cache["automaticFailoverEnabled"], cache["multiAzEnabled"]) == (replicas > 0, replicas > 0)


def test_the_recovery_task_runs_on_fargate_as_the_roles_that_primary_made(run: Callable[..., Any]) -> None:
    engine = run("dr")
    task = engine.one("ecs/TaskDefinition").inputs
    assert (task["requiresCompatibilities"], task["networkMode"]) == (["FARGATE"], "awsvpc")
    assert task["taskRoleArn"] == "arn:aws:iam::123456789012:role/agentverse-prod-dr-task"
    assert task["executionRoleArn"] == "arn:aws:iam::123456789012:role/agentverse-prod-dr-execution"
    (container,) = json.loads(task["containerDefinitions"])
    assert container["name"] == names.RECOVERY_CONTAINER == engine.outputs["recoveryContainerName"]
    assert container["image"] == "123456789012.dkr.ecr.us-west-2.amazonaws.com/agentverse-recovery:latest"
    assert container["readonlyRootFilesystem"] is True
    assert container["mountPoints"] == [{"sourceVolume": "scratch", "containerPath": "/tmp", "readOnly": False}]  # noqa: S108  # the container's own
    assert task["volumes"] == [{"name": "scratch"}]
    options = container["logConfiguration"]["options"]
    assert options["awslogs-group"] == engine.outputs["logGroupName"]
    assert (options["awslogs-region"], options["awslogs-stream-prefix"]) == ("us-west-2", "recovery")
    # ECS would drop lines by default, and the result of a task is a line.
    assert options["mode"] == "blocking"
    assert "secret" not in task["containerDefinitions"].lower()


def test_another_image_can_be_given(run: Callable[..., Any]) -> None:
    task = run("dr", recoveryImage="registry.example/recovery:1").one("ecs/TaskDefinition").inputs
    assert json.loads(task["containerDefinitions"])[0]["image"] == "registry.example/recovery:1"


def test_the_outputs_are_those_recovery_reads(run: Callable[..., Any]) -> None:
    outputs = run("dr").outputs
    assert sorted(outputs) == sorted(CONTRACT_OUTPUTS)
    assert None not in outputs.values()
    assert (outputs["schemaVersion"], outputs["program"], outputs["region"]) == (1, "dr", "us-west-2")
    assert (outputs["databasePort"], outputs["cachePort"]) == (5432, 6379)
    assert len(outputs["subnetIds"]) == 2
    assert not [value for value in outputs.values() if isinstance(value, str) and "xxxx" in value]


def test_a_missing_key_says_that_primary_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        message = "alias not found"
        raise RuntimeError(message)

    monkeypatch.setattr(keys.aws.kms, "get_alias", refuse)
    with pytest.raises(keys.KeyNotFoundError, match=r"us-west-2 has no usable key .* pulumi up -s primary"):
        keys.find("alias/agentverse-prod", "us-west-2")


def test_dumps_are_where_the_lifecycle_thinks_they_are() -> None:
    assert storage.DUMPS_PREFIX == "db/"


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _value(token: Any) -> str:
    # The mock engine hands secrets over in their envelope.
    return token["value"] if isinstance(token, dict) else token
