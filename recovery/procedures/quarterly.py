"""The quarterly full DR test: runbook section 5.2, on the steps of section 4.3.

An isolated environment is made in the DR region, the recovery point restored into it while the rest of it is still
being made, everything checked, the clock stopped, and the environment taken down again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from recovery.clients import AwsError, refuse_foreign_account
from recovery.errors import CheckFailedError, EnvironmentLacksError, RunInterruptedError
from recovery.objects import prove_prefix
from recovery.places import DatabasePlace, TaskPlace, find_database, find_task_place
from recovery.procedures import points
from recovery.procedures.board import ResourceBoard
from recovery.procedures.commands import ping_command, restore_command, verify_command
from recovery.procedures.removal import sweep_drill
from recovery.pulumi_cli import find_pulumi
from recovery.runbook import Evidence, Runbook, Step, StepContext, StepNotNeededError, StepNotRunError
from recovery.space import compare_space, rds_disk, refuse_too_little
from recovery.tasks import run_task

if TYPE_CHECKING:
    from pathlib import Path

    from recovery.clients import Clients
    from recovery.outputs import Outputs
    from recovery.settings import Settings

T = TypeVar("T")
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class DrillOptions:
    """What the operator asked for. `dump` is a path or s3:// address, `blackout` a region that goes dark."""

    dump: str | None = None
    blackout: str | None = None
    keep: bool = False


