"""Runs the ladder of checks against a database the operator names, and shows it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import re
from typing import TYPE_CHECKING

from recovery.dumps.session import connect
from recovery.errors import CheckFailedError, RecoveryError, UsageError
from recovery.progress import Progress, silent
from recovery.verify import Checks, SampleQuery, verify

if TYPE_CHECKING:
    from recovery.commands.shared import Session
    from recovery.dumps.facts import DumpFacts
    from recovery.dumps.manifest import Manifest

_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What the operator wants besides the manifest: what else to compare with, and how to check."""

    against: str | None = None
    facts: DumpFacts | None = None
    install_checks: bool = False
    max_age: dt.timedelta | None = None
    jobs: int = 2


def age_of(text: str | None) -> dt.timedelta | None:
    """Return the span that `90m`, `24h` or `7d` means, None for None. Raises UsageError for any other text."""
    if text is None:
        return None
    found = _AGE.fullmatch(text)
    if found is None:
        raise UsageError(f"--max-age {text!r} is no span of time.", hint="It looks like 90m, 24h or 7d.")
    return dt.timedelta(**{_UNITS[found.group(2)]: float(found.group(1))})


def verify_and_show(
    here: Session, dsn: str, manifest: Manifest | None, wish: Wish | None = None, progress: Progress = silent
) -> None:
    """Verify and print every rung. Raises CheckFailedError when one failed or a required one was not run."""
    wish = wish or Wish()
    if manifest:
        tables = [f"{table.schema_name}.{table.name}" for table in manifest.tables]
    elif wish.facts:
        tables = [".".join(name) for name in wish.facts.tables.keys() | wish.facts.uncounted]
    else:
        tables = _tables_of(wish, dsn)
    samples = [SampleQuery.model_validate(c.sample()) for c in here.settings.checks if c.applies_to(tables)]
    required = set(here.settings.verify.required)
    result = verify(
        dsn,
        manifest=manifest,
        facts=wish.facts,
        samples=samples,
        required=required,
        against=wish.against,
        options=Checks(
            install_checks=wish.install_checks,
            max_age=wish.max_age,
            newest_row=here.settings.verify.newest_row,
            jobs=wish.jobs,
        ),
        progress=progress,
    )
    if here.screen.as_json:
        here.screen.document(result.model_dump(mode="json"))
    here.screen.table(("outcome", "check", "reason"), [(r.outcome, r.title, r.reason) for r in result.rungs])
    failed = [rung.title for rung in result.rungs if rung.outcome == "FAIL"]
    missing = sorted(required - {rung.name for rung in result.rungs if rung.outcome != "NOT RUN"})
    if failed or missing:
        raise CheckFailedError(
            "The database is not proven to be the one that was backed up.",
            detail="; ".join([*(f"{title} failed" for title in failed), *(f"{name} was not run" for name in missing)]),
        )


def _tables_of(wish: Wish, dsn: str) -> list[str]:
    """The tables there should be: those of the database compared with, else those that are there.

    An unreachable database has none; the ladder's first rung says so.
    """
    try:
        with contextlib.closing(connect(wish.against or dsn)) as connection:
            rows = connection.execute(
                "SELECT schemaname || '.' || tablename FROM pg_catalog.pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
    except RecoveryError:
        return []
    return [str(name) for (name,) in rows]
