"""`recovery doctor`: what of the things a recovery needs is there, before it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

import typer

from recovery.clients import AwsError, Clients, refuse_foreign_account
from recovery.commands.shared import Session, session
from recovery.documents import DoctorDocument, DoctorRow
from recovery.dumps.catalogue import list_backups, newest_sealed
from recovery.errors import EXIT_LACKING, EnvironmentLacksError, RecoveryError
from recovery.pulumi_cli import find_pulumi
from recovery.report.model import duration


def doctor(context: typer.Context) -> None:
    """Check tools, credentials, account, state, buckets and the newest backup's age.

    Example: recovery doctor
    """
    here = session(context)
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("settings", lambda: str(here.settings.source)),
        ("pulumi", lambda: str(find_pulumi())),
        ("account", lambda: refuse_foreign_account(here.dr, here.account, settings_file=str(here.settings.source))),
        ("pulumi state", _state),
        ("replica bucket", lambda: _bucket(here.dr, here.settings.platform.dr_backups_bucket)),
        ("evidence bucket", lambda: _bucket(here.dr, here.settings.platform.evidence_bucket)),
        ("newest backup", lambda: _newest(here)),
    )
    rows: list[DoctorRow] = []
    for name, check in checks:
        try:
            rows.append(DoctorRow(name=name, outcome="ok", text=check()))
        except RecoveryError as exc:
            text = " ".join(part for part in (exc.message, exc.hint) if part)
            rows.append(DoctorRow(name=name, outcome="BAD", text=text))
    if here.screen.as_json:
        here.screen.document(DoctorDocument(checks=rows).document())
    here.screen.table(("check", "", ""), [(row.name, row.outcome, row.text) for row in rows])
    if any(row.outcome != "ok" for row in rows):
        raise typer.Exit(EXIT_LACKING)


def _state() -> str:
    place = os.environ.get("PULUMI_BACKEND_URL")
    if not place:
        raise EnvironmentLacksError("PULUMI_BACKEND_URL is not set.", hint="Keep the state in the DR region: s3://…")
    return place


def _bucket(clients: Clients, bucket: str) -> str:
    try:
        clients("s3").head_bucket(Bucket=bucket)
    except AwsError as exc:
        raise EnvironmentLacksError(f"{bucket} does not answer: {exc}", hint="pulumi up -s primary makes it.") from exc
    return bucket


def _newest(here: Session) -> str:
    platform = here.settings.platform
    backup = newest_sealed(list_backups(here.dr("s3"), platform.dr_backups_bucket))
    age = (datetime.now(UTC) - backup.created_at).total_seconds()
    if age > here.settings.objectives.rpo_hours * 3600:
        raise RecoveryError(f"{backup.backup_id} is {duration(age)} old: beyond the recovery point objective.")
    return f"{backup.backup_id}, {duration(age)} old"
