"""What the files and objects of a backup are called."""

from __future__ import annotations

import datetime as dt
import re

DUMP_SUFFIX = ".sql.gz"
MANIFEST_SUFFIX = ".manifest.json"
GLOBALS_SUFFIX = ".globals.sql"
LATEST = "latest.sql.gz"
LOCK = "backup.lock"
DEFAULT_PREFIX = "db/"

_BACKUP_ID = re.compile(r"db_full_(\d{8}_\d{6})")
_STAMP = "%Y%m%d_%H%M%S"


def backup_id(time: dt.datetime) -> str:
    """The id of a backup of this moment: db_full_YYYYMMDD_HHMMSS, in UTC."""
    return f"db_full_{time.astimezone(dt.UTC).strftime(_STAMP)}"


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
