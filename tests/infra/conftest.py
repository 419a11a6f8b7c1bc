"""A mock engine that records and runs whole programs as a stack; tests assert after it has drained."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime.stack import Stack, run_pulumi_func
from pulumi.runtime.sync_await import _sync_await

with warnings.catch_warnings():
    # pulumi_aws.ec2 imports a module of its own that it calls deprecated; its services load when first used.
    warnings.simplefilter("ignore", DeprecationWarning)
    for _service in (
        "cloudwatch",
        "ec2",
        "ecr",
        "ecs",
        "elasticache",
        "iam",
        "kms",
        "rds",
        "s3",
        "secretsmanager",
        "vpc",
    ):
        hasattr(importlib.import_module(f"pulumi_aws.{_service}"), "_")  # lazy: asking it for anything loads it

from infra import dr, primary, settings  # after their services were loaded in quiet

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
ZONES = ("a", "b", "c")


class Declared:
    """One resource a program declared: its type token, logical name and inputs (camelCase, secrets in the clear)."""

    def __init__(self, typ: str, name: str, inputs: dict[str, Any]) -> None:
        self.typ = typ
        self.name = name
        self.inputs = inputs

    @property
    def kind(self) -> str:
        """`s3/Bucket` of the token `aws:s3/bucket:Bucket`."""
        module, _, leaf = self.typ.removeprefix("aws:").partition(":")
        return f"{module.partition('/')[0]}/{leaf}"

    def __repr__(self) -> str:
        return f"{self.kind} {self.name}"


class Engine(pulumi.runtime.Mocks):
    """Answers as AWS would, as far as another resource's input needs it, and keeps `.resources` and `.invokes`."""

    def __init__(self) -> None:
        self.resources: list[Declared] = []
        self.invokes: list[pulumi.runtime.MockCallArgs] = []
        self.outputs: dict[str, Any] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        inputs = dict(args.inputs)
        if not args.typ.startswith("aws:"):
            return f"{args.name}-id", inputs
        resource = Declared(args.typ, args.name, inputs)
        self.resources.append(resource)
        region = inputs.get("region", "global")
        outputs = {"arn": f"arn:aws:{resource.kind}:{region}:{ACCOUNT}:{args.name}"}
        match resource.kind:
            case "rds/Instance":
                outputs |= {
                    "address": f"{inputs['identifier']}.example",
                    "masterUserSecrets": [{"secretArn": f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:rds!db-1"}],
                }
            case "elasticache/ReplicationGroup":
                outputs |= {"primaryEndpointAddress": f"{inputs['replicationGroupId']}.example"}
            case "kms/Key":
                outputs |= {"keyId": f"{args.name}-id"}
            case "ec2/VpcEndpoint":
                outputs |= {"prefixListId": f"pl-{args.name}"}
            case "ecr/Repository":
                outputs |= {"repositoryUrl": f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{inputs['name']}"}
            case _:
                pass
        return f"{args.name}-id", {**inputs, **outputs}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        self.invokes.append(args)
        match args.token:
            case "aws:index/getCallerIdentity:getCallerIdentity":
                return {"accountId": ACCOUNT, "arn": "arn", "id": ACCOUNT, "userId": "AID"}
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                return {"names": [f"{args.args['region']}{zone}" for zone in reversed(ZONES)], "id": "zones"}
            case "aws:kms/getAlias:getAlias":
                return {"targetKeyArn": key_arn(args.args["region"]), "name": args.args["name"], "id": "alias"}
            case "aws:secretsmanager/getRandomPassword:getRandomPassword":
                return {"randomPassword": "x" * int(args.args["passwordLength"]), "id": "password"}
            case token:
                raise AssertionError(f"the program asked for {token}, which no stack may use")

    def of(self, kind: str) -> list[Declared]:
        """Return the resources of `kind`, as in `s3/Bucket`."""
        return [resource for resource in self.resources if resource.kind == kind]

    def one(self, kind: str, name: str | None = None) -> Declared:
        """Return the only resource of `kind`, or the one called `name`."""
        (resource,) = [resource for resource in self.of(kind) if name in (None, resource.name)]
        return resource


def key_arn(region: str) -> str:
    """The ARN of the key that `dr` finds."""
    return f"arn:aws:kms:{region}:{ACCOUNT}:key/1"


def document(value: str) -> dict[str, Any]:
    """Parse a policy document."""
    parsed: dict[str, Any] = json.loads(value)
    return parsed


def stack_config(stack: str, overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return what the engine hands a program: Pulumi.yaml's defaults, the committed stack file, `overrides`."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    values = {key: schema["default"] for key, schema in project.items() if "default" in schema}
    values |= yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    values |= {key if ":" in key else f"agentverse-dr:{key}": value for key, value in (overrides or {}).items()}
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Set the configuration of the committed stack file of `stack`, with overrides by key."""

    def set_config(stack: str, **overrides: Any) -> None:
        pulumi.runtime.set_all_config(stack_config(stack, overrides))

    yield set_config
    pulumi.runtime.set_all_config({})


@functools.cache
def _engine_loop() -> asyncio.AbstractEventLoop:
    """Return the one event loop of all programs of these tests.

    It is never closed: that would end its worker threads, in each of which the SDK's mocks leave a loop of their own.
    """
    return asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def _current_loop() -> None:
    """Make it the main thread's: the mocks ask for one, and asyncio.run of a test elsewhere leaves none behind."""
    asyncio.set_event_loop(_engine_loop())


@pytest.fixture
def run(configure: Callable[..., None]) -> Callable[..., Engine]:
    """Run the program of the committed stack file of `stack` to its end and return the engine that saw it."""

    def run_stack(stack: str, **overrides: Any) -> Engine:
        configure(stack, **overrides)
        engine = Engine()
        pulumi.runtime.set_mocks(engine, project="agentverse-dr", stack=stack, preview=False)
        pulumi.runtime.settings.set_root_resource(None)  # type: ignore[arg-type]  # each run is a stack of its own

        def program() -> None:
            loaded = settings.load()
            declare = {"primary": primary.declare, "dr": dr.declare}[loaded.program]
            for key, value in declare(loaded).items():
                pulumi.Output.from_input(value).apply(lambda known, key=key: engine.outputs.__setitem__(key, known))

        _sync_await(run_pulumi_func(lambda: Stack(program)))
        return engine

    return run_stack
