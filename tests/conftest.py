"""What every test may use: where the shared inputs are, where the engine is, and an AWS that is none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of shared inputs beside the repository; without it the test says NOT RUN."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("NOT RUN: no ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def pulumi() -> Path:
    """Return the Pulumi command line that set-up put beside this Python."""
    beside = Path(sys.executable).parent / "pulumi"
    found = beside if beside.exists() else shutil.which("pulumi")
    assert found, "no pulumi beside this Python nor on PATH: run `make setup`"
    return Path(found)


@pytest.fixture(scope="session")
def aws_endpoint() -> Iterator[str]:
    """Return the address of an AWS that is moto's alone, on a free loopback port, for the session."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  # a second to import, which most tests have no use for

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def fake_aws(aws_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point any AWS client of this test at that AWS, through the environment; return its address."""
    for name, value in {
        "AWS_ENDPOINT_URL": aws_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return aws_endpoint
