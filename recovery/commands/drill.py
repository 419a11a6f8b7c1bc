"""`recovery drill` and `recovery drills`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recovery import drills as store
from recovery.commands.shared import session
from recovery.console import RunDisplay, show_report
from recovery.documents import DrillRow, DrillsDocument, WrittenDocument
from recovery.errors import BadDumpError
from recovery.journal import verify_chain
from recovery.procedures.quarterly import DrillOptions
from recovery.procedures.running import exit_error, refuse_impossible, run_drill
from recovery.report.model import duration, make_report
from recovery.report.page import write_report

drill = typer.Typer(help="Rehearse a disaster and measure it.", no_args_is_help=True)
drills = typer.Typer(help="What past drills have shown.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="A drill's id, or `latest`.")]


@drill.callback()
def _drill() -> None:
    """Rehearse a disaster and measure it."""


@drill.command("quarterly")
def quarterly(
    context: typer.Context,
    dump: Annotated[
        str | None, typer.Option(metavar="FILE|s3://…", help="Restore this dump instead of the newest sealed backup.")
    ] = None,
    blackout: Annotated[
        str | None, typer.Option(metavar="REGION", help="Darken this region for the whole drill (--local only).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the environment there afterwards.")] = False,  # noqa: FBT002  # an option
) -> None:
    """The quarterly full DR test: build the second region, restore, verify, measure, tear down.

    Example: recovery --local drill quarterly --dump backup.sql.gz --blackout us-east-1
    """
    here = session(context)
    options = DrillOptions(dump=dump, blackout=blackout, keep=keep)
    if dump and not dump.startswith("s3://") and not Path(dump).is_file():
        raise BadDumpError(f"There is no dump {dump}.", hint="Give a file that exists or an s3:// address.")
    refuse_impossible(here.settings, options, here.local)
    if here.local is None:
        here.screen.confirm(
            f"This makes a second region's worth of resources in account {here.account or '(none set)'}, "
            f"{here.settings.platform.dr_region}, and removes them again. Go on?",
            yes=here.yes,
        )
    display = RunDisplay(here.screen)
    try:
        conclusion = run_drill(
            here.settings, here.dr, options, account=here.account, local=here.local, listeners=(display,)
        )
    finally:
        display.close()
    if here.screen.as_json:
        here.screen.document(conclusion.report.model_dump(mode="json"))
    show_report(here.screen, conclusion.report, conclusion.written.html)
    if conclusion.result.interrupted:
        raise typer.Exit(130)
    error = exit_error(conclusion)
    if error is not None:
        # The display has told the failure where it happened; once more it would only be longer.
        raise typer.Exit(error.exit_code)


@drills.command("list")
def list_drills(context: typer.Context) -> None:
    """List the drills of this folder, newest first.

    Example: recovery drills list
    """
    here = session(context)
    found = store.list_drills(here.settings.drills)
    if here.screen.as_json:
        rows = [
            DrillRow(
                id=item.id,
                runbook=item.runbook,
                started_at=item.started_at,
                state=item.state,
                verdict=item.verdict,
                kept=item.kept,
                folder=str(item.folder),
            )
            for item in found
        ]
        here.screen.document(DrillsDocument(drills=rows).document())
    here.screen.table(
        ("id", "runbook", "state", "verdict", ""),
        [(i.id, i.runbook or "-", i.state, i.verdict or "-", "kept" if i.kept else "") for i in found],
    )
    if not found:
        here.screen.say(f"There is no drill in {here.settings.drills}.")


@drills.command("show")
def show_drill(context: typer.Context, drill_id: Id = "latest") -> None:
    """Show what a drill did, from its journal, whose chain is checked.

    Example: recovery drills show latest
    """
    here = session(context)
    events = store.load(here.settings.drills, drill_id)
    verify_chain(events)
    report = make_report(events)
    if here.screen.as_json:
        here.screen.document(report.model_dump(mode="json"))
    here.screen.table(
        ("outcome", "step", "took", ""),
        [(s.outcome, s.title, "" if s.seconds is None else duration(s.seconds), s.text) for s in report.steps],
    )
    show_report(here.screen, report, here.settings.drills / report.drill / "report.html")


@drills.command("report")
def report_drill(context: typer.Context, drill_id: Id = "latest") -> None:
    """Write a drill's report again from its journal.

    Example: recovery drills report latest
    """
    here = session(context)
    events = store.load(here.settings.drills, drill_id)
    verify_chain(events)
    report = make_report(events)
    written = write_report(report, here.settings.drills / report.drill)
    if here.screen.as_json:
        document = WrittenDocument(json_file=str(written.json), html=str(written.html), verdict=report.verdict)
        here.screen.document(document.document())
    here.screen.text(str(written.html))
