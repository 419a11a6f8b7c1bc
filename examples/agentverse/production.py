"""A little production of the platform on the embedded cloud: made, looked at, taken down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from examples.agentverse import blobs, database, replicas, stack
from examples.agentverse.cloud import embedded_endpoint
from examples.agentverse.credentials import DSN_VARIABLE, dsn_from_secret
from examples.agentverse.errors import EnvironmentLacksError, ExampleError, RefusedError
from examples.agentverse.rows import Platform
from examples.agentverse.stack import ROOT, PrimaryOutputs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from examples.agentverse.database import Say

STACK = "primary"
_MANIFEST = re.compile(r"^db/[^/]+\.manifest\.json$")


class Phase(BaseModel):
    """One phase of the making: its name, its seconds, and what came of it in words."""

    name: str
    seconds: float
    text: str


class Production(BaseModel):
    """What `production up` and `production status` print with --json. Row, object and backup counts; seconds."""

    schema_version: Literal[1] = 1
    endpoint: str
    complete: bool
    rows: dict[str, int] = {}
    blobs: dict[str, int] = {}
    backups: int = 0
    replicated: dict[str, int] = {}
    missing: list[str] = []
    phases: list[Phase] = []


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How large production shall be: megabytes of SQL, number of blobs; `timeout` is for replication, in seconds."""

    megabytes: float = 50
    objects: int = 200
    seed: int = 7
    timeout: float = 300


