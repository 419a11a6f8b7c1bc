"""Runs the ladder of checks against a database the operator names, and shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recovery.errors import CheckFailedError
from recovery.verify import SampleQuery, verify

if TYPE_CHECKING:
    from recovery.commands.shared import Session
    from recovery.dumps.manifest import Manifest


def verify_and_show(here: Session, dsn: str, manifest: Manifest | None) -> None:
    """Verify and print every rung. Raises CheckFailedError when one failed or a required one was not run."""
    tables = [f"{table.schema_name}.{table.name}" for table in manifest.tables] if manifest else []
    samples = [SampleQuery.model_validate(c.sample()) for c in here.settings.checks if c.applies_to(tables)]
    required = set(here.settings.verify.required)
    result = verify(dsn, manifest=manifest, facts=None, samples=samples, required=required)
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
