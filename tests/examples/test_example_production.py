"""A production of the example: what it refuses, and the whole of it on the embedded cloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml  # type: ignore[import-untyped]  # comes with pulumi, without stubs

from examples.agentverse import cloud, production
from examples.agentverse.errors import EnvironmentLacksError, RefusedError
from examples.agentverse.rehearsal import embedded_cloud, environment_of
from examples.agentverse.stack import ROOT, PrimaryOutputs, project_copy

if TYPE_CHECKING:
    from collections.abc import Iterator


def _silent(_: str) -> None:
    return None


def _example(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTVERSE_", "AWS_", "PULUMI_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "examples.agentverse", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**clean, **environment},
    )


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:4566", True),
        ("http://127.8.9.10", True),
        ("http://[::1]:4566", True),
        ("http://localhost:4566", True),
        ("http://s3.localhost:4566", True),
        ("https://s3.us-east-1.amazonaws.com", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://127.0.0.1@example.org", False),
        ("http://10.0.0.1", False),
        ("127.0.0.1:4566", False),
        ("", False),
    ],
)
def test_only_an_address_that_cannot_leave_this_machine_is_loopback(url: str, loopback: bool) -> None:  # noqa: FBT001  # a table's column
    assert cloud.is_loopback(url) is loopback


@pytest.mark.parametrize("command", [["up"], ["status"], ["down", "--yes"]])
def test_no_command_of_production_reaches_real_aws(command: list[str]) -> None:
    unset = _example("production", *command)
    assert unset.returncode == 3
    assert "would reach real AWS" in unset.stderr
    elsewhere = _example("production", *command, AWS_ENDPOINT_URL="https://cloud.example.org")
    assert elsewhere.returncode == 3
    assert "AWS_ENDPOINT_URL is https://cloud.example.org, which is not this machine" in elsewhere.stderr


def test_an_endpoint_of_one_service_that_leads_elsewhere_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    with pytest.raises(RefusedError, match="AWS_ENDPOINT_URL_S3 is"):
        cloud.embedded_endpoint()


def test_a_cloud_that_does_not_answer_is_a_lack_of_the_environment() -> None:
    silent = _example("production", "up", AWS_ENDPOINT_URL="http://127.0.0.1:9", PULUMI_BACKEND_URL="file:///nowhere")
    assert silent.returncode == 4
    assert "no embedded cloud answers at http://127.0.0.1:9" in silent.stderr


def test_some_other_fake_of_aws_is_not_taken_for_the_embedded_cloud(fake_aws: str) -> None:
    with pytest.raises(EnvironmentLacksError, match=f"what answers at {fake_aws} is no embedded cloud of ours"):
        cloud.embedded_endpoint()


def test_the_project_copy_runs_this_repository_from_anywhere_and_leaves_its_files_alone() -> None:
    before = (ROOT / "Pulumi.primary.yaml").read_bytes()
    with project_copy("primary", settings={"agentverse-dr:protect": "false"}) as folder:
        project = yaml.safe_load((folder / "Pulumi.yaml").read_text())
        stack = yaml.safe_load((folder / "Pulumi.primary.yaml").read_text())
        (folder / "Pulumi.primary.yaml").write_text("rewritten")
    assert project["main"] == str(ROOT / "infra")
    assert project["runtime"]["options"]["virtualenv"] == sys.prefix
    assert stack["config"]["agentverse-dr:protect"] == "false"
    assert stack["config"]["agentverse-dr:program"] == "primary"
    assert (ROOT / "Pulumi.primary.yaml").read_bytes() == before
    assert not folder.exists()


def test_the_settings_of_the_backup_are_those_of_this_production(tmp_path: Path) -> None:
    outputs = PrimaryOutputs.model_validate(
        {
            "schemaVersion": 1, "account": "123456789012", "region": "eu-west-1", "drRegion": "eu-central-1",
            "primaryBucket": "a-primary", "backupsBucket": "a-backups", "drBackupsBucket": "a-dr",
            "evidenceBucket": "a-evidence", "databaseEndpoint": "127.0.0.2", "databasePort": 5432,
            "databaseName": "agentverse", "databaseSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x",
        }
    )  # fmt: skip
    path, variable = production.recovery_settings(outputs, tmp_path)
    text = path.read_text()
    for line in (
        'account = "123456789012"',
        'primary_region = "eu-west-1"',
        'dr_region = "eu-central-1"',
        'backups_bucket = "a-backups"',
        f'project = "{ROOT}"',
    ):
        assert text.count(f"\n{line}\n") == 1
    assert variable.startswith("AGENTVERSE_DATABASE_")


@pytest.fixture(scope="module")
def embedded() -> Iterator[dict[str, str]]:
    home = Path(tempfile.mkdtemp(prefix="avx-", dir="/var/tmp"))
    home.chmod(0o711)
    try:
        with embedded_cloud(_silent, home=home, port=0) as own, environment_of(own):
            yield own
    finally:
        shutil.rmtree(home)


@pytest.mark.slow
def test_a_production_comes_up_once_is_found_complete_and_goes_down_without_a_trace(embedded: dict[str, str]) -> None:
    sizes = ["--megabytes", "2", "--objects", "20"]
    nothing = _example("production", "status", "--json", **embedded)
    assert nothing.returncode == 1, nothing.stderr
    assert json.loads(nothing.stdout)["missing"] == ["the primary stack"]

    first = _example("production", "up", "--json", *sizes, **embedded)
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert made["complete"] is True
    assert made["rows"]["run_events"] > 3000
    assert made["blobs"] == {"telemetry/": 14, "snapshots/": 4, "exports/": 2}
    assert made["backups"] == 1
    assert made["replicated"]["s3://agentverse-primary/telemetry/"] == 14
    assert [phase["name"] for phase in made["phases"]] == ["stack", "database", "blobs", "backup", "replication"]

    second = _example("production", "up", "--json", *sizes, **embedded)
    assert second.returncode == 0, second.stderr
    again = json.loads(second.stdout)
    assert {name: again[name] for name in ("rows", "blobs", "backups")} == {
        name: made[name] for name in ("rows", "blobs", "backups")
    }

    status = _example("production", "status", "--json", **embedded)
    assert (status.returncode, json.loads(status.stdout)["missing"]) == (0, []), status.stderr

    unconfirmed = _example("production", "down", **embedded)
    assert unconfirmed.returncode == 3
    planned = json.loads(_example("production", "down", "--dry-run", "--json", **embedded).stdout)
    down = _example("production", "down", "--yes", "--json", **embedded)
    assert down.returncode == 0, down.stderr
    assert json.loads(down.stdout)["resources"] == planned["resources"]
    assert _example("production", "status", **embedded).returncode == 1
