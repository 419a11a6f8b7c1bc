"""What a container needs before it can start: its program, its environment, its secrets and its log stream.

Everything here fails as Fargate does, with the reason a person later reads in the task's `stoppedReason`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.logs.models import logs_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.ssm.models import ssm_backends

from localcloud.moto_errors import MOTO_ERRORS, describe
from localcloud.reconciler import Context

# What a task may know of the machine it runs on; everything else comes from its definition.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR")

_ECR_HOST = re.compile(r"^\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?$")


class StartFailureError(Exception):
    """Raised when a task cannot start; the text is what AWS would say as its stopped reason."""


@dataclass(frozen=True, kw_only=True)
class LogStream:
    """Where a container's output goes: CloudWatch Logs of one region."""

    account: str
    region: str
    group: str
    name: str

    def put(self, messages: list[dict[str, Any]]) -> None:
        """Append events ({"timestamp": milliseconds, "message": text}); raises one of MOTO_ERRORS where it is gone."""
        logs_backends[self.account][self.region].put_log_events(self.group, self.name, messages)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One container, ready to start."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    log: LogStream | None
    essential: bool
    stop_timeout: float


@dataclass(frozen=True, kw_only=True)
class TaskPlace:
    """Which task a container belongs to, and what its region can reach: `dark` regions answer nothing."""

    task_id: str
    account: str
    region: str
    dark: frozenset[str]


def _split_image(image: str) -> tuple[str, str]:
    """Return the registry ("" for the default one) and the repository of an image, without tag and digest."""
    name = image.partition("@")[0]
    head, slash, rest = name.partition("/")
    registry, path = (head, rest) if slash and ("." in head or ":" in head or head == "localhost") else ("", name)
    folder, slash, last = path.rpartition("/")
    return registry, f"{folder}{slash}{last.partition(':')[0]}"


def image_command(image: str, images: Mapping[str, tuple[str, ...]], dark: frozenset[str]) -> tuple[str, ...]:
    """Return the local command that stands for this image.

    The table's keys are a repository's last path components, the longest match wins. Raises StartFailureError as
    Fargate does for an image that does not exist, or whose registry is in a dark region.
    """
    registry, repository = _split_image(image)
    ecr = _ECR_HOST.match(registry)
    if ecr is not None and ecr["region"] in dark:
        raise StartFailureError(
            f"CannotPullContainerError: pull image manifest has been retried 7 time(s): failed to resolve ref {image}: "
            f"failed to do request: Head https://{registry}/v2/{repository}/manifests/: dial tcp: i/o timeout"
        )
    parts = repository.split("/")
    for start in range(len(parts)):
        command = images.get("/".join(parts[start:]))
        if command is not None:
            return tuple(word.replace("{python}", sys.executable) for word in command)
    raise StartFailureError(
        f"CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: "
        f"{image}: not found"
    )


def _no_secret(source: str, why: str) -> StartFailureError:
    return StartFailureError(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "
        f"unable to retrieve secret from {source}: service call has been retried 1 time(s): {why}"
    )


def _secrets_manager_value(arn: str, place: TaskPlace) -> str:
    parts = arn.split(":")
    secret_arn, region = ":".join(parts[:7]), parts[3]
    json_key, stage, version = (*parts[7:], "", "", "")[:3]
    if region in place.dark:
        raise _no_secret("asm", f"failed to fetch secret {secret_arn} from secrets manager: i/o timeout")
    try:
        found = secretsmanager_backends[parts[4]][region].get_secret_value(
            secret_id=secret_arn,
            version_id=version or None,  # type: ignore[arg-type]  # as GetSecretValue calls it
            version_stage=stage or "AWSCURRENT",
        )
    except MOTO_ERRORS as exc:
        raise _no_secret("asm", f"failed to fetch secret {secret_arn} from secrets manager: {describe(exc)}") from exc
    text = found.get("SecretString")
    if text is None:
        raise _no_secret("asm", f"secret {secret_arn} is not a string")
    if not json_key:
        return str(text)
    try:
        value = json.loads(text)[json_key]
    except (ValueError, KeyError, TypeError) as exc:
        raise _no_secret("asm", f"retrieved secret from Secrets Manager did not contain json key {json_key}") from exc
    return value if isinstance(value, str) else json.dumps(value)


