"""What the files and objects of a backup are called."""

from __future__ import annotations

import datetime as dt
import re

from recovery.errors import UsageError

DUMP_SUFFIX = ".sql.gz"
MANIFEST_SUFFIX = ".manifest.json"
GLOBALS_SUFFIX = ".globals.sql"
LATEST = "latest.sql.gz"
LOCK = "backup.lock"
DEFAULT_PREFIX = "db/"
REHEARSALS = "drills/"

_BACKUP_ID = re.compile(r"db_full_(\d{8}_\d{6})")
_REHEARSAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_STAMP = "%Y%m%d_%H%M%S"


def backup_id(time: dt.datetime) -> str:
    """The id of a backup of this moment: db_full_YYYYMMDD_HHMMSS, in UTC."""
    return f"db_full_{time.astimezone(dt.UTC).strftime(_STAMP)}"


def rehearsal_prefix(rehearsal: str) -> str:
    """Where a rehearsal's backup goes: what a drill of this id removes with itself. Raises UsageError for no id."""
    if _REHEARSAL.fullmatch(rehearsal) is None:
        raise UsageError(
            f"{rehearsal!r} is not a rehearsal's id", hint="letters, digits and hyphens, such as a drill's own id"
        )
    return f"{REHEARSALS}{rehearsal}/"


def time_of(identifier: str) -> dt.datetime | None:
    """The moment in a backup's id, None when the text is no such id."""
    found = _BACKUP_ID.fullmatch(identifier)
    if found is None:
        return None
    try:
        return dt.datetime.strptime(found.group(1), _STAMP).replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def split(filename: str) -> tuple[str, str] | None:
    """Split a file's name into (backup id, suffix), None when it is no dump, manifest or globals of a backup."""
    for suffix in (DUMP_SUFFIX, MANIFEST_SUFFIX, GLOBALS_SUFFIX):
        if filename.endswith(suffix) and time_of(filename.removesuffix(suffix)) is not None:
            return filename.removesuffix(suffix), suffix
    return None
