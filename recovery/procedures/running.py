"""Runs a drill from its first event to its report: journal, mirror, runner, outage and evidence in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from recovery.drills import journal_path, new_drill_id
from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError, UsageError
from recovery.evidence import BucketMirror
from recovery.journal import Event, Journal
from recovery.local import LocalCloud, set_blackout
from recovery.procedures.quarterly import DrillOptions, QuarterlyDrill
from recovery.report.model import Report, make_report
from recovery.report.page import Written, upload_report, write_report
from recovery.runbook import Runner, RunResult

if TYPE_CHECKING:
    from pathlib import Path

    from recovery.clients import Clients
    from recovery.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """How a drill ended: its report, where that was written, and the runner's own result."""

    drill: str
    folder: Path
    report: Report
    written: Written
    result: RunResult


def refuse_impossible(settings: Settings, options: DrillOptions, local: LocalCloud | None) -> None:
    """Raise UsageError or RefusedError for options that cannot be met, before anything is made."""
    region = options.blackout
    if region is None:
        return
    if local is None:
        raise RefusedError(
            f"On real AWS nobody can darken {region}.",
            detail="What comes closest is to drill with credentials whose session policy denies every request with "
            f"aws:RequestedRegion = {region}, so that each call to it fails.",
            hint="Assume a role with such a session policy and run the drill without --blackout.",
        )
    if region == settings.platform.dr_region:
        raise UsageError(f"{region} is the region that recovers: darkening it proves nothing.")


def run_drill(
    settings: Settings,
    clients: Clients,
    options: DrillOptions,
    *,
    account: str,
    local: LocalCloud | None,
    listeners: Iterable[Callable[[Event], None]],
    environment_only: bool = False,
) -> Conclusion:
    """Run the quarterly drill, or only make its environment, and write its report.

    Failures of steps are in the report, not raised. Raises RunInterruptedError when the operator asked twice to stop.
    """
    refuse_impossible(settings, options, local)
    drill_id = new_drill_id(datetime.now(UTC))
    path = journal_path(settings.drills, drill_id)
    mirror = BucketMirror(clients("s3"), settings.platform.evidence_bucket)
    command = f"recovery{' --local' if local else ''}"
    with Journal(path, drill_id, mirror=mirror, listeners=listeners) as journal:
        drill = QuarterlyDrill(
            settings,
            clients,
            drill_id,
            path.parent,
            options,
            account=account,
            darken=partial(set_blackout, local.endpoint, dark=True) if local else None,
            remove_with=f"{command} --yes environment down {drill_id}",
        )
        runner = Runner(
            drill.environment_runbook() if environment_only else drill.runbook(),
            journal,
            finish_command=f"{command} --yes environment reap",
            abandon=drill.environment.kill,
            facts={
                "account": account,
                "region": settings.platform.dr_region,
                "local": local is not None,
                "instance": local.instance_id if local else None,
                "objectives": settings.objectives.model_dump(),
                "required_rungs": settings.verify.required,
                "options": {"dump": options.dump, "blackout": options.blackout, "keep": options.keep},
            },
        )
        try:
            result = runner.run()
        finally:
            if options.blackout and local:
                end_blackout(journal, local, options.blackout)
        return _conclude(settings, clients, journal, mirror, result)


def end_blackout(journal: Journal, local: LocalCloud, region: str) -> None:
    """Light a region again and say so in the journal; a failure is recorded and never hides the run's own."""
    try:
        set_blackout(local.endpoint, region, dark=False)
    except EnvironmentLacksError as exc:
        journal.append("outage-not-ended", {"region": region, "message": str(exc)})
    else:
        journal.append("outage-over", {"region": region})


def _conclude(
    settings: Settings, clients: Clients, journal: Journal, mirror: BucketMirror, result: RunResult
) -> Conclusion:
    report = make_report(journal.events)
    journal.append("verdict", {"verdict": report.verdict, "reasons": report.verdict_reasons})
    missing = mirror.flush()
    if missing:
        journal.append("mirror", {"missing": missing, "problem": mirror.first_problem})
    report = make_report(journal.events)
    written = write_report(report, journal.path.parent)
    problem = upload_report(written, journal.drill, clients("s3"), settings.platform.evidence_bucket)
    if problem:
        journal.append("report-not-mirrored", {"message": problem})
    mirror.close()
    return Conclusion(drill=journal.drill, folder=journal.path.parent, report=report, written=written, result=result)


def exit_error(conclusion: Conclusion) -> RecoveryError | None:
    """Return the error whose exit code the drill ends with, or None when it passed."""
    report = conclusion.report
    if report.verdict == "PASS":
        return None
    if conclusion.result.first_failure is not None:
        return conclusion.result.first_failure[1]
    return RecoveryError(f"The drill's verdict is {report.verdict}.", detail="; ".join(report.verdict_reasons) or None)
