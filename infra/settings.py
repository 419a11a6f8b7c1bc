"""The one reader of Pulumi's configuration: it returns frozen Settings or says which value is wrong, and why.

Defaults live in Pulumi.yaml, where `pulumi config` and a person see them; there are none here to disagree with it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast, get_args

import pulumi

NAMESPACE: Final = "agentverse-dr"

Program = Literal["primary", "dr"]
Mode = Literal["drill", "failover"]

NEVER_EXPIRES: Final = "never"
"""Value of the expires-at tag of a failover: the reaper must have nothing to compare with the clock."""

# Fargate sells these sizes only: CPU units -> memory in MB.
_FARGATE_MEMORY: Final[Mapping[int, Sequence[int]]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}
# What Fargate accepts as ephemeral storage; a smaller wish is given 20 GB without asking for it.
_EPHEMERAL_STORAGE_GB: Final = range(21, 201)
# RDS: gp3 volumes of PostgreSQL, GB.
_DATABASE_STORAGE_GB: Final = range(20, 65_537)
_BACKUP_RETENTION_DAYS: Final = range(36)
_CACHE_REPLICAS: Final = range(6)
# A VPC may be a /16 at most; below a /24 the two zones' subnets (a sixteenth each) fall under AWS's smallest, the /28.
_NETWORK_PREFIX: Final = range(16, 25)
_LOG_RETENTION_DAYS: Final = frozenset(
    {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
)


class SettingsError(ValueError):
    """A configuration value cannot be used: says the key, the value, the limit, its reason and how to set it."""

    def __init__(self, key: str, value: object, why: str) -> None:
        super().__init__(f"{NAMESPACE}:{key} is {value!r}: {why}. Set it with: pulumi config set {key} VALUE")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """The RDS PostgreSQL of either program. Sizes in GB, retention in days."""

    name: str
    username: str
    major_version: str
    instance_class: str
    storage_gb: int
    max_storage_gb: int
    multi_az: bool
    backup_retention_days: int


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """The ElastiCache replication group of either program; `replicas` besides its primary node."""

    node_type: str
    engine_version: str
    replicas: int


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """Identity and size of one DR environment. `expires_at` is RFC 3339, or `never` for a failover."""

    drill_id: str
    mode: Mode
    expires_at: str
    owner: str
    image: str
    cpu: int
    memory_mb: int
    ephemeral_storage_gb: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that one stack is told. `recovery` is None in the primary program."""

    program: Program
    environment: str
    primary_region: str
    dr_region: str
    primary_bucket: str
    backups_bucket: str
    dr_backups_bucket: str
    evidence_bucket: str
    protect: bool
    superseded_retention_days: int
    noncurrent_retention_days: int
    drill_objects_retention_days: int
    log_retention_days: int
    service_linked_roles: tuple[str, ...]
    network_cidr: str
    database: DatabaseSettings
    cache: CacheSettings
    recovery: RecoverySettings | None

    @property
    def home_region(self) -> str:
        """The region in which this program's database, cache and network stand."""
        return self.primary_region if self.program == "primary" else self.dr_region


def load() -> Settings:
    """Read and validate this stack's configuration; raises SettingsError, and ConfigMissingError for an unset key."""
    config = pulumi.Config(NAMESPACE)
    program = cast("Program", _one_of(config, "program", get_args(Program)))
    primary_region = _region(config, "primaryRegion")
    dr_region = _region(config, "drRegion")
    if primary_region == dr_region:
        raise SettingsError("drRegion", dr_region, "it is the primary region too, and both would be lost together")
    settings = Settings(
        program=program,
        environment=_matching(
            config,
            "environment",
            r"[a-z][a-z0-9]{0,9}",
            "it must be 1 to 10 lower-case letters and digits, beginning with a letter, because role names of at most"
            " 64 characters and database names of at most 63 are made of it, and platform.environment of recovery.toml"
            " takes no longer one",
        ),
        primary_region=primary_region,
        dr_region=dr_region,
        primary_bucket=_bucket(config, "primaryBucket"),
        backups_bucket=_bucket(config, "backupsBucket"),
        dr_backups_bucket=_bucket(config, "drBackupsBucket"),
        evidence_bucket=_bucket(config, "evidenceBucket"),
        protect=config.require_bool("protect"),
        superseded_retention_days=_days(config, "supersededRetentionDays"),
        noncurrent_retention_days=_days(config, "noncurrentRetentionDays"),
        drill_objects_retention_days=_days(config, "drillObjectsRetentionDays"),
        log_retention_days=_log_days(config, "logRetentionDays"),
        service_linked_roles=_service_linked_roles(config),
        network_cidr=_network(config, "networkCidr"),
        database=_database(config),
        cache=_cache(config),
        recovery=_recovery(config) if program == "dr" else None,
    )
    _refuse_shared_buckets(settings)
    _refuse_foreign_provider_region(settings)
    return settings


