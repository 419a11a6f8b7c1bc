"""The reaper: what it may touch, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery import reaping
from recovery.clients import Clients
from recovery.errors import RefusedError
from recovery.journal import Journal
from recovery.settings import Platform, Settings

DRILL = "20260109-020000-1a2b"
ACCOUNT = "123456789012"


def _settings(folder: Path) -> Settings:
    return Settings(source=folder / "recovery.toml", drills=folder, platform=Platform(account=ACCOUNT))


def _journal(folder: Path, *, local: bool) -> Journal:
    journal = Journal(folder / DRILL / "journal.jsonl", DRILL)
    journal.append("run-started", {"runbook": "quarterly", "title": "T", "steps": [], "local": local})
    return journal


def test_a_drill_that_runs_is_not_removed(aws: Clients, tmp_path: Path) -> None:
    with _journal(tmp_path, local=False), pytest.raises(RefusedError, match="is running"):
        reaping.remove(_settings(tmp_path), aws, DRILL, account=ACCOUNT, local=None, note=print)


def test_a_drill_of_the_embedded_cloud_is_not_taken_for_removed_on_aws(aws: Clients, tmp_path: Path) -> None:
    _journal(tmp_path, local=True).close()
    with pytest.raises(RefusedError, match="ran on the embedded cloud"):
        reaping.remove(_settings(tmp_path), aws, DRILL, account=ACCOUNT, local=None, note=print)


def test_nothing_is_removed_in_a_foreign_account(aws: Clients, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="210987654321"):
        reaping.remove(_settings(tmp_path), aws, DRILL, account="210987654321", local=None, note=print)


def test_a_kept_or_foreign_mode_environment_is_judged_to_stay(aws: Clients, tmp_path: Path) -> None:
    for mode, expected in (("failover", "only drills are reaped"), ("drill", "may be running on another machine")):
        candidate = reaping._judge(
            _settings(tmp_path),
            DRILL,
            stack=False,
            tags={"agentverse:mode": mode, "agentverse:expires-at": "2100-01-01T00:00:00Z"},
            now=reaping.datetime.now(reaping.UTC),
        )
        assert not candidate.reap
        assert expected in candidate.reason
    assert aws.region == "us-west-2"


def test_an_expired_drill_is_judged_to_go(tmp_path: Path) -> None:
    candidate = reaping._judge(
        _settings(tmp_path),
        DRILL,
        stack=False,
        tags={"agentverse:mode": "drill", "agentverse:expires-at": "2020-01-01T00:00:00Z"},
        now=reaping.datetime.now(reaping.UTC),
    )
    assert candidate.reap
    assert "it expired at 2020-01-01" in candidate.reason
