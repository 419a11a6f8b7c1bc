"""Every wrong value is refused where it stands, before any cloud is called, with its limit and the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import settings

ROOT = Path(__file__).parents[2]


def test_every_configuration_key_is_described_and_has_a_default_or_is_set_by_every_stack() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    stacks = [yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"] for stack in ("primary", "dr")]
    for key, schema in project.items():
        assert schema["description"], key
        assert schema["type"] in {"string", "integer", "boolean", "array"}, key
        assert "default" in schema or all(key in stack for stack in stacks), key


def test_stack_files_set_only_keys_that_the_project_knows_and_no_secret() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    for stack in ("primary", "dr"):
        document = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())
        assert set(document["config"]) - {"aws:region"} <= set(project)
        assert not [value for value in document["config"].values() if isinstance(value, dict)]


def test_the_committed_stack_files_are_valid(configure: Callable[..., None]) -> None:
    configure("primary")
    primary = settings.load()
    configure("dr")
    dr = settings.load()
    assert (primary.program, primary.home_region, primary.recovery) == ("primary", "us-east-1", None)
    assert (dr.program, dr.home_region) == ("dr", "us-west-2")
    assert dr.recovery is not None
    assert (dr.recovery.drill_id, dr.recovery.mode) == ("manual", "drill")
    assert primary.network_cidr != dr.network_cidr


def test_a_failover_never_expires_even_if_the_template_it_was_copied_from_says_when(
    configure: Callable[..., None],
) -> None:
    configure("dr", mode="failover", expiresAt="2026-01-09T06:00:00Z")
    recovery = settings.load().recovery
    assert recovery is not None
    assert recovery.expires_at == settings.NEVER_EXPIRES


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("program", "both", "primary, dr"),
        ("environment", "Production", "64"),
        ("environment", "a" * 11, "1 to 10"),
        ("primaryRegion", "us-west-2", "lost together"),
        ("drRegion", "oregon", "us-west-2"),
        ("primaryBucket", "Capital", "lower-case"),
        ("backupsBucket", "dots.are.bad", "TLS certificate"),
        ("evidenceBucket", "agentverse-backups-dr", "drBackupsBucket has that name already"),
        ("supersededRetentionDays", 0, "whole days"),
        ("logRetentionDays", 31, "CloudWatch Logs keeps 1, 3, 5"),
        ("serviceLinkedRoles", ["ecs"], "ecs.amazonaws.com"),
        ("networkCidr", "10.0.0.0/8", "/16"),
        ("networkCidr", "10.0.0.0/25", "/28"),
        ("networkCidr", "8.8.0.0/16", "private"),
        ("networkCidr", "10.0.0.1/16", "host bits"),
        ("databaseName", "Agent-Verse", "fold"),
        ("databaseVersion", "16.4", "major version"),
        ("databaseInstanceClass", "t4g.medium", "db.t4g.medium"),
        ("databaseStorageGb", 10, "20 to 65536"),
        ("databaseMaxStorageGb", 105, "110 to 65536"),
        ("databaseBackupRetentionDays", 36, "0 to 35"),
        ("cacheNodeType", "t4g.small", "cache.t4g.small"),
        ("cacheEngineVersion", "5.0", "TLS and AUTH"),
        ("cacheReplicas", 6, "0 to 5"),
        ("drillId", "Manual", "40 characters"),
        ("drillId", "a--b", "single hyphens"),
        ("drillId", "a" * 21, "at most 20"),
        ("mode", "rehearsal", "drill, failover"),
        ("expiresAt", "", "reaper"),
        ("expiresAt", "2026-01-09T06:00:00", "with a zone"),
        ("expiresAt", "2026-01-09", "with a zone"),
        ("owner", "", "1 to 256"),
        ("owner", "me; you", "tag"),
        ("recoveryCpu", 1000, "Fargate sells 256, 512"),
        ("recoveryMemoryMb", 4096, "Fargate sells 8192, 9216"),
        ("recoveryEphemeralStorageGb", 20, "21 to 200"),
    ],
)
def test_a_wrong_value_is_refused_with_its_limit_and_the_reason(
    configure: Callable[..., None], key: str, value: Any, reason: str
) -> None:
    overrides = {key: value}
    if key == "recoveryMemoryMb":
        overrides["recoveryCpu"] = 4096
    configure("dr", **overrides)
    with pytest.raises(settings.SettingsError) as refused:
        settings.load()
    message = str(refused.value)
    assert reason in message
    assert "agentverse-dr:" in message
    assert "pulumi config set" in message


@pytest.mark.parametrize(("cpu", "memory"), [(256, 1536), (8192, 17408), (16384, 36864)])
def test_a_memory_between_two_that_fargate_sells_is_refused(
    configure: Callable[..., None], cpu: int, memory: int
) -> None:
    configure("dr", recoveryCpu=cpu, recoveryMemoryMb=memory)
    with pytest.raises(settings.SettingsError, match="MB only"):
        settings.load()


def test_logs_may_be_kept_for_every_time_that_cloudwatch_sells(configure: Callable[..., None]) -> None:
    for days in (1, 731, 2192, 2557, 2922, 3288, 3653):
        configure("dr", logRetentionDays=days)
        assert settings.load().log_retention_days == days


def test_a_provider_region_other_than_the_programs_own_is_refused(configure: Callable[..., None]) -> None:
    configure("dr", **{"aws:region": "us-east-1"})
    with pytest.raises(ValueError, match="pulumi config set aws:region us-west-2"):
        settings.load()


def test_a_dr_program_without_an_expiry_does_not_bother_the_primary_program(configure: Callable[..., None]) -> None:
    configure("primary", expiresAt="", mode="nonsense")
    assert settings.load().recovery is None
