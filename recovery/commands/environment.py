"""`recovery environment`: make, look at and remove DR environments by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from recovery import reaping
from recovery.clients import refuse_foreign_account
from recovery.commands.shared import Session, session
from recovery.console import RunDisplay
from recovery.documents import (
    EnvironmentDocument,
    EnvironmentPlanDocument,
    EnvironmentRow,
    EnvironmentsDocument,
    RemovalPlanDocument,
    RemovedDocument,
    RemovedEnvironment,
)
from recovery.errors import CheckFailedError, RecoveryError, RunInterruptedError
from recovery.outputs import Outputs
from recovery.procedures.quarterly import DrillOptions
from recovery.procedures.running import run_drill

environment = typer.Typer(help="The isolated DR environments of drills.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]


@environment.command("up")
def up(context: typer.Context, dry_run: DryRun = False) -> None:  # noqa: FBT002  # an option
    """Make an environment and leave it there.

    Example: recovery --local environment up
    """
    here = session(context)
    place = f"account {here.account or '(none set)'}, {here.settings.platform.dr_region}"
    hours = here.settings.drill.lifetime_hours
    if dry_run:
        here.screen.text(f"Would make a DR environment in {place}, to expire after {hours:g} h; nothing was changed.")
        if here.screen.as_json:
            region = here.settings.platform.dr_region
            plan = EnvironmentPlanDocument(account=here.account, region=region, lifetime_hours=hours)
            here.screen.document(plan.document())
        return
    # Before a drill's folder and journal are there for nothing.
    refuse_foreign_account(here.dr, here.account, settings_file=str(here.settings.source))
    if here.local is None:
        here.screen.confirm(f"Make a DR environment in {place}, to expire after {hours:g} h?", yes=here.yes)
    display = RunDisplay(here.screen)
    try:
        conclusion = run_drill(
            here.settings,
            here.dr,
            DrillOptions(keep=True),
            account=here.account,
            local=here.local,
            listeners=(display,),
            environment_only=True,
        )
    finally:
        display.close()
    failure = conclusion.result.first_failure
    if conclusion.result.interrupted:
        raise RunInterruptedError("Interrupted; what was made has been removed.", detail=conclusion.drill)
    if failure is not None:
        raise failure[1]
    if here.screen.as_json:
        outputs = Outputs.model_validate(conclusion.result.evidence["environment"]["outputs"])
        here.screen.document(EnvironmentDocument(drill=conclusion.drill, outputs=outputs).document())
    remove_with = conclusion.result.evidence["keep"]["remove_with"]
    here.screen.text(f"{conclusion.drill} is up; remove it with: {remove_with}")


@environment.command("status")
def status(context: typer.Context) -> None:
    """List the environments that exist, and what the reaper thinks of each.

    Example: recovery environment status
    """
    here = session(context)
    found = reaping.find_candidates(here.settings, here.dr, datetime.now(UTC), local=here.local_wanted)
    if here.screen.as_json:
        rows = [EnvironmentRow(**vars(item)) for item in found]
        here.screen.document(EnvironmentsDocument(environments=rows).document())
    here.screen.table(
        ("drill", "stack", "expires", ""),
        [
            (
                item.drill,
                "yes" if item.has_stack else "no",
                f"{item.expires_at:%Y-%m-%d %H:%M} UTC" if item.expires_at else "-",
                f"{'to be reaped: ' if item.reap else ''}{item.reason}",
            )
            for item in found
        ],
    )
    if not found:
        here.screen.say("There is no environment.")


@environment.command("down")
def down(
    context: typer.Context,
    drill_id: Annotated[str, typer.Argument(metavar="ID", help="The drill whose environment goes.")],
    dry_run: DryRun = False,  # noqa: FBT002  # an option
) -> None:
    """Remove one drill's environment.

    Example: recovery --yes environment down 20260109-020000-1a2b
    """
    here = session(context)
    if dry_run:
        _preview(here, [drill_id])
        return
    place = f"account {here.account or '(none set)'}, {here.settings.platform.dr_region}"
    here.screen.confirm(f"Remove everything of drill {drill_id} in {place}?", yes=here.yes)
    _remove(here, [drill_id])


@environment.command("reap")
def reap(context: typer.Context, dry_run: DryRun = False) -> None:  # noqa: FBT002  # an option
    """Remove what dead and expired drills have left; a failover is never touched.

    Example: recovery --yes environment reap
    """
    here = session(context)
    found = reaping.find_candidates(here.settings, here.dr, datetime.now(UTC), local=here.local_wanted)
    for item in found:
        here.screen.say(f"{'reap' if item.reap else 'keep'} {item.drill}: {item.reason}")
    wanted = [item.drill for item in found if item.reap]
    if dry_run:
        _preview(here, wanted)
        return
    if wanted:
        place = f"account {here.account or '(none set)'}, {here.settings.platform.dr_region}"
        here.screen.confirm(f"Remove everything of {', '.join(wanted)} in {place}?", yes=here.yes)
    _remove(here, wanted)


def _preview(here: Session, wanted: list[str]) -> None:
    lines = {drill_id: reaping.preview(here.settings, here.dr, drill_id) for drill_id in wanted}
    if here.screen.as_json:
        here.screen.document(RemovalPlanDocument(would_remove=lines).document())
    for drill_id, things in lines.items():
        here.screen.text(f"{drill_id}: {len(things)} things would be removed")
        for thing in things:
            here.screen.text(f"  {thing}")
    if not wanted:
        here.screen.say("Nothing would be removed.")


def _remove(here: Session, wanted: list[str]) -> None:
    """Remove each; one that fails does not keep the others."""
    done, failed = [], []
    for drill_id in wanted:
        try:
            done.append(
                reaping.remove(
                    here.settings, here.dr, drill_id, account=here.account, local=here.local, note=here.screen.say
                )
            )
            here.screen.text(f"{drill_id}: nothing is left")
        except RecoveryError as exc:
            failed.append((drill_id, exc))
    if not wanted:
        here.screen.say("There is nothing to remove.")
    if failed and len(wanted) == 1:
        raise failed[0][1]
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(wanted)} environments could not be removed.",
            detail="; ".join(f"{drill_id}: {exc}" for drill_id, exc in failed),
            hint="What could be removed is gone; say the same again once the causes are.",
        )
    if here.screen.as_json:
        removed = [RemovedEnvironment.model_validate(item) for item in done]
        here.screen.document(RemovedDocument(removed=removed).document())
