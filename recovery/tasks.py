"""Runs one task inside an environment's network and tails its log: its progress, its result and its exit code.

The task writes one JSON line per event to its log; the exit code decides, and the log says why. Whoever starts a task
stops it: leaving this module by an error or an interruption never leaves a task running.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, HTTPClientError

from recovery.clients import AwsError, aws_problem
from recovery.errors import (
    BadDumpError,
    CheckFailedError,
    EnvironmentLacksError,
    RecoveryError,
    RefusedError,
    UsageError,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs.type_defs import TaskOverrideTypeDef

    from recovery.clients import Clients
    from recovery.places import TaskPlace
    from recovery.runbook import StepContext

# How long after a task's end its last log lines may take to appear.
_LOG_GRACE_SECONDS = 20.0
# ECS is eventually consistent: DescribeTasks may not know yet what RunTask has answered.
_APPEARS_WITHIN_SECONDS = 60.0
# A restore of hours is not given up for a moment in which AWS does not answer.
_SILENCE_SECONDS = 120.0
_PASSING = frozenset(
    {
        "InternalFailure",
        "InternalServerError",
        "RequestLimitExceeded",
        "ServerException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Throttling",
        "ThrottlingException",
    }
)
# What RunTask takes of overrides, as JSON with its punctuation.
_OVERRIDES_LIMIT = 8192
_BY_CODE: Mapping[int, type[RecoveryError]] = {
    1: CheckFailedError,
    2: UsageError,
    3: RefusedError,
    4: EnvironmentLacksError,
}


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What a task that exited 0 reported: `data` of its result event, and the ARN it ran under."""

    task_arn: str
    data: Mapping[str, Any]


@dataclass
class _Log:
    """The task's log stream, read forward; a stream that is not there yet is empty."""

    clients: Clients
    group: str
    stream: str
    on_event: Callable[[Mapping[str, Any]], None]
    token: str | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    tail: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def read(self) -> int:
        """Take every line that is new and return how many there were."""
        total = 0
        while True:
            arguments: dict[str, Any] = {"logGroupName": self.group, "logStreamName": self.stream}
            if self.token:
                arguments["nextToken"] = self.token
            try:
                page = self.clients("logs").get_log_events(**arguments, startFromHead=True)
            except ClientError as exc:
                if exc.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                    return total
                raise
            for line in page["events"]:
                self._take(line.get("message", ""))
            total += len(page["events"])
            token = page.get("nextForwardToken")
            if not page["events"] or token == self.token:
                self.token = token or self.token
                return total
            self.token = token

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            self.tail = [*self.tail[-19:], line]
            return
        if event["event"] == "part":
            self.parts = [*(self.parts if event["part"] > 1 else []), event["text"]]
            if event["part"] == event["of"]:
                self._take("".join(self.parts))
            return
        if event["event"] == "result":
            self.result = event
        elif event["event"] == "error":
            self.error = event
        self.on_event(event)


def run_task(clients: Clients, place: TaskPlace, command: Sequence[str], context: StepContext) -> TaskResult:
    """Run `recovery <command>` in the environment and return its result once it has exited 0.

    Raises the error the task reported with its own message, detail, hint and kind; CheckFailedError when it ended
    without one; EnvironmentLacksError when it could not start; RunInterruptedError when the run was stopped.
    """
    arn = _start(clients, place, command, context)
    context.note("task-started", {"task": arn, "command": list(command)})
    stream = "/".join(part for part in (place.stream_prefix, place.container, arn.rsplit("/", 1)[-1]) if part)
    log = _Log(clients, place.log_group, stream, on_event=lambda event: _relay(event, context))
    try:
        task = _follow(clients, place, arn, log, context)
    except BaseException:
        with suppress(*AwsError):
            clients("ecs").stop_task(cluster=place.cluster_arn, task=arn, reason="the drill stopped it")
        raise
    return _judge(task, arn, log, command)


