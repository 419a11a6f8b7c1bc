"""RDS instances are PostgreSQL servers, and RDS's own rules hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from conftest import RunningCloud
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

pytestmark = pytest.mark.slow

PASSWORD = "correct-horse-battery"
FAST: Any = {"Delay": 0.05, "MaxAttempts": 1200}
_numbers = itertools.count()

Create = Callable[..., dict[str, Any]]


def wait_available(rds: RDSClient, name: str) -> dict[str, Any]:
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=name, WaiterConfig=FAST)
    database: Any = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
    return dict(database)


@pytest.fixture
def create(rds: RDSClient) -> Iterator[Create]:
    """Return a maker of available instances, deleted afterwards."""
    made: list[str] = []

    def make(**options: Any) -> dict[str, Any]:
        name = f"db-{next(_numbers)}"
        arguments: dict[str, Any] = {
            "DBInstanceIdentifier": name,
            "DBInstanceClass": "db.t4g.micro",
            "Engine": "postgres",
            "MasterUsername": "boss",
            "AllocatedStorage": 20,
        }
        if "ManageMasterUserPassword" not in options:
            arguments["MasterUserPassword"] = PASSWORD
        rds.create_db_instance(**(arguments | options))
        made.append(name)
        return wait_available(rds, name)

    yield make
    for name in made:
        try:
            rds.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=False)
            rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
        except rds.exceptions.DBInstanceNotFoundFault:
            continue  # the test deleted it itself


def connect(
    database: dict[str, Any], name: str = "postgres", password: str = PASSWORD, user: str = "boss"
) -> psycopg.Connection:
    return psycopg.connect(
        host=database["Endpoint"]["Address"],
        port=database["Endpoint"]["Port"],
        user=user,
        password=password,
        dbname=name,
        autocommit=True,
        connect_timeout=20,
    )


def refusal(call: Callable[..., Any], **arguments: Any) -> str:
    """Return the code and text of the error that a call answers with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


@pytest.mark.parametrize("version", ["16", "18"])
def test_an_instance_is_a_server_of_the_asked_version(create: Create, version: str) -> None:
    database = create(EngineVersion=version, DBName="agentverse")
    with connect(database, "agentverse") as connection:
        assert connection.info.server_version // 10000 == int(version)


def test_an_instance_without_a_version_gets_16_and_says_which(create: Create) -> None:
    database = create()
    assert database["EngineVersion"].startswith("16.")
    assert database["DBParameterGroups"][0]["DBParameterGroupName"] == "default.postgres16"


def test_an_instance_is_created_before_it_is_available_and_has_no_endpoint_until_then(
    rds: RDSClient, create: Create
) -> None:
    create()
    answer = rds.create_db_instance(
        DBInstanceIdentifier="being-made",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        MasterUsername="boss",
        MasterUserPassword=PASSWORD,
    )["DBInstance"]
    assert answer["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in answer
    rds.delete_db_instance(DBInstanceIdentifier="being-made", SkipFinalSnapshot=True)


def test_two_instances_both_have_the_port_they_asked_for(create: Create) -> None:
    first, second = create(Port=5433), create(Port=5433)
    for database in (first, second):
        with connect(database) as connection:
            connection.execute("SELECT 1")
    assert first["DbiResourceId"] != second["DbiResourceId"]
    assert first["Endpoint"] != second["Endpoint"]


def test_a_version_this_machine_lacks_is_refused_as_rds_refuses_one_and_says_why(
    create: Create,
) -> None:
    said = refusal(create, EngineVersion="99")
    assert said.startswith("InvalidParameterCombination: Cannot find version 99 for postgres")
    assert "no PostgreSQL 99 server on this machine" in said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"MasterUserPassword": "short"}, "it is shorter than 8 characters"),
        ({"MasterUserPassword": "with/a slash"}, "Only printable ASCII characters besides"),
        ({"MasterUsername": "rdsadmin"}, "reserved word"),
        ({"MasterUsername": "pg_boss"}, "MasterUsername is not valid"),
        ({"Engine": "mysql"}, "Invalid DB engine: mysql"),
        ({"DBName": "no-dash"}, "DBName must begin with a letter"),
        ({"ManageMasterUserPassword": True, "MasterUserPassword": PASSWORD}, "ManageMasterUserPassword enabled"),
    ],
)
def test_what_rds_refuses_is_refused(create: Create, options: dict[str, Any], text: str) -> None:
    assert text in refusal(create, **options)


