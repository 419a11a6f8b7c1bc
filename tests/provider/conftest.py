"""An embedded cloud on a free port, and programs brought up on it by the real engine with the embedded provider."""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from pulumi import automation as auto

ROOT = Path(__file__).resolve().parents[2]
VERSION = "7.51.1"

with warnings.catch_warnings():
    # pulumi_aws warns of its own deprecated classes while it is imported, lazily, in the midst of a program
    warnings.simplefilter("ignore")
    for service in (
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
        importlib.import_module(f"pulumi_aws.{service}").outputs  # noqa: B018  # the first attribute loads it


def _pulumi() -> Path:
    beside = Path(sys.executable).parent / "pulumi"
    for candidate in (shutil.which("pulumi"), str(beside), os.environ.get("AGENTVERSE_PULUMI")):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    pytest.fail("no Pulumi CLI: put one on PATH, in .venv/bin or name it in AGENTVERSE_PULUMI")


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Start an embedded cloud of its own on a free loopback port; yield its URL."""
    # below /var/tmp and open to all: its database servers run as an unprivileged user
    home = Path(tempfile.mkdtemp(prefix="av-provider-", dir="/var/tmp"))  # a fresh folder of its own
    home.chmod(0o755)
    command = [sys.executable, "-m", "localcloud"]
    try:
        subprocess.run(
            [*command, "start", "--port", "0", "--home", str(home)], check=True, capture_output=True, cwd=ROOT
        )
        told = subprocess.run(
            [*command, "env", "--json", "--home", str(home)], check=True, capture_output=True, cwd=ROOT
        )
        yield json.loads(told.stdout)["endpoint"]
    finally:
        subprocess.run([*command, "stop", "--home", str(home)], check=False, capture_output=True, cwd=ROOT)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def client(endpoint: str) -> Callable[..., Any]:
    """Return a maker of boto3 clients of the cloud under test: client(service, region)."""

    def make(service: str, region: str = "us-east-1") -> Any:
        return boto3.client(
            service, region_name=region, endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        )

    return make


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PULUMI_HOME whose only plugin is the embedded provider."""
    home = tmp_path_factory.mktemp("pulumi-home")
    launcher = home / "plugins" / f"resource-aws-v{VERSION}" / "pulumi-resource-aws"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m localcloud.provider "$@"\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    (home / "bin").mkdir()
    (home / "bin" / "pulumi").symlink_to(_pulumi())
    return home


class Deployment:
    """One stack of one inline program, which a test may change between updates."""

    def __init__(self, name: str, home: Path, state: Path, endpoint: str) -> None:
        self.name = name
        self.state = state
        self.program: Callable[[], None] = lambda: None
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{state}",
            "PULUMI_CONFIG_PASSPHRASE": "local",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        self.stack = auto.create_or_select_stack(
            stack_name=name,
            project_name="provider-tests",
            program=lambda: self.program(),  # noqa: PLW0108  # the program changes between updates
            opts=auto.LocalWorkspaceOptions(
                env_vars=environment,
                pulumi_home=str(home),
                pulumi_command=auto.PulumiCommand(root=str(home), skip_version_check=True),
            ),
        )

    def preview(self, program: Callable[[], None]) -> dict[str, int]:
        """Preview the program; return how many resources it would create, update, replace, leave."""
        self.program = program
        return {str(op): n for op, n in self.stack.preview().change_summary.items()}

    def up(self, program: Callable[[], None] | None = None) -> dict[str, int]:
        """Bring the program up; return the summary of changes."""
        self.program = program or self.program
        return dict(self.stack.up().summary.resource_changes or {})

    def refresh(self) -> dict[str, int]:
        """Look at everything again; return the summary of changes."""
        return dict(self.stack.refresh().summary.resource_changes or {})

    def output(self, name: str) -> Any:
        """Return a stack output."""
        return self.stack.outputs()[name].value

    def resource(self, name: str) -> dict[str, Any]:
        """Return a resource of the exported state by its Pulumi name."""
        resources = self.stack.export_stack().deployment["resources"]
        return next(r for r in resources if r["urn"].endswith(f"::{name}"))

    def stored(self) -> str:
        """Return the text of the state as it lies on disk (an export would decrypt it)."""
        (file,) = (self.state / ".pulumi" / "stacks").rglob(f"{self.name}.json")
        return file.read_text()

    def settle(self) -> None:
        """Assert that a second `up` and a refresh find nothing to change."""
        for summary in (self.up(), self.refresh()):
            assert set(summary) == {"same"}, summary

    def destroy(self) -> None:
        """Destroy everything."""
        self.stack.destroy()


@pytest.fixture
def deployment(pulumi_home: Path, tmp_path: Path, endpoint: str) -> Iterator[Callable[..., Deployment]]:
    """Return a maker of deployments, each destroyed at the end of the test."""
    made: list[Deployment] = []
    numbers = itertools.count(1)

    def make(url: str = endpoint) -> Deployment:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        made.append(Deployment(f"stack{next(numbers)}", pulumi_home, state, url))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(auto.CommandError):
            each.destroy()
    gc.collect()  # what a program left behind is found in its own test, not in the next one
