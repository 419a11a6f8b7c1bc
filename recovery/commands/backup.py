"""`recovery backup`, `backups` and `verify`."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from recovery.clients import refuse_foreign_account
from recovery.commands.addresses import database_of, refuse_password
from recovery.commands.backup_places import Here, Region, Wanted, Where, backup_of, backups_at, clients_for, place_of
from recovery.commands.progress_line import progress_of
from recovery.commands.pruning import prune_backups
from recovery.commands.shared import Session, session
from recovery.documents import BackupDocument, RereadDocument, failure, row
from recovery.dumps.catalogue import NO_MANIFEST, Backup, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.reader import check
from recovery.dumps.reread import reread_backup
from recovery.dumps.source import open_dump
from recovery.dumps.writer import Options, take_backup
from recovery.errors import CheckFailedError, EnvironmentLacksError, UsageError

backups = typer.Typer(help="The backups that exist, here and in both regions.", no_args_is_help=True)
backups.command("prune")(prune_backups)


def _row(backup: Backup) -> dict[str, Any]:
    return row(backup).model_dump()


def take(
    context: typer.Context,
    local_copy: Annotated[bool, typer.Option(help="Keep a copy in database.local_dir as well.")] = True,  # noqa: FBT002  # an option
    rehearsal: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only an exercise: into drills/ID/ of the DR bucket, no local copy, no `latest`."
        ),
    ] = None,
    password_hashes: Annotated[  # noqa: FBT002  # an option
        bool,
        typer.Option("--password-hashes", help="The roles' password hashes go along; only a superuser may read them."),
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Sessions that read rows at once.")] = 2,
) -> None:
    """Take a backup now: dump and manifest, local copy, upload, `latest` moved last.

    Example: AGENTVERSE_DATABASE_URL=postgresql://… recovery backup

    Example: AGENTVERSE_DATABASE_URL=postgresql://… recovery backup --jobs 8 --no-local-copy

    Example: AGENTVERSE_DATABASE_URL=postgresql://… recovery backup --rehearsal 20260109-020000-1a2b
    """
    here = session(context)
    variable = here.settings.database.dsn_env
    dsn = os.environ.get(variable)
    if not dsn:
        raise EnvironmentLacksError(
            f"{variable} is not set, so there is no database to back up.",
            hint=f"Set {variable} to postgresql://user@host/database; its name is database.dsn_env in recovery.toml.",
        )
    database_of(dsn, variable)
    platform = here.settings.platform
    # A drill removes what is under its id in the DR bucket; on this machine nothing would.
    clients, bucket = place_of(here, platform.primary_region if rehearsal is None else platform.dr_region)
    refuse_foreign_account(clients, here.account, settings_file=str(here.settings.source))
    taken = take_backup(
        dsn,
        s3=clients("s3"),
        bucket=bucket,
        local_dir=here.settings.database.local_dir if local_copy and rehearsal is None else None,
        progress=progress_of(here),
        options=Options(
            jobs=jobs,
            password_hashes=password_hashes,
            rehearsal=rehearsal,
            retention=dt.timedelta(days=here.settings.objectives.retention_days),
        ),
    )
    notes = [*(taken.manifest.notes if taken.manifest else ()), *taken.notes]
    if here.screen.as_json:
        here.screen.document(BackupDocument(backup=row(taken), notes=notes).document())
    here.screen.text(f"{taken.address}  {taken.size} bytes, sealed")
    for note in notes:
        here.screen.say(f"note: {note}", "bold yellow")


@backups.command("list")
def list_all(
    context: typer.Context,
    where: Where = None,
    region: Region = None,
    on_this_machine: Here = False,  # noqa: FBT002  # an option
) -> None:
    """List the backups of a region, newest first, and then those of this machine; or those of any address in S3 alone.

    Example: recovery backups list

    Example: recovery backups list s3://another-bucket/db/ --region eu-west-1
    """
    here = session(context)
    found, clients = backups_at(here, where, region, on_this_machine=on_this_machine)
    if clients is not None and where is None:
        found += list_local_backups(here.settings.database.local_dir)
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
        region_too = "" if clients is None else f"in {clients.region} nor "
        here.screen.say(
            f"There is no backup {f'in {where}' if where else f'{region_too}in {here.settings.database.local_dir}'}."
        )


@backups.command("show")
def show(
    context: typer.Context,
    wanted: Wanted = "latest",
    region: Region = None,
    on_this_machine: Here = False,  # noqa: FBT002  # an option
) -> None:
    """Show what a backup's manifest says.

    Example: recovery backups show latest

    Example: recovery backups show s3://another-bucket/db/db_full_20260109_020000.sql.gz --region eu-west-1
    """
    here = session(context)
    backup, _ = backup_of(here, wanted, region, on_this_machine=on_this_machine)
    manifest = backup.manifest
    if here.screen.as_json:
        here.screen.document(
            {"backup": _row(backup), "manifest": manifest.model_dump(mode="json") if manifest else None}
        )
    for key, value in _row(backup).items():
        if value is not None:
            here.screen.text(f"{key}: {value}")
    if manifest is not None:
        here.screen.text(f"snapshot: {manifest.snapshot_time.isoformat()}, server {manifest.server_version}")
        here.screen.table(("table", "rows"), [(f"{t.schema_name}.{t.name}", t.rows) for t in manifest.tables])


@backups.command("verify")
def verify_backup(
    context: typer.Context,
    wanted: Wanted = "latest",
    region: Region = None,
    on_this_machine: Here = False,  # noqa: FBT002  # an option
) -> None:
    """Read a backup again and compare it with its manifest: size, SHA-256, gzip members, every table's rows, globals.

    An unsealed dump, which has no manifest, is read as a restore reads it: it is good when it is whole, and that it is
    unsealed is said. A listing believes what the store says; this does not.

    Example: recovery backups verify latest

    Example: recovery backups verify db_full_20260109_020000 --region us-east-1

    Example: recovery backups verify s3://another-bucket/db/db_full_20260109_020000.sql.gz
    """
    here = session(context)
    backup, clients = backup_of(here, wanted, region, on_this_machine=on_this_machine)
    reread = reread_backup(backup, s3=clients("s3") if clients else None, progress=progress_of(here))
    problem = None
    if not reread.good:
        problem = CheckFailedError(
            f"{backup.address} is not a good backup: {reread.problems[0]}.",
            detail="; ".join(reread.problems[1:]) or None,
            hint="Use another copy (the other region's, or --here), or an older backup: recovery backups list.",
        )
    if here.screen.as_json:
        said = failure(problem) if problem else None
        here.screen.document(
            RereadDocument(backup=row(backup), readable=reread.good, reread=reread, error=said).document()
        )
    if problem is not None:
        raise problem
    what = "whole and what its manifest says" if reread.compared_with_manifest else f"whole but unsealed: {NO_MANIFEST}"
    here.screen.text(
        f"{backup.address} is {what}: {reread.size} bytes, SHA-256 {reread.sha256}, "
        f"{reread.rows} rows in {reread.tables} tables"
    )


def verify_database(  # noqa: PLR0917  # typer turns every parameter into an option
    context: typer.Context,
    database: Annotated[str, typer.Option("--database", metavar="DSN", help="The password comes from PGPASSWORD.")],
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="FILE|s3://…", help="What it must be equal to.")
    ] = None,
    dump: Annotated[
        str | None, typer.Option("--dump", metavar="FILE|s3://…", help="A dump it must be equal to, by its text alone.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="DSN", help="A live database it must be equal to, instead.")
    ] = None,
    install_checks: Annotated[  # noqa: FBT002  # an option
        bool,
        typer.Option("--install-checks", help="Install the extension amcheck where it is missing."),
    ] = False,
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="AGE", help="Oldest recovery point that passes: 90m, 24h, 7d.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Sessions that read at once.")] = 2,
    region: Region = None,
) -> None:
    """Check that a database is the one that was backed up; nothing is modified unless --install-checks is said.

    Each check is PASS, FAIL or NOT RUN with its reason. A dump without a manifest tells what there must be by name, how
    many rows, and where sequences stood. With none of the three only what the database itself can tell is checked.

    Example: recovery verify --database postgresql://postgres@localhost/agentverse --manifest s3://…/x.manifest.json

    Example: recovery verify --database postgresql://postgres@localhost/agentverse --dump latest.sql.gz

    Example: recovery verify --database postgresql://me@copy/agentverse --against postgresql://me@production/agentverse
    """
    # Only this command needs the ladder; it brings libraries that would slow every other one down.
    from recovery.commands.verification import Wish, age_of, verify_and_show  # noqa: PLC0415

    here = session(context)
    for option, dsn in (("--database", database), ("--against", against)):
        if dsn is not None:
            refuse_password(dsn, option)
            database_of(dsn, option)
    if sum(given is not None for given in (manifest, dump, against)) > 1:
        raise UsageError("--manifest, --dump and --against each say what is right.", hint="Give one of them.")
    age = age_of(max_age)
    facts = None
    if dump is not None:
        with open_dump(dump, s3=clients_for(here, region)("s3") if dump.startswith("s3://") else None) as opened:
            facts = check(opened, sums=True).facts
    wish = Wish(against=against, facts=facts, install_checks=install_checks, max_age=age, jobs=jobs)
    verify_and_show(
        here, database, _read_manifest(here, manifest, region) if manifest else None, wish, progress_of(here)
    )


def _read_manifest(here: Session, where: str, region: str | None) -> Manifest:
    if where.startswith("s3://"):
        with open_dump(where, s3=clients_for(here, region)("s3")) as source:
            content = b"".join(source.stored())
    else:
        try:
            content = Path(where).read_bytes()
        except OSError as exc:
            raise EnvironmentLacksError(f"The manifest {where} cannot be read.", detail=str(exc)) from exc
    return Manifest.from_bytes(content, origin=where)