def test_a_managed_password_is_random_works_rotates_and_goes_with_its_instance(
    rds: RDSClient, secretsmanager: SecretsManagerClient, create: Create
) -> None:
    database = create(ManageMasterUserPassword=True, MasterUsername="keeper")
    arn = database["MasterUserSecret"]["SecretArn"]
    first = json.loads(secretsmanager.get_secret_value(SecretId=arn)["SecretString"])
    assert first["username"] == "keeper"
    assert len(first["password"]) >= 28
    connect(database, password=first["password"], user="keeper").close()
    rds.modify_db_instance(
        DBInstanceIdentifier=database["DBInstanceIdentifier"], RotateMasterUserPassword=True, ApplyImmediately=True
    )
    second = json.loads(secretsmanager.get_secret_value(SecretId=arn)["SecretString"])
    assert second["password"] != first["password"]
    connect(database, password=second["password"], user="keeper").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(database, password=first["password"], user="keeper")
    rds.delete_db_instance(DBInstanceIdentifier=database["DBInstanceIdentifier"], SkipFinalSnapshot=True)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        secretsmanager.get_secret_value(SecretId=arn)


def test_a_new_password_takes_the_place_of_the_old_one(rds: RDSClient, create: Create) -> None:
    database = create()
    rds.modify_db_instance(
        DBInstanceIdentifier=database["DBInstanceIdentifier"],
        MasterUserPassword="another-password",
        ApplyImmediately=True,
    )
    connect(database, password="another-password").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(database)


def test_the_master_user_is_no_superuser_and_cannot_become_one(create: Create) -> None:
    with connect(create()) as connection:
        assert connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = 'boss'"
        ).fetchone() == (
            False,
            True,
            True,
        )
        for attempt in (
            "ALTER ROLE boss SUPERUSER",
            "CREATE ROLE other SUPERUSER",
            "SET ROLE rdsadmin",
            "GRANT rdsadmin TO boss",
            "ALTER ROLE rdsadmin PASSWORD 'mine'",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "ALTER SYSTEM SET fsync = on",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attempt)


def test_the_bootstrap_superuser_cannot_be_reached_over_the_network(create: Create) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects connection"):
        connect(create(), user="rdsadmin")


def test_the_master_user_may_do_what_restores_need(create: Create) -> None:
    with connect(create(DBName="agentverse"), "agentverse") as connection:
        for statement in (
            "CREATE ROLE app LOGIN",
            "CREATE EXTENSION vector",
            "SET session_replication_role = replica",
            "CREATE SCHEMA reports",
            "CREATE DATABASE second",
            "GRANT pg_read_all_data TO app",
        ):
            connection.execute(statement)


def test_parameter_values_that_postgresql_knows_are_applied_and_the_rest_is_ignored(
    rds: RDSClient, create: Create
) -> None:
    rds.create_db_parameter_group(
        DBParameterGroupName="tuned", DBParameterGroupFamily="postgres16", Description="tuned"
    )
    rds.modify_db_parameter_group(
        DBParameterGroupName="tuned",
        Parameters=[
            {"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"},
            {"ParameterName": "max_connections", "ParameterValue": "37", "ApplyMethod": "pending-reboot"},
            {"ParameterName": "rds.force_ssl", "ParameterValue": "1", "ApplyMethod": "immediate"},
            {
                "ParameterName": "shared_preload_libraries",
                "ParameterValue": "rdsutils",
                "ApplyMethod": "pending-reboot",
            },
            {
                "ParameterName": "shared_buffers",
                "ParameterValue": "{DBInstanceClassMemory/32768}",
                "ApplyMethod": "pending-reboot",
            },
        ],
    )
    database = create(DBParameterGroupName="tuned")
    with connect(database) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
        assert connection.execute("SHOW max_connections").fetchone() == ("37",)
    changes: Any = [
        {"ParameterName": "work_mem", "ParameterValue": "16384", "ApplyMethod": "immediate"},
        {"ParameterName": "max_connections", "ParameterValue": "38", "ApplyMethod": "pending-reboot"},
    ]
    rds.modify_db_parameter_group(DBParameterGroupName="tuned", Parameters=changes)
    with connect(database) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("37",)
    rds.reboot_db_instance(DBInstanceIdentifier=database["DBInstanceIdentifier"])
    with connect(database) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("16MB",)
        assert connection.execute("SHOW max_connections").fetchone() == ("38",)
    described = rds.describe_db_parameters(DBParameterGroupName="tuned")["Parameters"]
    assert {parameter["ParameterName"]: parameter["Source"] for parameter in described}["work_mem"] == "user"


def test_a_value_postgresql_refuses_fails_the_instance_and_not_the_cloud(rds: RDSClient, create: Create) -> None:
    rds.create_db_parameter_group(
        DBParameterGroupName="broken", DBParameterGroupFamily="postgres16", Description="broken"
    )
    rds.modify_db_parameter_group(
        DBParameterGroupName="broken",
        Parameters=[{"ParameterName": "max_connections", "ParameterValue": "many", "ApplyMethod": "pending-reboot"}],
    )
    with pytest.raises(Exception, match="failed"):
        create(DBParameterGroupName="broken")