def _database(config: pulumi.Config) -> DatabaseSettings:
    storage = _in_range(config, "databaseStorageGb", _DATABASE_STORAGE_GB, "GB is what RDS allocates on gp3 volumes")
    maximum = config.require_int("databaseMaxStorageGb")
    # RDS refuses an autoscaling limit less than 10 % above what is allocated.
    if maximum != 0 and (maximum * 10 < storage * 11 or maximum not in _DATABASE_STORAGE_GB):
        least = -(-storage * 11 // 10)
        raise SettingsError(
            "databaseMaxStorageGb",
            maximum,
            f"it must be 0 (storage does not grow) or {least} to {_DATABASE_STORAGE_GB[-1]}, because RDS asks for at"
            f" least 10 % above databaseStorageGb ({storage})",
        )
    return DatabaseSettings(
        name=_identifier(config, "databaseName"),
        username=_identifier(config, "databaseUsername"),
        major_version=_matching(
            config,
            "databaseVersion",
            r"1[2-8]",
            "it must be a major version from 12 to 18, whose dumps can be restored",
        ),
        instance_class=_matching(
            config,
            "databaseInstanceClass",
            r"db\.[a-z0-9-]+\.[a-z0-9]+",
            "it must be an RDS class such as db.t4g.medium",
        ),
        storage_gb=storage,
        max_storage_gb=maximum,
        multi_az=config.require_bool("databaseMultiAz"),
        backup_retention_days=_in_range(
            config, "databaseBackupRetentionDays", _BACKUP_RETENTION_DAYS, "days is what RDS keeps for point in time"
        ),
    )


def _cache(config: pulumi.Config) -> CacheSettings:
    return CacheSettings(
        node_type=_matching(
            config, "cacheNodeType", r"cache\.[a-z0-9-]+\.[a-z0-9]+", "it must be a node type such as cache.t4g.small"
        ),
        engine_version=_matching(
            config, "cacheEngineVersion", r"[67]\.\d+", "it must be a Redis version with TLS and AUTH, such as 7.1"
        ),
        replicas=_in_range(config, "cacheReplicas", _CACHE_REPLICAS, "replicas is what ElastiCache allows per group"),
    )


def _recovery(config: pulumi.Config) -> RecoverySettings:
    mode = cast("Mode", _one_of(config, "mode", get_args(Mode)))
    cpu = config.require_int("recoveryCpu")
    memory = config.require_int("recoveryMemoryMb")
    if cpu not in _FARGATE_MEMORY:
        raise SettingsError("recoveryCpu", cpu, f"Fargate sells {', '.join(map(str, _FARGATE_MEMORY))} CPU units only")
    sold = _FARGATE_MEMORY[cpu]
    if memory not in sold:
        raise SettingsError(
            "recoveryMemoryMb", memory, f"with {cpu} CPU units Fargate sells {', '.join(map(str, sold))} MB only"
        )
    return RecoverySettings(
        drill_id=_drill_id(config),
        mode=mode,
        expires_at=_expiry(config) if mode == "drill" else NEVER_EXPIRES,
        owner=_matching(
            config,
            "owner",
            r"[\w+\-=.:/@ ]{1,256}",
            "it must be 1 to 256 letters, digits, spaces or _ . : / = + - @, because it becomes the value of a tag",
        ),
        image=config.require("recoveryImage"),
        cpu=cpu,
        memory_mb=memory,
        ephemeral_storage_gb=_in_range(
            config, "recoveryEphemeralStorageGb", _EPHEMERAL_STORAGE_GB, "GB is what Fargate gives a task"
        ),
    )


def _drill_id(config: pulumi.Config) -> str:
    return _matching(
        config,
        "drillId",
        r"(?=.{1,20}$)[a-z0-9]+(-[a-z0-9]+)*",
        "it must be at most 20 lower-case letters, digits and single hyphens (as in 20260109-020000-1a2b), because"
        " ElastiCache allows 40 characters in the name that ends with it",
    )


def _expiry(config: pulumi.Config) -> str:
    value = config.require("expiresAt")
    why = (
        "a drill must say when the reaper may take it down, as RFC 3339 with a zone (2026-01-09T06:00:00Z);"
        " only mode failover never expires"
    )
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as exc:
        raise SettingsError("expiresAt", value, why) from exc
    if parsed.tzinfo is None or "T" not in value:
        raise SettingsError("expiresAt", value, why)
    return value


def _service_linked_roles(config: pulumi.Config) -> tuple[str, ...]:
    services = config.require_object("serviceLinkedRoles")
    if not isinstance(services, list) or not all(
        isinstance(service, str) and re.fullmatch(r"[a-z0-9.-]+\.amazonaws\.com", service) for service in services
    ):
        raise SettingsError(
            "serviceLinkedRoles", services, "it must be a list of service names such as ecs.amazonaws.com"
        )
    return tuple(sorted(set(services)))


def _network(config: pulumi.Config, key: str) -> str:
    value = config.require(key)
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as exc:
        raise SettingsError(key, value, f"it is not an IPv4 network ({exc})") from exc
    if network.prefixlen not in _NETWORK_PREFIX or not network.is_private:
        raise SettingsError(
            key,
            value,
            f"it must be a private network between /{_NETWORK_PREFIX[0]} (the largest VPC) and /{_NETWORK_PREFIX[-1]}"
            " (each of the two subnets gets a sixteenth, and AWS makes none smaller than a /28)",
        )
    return value


def _refuse_shared_buckets(settings: Settings) -> None:
    buckets = {
        "primaryBucket": settings.primary_bucket,
        "backupsBucket": settings.backups_bucket,
        "drBackupsBucket": settings.dr_backups_bucket,
        "evidenceBucket": settings.evidence_bucket,
    }
    seen: dict[str, str] = {}
    for key, bucket in buckets.items():
        if bucket in seen:
            raise SettingsError(key, bucket, f"{seen[bucket]} has that name already, and S3 cannot replicate in place")
        seen[bucket] = key


def _refuse_foreign_provider_region(settings: Settings) -> None:
    region = pulumi.Config("aws").get("region")
    if region is not None and region != settings.home_region:
        message = (
            f"aws:region is {region!r}, but the {settings.program} program lives in {settings.home_region}: what"
            f" names no region of its own would be asked of {region}."
            f" Set it with: pulumi config set aws:region {settings.home_region}"
        )
        raise ValueError(message)


def _one_of(config: pulumi.Config, key: str, choices: tuple[str, ...]) -> str:
    value = config.require(key)
    if value not in choices:
        raise SettingsError(key, value, f"it must be one of {', '.join(choices)}")
    return value


def _matching(config: pulumi.Config, key: str, pattern: str, why: str) -> str:
    value = config.require(key)
    if not re.fullmatch(pattern, value, re.ASCII):
        raise SettingsError(key, value, why)
    return value


def _in_range(config: pulumi.Config, key: str, allowed: range, what: str) -> int:
    value = config.require_int(key)
    if value not in allowed:
        raise SettingsError(key, value, f"{allowed[0]} to {allowed[-1]} {what}")
    return value


def _days(config: pulumi.Config, key: str) -> int:
    value = config.require_int(key)
    if value < 1:
        raise SettingsError(key, value, "it must be 1 day or more, because S3 counts retention in whole days")
    return value


def _log_days(config: pulumi.Config, key: str) -> int:
    value = config.require_int(key)
    if value not in _LOG_RETENTION_DAYS:
        raise SettingsError(
            key, value, f"CloudWatch Logs keeps {', '.join(map(str, sorted(_LOG_RETENTION_DAYS)))} days only"
        )
    return value


def _region(config: pulumi.Config, key: str) -> str:
    return _matching(config, key, r"[a-z]{2}(-[a-z]+)+-\d", "it must be a region such as us-west-2")


def _bucket(config: pulumi.Config, key: str) -> str:
    return _matching(
        config,
        key,
        r"(?=.{3,63}$)[a-z0-9][a-z0-9-]*[a-z0-9]",
        "a bucket name has 3 to 63 lower-case letters, digits and hyphens (a dot would break its TLS certificate)",
    )


def _identifier(config: pulumi.Config, key: str) -> str:
    return _matching(
        config,
        key,
        r"[a-z][a-z0-9_]{0,62}",
        "it must be 1 to 63 lower-case letters, digits and underscores: PostgreSQL would fold or cut anything else",
    )
