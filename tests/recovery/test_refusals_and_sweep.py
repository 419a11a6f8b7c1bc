"""What is not a drill's own is refused; what is, is found by tag, by VPC and by name, and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recovery.clients import Clients, refuse_foreign_account
from recovery.environment import refuse_foreign_resources
from recovery.errors import CheckFailedError, RefusedError
from recovery.objects import prove_prefix
from recovery.outputs import read_outputs
from recovery.sweep import Sweeper

DRILL = "20260109-020000-1a2b"
OTHER = "20260109-020000-ffff"
BASE = f"agentverse-prod-dr-{DRILL}"
ACCOUNT = "123456789012"


def tags(drill: str = DRILL, mode: str = "drill") -> list[dict[str, str]]:
    return [{"Key": "agentverse:drill-id", "Value": drill}, {"Key": "agentverse:mode", "Value": mode}]


def _resource(drill: str, mode: str = "drill") -> dict[str, Any]:
    flat = {"agentverse:drill-id": drill, "agentverse:mode": mode}
    return {"urn": "urn:pulumi:s::p::aws:ec2/vpc:Vpc::net", "type": "aws:ec2/vpc:Vpc", "custom": True,
            "inputs": {"tags": flat}, "outputs": {"tags": flat}}  # fmt: skip


def _stack(**outputs: str) -> dict[str, Any]:
    return {"urn": "urn:pulumi:s::p::pulumi:pulumi:Stack::s", "type": "pulumi:pulumi:Stack", "outputs": outputs}


def test_a_foreign_account_is_refused_with_both_accounts_named(aws: Clients) -> None:
    with pytest.raises(RefusedError, match=rf"{ACCOUNT}.*210987654321"):
        refuse_foreign_account(aws, "210987654321", settings_file="recovery.toml")


def test_without_an_expected_account_nothing_may_be_changed(aws: Clients) -> None:
    with pytest.raises(RefusedError, match="No account is set"):
        refuse_foreign_account(aws, "", settings_file="recovery.toml")


def test_the_expected_account_is_let_through(aws: Clients) -> None:
    assert refuse_foreign_account(aws, ACCOUNT, settings_file="recovery.toml") == ACCOUNT


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ([_resource(OTHER)], "does not carry the tags"),
        ([_resource(DRILL, mode="failover")], "never a failover"),
        ([_stack(account="210987654321", region="us-west-2")], "210987654321"),
        ([_stack(account=ACCOUNT, region="eu-west-1")], "eu-west-1"),
        ([{**_resource(DRILL), "inputs": {"tags": {}}, "outputs": {"tags": {}}}], "does not carry the tags"),
    ],
)
def test_a_stack_that_is_not_all_this_drills_is_refused(resources: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        refuse_foreign_resources(resources, DRILL, account=ACCOUNT, region="us-west-2")
    assert said in str(caught.value)


def test_a_drills_own_stack_is_not_refused() -> None:
    resources = [_stack(account=ACCOUNT, region="us-west-2"), _resource(DRILL)]
    refuse_foreign_resources(resources, DRILL, account=ACCOUNT, region="us-west-2")


def test_outputs_of_another_version_are_refused() -> None:
    with pytest.raises(CheckFailedError, match="version 2"):
        read_outputs({"schemaVersion": 2})


def test_outputs_that_lack_something_name_it() -> None:
    with pytest.raises(CheckFailedError) as caught:
        read_outputs({"schemaVersion": 1, "program": "dr"})
    assert "databaseSecretArn" in str(caught.value)


def test_an_id_that_could_match_more_than_one_drill_is_refused(aws: Clients) -> None:
    for name in ("", "2026", "20260109-020000-", "*"):
        with pytest.raises(RefusedError, match="not a drill's id"):
            Sweeper(aws, name, "prod")


def _furnish(aws: Clients, drill: str, mode: str = "drill") -> None:
    """Leave behind what a killed drill could: some of it tagged, some only named, some only in its network."""
    base = f"agentverse-prod-dr-{drill}"
    ec2 = aws("ec2")
    vpc = ec2.create_vpc(
        CidrBlock="10.41.0.0/16",
        TagSpecifications=[{"ResourceType": "vpc", "Tags": tags(drill, mode)}],  # type: ignore[typeddict-item]  # plain mappings are tags
    )["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.41.0.0/24")["Subnet"]["SubnetId"]
    one = ec2.create_security_group(VpcId=vpc, GroupName=f"{base}-task", Description="t")["GroupId"]
    two = ec2.create_security_group(VpcId=vpc, GroupName=f"{base}-database", Description="d")["GroupId"]
    for here, there in ((one, two), (two, one)):
        ec2.authorize_security_group_ingress(
            GroupId=here,
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "UserIdGroupPairs": [{"GroupId": there}]}],
        )
    ec2.create_network_interface(SubnetId=subnet, Groups=[one])
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-west-2.logs", VpcEndpointType="Interface")
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    aws("logs").create_log_group(logGroupName=f"{base}-recovery")
    aws("logs").create_log_group(logGroupName=f"/aws/rds/instance/{base}-db/postgresql")
    aws("secretsmanager").create_secret(Name=f"{base}-cache", SecretString="x", Tags=tags(drill, mode))  # type: ignore[arg-type]  # as above
    ecs = aws("ecs")
    ecs.create_cluster(clusterName=base, tags=[{"key": tag["Key"], "value": tag["Value"]} for tag in tags(drill, mode)])
    ecs.register_task_definition(
        family=f"{base}-recovery", containerDefinitions=[{"name": "r", "image": "i", "memory": 9}]
    )
    aws("rds").create_db_instance(
        DBInstanceIdentifier=f"{base}-db",
        DBInstanceClass="db.t4g.small",
        Engine="postgres",
        MasterUsername="agentverse",
        MasterUserPassword="password1",
        AllocatedStorage=20,
        DeletionProtection=True,
        Tags=tags(drill, mode),  # type: ignore[arg-type]  # as above
    )


def test_everything_a_killed_drill_leaves_is_found_and_removed_and_nothing_else(aws: Clients) -> None:
    _furnish(aws, DRILL)
    _furnish(aws, OTHER)
    others_before = Sweeper(aws, OTHER, "prod").find()
    first, left = Sweeper(aws, DRILL, "prod").sweep(lambda _text: None, patience=20, pause=0.01)
    assert {item.kind for item in first} == {
        "ecs cluster", "ecs task definition", "rds instance", "vpc endpoint", "network interface", "security group",
        "subnet", "route table", "vpc", "log group", "secret",
    }  # fmt: skip
    assert {item.found_by for item in first} == {"tag", "vpc", "name"}
    assert left == []
    assert Sweeper(aws, OTHER, "prod").find() == others_before


def test_a_failover_is_never_swept(aws: Clients) -> None:
    _furnish(aws, DRILL, mode="failover")
    with pytest.raises(RefusedError, match="not a drill's") as caught:
        Sweeper(aws, DRILL, "prod").find()
    assert "never swept" in str(caught.value.hint)


def test_a_sweep_of_nothing_finds_nothing(aws: Clients) -> None:
    assert Sweeper(aws, DRILL, "prod").sweep(lambda _text: None) == ([], [])


def test_a_prefix_is_counted_and_an_object_that_is_no_replica_is_seen(aws: Clients) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="replicas", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for number in range(3):
        s3.put_object(Bucket="replicas", Key=f"telemetry/{number}", Body=b"12345")
    proof = prove_prefix(s3, "replicas", "telemetry/")
    assert (proof.count, proof.bytes, proof.statuses) == (3, 15, {"none": 3})
    assert prove_prefix(s3, "replicas", "snapshots/").newest is None


def test_the_project_is_never_written_to(tmp_path: Path) -> None:
    from recovery.environment import Environment  # noqa: PLC0415  # Pulumi is slow to import and only this needs it
    from recovery.settings import Platform  # noqa: PLC0415  # as above

    project = tmp_path / "project"
    project.mkdir()
    files = {
        "Pulumi.yaml": "name: p\nmain: infra\nruntime:\n  name: python\n  options:\n    virtualenv: .venv\n",
        "Pulumi.dr.yaml": "encryptionsalt: v1:of-another-passphrase\nconfig:\n  p:drillId: manual\n",
    }
    for name, text in files.items():
        (project / name).write_text(text)
    environment = Environment(Platform(project=project), DRILL, tmp_path / DRILL)
    environment._copy_project({"p:drillId": DRILL})
    assert {name: (project / name).read_text() for name in files} == files
    copy = (tmp_path / DRILL / "stack" / "Pulumi.yaml").read_text()
    assert f"main: {project / 'infra'}" in copy
    assert f"virtualenv: {project / '.venv'}" in copy
    own = (tmp_path / DRILL / "stack" / f"Pulumi.dr-{DRILL}.yaml").read_text()
    assert DRILL in own
    # Selecting the stack by hand leaves a salt behind, which fits one passphrase only.
    assert "encryptionsalt" not in own