class QuarterlyDrill:
    """One quarterly drill: what its steps share, and the steps themselves."""

    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        drill_id: str,
        folder: Path,
        options: DrillOptions,
        *,
        account: str,
        darken: Callable[[str], None] | None,
        remove_with: str,
    ) -> None:
        """Prepare a drill in `folder` against the DR region's `clients`, for the expected `account`.

        `darken` makes a region go dark, where that can be done; `remove_with` is the command that removes a kept
        environment.
        """
        from recovery.environment import Environment  # noqa: PLC0415  # slow to import: other commands do without

        self._settings = settings
        self._platform = settings.platform
        self._clients = clients
        self._id = drill_id
        self._options = options
        self._account = account
        self._darken = darken
        self._remove_with = remove_with
        self._board = ResourceBoard()
        self.environment = Environment(settings.platform, drill_id, folder)
        # Filled by one step, read by steps that need it; the runner's order makes that safe.
        self._point: points.RecoveryPoint | None = None
        self._database: DatabasePlace | None = None
        self._place: TaskPlace | None = None
        self._outputs: Outputs | None = None

    def runbook(self) -> Runbook:
        """Return the drill as the page of the runbook it is."""
        first = ("outage",) if self._options.blackout else ()
        # A dump that nobody sealed is looked at before anything is built for it.
        before_building = ("preflight", "recovery-point") if self._options.dump else ("preflight",)
        steps = [
            Step(
                name="preflight",
                title="Check account, region, tools and leftovers",
                run=self._preflight,
                needs=first,
                phase="preparation",
                timeout=300,
            ),
            Step(
                name="recovery-point",
                title="Choose the recovery point",
                run=self._choose_point,
                needs=("preflight",),
                phase="database",
                timeout=HOUR,
            ),
            Step(
                name="environment",
                title="Create the isolated DR environment",
                run=self._make_environment,
                needs=before_building,
                phase="infrastructure",
                timeout=2 * HOUR,
            ),
            Step(
                name="database",
                title="Wait for the database",
                run=self._await_database,
                needs=before_building,
                phase="infrastructure",
                timeout=HOUR,
            ),
            Step(
                name="network",
                title="Wait for what a task needs",
                run=self._await_network,
                needs=before_building,
                phase="infrastructure",
                timeout=HOUR,
            ),
            Step(
                name="space",
                title="Check that the database's disk holds the restore",
                run=self._check_space,
                needs=("recovery-point", "database"),
                phase="database",
                timeout=300,
            ),
            Step(
                name="restore",
                title="Restore the recovery point",
                run=self._restore,
                where="task",
                needs=("recovery-point", "space", "network"),
                phase="database",
                timeout=24 * HOUR,
            ),
            Step(
                name="objects",
                title="Check replicated object storage",
                run=self._check_objects,
                needs=("preflight",),
                phase="object storage",
                timeout=HOUR,
            ),
            Step(
                name="cache",
                title="Check the cache",
                run=self._ping,
                where="task",
                needs=("environment", "network"),
                phase="infrastructure",
                timeout=900,
            ),
            Step(
                name="verify",
                title="Verify the restored data",
                run=self._verify,
                where="task",
                needs=("restore",),
                phase="verification",
                timeout=24 * HOUR,
            ),
            Step(
                name="deploy",
                title="Deploy the application in the DR environment",
                phase="application",
                needs=("environment",),
                where="person",
                not_run="the dr stack declares no application; deploy it by hand with --keep to rehearse this step",
            ),
            Step(
                name="workload",
                title="Execute the test workload (project, personas, simulation, report)",
                phase="application",
                needs=("deploy",),
                where="person",
                not_run="there is no application in the environment to run it on",
            ),
            Step(
                name="verified",
                title="Stop the clock",
                run=self._stop_clock,
                phase="verification",
                needs=("environment", "verify", "objects", "cache"),
            ),
        ]
        if self._options.blackout:
            steps.insert(
                0,
                Step(
                    name="outage",
                    title=f"Darken {self._options.blackout}",
                    run=self._outage,
                    phase="preparation",
                    timeout=60,
                ),
            )
        everything = tuple(step.name for step in steps)
        if self._options.keep:
            steps.append(Step(name="keep", title="Keep the environment", run=self._keep, needs=everything, always=True))
        else:
            steps += self._removal(*everything)
        return Runbook("quarterly", "Quarterly full DR test", tuple(steps))

    def environment_runbook(self) -> Runbook:
        """Return the part of the drill that makes the environment and leaves it there; half of one is taken down."""
        wanted = [step for step in self.runbook().steps if step.name in {"preflight", "environment"}]
        keep = Step(name="keep", title="Keep the environment", run=self._keep, needs=("environment",))
        steps = (*(replace(step, needs=step.needs[:1]) for step in wanted), keep, *self._removal("keep"))
        return Runbook("environment", "DR environment", steps)

    def _removal(self, *after: str) -> tuple[Step, Step]:
        """Return the steps that take everything down, whichever way the steps before them went."""
        return (
            Step(
                name="teardown",
                title="Tear down the DR environment",
                run=self._tear_down,
                needs=after,
                phase="teardown",
                always=True,
                timeout=2 * HOUR,
            ),
            Step(
                name="sweep",
                title="Sweep until nothing is left",
                run=self._sweep,
                needs=("teardown",),
                phase="teardown",
                always=True,
                timeout=HOUR,
            ),
        )

    # --- before

    def _outage(self, context: StepContext) -> Evidence:
        region = str(self._options.blackout)
        if self._darken is None:
            raise EnvironmentLacksError(f"There is no way to darken {region} here.")
        self._darken(region)
        context.note("outage-declared", {"how": f"blackout of {region}", "region": region})
        return {"summary": f"{region} is dark", "region": region}

    def _preflight(self, _context: StepContext) -> Evidence:
        account = refuse_foreign_account(self._clients, self._account, settings_file=str(self._settings.source))
        pulumi = find_pulumi()
        for bucket in (self._platform.dr_backups_bucket, self._platform.evidence_bucket):
            self._require_bucket(bucket)
        others = [stack for stack in self.environment.stacks() if stack != self._id]
        return {
            "summary": f"account {account}, {self._platform.dr_region}"
            + (f"; other drill stacks exist: {', '.join(others)}" if others else ""),
            "account": account,
            "region": self._platform.dr_region,
            "pulumi": str(pulumi),
            "other_stacks": others,
        }

    def _require_bucket(self, bucket: str) -> None:
        try:
            self._clients("s3").head_bucket(Bucket=bucket)
        except AwsError as exc:
            raise EnvironmentLacksError(
                f"Bucket {bucket} in {self._platform.dr_region} does not answer.",
                detail=str(exc),
                hint="The primary stack makes it: pulumi up -s primary. Its name is set in recovery.toml, [platform].",
            ) from exc

    def _choose_point(self, context: StepContext) -> Evidence:
        bucket = self._platform.dr_backups_bucket
        if self._options.dump:
            point = points.given_point(
                self._clients, self._options.dump, bucket, self._id, lambda text: context.progress(text, every=0)
            )
        else:
            point = points.newest_point(self._clients, bucket)
        self._point = point
        said = point.snapshot_time.isoformat() if point.snapshot_time else "its time is unknown: it has no manifest"
        return {"summary": f"{point.source}, {said}", "source": point.source, **asdict(point)}

    # --- the environment

    def _make_environment(self, context: StepContext) -> Evidence:
        lifetime = timedelta(hours=self._settings.drill.lifetime_hours)
        expires = datetime.now(UTC) + lifetime

        def hear(resource: object) -> None:
            count = self._board.hear(resource)  # type: ignore[arg-type]  # the environment hands over Resource only
            context.progress(f"{count} resources", {"resources": count})

        try:
            outputs = self.environment.up(
                expires_at=expires,
                owner=self._settings.drill.owner,
                image=self._settings.drill.recovery_image,
                on_resource=hear,
                cancelled=context.cancelled,
            )
        except BaseException:
            self._board.give_up()
            raise
        if (outputs.account, outputs.drill_id) != (self._account, self._id):
            raise CheckFailedError(
                "The stack's outputs are another environment's.",
                detail=f"account {outputs.account}, drill {outputs.drill_id}",
            )
        self._outputs = outputs
        return {
            "summary": f"stack {self.environment.stack_name}, expires {expires:%Y-%m-%d %H:%M} UTC",
            "stack": self.environment.stack_name,
            "expires_at": expires,
            "outputs": outputs.model_dump(mode="json", by_alias=True),
        }

    def _await_database(self, context: StepContext) -> Evidence:
        identifier = f"agentverse-{self._platform.environment}-dr-{self._id}-db"

        def ready() -> bool:
            if not self._board.seen("aws:rds/instance:Instance"):
                return False
            self._database = find_database(self._clients, identifier)
            return self._database is not None

        context.wait_until(ready)
        database = _known(self._database, "database")
        return {"summary": f"{identifier} is available, PostgreSQL {database.version}", **asdict(database)}

    def _await_network(self, context: StepContext) -> Evidence:
        def ready() -> bool:
            if not self._board.seen("aws:ecs/taskDefinition:TaskDefinition"):
                return False
            self._place, missing = find_task_place(self._clients, self._id, self._platform.environment)
            if self._place is None:
                context.progress(f"waiting for {missing}", every=5)
            return self._place is not None

        context.wait_until(ready)
        place = _known(self._place, "task place")
        return {"summary": "tasks can run", **asdict(place)}

    # --- recovery and proof

    def _check_space(self, _context: StepContext) -> Evidence:
        """Ask what only this side may: the task's role has no RDS and no CloudWatch, and its network no way there."""
        point, database = _known(self._point, "recovery point"), _known(self._database, "database")
        space = compare_space(point.text_size, rds_disk(self._clients, database.identifier))
        refuse_too_little(
            space,
            hint="Set agentverse-dr:databaseStorageGb in Pulumi.dr.yaml; the need is an estimate, and a restore that "
            "runs out of disk has cost its hours.",
        )
        if space.verdict == "NOT KNOWN":
            raise StepNotRunError(space.line)
        return {"summary": space.line, **space.model_dump()}

    def _restore(self, context: StepContext) -> Evidence:
        point = _known(self._point, "recovery point")
        command = restore_command(point, _known(self._database, "database"), self._clients.region)
        result = run_task(self._clients, _known(self._place, "task place"), command, context)
        _refuse_failed_result(result.data, "restore")
        context.note("restored", result.data)
        rows, seconds = result.data.get("rows"), result.data.get("seconds")
        notes = result.data.get("notes") or []
        return {
            "summary": f"{rows} rows in {float(str(seconds or 0)):.1f} s" + (f", {len(notes)} notes" if notes else ""),
            "task": result.task_arn,
            **result.data,
        }

    def _verify(self, context: StepContext) -> Evidence:
        point = _known(self._point, "recovery point")
        tables = context.evidence["restore"].get("row_counts")
        command = verify_command(
            point,
            _known(self._database, "database"),
            self._clients.region,
            self._settings,
            tables if isinstance(tables, Mapping) else (),
        )
        result = run_task(self._clients, _known(self._place, "task place"), command, context)
        context.note("verification", result.data)
        rungs = [rung for rung in result.data.get("rungs", []) if isinstance(rung, Mapping)]
        failed = [rung for rung in rungs if rung.get("outcome") == "FAIL"]
        if failed or not rungs:
            raise CheckFailedError(
                f"{len(failed)} of {len(rungs)} checks of the restored data failed.",
                detail="; ".join(f"{rung.get('title')}: {rung.get('reason')}" for rung in failed) or None,
            )
        passed = sum(rung.get("outcome") == "PASS" for rung in rungs)
        return {"summary": f"{passed} of {len(rungs)} checks passed, the others were not run", "task": result.task_arn}

    def _ping(self, context: StepContext) -> Evidence:
        outputs = _known(self._outputs, "outputs")
        command = ping_command(outputs, self._clients.region)
        result = run_task(self._clients, _known(self._place, "task place"), command, context)
        _refuse_failed_result(result.data, "ping")
        return {
            "summary": f"{outputs.cache_endpoint}:{outputs.cache_port} answers",
            "task": result.task_arn,
            **result.data,
        }

    def _check_objects(self, context: StepContext) -> Evidence:
        proofs = []
        for prefix in self._platform.replicated_prefixes:
            proof = prove_prefix(self._clients("s3"), self._platform.dr_backups_bucket, prefix)
            wrong = {status: count for status, count in proof.statuses.items() if status != "REPLICA"}
            outcome = "NOT RUN" if not proof.count else "FAIL" if wrong else "PASS"
            reason = {
                "NOT RUN": "there is no object: nothing was written, or nothing replicated",
                "FAIL": f"not replicas: {wrong}",
                "PASS": f"{proof.count} objects, {proof.bytes} bytes, newest {proof.newest}",
            }[outcome]
            proofs.append({**asdict(proof), "outcome": outcome, "reason": reason})
        context.note("objects", {"proofs": proofs, "not_here": self._platform.same_region_prefixes})
        return {
            "summary": f"{sum(int(str(proof['count'])) for proof in proofs)} objects; "
            f"{', '.join(self._platform.same_region_prefixes)} replicate within {self._platform.primary_region} only "
            f"and are not in {self._platform.dr_region}",
        }

    def _stop_clock(self, _context: StepContext) -> Evidence:
        return {"summary": "environment, data, objects and cache are checked"}

    # --- after

    def _keep(self, _context: StepContext) -> Evidence:
        return {"summary": f"kept; remove it with: {self._remove_with}", "remove_with": self._remove_with}

    def _refuse_to_remove(self, context: StepContext) -> None:
        """Raise StepNotNeededError when there is nothing to remove, RefusedError in a foreign account."""
        if "keep" in context.evidence:
            raise StepNotNeededError("the environment is kept")
        if "preflight" not in context.evidence:
            raise StepNotNeededError("nothing was made")
        # The account is asked again: credentials may have changed under a drill of hours, and a sweep that finds
        # nothing in somebody else's account would forget the stack.
        refuse_foreign_account(self._clients, self._account, settings_file=str(self._settings.source))

    def _tear_down(self, context: StepContext) -> Evidence:
        self._refuse_to_remove(context)
        count = self.environment.destroy(account=self._account, break_lock=False, progress=context.progress)
        return {"summary": f"{count} resources destroyed", "resources": count}

    def _sweep(self, context: StepContext) -> Evidence:
        self._refuse_to_remove(context)
        return sweep_drill(
            self._clients, self._settings, self._id, self.environment, lambda text: context.progress(text, every=0)
        )


def _known(value: T | None, what: str) -> T:
    """Return what an earlier step has found. Raises RunInterruptedError when there is none."""
    if value is None:
        raise RunInterruptedError(f"There is no {what}.")
    return value


def _refuse_failed_result(data: Mapping[str, object], what: str) -> None:
    if data.get("exit_code"):
        raise CheckFailedError(f"The {what} task ended with exit code {data['exit_code']}.", detail=str(dict(data)))
