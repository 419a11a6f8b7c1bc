"""`recovery backup`, `backups`, `restore` and `verify`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from recovery.clients import Clients, refuse_foreign_account
from recovery.commands.shared import Session, session
from recovery.dumps.catalogue import Backup, find_backup, list_backups, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.errors import CheckFailedError, EnvironmentLacksError, UsageError
from recovery.progress import Progress, ProgressEvent
from recovery.redaction import remember_secret
from recovery.restore import restore

backups = typer.Typer(help="The backups that exist, here and in both regions.", no_args_is_help=True)

Region = Annotated[
    str | None, typer.Option("--region", metavar="REGION", help="Which region's copy; the DR region's by default.")
]
Wanted = Annotated[str, typer.Argument(metavar="ID", help="`latest`, a backup's id, or a file name.")]


def _progress(here: Session) -> Progress:
    """Return a listener that tells progress on stderr, at most twice a second."""
    spoke = 0.0

    def hear(event: ProgressEvent) -> None:
        nonlocal spoke
        now = time.monotonic()
        if now - spoke >= 0.5 or (event.total is not None and event.done >= event.total):
            spoke = now
            total = f"/{event.total}" if event.total is not None else ""
            here.screen.say(f"{event.stage}: {event.done}{total} {event.unit} {event.text}", "dim")

    return hear


def _place(here: Session, region: str | None) -> tuple[Clients, str]:
    """Return clients and bucket of a region's backups. Raises UsageError for a region that has none."""
    _ = here.local
    platform = here.settings.platform
    places = {platform.dr_region: platform.dr_backups_bucket, platform.primary_region: platform.backups_bucket}
    wanted = region or platform.dr_region
    if wanted not in places:
        raise UsageError(f"There are no backups in {wanted}.", hint=f"Regions with backups: {', '.join(places)}.")
    return Clients(wanted), places[wanted]


def _row(backup: Backup) -> dict[str, Any]:
    return {
        "id": backup.backup_id,
        "address": backup.address,
        "size": backup.size,
        "created_at": backup.created_at,
        "sealed": backup.sealed,
        "problem": backup.problem,
    }


def take(
    context: typer.Context,
    local_copy: Annotated[bool, typer.Option(help="Keep a copy in database.local_dir as well.")] = True,  # noqa: FBT002  # an option
) -> None:
    """Take a backup now: dump and manifest, local copy, upload, `latest` moved last.

    Example: AGENTVERSE_DATABASE_URL=postgresql://… recovery backup
    """
    here = session(context)
    variable = here.settings.database.dsn_env
    dsn = os.environ.get(variable)
    if not dsn:
        raise EnvironmentLacksError(
            f"{variable} is not set, so there is no database to back up.",
            hint=f"Set {variable} to postgresql://user@host/database; its name is database.dsn_env in recovery.toml.",
        )
    remember_secret(dsn)
    clients, bucket = _place(here, here.settings.platform.primary_region)
    refuse_foreign_account(clients, here.account, settings_file=str(here.settings.source))
    taken = take_backup(
        dsn,
        s3=clients("s3"),
        bucket=bucket,
        local_dir=here.settings.database.local_dir if local_copy else None,
        progress=_progress(here),
    )
    if here.screen.as_json:
        here.screen.document({"backup": _row(taken)})
    here.screen.text(f"{taken.address}  {taken.size} bytes, sealed")


@backups.command("list")
def list_all(context: typer.Context, region: Region = None) -> None:
    """List the backups of a region and those of this machine, newest first.

    Example: recovery backups list
    """
    here = session(context)
    clients, bucket = _place(here, region)
    found = [*list_backups(clients("s3"), bucket), *list_local_backups(here.settings.database.local_dir)]
    if here.screen.as_json:
        here.screen.document({"backups": [_row(item) for item in found]})
    here.screen.table(
        ("id", "created", "bytes", "state", "address"),
        [
            (b.backup_id, f"{b.created_at:%Y-%m-%d %H:%M:%S}", b.size, "sealed" if b.sealed else b.problem, b.address)
            for b in found
        ],
    )
    if not found:
        here.screen.say(f"There is no backup in s3://{bucket}/db/ nor in {here.settings.database.local_dir}.")


