"""What `--json` prints about backups, restores and checks, as models: their schemas are published in docs/schemas.

Sizes in bytes, times aware and in UTC.  Within one schema_version fields are added, never renamed or taken away.
"""

from __future__ import annotations

import datetime as dt  # pydantic reads the annotations when the class is made
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from recovery.dumps.manifest import Manifest  # as above
from recovery.dumps.reread import Reread  # as above
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
        return self.model_dump(mode="json")


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
    """`recovery backup`."""

    backup: BackupRow


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
    """`recovery restore --dry-run`."""

    dry_run: Literal[True] = True
    source: str
    target: str
    target_state: str
    space: Space


class CleanedDocument(_Document):
    """`recovery restore --drop-interrupted`: the databases that were, or in a dry run would be, dropped."""

    dry_run: bool
    dropped: list[str]


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
