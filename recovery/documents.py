"""What `--json` prints, as models: their schemas are published in docs/schemas.

Sizes in bytes, times aware and in UTC.  Within one schema_version fields are added, never renamed or taken away.
"""

from __future__ import annotations

import datetime as dt  # pydantic reads the annotations when the class is made
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from recovery.drills import State  # as above
from recovery.dumps.manifest import Manifest  # as above
from recovery.dumps.reread import Reread  # as above
from recovery.outputs import Outputs  # as above
from recovery.space import Space  # as above

if TYPE_CHECKING:
    from recovery.dumps.catalogue import Backup
    from recovery.errors import RecoveryError


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)


class _Document(_Part):
    schema_version: Literal[1] = 1

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class Failure(_Part):
    """What went wrong: `code` is the exit code."""

    message: str
    detail: str | None
    hint: str | None
    code: int


class BackupRow(_Part):
    """One backup in a list: `created_at` is the recovery point of a sealed one, `problem` why another is not sealed."""

    id: str
    address: str
    size: int
    created_at: dt.datetime
    sealed: bool
    problem: str | None


class BackupDocument(_Document):
    """`recovery backup`; `notes` are the manifest's, and what went wrong after the backup was sealed."""

    backup: BackupRow
    notes: list[str] = []


class BackupsDocument(_Document):
    """`recovery backups list`."""

    backups: list[BackupRow]


class ShownDocument(_Document):
    """`recovery backups show`; `manifest` is null where there is none that can be believed."""

    backup: BackupRow
    manifest: Manifest | None


class RereadDocument(_Document):
    """`recovery backups verify`: `readable` when the content is whole and, where there is a manifest, what that says;
    `reread.problems` tells what is not, and `error` is what any failed command has.
    """

    backup: BackupRow
    readable: bool
    reread: Reread
    error: Failure | None


class PrunedPlace(_Part):
    """One bucket or folder: ids that are superseded, those kept with the reason, and why it could not be pruned."""

    place: str
    region: str | None
    superseded: list[str]
    kept: dict[str, str]
    problem: str | None


class PruneDocument(_Document):
    """`recovery backups prune`; nothing was changed unless `applied`."""

    applied: bool
    retention_days: int
    places: list[PrunedPlace]


class RestorePlanDocument(_Document):
    """`recovery restore --dry-run`; `resumes` is the database that `--resume` would go on with, if any."""

    dry_run: Literal[True] = True
    source: str
    target: str
    target_state: str
    resumes: str | None = None
    space: Space


class CleanedDocument(_Document):
    """`recovery restore --drop-interrupted`: the databases that were, or in a dry run would be, dropped."""

    dry_run: bool
    dropped: list[str]


class DoctorRow(_Part):
    """One thing a recovery needs: `text` says what is there, or why it is not and what to do."""

    name: str
    outcome: Literal["ok", "BAD"]
    text: str


class DoctorDocument(_Document):
    """`recovery doctor`."""

    checks: list[DoctorRow]


class EnvironmentRow(_Part):
    """One DR environment: `reap` is whether the reaper would remove it, `reason` why or why not."""

    drill: str
    reap: bool
    reason: str
    has_stack: bool
    expires_at: dt.datetime | None


class EnvironmentsDocument(_Document):
    """`recovery environment status`."""

    environments: list[EnvironmentRow]


class EnvironmentPlanDocument(_Document):
    """`recovery environment up --dry-run`: where an environment would be made, and after how many hours it expires."""

    dry_run: Literal[True] = True
    account: str
    region: str
    lifetime_hours: float


class EnvironmentDocument(_Document):
    """`recovery environment up`: the drill's id and the outputs of its stack."""

    drill: str
    outputs: Outputs


class RemovalPlanDocument(_Document):
    """`recovery environment down --dry-run`, and `reap`: by drill, one line for each thing that would be removed."""

    dry_run: Literal[True] = True
    would_remove: dict[str, list[str]]


class RemovedEnvironment(_Part):
    """One environment that is gone: `found` is what the sweep found after the stack, `left` what it could not remove,
    `dump_versions_removed` counts what was uploaded for the drill.
    """

    drill: str
    resources_destroyed: int
    summary: str
    found: list[str]
    left: list[str]
    dump_versions_removed: int


class RemovedDocument(_Document):
    """`recovery environment down`, and `reap`."""

    removed: list[RemovedEnvironment]


class DrillRow(_Part):
    """One drill as its journal tells it; `runbook` is empty and `started_at` null where the journal cannot be read."""

    id: str
    runbook: str
    started_at: dt.datetime | None
    state: State
    verdict: str | None
    kept: bool
    folder: str


class DrillsDocument(_Document):
    """`recovery drills list`."""

    drills: list[DrillRow]


class WrittenDocument(_Document):
    """`recovery drills report`: the paths of the files, and the verdict they state."""

    json_file: str = pydantic.Field(serialization_alias="json")
    html: str
    verdict: str


class ErrorDocument(_Document):
    """Any command that failed before it had a document to print."""

    error: Failure


def failure(problem: RecoveryError) -> Failure:
    """Return what a document says of an error."""
    return Failure(message=problem.message, detail=problem.detail, hint=problem.hint, code=problem.exit_code)


def row(backup: Backup) -> BackupRow:
    """Return what a list says of a backup."""
    return BackupRow(
        id=backup.backup_id,
        address=backup.address,
        size=backup.size,
        created_at=backup.created_at,
        sealed=backup.sealed,
        problem=backup.problem,
    )
