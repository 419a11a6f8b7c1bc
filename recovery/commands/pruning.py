"""`recovery backups prune`: what is superseded in each place that holds backups, and marking it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from recovery.clients import Clients, refuse_foreign_account
from recovery.commands.progress_line import progress_of
from recovery.commands.shared import Session, session
from recovery.documents import PruneDocument, PrunedPlace
from recovery.dumps.catalogue import list_backups, list_local_backups
from recovery.dumps.names import DEFAULT_PREFIX
from recovery.dumps.retention import TAG, prune
from recovery.errors import EnvironmentLacksError, RecoveryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.dumps.catalogue import Backup


def prune_backups(  # noqa: PLR0917  # typer turns every parameter into an option
    context: typer.Context,
    region: Annotated[
        str | None, typer.Option("--region", metavar="REGION", help="Only this region's bucket; by default both.")
    ] = None,
    here_only: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--here", help="Only this machine's folder (database.local_dir).")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--dry-run", help="Only say what is superseded: the default.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, after asking.")] = False,  # noqa: FBT002  # an option
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,  # noqa: FBT002  # an option
) -> None:
    """Mark backups older than objectives.retention_days that have a newer sealed one; by default only say which.

    In a bucket superseded backups are tagged, which the bucket's lifecycle rule expires once their object lock has
    ended; nothing is deleted here. In this machine's folder their files are removed, once the one that stays was read
    whole. The newest good backup of each place stays, however old, and so does everything where there is none. Each
    place is judged by itself, so that a region that stopped replicating keeps what it has.

    Example: recovery backups prune

    Example: recovery backups prune --apply
    """
    session_here = session(context)
    apply = apply or yes
    if apply and dry_run:
        raise UsageError("--dry-run and --apply contradict each other.", hint="Give one of them.")
    if here_only and region is not None:
        raise UsageError("--here and --region both say where to look.", hint="Give one of them.")
    days = session_here.settings.objectives.retention_days
    if apply:
        session_here.screen.confirm(
            f"Mark every backup older than {days} days that a newer sealed one supersedes?", yes=session_here.yes or yes
        )
    pruned = [
        _prune(session_here, place, clients, apply=apply) for place, clients in _places(session_here, region, here_only)
    ]
    if session_here.screen.as_json:
        session_here.screen.document(
            PruneDocument(applied=apply, retention_days=days, places=pruned).model_dump(mode="json")
        )
    for place in pruned:
        _show(session_here, place, applied=apply)
    if not apply and any(place.superseded for place in pruned):
        session_here.screen.say("Nothing was changed; --apply does it.")
    if unanswered := [place for place in pruned if place.problem is not None]:
        raise EnvironmentLacksError(
            f"{len(unanswered)} of {len(pruned)} places could not be pruned.",
            detail="; ".join(f"{place.place}: {place.problem}" for place in unanswered),
            hint="The others are done; prune again when these answer.",
        )


def _places(here: Session, region: str | None, here_only: bool) -> Iterator[tuple[str, Clients | None]]:  # noqa: FBT001  # an option's value
    """Every place to prune: a bucket's name with clients of its region, or a folder without."""
    _ = here.local
    platform = here.settings.platform
    buckets = {platform.primary_region: platform.backups_bucket, platform.dr_region: platform.dr_backups_bucket}
    if region is not None and region not in buckets:
        raise UsageError(f"There are no backups in {region}.", hint=f"Regions with backups: {', '.join(buckets)}.")
    if not here_only:
        for name, bucket in buckets.items():
            if region in (None, name):
                yield bucket, Clients(name)
    if region is None:
        yield str(here.settings.database.local_dir), None


def _prune(here: Session, name: str, clients: Clients | None, *, apply: bool) -> PrunedPlace:
    place = name if clients is None else f"s3://{name}/{DEFAULT_PREFIX}"
    region = clients.region if clients else None
    retention = dt.timedelta(days=here.settings.objectives.retention_days)
    try:
        backups: list[Backup]
        if clients is None:
            backups, s3 = list_local_backups(here.settings.database.local_dir), None
        else:
            if apply:
                refuse_foreign_account(clients, here.account, settings_file=str(here.settings.source))
            s3 = clients("s3")
            backups = list_backups(s3, name)
        done = prune(backups, retention=retention, s3=s3, dry_run=not apply, progress=progress_of(here))
    except EnvironmentLacksError as exc:
        # A region that does not answer must not keep the others from being pruned.
        return PrunedPlace(place=place, region=region, superseded=[], kept={}, problem=_said(exc))
    return PrunedPlace(place=place, region=region, superseded=done.superseded, kept=done.kept, problem=None)


def _show(here: Session, place: PrunedPlace, *, applied: bool) -> None:
    where = f"{place.place} ({place.region})" if place.region else f"{place.place} (this machine)"
    if place.problem is not None:
        here.screen.text(f"{where}: {place.problem}")
        return
    what = f"tagged {TAG['Key']}={TAG['Value']}" if place.region else "removed"
    here.screen.text(
        f"{where}: {len(place.superseded)} {'were' if applied else 'would be'} {what}, {len(place.kept)} are kept"
    )
    here.screen.table(
        ("id", "state", "reason"),
        [
            *((name, "superseded", "a newer sealed backup stays") for name in place.superseded),
            *((name, "kept", reason) for name, reason in place.kept.items()),
        ],
    )


def _said(problem: RecoveryError) -> str:
    return " ".join(part for part in (problem.message, problem.detail) if part)
