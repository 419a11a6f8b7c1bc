"""A task followed through answers as AWS gives them, each checked by botocore against the service's own model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from botocore.stub import Stubber

from recovery import task
from recovery.clients import Clients
from recovery.errors import CheckFailedError, UsageError
from recovery.journal import Journal
from recovery.places import TaskPlace
from recovery.runbook import Step, StepContext
from recovery.tasks import run_task

CLUSTER = "arn:aws:ecs:us-west-2:123456789012:cluster/dr"
TASK = "arn:aws:ecs:us-west-2:123456789012:task/dr/0123456789abcdef0123456789abcdef"
PLACE = TaskPlace(
    cluster_arn=CLUSTER,
    task_definition_arn="arn:aws:ecs:us-west-2:123456789012:task-definition/dr-recovery:1",
    container="recovery",
    subnet_ids=("subnet-1", "subnet-2"),
    security_group_id="sg-1",
    log_group="dr-recovery",
    stream_prefix="recovery",
)
MISSING = {"tasks": [], "failures": [{"arn": TASK, "reason": "MISSING"}]}
RUNNING = {"tasks": [{"taskArn": TASK, "lastStatus": "RUNNING"}]}
# What AWS's answers say of the container's end; botocore has no type for it.
STOPPED: dict[str, Any] = {"tasks": [{"taskArn": TASK, "lastStatus": "STOPPED", "containers": [{"exitCode": 0}]}]}
RESULT = json.dumps({"event": "result", "kind": "ping", "data": {"seconds": 1}})


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return Clients("us-west-2")


@pytest.fixture
def stubs(clients: Clients) -> Iterator[tuple[Stubber, Stubber]]:
    """ECS, which has just taken the task, and its log."""
    with ExitStack() as stack:
        ecs, logs = (stack.enter_context(Stubber(made)) for made in (clients("ecs"), clients("logs")))
        ecs.add_response("run_task", {"tasks": [{"taskArn": TASK}], "failures": []})
        yield ecs, logs


@pytest.fixture
def follow(clients: Clients, journal: Journal) -> Callable[..., Any]:
    def run(*command: str) -> Any:
        step = Step(name="cache", title="Check the cache", not_run="by hand")
        context = StepContext(step=step, journal=journal, evidence={}, cancelled=threading.Event())
        return run_task(clients, PLACE, ["task", *(command or ("ping",))], context)

    return run


def lines(logs: Stubber, *messages: str) -> None:
    logs.add_response("get_log_events", {"events": [{"message": line} for line in messages], "nextForwardToken": "f/1"})
    logs.add_response("get_log_events", {"events": [], "nextForwardToken": "f/1"})


def no_stream_yet(logs: Stubber) -> None:
    logs.add_client_error("get_log_events", "ResourceNotFoundException")


def test_a_task_that_ecs_does_not_know_yet_is_waited_for(
    stubs: tuple[Stubber, Stubber], follow: Callable[..., Any]
) -> None:
    ecs, logs = stubs
    for answer in (MISSING, MISSING, RUNNING):
        ecs.add_response("describe_tasks", answer)
        no_stream_yet(logs)
    ecs.add_response("describe_tasks", STOPPED)
    lines(logs, RESULT)
    assert follow().data == {"seconds": 1}


def test_a_task_that_was_there_and_is_not_any_more_is_gone(
    stubs: tuple[Stubber, Stubber], follow: Callable[..., Any]
) -> None:
    ecs, logs = stubs
    for answer in (RUNNING, MISSING):
        ecs.add_response("describe_tasks", answer)
        no_stream_yet(logs)
    ecs.add_response("stop_task", {})
    with pytest.raises(CheckFailedError, match="gone"):
        follow()


def test_a_busy_moment_of_aws_does_not_end_a_task(stubs: tuple[Stubber, Stubber], follow: Callable[..., Any]) -> None:
    ecs, logs = stubs
    ecs.add_client_error("describe_tasks", "ThrottlingException")
    ecs.add_response("describe_tasks", RUNNING)
    logs.add_client_error("get_log_events", "ServiceUnavailableException")
    ecs.add_response("describe_tasks", STOPPED)
    lines(logs, RESULT)
    assert follow().data == {"seconds": 1}


def test_a_refusal_of_aws_ends_a_task_at_once(stubs: tuple[Stubber, Stubber], follow: Callable[..., Any]) -> None:
    ecs, _ = stubs
    ecs.add_client_error("describe_tasks", "AccessDeniedException")
    ecs.add_response("stop_task", {})
    with pytest.raises(Exception, match="can no longer be followed"):
        follow()
    ecs.assert_no_pending_responses()


def test_an_event_longer_than_a_line_of_the_log_arrives_whole(
    stubs: tuple[Stubber, Stubber], follow: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    argument = "\U0001f418\"'\\" * 100_000
    address = ["--host", "cache", "--port", "6379", "--secret-arn", "arn:aws:x", "--region", "us-west-2"]
    assert task.run(["ping", *address, argument]) == 2
    written = capsys.readouterr().out.splitlines()
    # The log driver cuts lines at this length.
    assert max(len(line.encode()) for line in written) < 262_118
    ecs, logs = stubs
    ecs.add_response("describe_tasks", {"tasks": [{**STOPPED["tasks"][0], "containers": [{"exitCode": 2}]}]})
    lines(logs, *written)
    with pytest.raises(UsageError) as said:
        follow()
    assert argument in said.value.message


def test_arguments_that_ecs_would_not_take_are_refused_with_its_limit(follow: Callable[..., Any]) -> None:
    with pytest.raises(UsageError) as refused:
        follow("verify", "--samples", "x" * 8192)
    assert "8192" in str(refused.value.detail)