def _start(clients: Clients, place: TaskPlace, command: Sequence[str], context: StepContext) -> str:
    what = f"The task `{' '.join(command[:2])}` could not be started."
    overrides: TaskOverrideTypeDef = {"containerOverrides": [{"name": place.container, "command": list(command)}]}
    length = len(json.dumps(overrides))
    if length > _OVERRIDES_LIMIT:
        raise UsageError(
            what,
            detail=f"Its arguments are {length} characters long; ECS takes {_OVERRIDES_LIMIT}.",
            hint="Shorten the sample queries in recovery.toml.",
        )
    try:
        answer = clients("ecs").run_task(
            cluster=place.cluster_arn,
            taskDefinition=place.task_definition_arn,
            launchType="FARGATE",
            count=1,
            startedBy=context.journal.drill[:36],
            propagateTags="TASK_DEFINITION",
            networkConfiguration={
                "awsvpcConfiguration": {
                    "subnets": list(place.subnet_ids),
                    "securityGroups": [place.security_group_id],
                    "assignPublicIp": "DISABLED",
                }
            },
            overrides=overrides,
        )
    except AwsError as exc:
        raise aws_problem(what, exc) from exc
    if answer.get("failures") or not answer["tasks"]:
        reasons = "; ".join(str(item.get("reason", item)) for item in answer.get("failures", []))
        raise EnvironmentLacksError(what, detail=reasons or "ECS gave no reason.")
    return answer["tasks"][0]["taskArn"]


def _follow(clients: Clients, place: TaskPlace, arn: str, log: _Log, context: StepContext) -> Mapping[str, Any]:
    """Read the log until the task has stopped and said everything; return its last description."""
    waited = 0.0
    began = answered = time.monotonic()
    seen = False
    while True:
        try:
            answer = clients("ecs").describe_tasks(cluster=place.cluster_arn, tasks=[arn])
            log.read()
        except AwsError as exc:
            if not _may_pass(exc) or time.monotonic() - answered > _SILENCE_SECONDS:
                raise aws_problem(f"Task {arn} can no longer be followed.", exc) from exc
            context.sleep(1.0)
            continue
        answered = time.monotonic()
        if not answer["tasks"]:
            if seen or answered - began > _APPEARS_WITHIN_SECONDS:
                raise CheckFailedError(f"Task {arn} is gone.", detail=str(answer.get("failures", "")))
            context.sleep(1.0)
            continue
        seen = True
        task: Mapping[str, Any] = answer["tasks"][0]
        if task.get("lastStatus") == "STOPPED":
            ran = any(item.get("exitCode") is not None for item in task.get("containers", []))
            if not ran or log.result or log.error or waited >= _LOG_GRACE_SECONDS:
                return task
            waited += 0.5
        context.sleep(0.5)


def _may_pass(problem: Exception) -> bool:
    """Tell whether asking again may help: AWS was not reached or was too busy, rather than refused."""
    if isinstance(problem, ClientError):
        return problem.response.get("Error", {}).get("Code") in _PASSING
    return isinstance(problem, HTTPClientError)


def _relay(event: Mapping[str, Any], context: StepContext) -> None:
    if event["event"] == "progress":
        data = {key: value for key, value in event.items() if key not in {"event", "text"}}
        context.progress(str(event.get("text", "")), data)


def _judge(task: Mapping[str, Any], arn: str, log: _Log, command: Sequence[str]) -> TaskResult:
    name = f"`{' '.join(command[:2])}`"
    container: Mapping[str, Any] = next(iter(task.get("containers", [])), {})
    code = container.get("exitCode")
    if code == 0 and log.result is not None:
        return TaskResult(task_arn=arn, data=log.result.get("data") or {})
    if log.error is not None:
        reported = int(log.error.get("code") or code or 1)
        kind = BadDumpError if log.error.get("kind") == "BadDumpError" else _BY_CODE.get(reported, CheckFailedError)
        raise kind(
            str(log.error.get("message") or f"The task {name} failed."),
            detail=log.error.get("detail"),
            hint=log.error.get("hint"),
        )
    # A verification that fails is a result too: the exit code says so, the data says what.
    if log.result is not None:
        return TaskResult(task_arn=arn, data={**(log.result.get("data") or {}), "exit_code": code})
    why = (
        "; ".join(part for part in (container.get("reason"), task.get("stoppedReason")) if part)
        or "neither ECS nor its log says why"
    )
    if code is None:
        hint = None
        if "CannotPullContainer" in why:
            hint = (
                "The image must be in the ECR repository of the DR region: see drill.recovery_image in recovery.toml."
            )
        raise EnvironmentLacksError(f"The task {name} never ran.", detail=why, hint=hint)
    lines = "\n".join(log.tail[-10:])
    raise CheckFailedError(f"The task {name} ended with exit code {code}.", detail=f"{why}\n{lines}".strip())