def _parameter_value(source: str, place: TaskPlace) -> str:
    parts = source.split(":", 5)
    is_arn = source.startswith("arn:")
    region, account = (parts[3], parts[4]) if is_arn else (place.region, place.account)
    name = parts[5].removeprefix("parameter") if is_arn else source
    if region in place.dark:
        raise _no_secret("ssm", f"failed to fetch parameter {name}: i/o timeout")
    backend = ssm_backends[account][region]
    # An ARN says parameter/x both for the parameter "x" and for "/x".
    for candidate in (name, name.removeprefix("/")):
        found = backend.get_parameter(candidate)
        if found is not None:
            secure = found.parameter_type == "SecureString"
            return str(found.decrypt(found.value) if secure else found.value)
    raise _no_secret("ssm", f"Invalid parameters: {name}")


def _secret(source: str, place: TaskPlace) -> str:
    if source.startswith("arn:") and source.split(":")[2] == "secretsmanager":
        return _secrets_manager_value(source, place)
    return _parameter_value(source, place)


def _log_stream(definition: Mapping[str, Any], place: TaskPlace) -> LogStream | None:
    configuration = definition.get("logConfiguration")
    if not configuration or configuration.get("logDriver") != "awslogs":
        return None
    options = configuration.get("options") or {}
    region = options.get("awslogs-region", place.region)
    group = options.get("awslogs-group", "")
    prefix = options.get("awslogs-stream-prefix")
    name = f"{prefix}/{definition['name']}/{place.task_id}" if prefix else place.task_id

    def refuse(why: str) -> StartFailureError:
        return StartFailureError(
            "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: "
            f"failed to create Cloudwatch log stream: {why} : exit status 1"
        )

    if region in place.dark:
        raise refuse(f"dial tcp: lookup logs.{region}.amazonaws.com: i/o timeout")
    backend = logs_backends[place.account][region]
    if group not in backend.groups:
        if options.get("awslogs-create-group") != "true":
            raise refuse("ResourceNotFoundException: The specified log group does not exist.")
        backend.create_log_group(group, {})
    backend.ensure_log_stream(group, name)
    return LogStream(account=place.account, region=region, group=group, name=name)


def _base_environment(context: Context, region: str) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return environment | {
        "AWS_ENDPOINT_URL": context.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
        # A person's own profiles must not reach a task, whatever HOME is.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # Output appears line by line while the task runs, as images are built to do.
        "PYTHONUNBUFFERED": "1",
    }


def prepare(definition: Mapping[str, Any], override: Mapping[str, Any], context: Context, place: TaskPlace) -> Launch:
    """Return what starts this container, from its definition and its override (both as RunTask has them).

    Secrets and the log stream come first and the image after, which is the order Fargate fails in. Raises
    StartFailureError.
    """
    if definition.get("environmentFiles") or override.get("environmentFiles"):
        raise StartFailureError(
            f"ResourceInitializationError: failed to download env files of container {definition['name']}: "
            "the embedded cloud does not read environmentFiles"
        )
    environment = _base_environment(context, place.region)
    environment |= {item["name"]: item.get("value", "") for item in definition.get("environment") or []}
    environment |= {item["name"]: _secret(item["valueFrom"], place) for item in definition.get("secrets") or []}
    environment |= {item["name"]: item.get("value", "") for item in override.get("environment") or []}
    log = _log_stream(definition, place)
    entry_point = image_command(definition["image"], context.images, place.dark)
    if definition.get("entryPoint"):
        entry_point = tuple(definition["entryPoint"])
    command = override.get("command") or definition.get("command") or []
    return Launch(
        name=definition["name"],
        argv=(*entry_point, *command),
        environment=environment,
        log=log,
        essential=bool(definition.get("essential", True)),
        # Fargate allows 120 seconds, and gives 30 where nothing is said.
        stop_timeout=float(min(definition.get("stopTimeout", 30), 120)),
    )
