"""What every test may use: where the shared inputs are, and where the engine is."""

from __future__ import annotations

import shutil
import sys
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
