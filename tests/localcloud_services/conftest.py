"""A cloud in the test's own process: moto's control plane on a free port, with the parts under test behind it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from localcloud import containers, ec2_corrections, replication, s3_corrections
from localcloud.outage import Outage
from localcloud.reconciler import Context
from localcloud.settings import Home

ACCOUNT = "123456789012"
IMAGES = {
    "shell": ("/bin/sh", "-c"),
    "team/python": (sys.executable, "-c"),
    "agentverse-recovery": ("{python}", "-c"),
    "broken": ("/nowhere/program",),
}


class _Handler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # the name is werkzeug's
        """Say nothing."""


class SmallCloud:
    """What a test drives: clients by region, and the doors of the parts."""

    def __init__(self, home: Path, delay: float = 0.0) -> None:
        Home(path=home).prepare()
        self.home = home
        self._application = Outage(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self._application, threaded=True, request_handler=_Handler)
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.context = Context(
            home=home,
            instance_id="test",
            endpoint=self.endpoint,
            account=ACCOUNT,
            images=IMAGES,
            replication_delay=delay,
        )
        self.replication = replication.reconciler(self.context)
        self.corrections = s3_corrections.reconciler(self.context)
        self.containers = containers.reconciler(self.context)
        network = ec2_corrections.reconciler(self.context)
        self.parts = (self.replication, self.corrections, network, self.containers)
        for part in self.parts:
            part.install()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self._clients: list[Any] = []
        self._bodies: list[Any] = []

    def client(self, service: str, region: str = "us-east-1", **config: Any) -> Any:
        client: Any = boto3.client(
            service,  # type: ignore[call-overload]  # any service
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, **config),
        )
        self._clients.append(client)
        # A test that looks at an object's headers alone leaves a connection open.
        client.meta.events.register("after-call.s3.GetObject", self._remember_body)
        return client

    def _remember_body(self, parsed: dict[str, Any], **_: Any) -> None:
        if "Body" in parsed:
            self._bodies.append(parsed["Body"])

    def blackout(self, region: str) -> None:
        self._application.blackout(region)
        for part in self.parts:
            part.suspend(region)

    def restore(self, region: str) -> None:
        for part in self.parts:
            part.resume(region)
        self._application.restore(region)

    def close(self) -> None:
        for body in self._bodies:
            body.close()
        for client in self._clients:
            client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for part in self.parts:
            part.stop()
        BackendDict.reset()


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="av-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cloud(home: Path) -> Iterator[SmallCloud]:
    small = SmallCloud(home)
    yield small
    small.close()


@pytest.fixture
def slow_cloud(home: Path) -> Iterator[SmallCloud]:
    """Return a cloud whose replicas lag so far behind that a test meets them before they are there."""
    small = SmallCloud(home, delay=3600.0)
    yield small
    small.close()


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Return a function that asks again until the answer is true, and fails the test when it never is."""

    def ask(question: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (answer := question()):
            assert time.monotonic() < deadline, "never came true"
            time.sleep(0.02)
        return answer

    return ask
