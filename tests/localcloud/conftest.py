"""A cloud started as anybody starts it: the command line, in a home of its own, on a free port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

REGION = "us-west-2"


def run_localcloud(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line and return what it said, whatever it returned."""
    return subprocess.run(
        [sys.executable, "-m", "localcloud", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@dataclass(frozen=True)
class RunningCloud:
    """A started cloud: its `localcloud env --json`, and clients for it."""

    home: Path
    document: dict[str, Any]
    stack: ExitStack

    @property
    def endpoint(self) -> str:
        return str(self.document["endpoint"])

    @property
    def pid(self) -> int:
        return int(self.document["pid"])

    def client(self, service: str, region: str = REGION) -> Any:
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region)
        client: Any = session.client(
            service,  # type: ignore[call-overload]  # any service, by name
            endpoint_url=self.endpoint,
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.stack.callback(client.close)
        return client

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run_localcloud(*arguments, "--home", self.home)

    def rows(self) -> list[dict[str, str]]:
        """Return what `localcloud status` says runs."""
        answer: list[dict[str, str]] = json.loads(self.run("status", "--json").stdout)["running"]
        return answer

    def processes(self) -> list[psutil.Process]:
        """Return every process below this cloud's own."""
        return psutil.Process(self.pid).children(recursive=True)


@pytest.fixture(scope="session")
def short_home() -> Iterator[Callable[[], Path]]:
    """Return a maker of homes: short paths that an unprivileged user reaches, gone afterwards with what runs there."""
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="lc-", dir="/var/tmp"))
        made.append(folder / "h")
        folder.chmod(0o711)
        return folder / "h"

    yield make
    for home in made:
        run_localcloud("stop", "--home", home)
        shutil.rmtree(home.parent)


@pytest.fixture(scope="session")
def start_cloud(short_home: Callable[[], Path]) -> Iterator[Callable[..., RunningCloud]]:
    """Return a starter of clouds; all are stopped when the session ends."""
    with ExitStack() as stack:

        def start(home: Path | None = None, *arguments: str) -> RunningCloud:
            home = home or short_home()
            done = run_localcloud("start", "--port", "0", "--home", home, "--json", *arguments)
            assert done.returncode == 0, done.stderr
            return RunningCloud(home=home, document=json.loads(done.stdout), stack=stack)

        yield start


@pytest.fixture(scope="session")
def cloud(start_cloud: Callable[..., RunningCloud]) -> RunningCloud:
    """Return the one cloud that tests share which neither kill nor darken nor reset it."""
    return start_cloud()


@pytest.fixture(scope="session")
def rds(cloud: RunningCloud) -> RDSClient:
    client: RDSClient = cloud.client("rds")
    return client


@pytest.fixture(scope="session")
def elasticache(cloud: RunningCloud) -> ElastiCacheClient:
    client: ElastiCacheClient = cloud.client("elasticache")
    return client


@pytest.fixture(scope="session")
def secretsmanager(cloud: RunningCloud) -> SecretsManagerClient:
    client: SecretsManagerClient = cloud.client("secretsmanager")
    return client