def test_deletion_protection_and_the_final_snapshot_rule_hold(rds: RDSClient, create: Create) -> None:
    name = create(DeletionProtection=True)["DBInstanceIdentifier"]
    assert "Cannot delete protected DB Instance" in refusal(
        rds.delete_db_instance, DBInstanceIdentifier=name, SkipFinalSnapshot=True
    )
    rds.modify_db_instance(DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    assert refusal(rds.delete_db_instance, DBInstanceIdentifier=name).startswith(
        "InvalidParameterCombination: FinalDBSnapshotIdentifier is required"
    )
    assert "cannot be specified" in refusal(
        rds.delete_db_instance, DBInstanceIdentifier=name, SkipFinalSnapshot=True, FinalDBSnapshotIdentifier="last"
    )
    assert wait_available(rds, name)["DBInstanceStatus"] == "available"


def test_deleting_removes_the_server_and_its_data_at_once(cloud: RunningCloud, rds: RDSClient, create: Create) -> None:
    before = set((cloud.home / "run" / cloud.document["instance_id"]).iterdir())
    database = create()
    rds.delete_db_instance(DBInstanceIdentifier=database["DBInstanceIdentifier"].upper(), SkipFinalSnapshot=True)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(database)
    assert set((cloud.home / "run" / cloud.document["instance_id"]).iterdir()) == before
    with pytest.raises(rds.exceptions.DBInstanceNotFoundFault):
        rds.describe_db_instances(DBInstanceIdentifier=database["DBInstanceIdentifier"])
    assert rds.describe_db_snapshots(DBInstanceIdentifier=database["DBInstanceIdentifier"])["DBSnapshots"] == []


def test_a_snapshot_holds_the_data_of_its_moment_and_outlives_its_instance(rds: RDSClient, create: Create) -> None:
    database = create(DBName="agentverse")
    name = database["DBInstanceIdentifier"]
    with connect(database, "agentverse") as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    rds.delete_db_instance(DBInstanceIdentifier=name, FinalDBSnapshotIdentifier="last")
    rds.copy_db_snapshot(SourceDBSnapshotIdentifier="last", TargetDBSnapshotIdentifier="kept")
    rds.delete_db_snapshot(DBSnapshotIdentifier="last")
    rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier=name, DBSnapshotIdentifier="kept")
    with connect(wait_available(rds, name), "agentverse") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    rds.delete_db_snapshot(DBSnapshotIdentifier="kept")


def test_stop_start_and_a_new_port_keep_the_data(rds: RDSClient, create: Create) -> None:
    database = create()
    name = database["DBInstanceIdentifier"]
    with connect(database) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    rds.stop_db_instance(DBInstanceIdentifier=name)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(database)
    rds.start_db_instance(DBInstanceIdentifier=name)
    rds.modify_db_instance(DBInstanceIdentifier=name, DBPortNumber=5544, ApplyImmediately=True)
    moved = wait_available(rds, name)
    assert moved["Endpoint"]["Port"] == 5544
    with connect(moved) as connection:
        connection.execute("SELECT * FROM kept")


@pytest.mark.parametrize("call", ["restore_db_instance_to_point_in_time", "create_db_instance_read_replica"])
def test_what_has_nothing_real_behind_it_is_refused_rather_than_pretended(
    rds: RDSClient, create: Create, call: str
) -> None:
    name = create()["DBInstanceIdentifier"]
    arguments = (
        {"SourceDBInstanceIdentifier": name, "TargetDBInstanceIdentifier": "x", "UseLatestRestorableTime": True}
        if call.startswith("restore")
        else {"SourceDBInstanceIdentifier": name, "DBInstanceIdentifier": "x"}
    )
    assert "does not support" in refusal(getattr(rds, call), **arguments)


def test_groups_cannot_be_deleted_while_an_instance_uses_them(
    cloud: RunningCloud, rds: RDSClient, create: Create
) -> None:
    ec2 = cloud.client("ec2")
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.8.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones)
    ]
    rds.create_db_subnet_group(DBSubnetGroupName="used", DBSubnetGroupDescription="used", SubnetIds=subnets)
    rds.create_db_parameter_group(DBParameterGroupName="used", DBParameterGroupFamily="postgres16", Description="used")
    instance = create(DBSubnetGroupName="used", DBParameterGroupName="used")["DBInstanceIdentifier"]
    with pytest.raises(ClientError, match="InvalidDBSubnetGroupStateFault"):
        rds.delete_db_subnet_group(DBSubnetGroupName="used")
    with pytest.raises(ClientError, match="InvalidDBParameterGroupState"):
        rds.delete_db_parameter_group(DBParameterGroupName="used")
    assert rds.describe_db_instances(DBInstanceIdentifier=instance)["DBInstances"]
    rds.delete_db_instance(DBInstanceIdentifier=instance, SkipFinalSnapshot=True)
    rds.delete_db_subnet_group(DBSubnetGroupName="used")
    rds.delete_db_parameter_group(DBParameterGroupName="used")
