"""`recovery restore`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recovery.clients import Clients
from recovery.commands.addresses import database_of, refuse_password
from recovery.commands.backup_places import Region, clients_for, place_of
from recovery.commands.progress_line import progress_of
from recovery.commands.shared import Session, session
from recovery.documents import CleanedDocument, RestorePlanDocument
from recovery.dumps.catalogue import NO_MANIFEST, Backup, backup_at, find_backup, list_backups, list_local_backups
from recovery.dumps.manifest import Manifest
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump, text_size_of
from recovery.errors import BadDumpError, UsageError
from recovery.loading.given import Whose
from recovery.loading.rules import strict_kinds
from recovery.loading.side import drop_interrupted, look_at_target
from recovery.restore import find_resumable, restore
from recovery.space import look_at_space, refuse_too_little

if TYPE_CHECKING:
    from recovery.loading.leftovers import Interrupted


def restore_dump(  # noqa: PLR0917  # typer turns every parameter into an option
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="DSN", help="Where to; the password comes from PGPASSWORD.")],
    source: Annotated[str, typer.Argument(metavar="[latest|ID|FILE|s3://…]")] = "latest",
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the target holds.")] = False,  # noqa: FBT002  # an option
    region: Region = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, max=64, help="Indexes built at once.")] = None,
    clean_up: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--drop-interrupted", help="Restore nothing; drop what killed restores into it left behind.")
    ] = False,
    resume: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--resume", help="Go on where a restore of the same dump that was interrupted stopped.")
    ] = False,
    database_state: Annotated[
        Whose | None,
        typer.Option(
            "--database-state",
            help="Whose encoding, locale, settings and privileges it gets; the target's where it exists.",
        ),
    ] = None,
    strict: Annotated[
        list[str] | None,
        typer.Option("--strict", metavar="KIND", help="Fail at what is otherwise a note of this kind; `all` for all."),
    ] = None,
    no_owner: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--no-owner", help="Do not try to give objects their owners.")
    ] = False,
    no_privileges: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--no-privileges", help="Do not try to grant and revoke.")
    ] = False,
    no_analyze: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--no-analyze", help="Collect no statistics; autovacuum does that within minutes.")
    ] = False,
    ignore_space: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--ignore-space", help="Go on although the server's disk is estimated to be too small.")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--dry-run", help="Check the dump, the target and its disk, and change nothing.")
    ] = False,
) -> None:
    """Restore a backup into an empty database: all of it, or nothing.

    The source is `latest` (the newest sealed backup), a backup's id, a file, an s3:// address or `-` for standard
    input: plain SQL, compressed with gzip or not, or an archive of pg_dump (custom, tar, or a directory's folder). It
    is loaded into a database beside the target, which takes the target's name when everything has succeeded.

    Example: recovery restore latest --to postgresql://postgres@localhost/agentverse

    Example: recovery restore dump.sql.gz --to postgresql://postgres@localhost/agentverse --replace --jobs 8

    Example: recovery restore latest --to postgresql://postgres@localhost/agentverse --resume

    Example: recovery restore latest --to postgresql://postgres@localhost/copy --replace --database-state source

    Example: recovery restore dump.sql.gz --to postgresql://me@localhost/copy --no-owner --strict setting --strict rows

    Example: gunzip -c dump.sql.gz | recovery restore - --to postgresql://postgres@localhost/agentverse

    Example: recovery restore --drop-interrupted --to postgresql://postgres@localhost/agentverse
    """
    here = session(context)
    refuse_password(to, "--to")
    target = database_of(to, "--to")
    strict_kinds(strict or ())
    if clean_up and resume:
        raise UsageError("--resume and --drop-interrupted exclude each other.", hint="Give one of them.")
    if clean_up:
        _drop_interrupted(here, to, target, dry_run=dry_run)
        return
    source, manifest, clients = _find_source(here, source, region)
    s3 = clients("s3") if clients else None
    space = look_at_space(to, manifest, text_size=text_size_of(source, s3=s3) if manifest is None else None)
    here.screen.say(space.line, "dim")
    left = None
    if resume:
        with open_dump(source, s3=s3, stdin=sys.stdin.buffer) as dump:
            left = find_resumable(dump, to, manifest, database_state=database_state)
    if not (ignore_space or left):  # what an interrupted restore left is part of what is needed and of what is taken
        refuse_too_little(space)
    if dry_run:
        with open_dump(source, s3=s3, stdin=sys.stdin.buffer) as dump:
            read = check(dump, manifest)
        if space.needed is None:
            space = look_at_space(to, manifest, text_size=read.text_done)
            here.screen.say(space.line, "dim")
            if not (ignore_space or left):
                refuse_too_little(space)
        _, state = look_at_target(to, replace=replace)
        before = "does not exist yet" if state is None else "would be replaced" if replace else "is empty"
        resumes = left.name if left else None
        plan = RestorePlanDocument(source=source, target=target, target_state=before, resumes=resumes, space=space)
        _show_plan(here, plan, left, resume=resume)
        return
    if replace:
        here.screen.confirm(f"Replace everything in {target}?", yes=here.yes)
    result = restore(
        source,
        to,
        manifest=manifest,
        replace=replace,
        progress=progress_of(here),
        s3=s3,
        stdin=sys.stdin.buffer,
        jobs=jobs,
        resume=resume,
        database_state=database_state,
        strict=strict or (),
        owner=not no_owner,
        privileges=not no_privileges,
        analyze=not no_analyze,
    )
    if here.screen.as_json:
        here.screen.document(result.model_dump(mode="json"))
    here.screen.text(f"{result.rows} rows in {result.tables} tables, {result.seconds:.1f} s")
    for note in result.notes:
        here.screen.text(f"note: {note.kind}: {note.object}: {note.text}")


def _show_plan(here: Session, plan: RestorePlanDocument, left: Interrupted | None, *, resume: bool) -> None:
    here.screen.text(
        f"{plan.source} could be restored into {plan.target}, which {plan.target_state}; nothing was changed."
    )
    if left is not None:
        here.screen.text(f"It would go on with {left.rows} rows in {left.tables} tables in {left.name}.")
    elif resume:
        here.screen.text("It would begin anew: the interrupted restore had not come to rows.")
    if here.screen.as_json:
        here.screen.document(plan.document())


def _drop_interrupted(here: Session, dsn: str, target: str, *, dry_run: bool) -> None:
    """Drop what killed restores left; what belongs to one that is running, or to nobody we know, stays."""
    names_left = drop_interrupted(dsn, dry_run=True)
    if names_left and not dry_run:
        here.screen.confirm(f"Drop {', '.join(names_left)}, left by restores into {target}?", yes=here.yes)
        names_left = drop_interrupted(dsn)
    if here.screen.as_json:
        here.screen.document(CleanedDocument(dry_run=dry_run, dropped=names_left).document())
    for name in names_left:
        here.screen.text(f"{name} would be dropped" if dry_run else f"{name} was dropped")
    if not names_left:
        here.screen.text(f"No interrupted restore into {target} left anything.")


def _find_source(here: Session, wanted: str, region: str | None) -> tuple[str, Manifest | None, Clients | None]:
    """Return the dump that is meant, the manifest that lies beside it, if any, and the clients that read it.

    Raises BadDumpError for a file that is not there, RecoveryError for a backup that is not.
    """
    if wanted == "-":
        return wanted, None, None
    path = Path(wanted)
    if not wanted.startswith("s3://"):
        if path.exists():
            beside = next((item for item in list_local_backups(path.parent) if item.filename == path.name), None)
            return wanted, _manifest_of(here, beside), None
        if path.name != wanted:
            raise BadDumpError(f"There is no dump {wanted}.", hint="Give a file that exists, a backup's id or s3://…")
    if not wanted.startswith("s3://"):
        clients, bucket = place_of(here, region)
        backup = find_backup(list_backups(clients("s3"), bucket), wanted)
        return backup.address, _manifest_of(here, backup), clients
    clients = clients_for(here, region)
    bucket, _, key = wanted.removeprefix("s3://").partition("/")
    return wanted, _manifest_of(here, backup_at(clients("s3"), bucket, key)), clients


def _manifest_of(here: Session, backup: Backup | None) -> Manifest | None:
    """Return a backup's manifest, and say so when it is not sealed: then only the dump's own text speaks for it.

    Raises BadDumpError for a manifest that is there and is not what was written.
    """
    if backup is not None and not backup.sealed:
        if backup.manifest is None and backup.problem not in {NO_MANIFEST, None}:
            raise BadDumpError(
                f"{backup.manifest_address} cannot be used: {backup.problem}",
                hint="restore another copy or an older backup; a copy of the dump alone is restored without a manifest",
            )
        here.screen.say(f"{backup.address} is not sealed: {backup.problem}", "bold yellow")
    return backup.manifest if backup else None
