"""Where the backups are that an operator means: a configured region's bucket, any bucket's address, or this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from recovery.clients import Clients
from recovery.dumps import names
from recovery.dumps.catalogue import Backup, backup_at, find_backup, list_backups, list_local_backups
from recovery.errors import UsageError

if TYPE_CHECKING:
    from recovery.commands.shared import Session

Region = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="REGION",
        help="Which region's copy, the DR region's by default; with an s3:// address the region that is asked first.",
    ),
]
Here = Annotated[
    bool, typer.Option("--here", help="The copies on this machine (database.local_dir) instead of a region's.")
]
Wanted = Annotated[
    str, typer.Argument(metavar="[ID|s3://…]", help="`latest`, a backup's id or file name, or a dump's s3:// address.")
]
Where = Annotated[
    str | None,
    typer.Argument(metavar="[s3://BUCKET/PREFIX/]", help="Any bucket's folder, instead of a region's own bucket."),
]


def place_of(here: Session, region: str | None) -> tuple[Clients, str]:
    """Return clients and bucket of a region's backups. Raises UsageError for a region that has none."""
    _ = here.local
    platform = here.settings.platform
    places = {platform.dr_region: platform.dr_backups_bucket, platform.primary_region: platform.backups_bucket}
    wanted = region or platform.dr_region
    if wanted not in places:
        raise UsageError(
            f"No bucket of backups in {wanted} is configured.",
            hint=f"Configured are {', '.join(places)}; for any other one give its address: s3://BUCKET/db/…",
        )
    return Clients(wanted), places[wanted]


def clients_for(here: Session, region: str | None) -> Clients:
    """Return clients that read an s3:// address, of any region: S3 says which one the bucket is in."""
    _ = here.local
    return Clients(region or here.settings.platform.dr_region)


def backups_at(
    here: Session, where: str | None, region: str | None, *, on_this_machine: bool
) -> tuple[list[Backup], Clients | None]:
    """Return the backups of one place, newest first, and the clients that read them; none for this machine's."""
    _refuse_contradiction(where, region, on_this_machine=on_this_machine)
    if on_this_machine:
        return list_local_backups(here.settings.database.local_dir), None
    if where is None:
        clients, bucket = place_of(here, region)
        return list_backups(clients("s3"), bucket), clients
    bucket, key = _parts(where)
    prefix = f"{key.rstrip('/')}/" if key else names.DEFAULT_PREFIX
    clients = clients_for(here, region)
    return list_backups(clients("s3"), bucket, prefix), clients


def backup_of(
    here: Session, wanted: str, region: str | None, *, on_this_machine: bool
) -> tuple[Backup, Clients | None]:
    """Return the backup that is meant and the clients that read it. Raises RecoveryError when it is not there."""
    if not wanted.startswith("s3://"):
        found, here_or_there = backups_at(here, None, region, on_this_machine=on_this_machine)
        return find_backup(found, wanted), here_or_there
    _refuse_contradiction(wanted, region, on_this_machine=on_this_machine)
    bucket, key = _parts(wanted)
    folder, slash, name = key.rpartition("/")
    known = names.split(name)
    if known is None:
        raise UsageError(f"{wanted} is not the address of a backup.", hint="Write s3://BUCKET/db/db_full_….sql.gz.")
    clients = clients_for(here, region)
    backup = backup_at(clients("s3"), bucket, f"{folder}{slash}{known[0]}{names.DUMP_SUFFIX}")
    listed = [backup] if backup is not None and (backup.size > 0 or backup.manifest is not None) else []
    return find_backup(listed, known[0]), clients


def _refuse_contradiction(where: str | None, region: str | None, *, on_this_machine: bool) -> None:
    if not on_this_machine:
        return
    if region is not None:
        raise UsageError("--here and --region both say where to look.", hint="Give one of them.")
    if where is not None:
        raise UsageError(f"--here and {where} both say where to look.", hint="Give one of them.")


def _parts(address: str) -> tuple[str, str]:
    """Split an s3:// address into bucket and key. Raises UsageError for anything else."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket:
        raise UsageError(f"{address} is not an address in S3.", hint="Write s3://BUCKET/db/.")
    return bucket, key