@backups.command("show")
def show(context: typer.Context, wanted: Wanted = "latest", region: Region = None) -> None:
    """Show what a backup's manifest says.

    Example: recovery backups show latest
    """
    here = session(context)
    clients, bucket = _place(here, region)
    backup = find_backup(list_backups(clients("s3"), bucket), wanted)
    manifest = backup.manifest
    if here.screen.as_json:
        here.screen.document(
            {"backup": _row(backup), "manifest": manifest.model_dump(mode="json") if manifest else None}
        )
    for key, value in _row(backup).items():
        here.screen.text(f"{key}: {value}")
    if manifest is not None:
        here.screen.text(f"snapshot: {manifest.snapshot_time.isoformat()}, server {manifest.server_version}")
        here.screen.table(("table", "rows"), [(f"{t.schema_name}.{t.name}", t.rows) for t in manifest.tables])


@backups.command("verify")
def verify_backup(context: typer.Context, wanted: Wanted = "latest", region: Region = None) -> None:
    """Read a backup's content again and compare it with its manifest.

    Example: recovery backups verify latest
    """
    here = session(context)
    clients, bucket = _place(here, region)
    backup = find_backup(list_backups(clients("s3"), bucket), wanted)
    with open_dump(backup.address, s3=clients("s3")) as source:
        check(source, backup.manifest)
    if here.screen.as_json:
        here.screen.document({"backup": _row(backup), "readable": True})
    if not backup.sealed:
        raise CheckFailedError(f"{backup.address} can be read, but it is not sealed.", detail=backup.problem)
    here.screen.text(f"{backup.address} is whole and what its manifest says")


def restore_dump(  # noqa: PLR0917  # typer turns every parameter into an option
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="DSN", help="Where to; the password comes from PGPASSWORD.")],
    source: Annotated[str, typer.Argument(metavar="[latest|ID|FILE|s3://…]")] = "latest",
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the target holds.")] = False,  # noqa: FBT002  # an option
    region: Region = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the dump and change nothing.")] = False,  # noqa: FBT002  # an option
) -> None:
    """Restore a backup into an empty database.

    Example: recovery restore latest --to postgresql://postgres@localhost/agentverse
    """
    here = session(context)
    manifest: Manifest | None = None
    clients: Clients | None = None
    if source.startswith("s3://") or not (source == "-" or Path(source).exists()):
        clients, bucket = _place(here, region)
        if not source.startswith("s3://"):
            backup = find_backup(list_backups(clients("s3"), bucket), source)
            source, manifest = backup.address, backup.manifest
    s3 = clients("s3") if clients else None
    if dry_run:
        with open_dump(source, s3=s3) as dump:
            check(dump, manifest)
        here.screen.text(f"{source} could be restored; nothing was changed.")
        if here.screen.as_json:
            here.screen.document({"dry_run": True, "source": source})
        return
    if replace:
        here.screen.confirm("Replace everything in the target database?", yes=here.yes)
    result = restore(
        source, to, manifest=manifest, replace=replace, progress=_progress(here), s3=s3, stdin=sys.stdin.buffer
    )
    if here.screen.as_json:
        here.screen.document(result.model_dump(mode="json"))
    here.screen.text(f"{result.rows} rows in {result.tables} tables, {result.seconds:.1f} s")
    for note in result.notes:
        here.screen.text(f"note: {note.kind}: {note.object}: {note.text}")


def verify_database(
    context: typer.Context,
    database: Annotated[str, typer.Option("--database", metavar="DSN", help="The password comes from PGPASSWORD.")],
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="FILE|s3://…", help="What it must be equal to.")
    ] = None,
    region: Region = None,
) -> None:
    """Check that a database is the one that was backed up; nothing is modified.

    Example: recovery verify --database postgresql://postgres@localhost/agentverse --manifest s3://…/x.manifest.json
    """
    # Only this command needs the ladder; it brings libraries that would slow every other one down.
    from recovery.commands.verification import verify_and_show  # noqa: PLC0415

    here = session(context)
    verify_and_show(here, database, _read_manifest(here, manifest, region) if manifest else None)


def _read_manifest(here: Session, place: str, region: str | None) -> Manifest:
    if place.startswith("s3://"):
        clients, _ = _place(here, region)
        with open_dump(place, s3=clients("s3")) as source:
            content = b"".join(source.stored())
    else:
        try:
            content = Path(place).read_bytes()
        except OSError as exc:
            raise EnvironmentLacksError(f"The manifest {place} cannot be read.", detail=str(exc)) from exc
    return Manifest.from_bytes(content, origin=place)
