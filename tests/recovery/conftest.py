"""What the tests of the spine share: journals in a scratch folder, and moto's AWS inside this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from recovery.clients import Clients
from recovery.journal import Journal
from recovery.runbook import Runbook, Runner, RunResult, Step

DRILL = "20260109-020000-1a2b"
MOTO_ACCOUNT = "123456789012"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / DRILL / "journal.jsonl", DRILL) as opened:
        yield opened


@pytest.fixture
def run(journal: Journal) -> Callable[..., RunResult]:
    """Run steps as one runbook, from a thread that takes no signals or from this one."""

    def run_steps(*steps: Step) -> RunResult:
        return Runner(Runbook("test", "Test", steps), journal, finish_command="recovery environment reap").run()

    return run_steps


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        yield Clients("us-west-2")
