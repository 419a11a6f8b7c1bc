"""ECS tasks as processes, met through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.slow  # real servers or processes in every test

REGION = "us-west-2"
Eventually = Callable[[Callable[[], Any]], Any]


class Fargate:
    """A cluster in a network of one subnet, and short ways to run things in it."""

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.ecs = cloud.client("ecs", REGION)
        self.ec2 = cloud.client("ec2", REGION)
        self.logs = cloud.client("logs", REGION)
        self.logs.create_log_group(logGroupName="/tasks")
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        self.group = self.ec2.create_security_group(GroupName="tasks", Description="tasks", VpcId=vpc)["GroupId"]
        self.ecs.create_cluster(clusterName="dr")

    def define(self, *containers: dict[str, Any], family: str = "job", **more: Any) -> str:
        logging = {
            "logDriver": "awslogs",
            "options": {"awslogs-group": "/tasks", "awslogs-region": REGION, "awslogs-stream-prefix": "job"},
        }
        answer = self.ecs.register_task_definition(
            family=family,
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[{"logConfiguration": logging, **container} for container in containers],
            **more,
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def run(self, definition: str, **more: Any) -> str:
        network = {"subnets": [self.subnet], "securityGroups": [self.group]}
        answer = self.ecs.run_task(
            cluster="dr",
            taskDefinition=definition,
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": network},
            **more,
        )
        assert answer["failures"] == []
        return str(answer["tasks"][0]["taskArn"])

    def shell(self, script: str, **more: Any) -> str:
        return self.run(self.define({"name": "main", "image": "shell", "command": [script]}), **more)

    def describe(self, arn: str) -> Any:
        return self.ecs.describe_tasks(cluster="dr", tasks=[arn])["tasks"][0]

    def wait(self, arn: str, state: str = "stopped") -> Any:
        waiter = self.ecs.get_waiter(f"tasks_{state}")
        waiter.wait(cluster="dr", tasks=[arn], WaiterConfig={"Delay": 0.05, "MaxAttempts": 600})
        return self.describe(arn)

    def lines(self, arn: str, container: str = "main") -> list[str]:
        name = f"job/{container}/{arn.rpartition('/')[2]}"
        try:
            events = self.logs.get_log_events(logGroupName="/tasks", logStreamName=name, startFromHead=True)
        except ClientError:
            return []
        return [event["message"] for event in events["events"]]


@pytest.fixture
def fargate(cloud: Any) -> Fargate:
    return Fargate(cloud)


def test_a_task_runs_to_its_end_and_tells_its_exit_code_times_and_output(fargate: Fargate, cloud: Any) -> None:
    arn = fargate.shell("echo one; echo two >&2; exit 3")
    task = fargate.wait(arn)
    assert task["lastStatus"] == task["desiredStatus"] == "STOPPED"
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == "Essential container in task exited"
    (container,) = task["containers"]
    assert (container["name"], container["exitCode"], container["lastStatus"]) == ("main", 3, "STOPPED")
    assert task["createdAt"] <= task["pullStartedAt"] <= task["pullStoppedAt"] <= task["startedAt"]
    assert task["startedAt"] <= task["executionStoppedAt"] <= task["stoppedAt"]
    assert fargate.lines(arn) == ["one", "two"]
    assert not list((cloud.home / "run").rglob(arn.rpartition("/")[2]))
    assert cloud.containers.status() == []


def test_run_task_answers_before_the_task_runs(fargate: Fargate) -> None:
    definition = fargate.define({"name": "main", "image": "shell", "command": ["true"]})
    network = {"awsvpcConfiguration": {"subnets": [fargate.subnet]}}
    answer = fargate.ecs.run_task(
        cluster="dr", taskDefinition=definition, launchType="FARGATE", networkConfiguration=network
    )
    task = answer["tasks"][0]
    assert task["desiredStatus"] in {"RUNNING", "STOPPED"}
    assert task["containers"][0]["taskArn"] == task["taskArn"]
    fargate.wait(task["taskArn"])


def test_output_is_in_the_log_in_order_while_the_task_runs(
    fargate: Fargate, home: Path, eventually: Eventually
) -> None:
    go_on = home / "go-on"
    arn = fargate.shell(f"for i in 1 2 3; do echo line $i; done; until [ -e {go_on} ]; do sleep 0.05; done; echo end")
    fargate.wait(arn, "running")
    eventually(lambda: fargate.lines(arn) == ["line 1", "line 2", "line 3"])
    assert fargate.describe(arn)["lastStatus"] == "RUNNING"
    assert "exitCode" not in fargate.describe(arn)["containers"][0]
    clusters = fargate.ecs.describe_clusters(clusters=["dr"])["clusters"]
    assert clusters[0]["runningTasksCount"] == 1
    go_on.touch()
    assert fargate.wait(arn)["containers"][0]["exitCode"] == 0
    assert fargate.lines(arn)[-1] == "end"


def test_a_line_longer_than_an_event_is_cut_and_a_last_line_without_newline_is_kept(fargate: Fargate) -> None:
    script = "import sys; sys.stdout.write('x' * 300_000 + '\\n\\nlast')"
    arn = fargate.run(fargate.define({"name": "main", "image": "example.com:5000/team/python:3", "command": [script]}))
    fargate.wait(arn)
    lines = fargate.lines(arn)
    assert "".join(lines) == "x" * 300_000 + "last"
    assert max(map(len, lines)) <= 262_144


def test_environment_comes_from_definition_override_and_nothing_else(
    fargate: Fargate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATORS_OWN_TOKEN", "must not leak")
    monkeypatch.setenv("AWS_PROFILE", "production")
    script = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))"
    environment = [{"name": "A", "value": "definition"}, {"name": "B", "value": "definition"}]
    definition = fargate.define(
        {"name": "main", "image": "agentverse-recovery:latest", "command": ["exit(9)"], "environment": environment}
    )
    override = {"name": "main", "command": [script], "environment": [{"name": "B", "value": "override"}]}
    arn = fargate.run(definition, overrides={"containerOverrides": [override]})
    assert fargate.wait(arn)["containers"][0]["exitCode"] == 0
    seen, folder = json.loads(fargate.lines(arn)[0])
    assert (seen["A"], seen["B"]) == ("definition", "override")
    assert seen["AWS_ENDPOINT_URL"] == fargate.cloud.endpoint
    assert seen["AWS_REGION"] == seen["AWS_DEFAULT_REGION"] == REGION
    assert not {"OPERATORS_OWN_TOKEN", "AWS_PROFILE"} & seen.keys()
    assert folder.startswith(str(fargate.cloud.home))


def test_secrets_arrive_whole_by_json_key_and_from_parameters(fargate: Fargate) -> None:
    secrets, parameters = fargate.cloud.client("secretsmanager", REGION), fargate.cloud.client("ssm", REGION)
    database = secrets.create_secret(Name="database", SecretString=json.dumps({"username": "master", "port": 5432}))
    token = secrets.create_secret(Name="cache", SecretString="bare token")
    parameters.put_parameter(Name="/app/key", Value="from ssm", Type="SecureString")
    wanted = [
        {"name": "WHOLE", "valueFrom": token["ARN"]},
        {"name": "USERNAME", "valueFrom": f"{database['ARN']}:username::"},
        {"name": "PORT", "valueFrom": f"{database['ARN']}:port:AWSCURRENT:"},
        {"name": "BY_NAME", "valueFrom": "/app/key"},
        {"name": "BY_ARN", "valueFrom": f"arn:aws:ssm:{REGION}:123456789012:parameter/app/key"},
    ]
    script = 'echo "$WHOLE|$USERNAME|$PORT|$BY_NAME|$BY_ARN"'
    arn = fargate.run(fargate.define({"name": "main", "image": "shell", "command": [script], "secrets": wanted}))
    fargate.wait(arn)
    assert fargate.lines(arn) == ["bare token|master|5432|from ssm|from ssm"]


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/unheard-of:1"}, "CannotPullContainerError"),
        ({"image": "broken"}, "CannotStartContainerError"),
        (
            {
                "image": "shell",
                "secrets": [
                    {"name": "S", "valueFrom": f"arn:aws:secretsmanager:{REGION}:123456789012:secret:none-abcdef"}
                ],
            },
            "ResourceInitializationError: unable to pull secrets",
        ),
        (
            {"image": "shell", "secrets": [{"name": "S", "valueFrom": "/no/such/parameter"}]},
            "ResourceInitializationError: unable to pull secrets",
        ),
        (
            {
                "image": "shell",
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {"awslogs-group": "/nowhere", "awslogs-region": REGION, "awslogs-stream-prefix": "x"},
                },
            },
            "ResourceInitializationError: failed to validate logger args",
        ),
    ],
)
def test_a_task_that_cannot_start_says_why_as_fargate_does(
    fargate: Fargate, container: dict[str, Any], reason: str
) -> None:
    arn = fargate.run(fargate.define({"name": "main", "command": ["true"], **container}))
    task = fargate.wait(arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith(reason)
    assert "exitCode" not in task["containers"][0]
    assert fargate.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_the_network_interface_is_there_while_the_task_runs_and_gone_after(fargate: Fargate) -> None:
    arn = fargate.shell("sleep 60")
    task = fargate.wait(arn, "running")
    details = {detail["name"]: detail["value"] for detail in task["attachments"][0]["details"]}
    (interface,) = fargate.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert interface["NetworkInterfaceId"] == details["networkInterfaceId"]
    assert interface["PrivateIpAddress"] == task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    fargate.ecs.stop_task(cluster="dr", task=arn)
    assert fargate.wait(arn)["attachments"][0]["status"] == "DELETED"
    assert fargate.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_stop_task_ends_the_process_and_its_children(fargate: Fargate, eventually: Eventually) -> None:
    arn = fargate.shell("sleep 600 & echo $!; sleep 600 & echo $!; wait")
    fargate.wait(arn, "running")
    children = [int(line) for line in eventually(lambda: len(fargate.lines(arn)) == 2 and fargate.lines(arn))]
    assert all(psutil.pid_exists(pid) for pid in children)
    answer = fargate.ecs.stop_task(cluster="dr", task=arn, reason="drill over")
    assert answer["task"]["desiredStatus"] == "STOPPED"
    task = fargate.wait(arn)
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "drill over")
    assert task["containers"][0]["exitCode"] == 128 + 15
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in children))


def test_a_process_that_left_its_tasks_group_ends_with_the_task(fargate: Fargate, eventually: Eventually) -> None:
    arn = fargate.shell("setsid sleep 600 </dev/null & echo $!; exit 0")
    assert fargate.wait(arn)["containers"][0]["exitCode"] == 0
    escaped = [process for process in psutil.process_iter() if process.name() == "sleep"]
    task_id = arn.rpartition("/")[2]
    eventually(lambda: not any(task_id in _mark(process) for process in escaped))


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get("LOCALCLOUD_TASK", "")
    except psutil.Error:
        return ""


def test_a_task_may_end_by_itself_on_sigterm_and_is_killed_after_its_stop_timeout(
    fargate: Fargate, eventually: Eventually
) -> None:
    polite = fargate.shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    stubborn = fargate.run(
        fargate.define(
            {
                "name": "main",
                "image": "shell",
                "command": ["trap '' TERM; echo up; while :; do sleep 0.05; done"],
                "stopTimeout": 1,
            },
            family="stubborn",
        )
    )
    for arn in (polite, stubborn):
        eventually(lambda arn=arn: fargate.lines(arn) == ["up"])
        fargate.ecs.stop_task(cluster="dr", task=arn)
    assert fargate.wait(polite)["containers"][0]["exitCode"] == 7
    assert fargate.lines(polite) == ["up", "bye"]
    assert fargate.wait(stubborn)["containers"][0]["exitCode"] == 128 + 9


def test_when_an_essential_container_ends_the_others_are_stopped(fargate: Fargate) -> None:
    definition = fargate.define(
        {"name": "main", "image": "shell", "command": ["exit 0"]},
        {"name": "side", "image": "shell", "command": ["sleep 600"], "essential": False},
    )
    task = fargate.wait(fargate.run(definition))
    codes = {container["name"]: container["exitCode"] for container in task["containers"]}
    assert codes == {"main": 0, "side": 143}


def test_what_aws_refuses_is_refused(fargate: Fargate) -> None:
    definition = fargate.define({"name": "main", "image": "shell"})
    with pytest.raises(ClientError, match="not a container in the TaskDefinition"):
        fargate.run(definition, overrides={"containerOverrides": [{"name": "other"}]})
    with pytest.raises(ClientError, match="referenced task was not found"):
        fargate.ecs.stop_task(cluster="dr", task="0" * 32)
    with pytest.raises(ClientError, match="No Container Instances"):
        fargate.ecs.run_task(cluster="dr", taskDefinition=definition)
    nowhere = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}
    with pytest.raises(ClientError, match="does not exist") as refused:
        fargate.ecs.run_task(
            cluster="dr", taskDefinition=definition, launchType="FARGATE", networkConfiguration=nowhere
        )
    assert refused.value.response["Error"]["Code"] == "InvalidParameterException"
    missing = fargate.ecs.describe_tasks(cluster="dr", tasks=["0" * 32])["failures"]
    assert [failure["reason"] for failure in missing] == ["MISSING"]
    arn = fargate.shell("sleep 600")
    fargate.wait(arn, "running")
    with pytest.raises(ClientError) as refused:
        fargate.ecs.delete_cluster(cluster="dr")
    assert refused.value.response["Error"]["Code"] == "ClusterContainsTasksException"
    assert fargate.ecs.list_tasks(cluster="dr")["taskArns"] == [arn]
    fargate.ecs.stop_task(cluster="dr", task=arn)
    fargate.wait(arn)
    assert fargate.ecs.list_tasks(cluster="dr")["taskArns"] == []
    assert fargate.ecs.list_tasks(cluster="dr", desiredStatus="STOPPED")["taskArns"] == [arn]
    fargate.ecs.delete_cluster(cluster="dr")


def test_tags_of_task_and_definition_are_on_a_running_task_and_found_until_it_stops(fargate: Fargate) -> None:
    definition = fargate.define(
        {"name": "main", "image": "shell", "command": ["sleep 600"]}, tags=[{"key": "drill", "value": "d-1"}]
    )
    arn = fargate.run(definition, tags=[{"key": "owner", "value": "ops"}], propagateTags="TASK_DEFINITION")
    tags = fargate.ecs.describe_tasks(cluster="dr", tasks=[arn], include=["TAGS"])["tasks"][0]["tags"]
    assert {tag["key"]: tag["value"] for tag in tags} == {"drill": "d-1", "owner": "ops"}
    tagging = fargate.cloud.client("resourcegroupstaggingapi", REGION)

    def found() -> set[str]:
        answer = tagging.get_resources(TagFilters=[{"Key": "drill", "Values": ["d-1"]}])
        return {row["ResourceARN"] for row in answer["ResourceTagMappingList"]}

    assert found() == {arn, definition}
    fargate.ecs.stop_task(cluster="dr", task=arn)
    fargate.wait(arn)
    assert found() == {definition}


def test_reset_ends_every_task_with_its_children(fargate: Fargate, eventually: Eventually) -> None:
    arns = [fargate.shell("sleep 600 & echo $!; wait") for _ in range(3)]
    pids = [int(eventually(lambda arn=arn: fargate.lines(arn))[0]) for arn in arns]
    assert len(fargate.cloud.containers.status()) == 3
    fargate.cloud.containers.reset()
    assert fargate.cloud.containers.status() == []
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_the_processes_of_a_dark_region_are_suspended_and_go_on_after(fargate: Fargate, eventually: Eventually) -> None:
    arn = fargate.shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
    eventually(lambda: len(fargate.lines(arn)) > 2)
    pid = int(fargate.cloud.containers.status()[0]["address"].removeprefix("pid "))
    fargate.cloud.blackout(REGION)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    assert fargate.cloud.containers.status()[0]["state"] == "suspended"
    fargate.cloud.restore(REGION)
    before = len(fargate.lines(arn))
    eventually(lambda: len(fargate.lines(arn)) > before)
    fargate.ecs.stop_task(cluster="dr", task=arn)
    fargate.wait(arn)


def test_a_task_that_needs_a_secret_or_an_image_of_a_dark_region_does_not_start(fargate: Fargate) -> None:
    secret = fargate.cloud.client("secretsmanager", "us-east-1").create_secret(Name="far", SecretString="x")
    fargate.cloud.blackout("us-east-1")
    needs_secret = fargate.define(
        {"name": "main", "image": "shell", "secrets": [{"name": "S", "valueFrom": secret["ARN"]}]}
    )
    needs_image = fargate.define({"name": "main", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/shell"})
    assert "i/o timeout" in fargate.wait(fargate.run(needs_secret))["stoppedReason"]
    assert "CannotPullContainerError" in fargate.wait(fargate.run(needs_image))["stoppedReason"]
