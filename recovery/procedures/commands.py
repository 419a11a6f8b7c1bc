"""What the tasks inside the network are asked to do: arguments of `recovery task`, never a secret among them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

    from recovery.outputs import Outputs
    from recovery.places import DatabasePlace
    from recovery.procedures.points import RecoveryPoint
    from recovery.settings import Settings


def _database(database: DatabasePlace) -> list[str]:
    return [
        "--host", database.host, "--port", str(database.port), "--database", database.name,
        "--secret-arn", database.secret_arn,
    ]  # fmt: skip


def _point(point: RecoveryPoint) -> list[str]:
    return [point.source, *(["--manifest", point.manifest] if point.manifest else [])]


def restore_command(point: RecoveryPoint, database: DatabasePlace, region: str) -> list[str]:
    """Return the command that restores `point` into `database`."""
    return ["task", "restore", *_point(point), *_database(database), "--region", region]


def verify_command(
    point: RecoveryPoint, database: DatabasePlace, region: str, settings: Settings, tables: Iterable[str]
) -> list[str]:
    """Return the command that verifies `database` against `point`, with the sample queries that fit its `tables`.

    The database is a rehearsal's own: amcheck may be installed in it.  How old the recovery point may be is no matter
    of the task's, since the drill's report counts it to the moment that the drill began.
    """
    tables = list(tables)
    samples = json.dumps([check.sample() for check in settings.checks if check.applies_to(tables)], default=_moment)
    required = [part for name in settings.verify.required for part in ("--required", name)]
    newest = ["--newest-row", settings.verify.newest_row] if settings.verify.newest_row else []
    return [
        *("task", "verify", *_point(point), *_database(database), "--region", region),
        *("--samples", samples, *required, *newest, "--install-checks"),
    ]


def _moment(value: dt.date | dt.time) -> str:
    # All that TOML has and JSON has not, as the text that a database's answers are compared as.
    return value.isoformat()


def ping_command(outputs: Outputs, region: str) -> list[str]:
    """Return the command that asks the cache for a sign of life."""
    return [
        "task", "ping", "--host", outputs.cache_endpoint, "--port", str(outputs.cache_port),
        "--secret-arn", outputs.cache_secret_arn, "--region", region,
    ]  # fmt: skip