@dataclass
class Clock:
    """Times the phases and says each one's line."""

    say: Say
    phases: list[Phase] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Time one phase; what the block appends to the list becomes its text."""
        started = time.monotonic()
        words: list[str] = []
        yield words
        seconds = round(time.monotonic() - started, 3)
        self.phases.append(Phase(name=name, seconds=seconds, text=" · ".join(words)))
        self.say(f"{name:<12} {seconds:6.1f} s  {self.phases[-1].text}")


def up(wishes: Wishes, say: Say) -> Production:
    """Make production: stack, data, blobs, a backup, replicas of all. What is there already is left as it is.

    Raises RefusedError off the embedded cloud, EnvironmentLacksError and ExampleError where a phase cannot be done;
    doing it again goes on where it stopped.
    """
    endpoint = embedded_endpoint()
    clock = Clock(say)
    with stack.project_copy(STACK) as folder:
        with clock.phase("stack") as text:
            primary = stack.select(STACK, folder)
            changes = stack.up(primary, say)
            text.append(", ".join(f"{number} {operation}" for operation, number in sorted(changes.items())))
        outputs = stack.primary_outputs(primary)
    return fill(outputs, wishes, endpoint, clock)


def fill(outputs: PrimaryOutputs, wishes: Wishes, endpoint: str, clock: Clock) -> Production:
    """Give a stack that is up its data, its blobs, a backup, and wait for the replicas of all."""
    say = clock.say
    s3 = blobs.client(outputs.region)
    with clock.phase("database") as text, database.connect(_dsn(outputs)) as connection:
        rows = database.counts(connection)
        seeded = rows is None
        if rows is None:
            # The newest row is from now, as in a production that was lost a moment ago.
            until = datetime.now(UTC).replace(microsecond=0)
            platform = Platform.of_size(wishes.megabytes, seed=wishes.seed, until=until)
            result = database.seed(connection, platform, say)
            rows = result.rows
            text.append(f"{sum(rows.values()):,} rows, {result.copy_bytes / 1e6:,.0f} MB seeded")
        else:
            text.append(f"{sum(rows.values()):,} rows were there")
    with _cloud_errors(), clock.phase("blobs") as text:
        there = blobs.count(s3, outputs.primary_bucket)
        if not any(there.values()):
            there = blobs.upload(s3, outputs.primary_bucket, seed=wishes.seed, objects=wishes.objects, say=say).objects
            text.append(f"{sum(there.values()):,} uploaded")
        else:
            text.append(f"{sum(there.values()):,} were there")
    with _cloud_errors(), clock.phase("backup") as text:
        if seeded or not _manifests(s3, outputs.backups_bucket):
            _back_up(outputs)
            text.append(f"sealed in s3://{outputs.backups_bucket}/db/")
        else:
            text.append("one was there")
    with _cloud_errors(), clock.phase("replication") as text:
        replicated = replicas.wait_for_replicas(s3, _places(outputs), timeout=wishes.timeout, say=say)
        text.append(f"{sum(replicated.values()):,} objects have their replica")
    return Production(
        endpoint=endpoint,
        complete=True,
        rows=rows,
        blobs=there,
        backups=len(_manifests(s3, outputs.backups_bucket)),
        replicated=replicated,
        phases=clock.phases,
    )


def status() -> Production:
    """Look at production without changing anything; `missing` says what a complete one would have."""
    endpoint = embedded_endpoint()
    with stack.project_copy(STACK) as folder:
        if not stack.exists(STACK, folder):
            return Production(endpoint=endpoint, complete=False, missing=["the primary stack"])
        outputs = stack.primary_outputs(stack.select(STACK, folder))
    s3 = blobs.client(outputs.region)
    missing: list[str] = []
    with database.connect(_dsn(outputs)) as connection:
        rows = database.counts(connection) or {}
    with _cloud_errors():
        there = blobs.count(s3, outputs.primary_bucket)
        backups = len(_manifests(s3, outputs.backups_bucket))
        replicated: dict[str, int] = {}
        for place in _places(outputs):
            found = replicas.states(s3, place)
            replicated[str(place)] = list(found.values()).count("COMPLETED")
            waiting = len(found) - replicated[str(place)]
            if waiting:
                missing.append(f"replicas of {waiting:,} objects of {place}")
    missing += [] if rows.get("run_events") else ["rows"]
    missing += [] if any(there.values()) else ["blobs"]
    missing += [] if backups else ["a sealed backup"]
    return Production(
        endpoint=endpoint,
        complete=not missing,
        rows=rows,
        blobs=there,
        backups=backups,
        replicated=replicated,
        missing=missing,
    )


def down(say: Say, *, dry_run: bool, confirmed: bool) -> list[str]:
    """Take production down with all its data; return what was, or with `dry_run` what would be, destroyed.

    The stack protects what it made, so protection is lifted first the way its own settings say: `protect: false`, up,
    destroy. Raises RefusedError off the embedded cloud, or unless `confirmed`.
    """
    endpoint = embedded_endpoint()
    with stack.project_copy(STACK, settings={"agentverse-dr:protect": "false"}) as folder:
        if not stack.exists(STACK, folder):
            return []
        primary = stack.select(STACK, folder)
        deployment = primary.export_stack().deployment or {}
        resources = [str(item["urn"]) for item in deployment.get("resources", ()) if item.get("custom")]
        if dry_run:
            return resources
        if not confirmed:
            raise RefusedError(
                f"production down destroys {len(resources)} resources and their data on {endpoint}",
                hint="say --yes to do it, --dry-run to see what it would destroy",
            )
        outputs = stack.primary_outputs(primary)
        stack.up(primary, say)
        with _cloud_errors():
            for region, bucket in (
                (outputs.region, outputs.primary_bucket),
                (outputs.region, outputs.backups_bucket),
                (outputs.dr_region, outputs.dr_backups_bucket),
                (outputs.dr_region, outputs.evidence_bucket),
            ):
                _empty(region, bucket, say)
        stack.destroy(primary, say)
    return resources


def _dsn(outputs: PrimaryOutputs) -> str:
    return dsn_from_secret(
        outputs.database_secret_arn,
        host=outputs.database_endpoint,
        port=outputs.database_port,
        database=outputs.database_name,
    )


def _places(outputs: PrimaryOutputs) -> list[replicas.Place]:
    places = [replicas.Place(outputs.primary_bucket, prefix) for prefix in blobs.PREFIXES]
    return [*places, replicas.Place(outputs.backups_bucket, "db/")]


def _manifests(s3: S3Client, bucket: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="db/")
    return [item["Key"] for page in pages for item in page.get("Contents", ()) if _MANIFEST.match(item["Key"])]


def _back_up(outputs: PrimaryOutputs) -> None:
    """Run `recovery backup` as an operator would: its own process, the address of the database in its environment."""
    with tempfile.TemporaryDirectory(prefix="agentverse-") as name:
        settings, dsn_variable = recovery_settings(outputs, Path(name))
        dsn = _dsn(outputs)
        environment = {**os.environ, DSN_VARIABLE: dsn, dsn_variable: dsn, "AGENTVERSE_CONFIG": str(settings)}
        command = [sys.executable, "-m", "recovery", "--json", "--yes", "backup"]
        # Its progress is for whoever watches: standard error is handed on.
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ExampleError(
            f"recovery backup ended with exit code {done.returncode}",
            detail=done.stdout.strip() or None,
            hint="its own words are above",
        )


def recovery_settings(outputs: PrimaryOutputs, folder: Path) -> tuple[Path, str]:
    """Copy recovery.toml for this production: its buckets, its account, and local copies that end with the copy."""
    text = (ROOT / "recovery.toml").read_text(encoding="utf-8")
    for key, value in (
        ("account", outputs.account),
        ("primary_region", outputs.region),
        ("dr_region", outputs.dr_region),
        ("primary_bucket", outputs.primary_bucket),
        ("backups_bucket", outputs.backups_bucket),
        ("dr_backups_bucket", outputs.dr_backups_bucket),
        ("evidence_bucket", outputs.evidence_bucket),
        ("project", str(ROOT)),
        ("local_dir", str(folder / "backups")),
    ):
        text = stack.set_line(text, rf"({key} = ).*", json.dumps(value))
    path = folder / "recovery.toml"
    path.write_text(text, encoding="utf-8")
    read: dict[str, Any] = tomllib.loads(text)
    return path, str(read.get("database", {}).get("dsn_env", DSN_VARIABLE))


def _empty(region: str, bucket: str, say: Say) -> None:
    s3 = blobs.client(region)
    removed = 0
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        versions = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
        for start in range(0, len(versions), 1000):
            answer = s3.delete_objects(
                Bucket=bucket,
                Delete={"Objects": versions[start : start + 1000], "Quiet": True},  # type: ignore[typeddict-item]
                BypassGovernanceRetention=True,
            )
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise ExampleError(
                    f"bucket {bucket} cannot be emptied",
                    detail=f"{first.get('Key')}: {first.get('Message')}",
                    hint="an object locked in compliance mode stays; localcloud reset forgets all",
                )
        removed += len(versions)
    say(f"{bucket}: {removed:,} versions removed")


@contextmanager
def _cloud_errors() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as exc:
        raise EnvironmentLacksError(
            "the embedded cloud did not do what it was asked to",
            detail=str(exc),
            hint="localcloud status shows its state",
        ) from exc
