"""What interrupted restores leave beside a target: found by name and comment, resumed or dropped.

A side database's comment is a JSON document: whose it is, what it is for, of which dump, and how far its restore came.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib.metadata
import json
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
import stamina
from psycopg import sql

from recovery.errors import EnvironmentLacksError, RefusedError
from recovery.loading.session import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recovery.loading.session import Connection

_MARK = "agentverse-dr"
_LEFTOVER = re.compile(r".*_(?:restoring|replaced)_\d{14}_[0-9a-f]{6}\Z", re.DOTALL)
_LOCK_CLASS = 0x41564452  # "AVDR": our advisory locks among everybody's
_LOCK_SECONDS = 5.0
_END_SECONDS = 60.0  # for sessions of a killed restore to end, which undo what they were doing
_LONGEST_NAME = 63  # bytes, PostgreSQL's NAMEDATALEN - 1
_NOT_ASCII = re.compile(r"[^ -~]")

# Another number when an entry in the comment comes to mean something else.
FORMAT = 1

# What must be as it was, so that a later restore goes on where an earlier one stopped, and what it is for people.
_SAME = {"format": "the form of its notes", "tool": "the version of this program", "by": "the role that restores"}

Dump = dict[str, str | int]


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """A side database that a restore left; ``mark`` is its comment, empty where it was killed before making one.

    ``undone`` says that a DROP DATABASE of it was interrupted: nobody can connect to it any more.
    """

    name: str
    owner: str
    mark: Mapping[str, Any]
    undone: bool = False

    @property
    def never(self) -> str | None:
        """Why it cannot be resumed by anybody, None when nothing is known against it."""
        return self.progress.get("never")

    @property
    def is_empty(self) -> bool:
        """Whether no rows are in it, so that there is nothing to go on from."""
        return self.undone or (self.never is None and "done" not in self.progress)

    @property
    def progress(self) -> Mapping[str, Any]:
        """How far it came, as its bookmark wrote it; empty where it wrote nothing."""
        progress = self.mark.get("progress")
        return progress if isinstance(progress, dict) else {}

    @property
    def tables(self) -> int:
        """Tables whose rows are all there."""
        return int(self.progress.get("tables", 0))

    @property
    def rows(self) -> int:
        """Rows of these tables."""
        return int(self.progress.get("rows", 0))

    @property
    def since(self) -> str:
        """When its restore began."""
        return str(self.mark.get("since", "an unknown time"))

    def refuse(self, target: str, mark: Mapping[str, Any]) -> None:
        """Raise RefusedError unless a restore with this mark may go on from here."""
        if self.never is not None:
            raise _not_resumed(target, self.never)
        for key, what in _SAME.items():
            if self.mark.get(key) != mark[key]:
                raise _not_resumed(target, f"{what} was {self.mark.get(key)} and is {mark[key]}")
        if self.mark.get("dump") != mark["dump"]:
            detail = f"that was {_words(self.mark.get('dump'))}; this is {_words(mark['dump'])}"
            raise _not_resumed(target, f"it is of another dump: {detail}")


def make_mark(role: str, target: str, admin: Connection, dump: Dump | None = None) -> dict[str, Any]:
    """Return what a comment says from the start: ``role`` is "restoring" or "replaced"."""
    mark: dict[str, Any] = {
        "made_by": _MARK,
        "role": role,
        "target": target,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    if role == "restoring":
        mark |= {"format": FORMAT, "tool": _version(), "by": _current_user(admin), "dump": dump}
    return mark


def find_interrupted(
    admin: Connection, target: str, mark: Mapping[str, Any], *, owner: str | None, dry_run: bool = False
) -> Interrupted | None:
    """Return the interrupted restore into ``target`` to go on with, with its lock taken; None when all are empty.

    ``owner`` owns the target, None where there is none: then our role would.  Whoever owns a database can say in its
    comment what they like and put into it what they like: one of another owner is never gone on with.  Sessions of it
    that are still at work are ended, but in a dry run.

    Raises RefusedError when there is none, one that cannot be resumed or is of another dump, or one still running.
    """
    found = [left for left in _leftovers(admin, target) if left.mark.get("role", "restoring") == "restoring"]
    expected = owner or _current_user(admin)
    ours = [left for left in found if left.owner == expected]
    if found and not ours:
        whose = ", ".join(f"{left.name} belongs to {left.owner}" for left in found)
        raise _not_resumed(target, f"{whose}, while the target {'belongs' if owner else 'would belong'} to {expected}")
    if not ours:
        raise RefusedError(
            f"there is no interrupted restore into {target} to go on with",
            hint="it may have come to its end: look at the target, or restore without --resume",
        )
    begun = [left for left in ours if not left.is_empty]
    if not begun:
        return None
    same = [left for left in begun if left.mark.get("dump") == mark["dump"]] or begun
    if len(same) > 1:
        raise _not_resumed(target, f"there are several: {', '.join(left.name for left in same)}")
    same[0].refuse(target, mark)
    take_lock(admin, same[0].name)
    if dry_run:
        return same[0]
    end_sessions(admin, same[0].name)
    # Only now is the comment's text final: a session of the killed restore may have been about to commit.
    again = (left for left in _leftovers(admin, target) if (left.name, left.owner) == (same[0].name, expected))
    left = next(again, None)
    if left is None:
        raise _not_resumed(target, "it was dropped just now")
    left.refuse(target, mark)
    return left


def drop_leftovers(admin: Connection, target: str, *, dry_run: bool = False) -> list[str]:
    """Drop what restores into ``target`` left, unless they are running, and return the names; or only name it."""
    dropped = []
    for left in _leftovers(admin, target):
        if not try_lock(admin, left.name):  # its restore is running
            continue
        if not dry_run:
            drop_database(admin, left.name)
        dropped.append(left.name)
    return dropped


def drop_database(admin: Connection, name: str) -> None:
    """Drop a database and end the sessions in it."""
    force = sql.SQL(" WITH (FORCE)") if admin.info.server_version >= 130000 else sql.SQL("")
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}{}").format(sql.Identifier(name), force))


def disconnect(admin: Connection, database: str) -> None:
    """End the sessions of clients in a database, as far as the role may."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # then what follows says who is connected
        admin.execute(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'",
            [database],
        )


def end_sessions(admin: Connection, database: str) -> None:
    """End the sessions in a database and wait until they have; raises RefusedError when one does not."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        disconnect(admin, database)
        row: Any = admin.execute(
            "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = %s"
            " AND COALESCE(backend_type, '') NOT LIKE 'autovacuum%%'",
            [database],
        ).fetchone()
        if row[0] == 0:
            return
        if time.monotonic() > deadline:
            raise RefusedError(
                f"sessions of the interrupted restore are still at work in {database}",
                hint="try again; pg_stat_activity shows what they do",
            )
        time.sleep(0.05)


def take_lock(admin: Connection, name: str) -> None:
    """Take the lock that says a restore is at work on ``name``; raises RefusedError when another one has it."""
    # A busy server notices a moment late that the session of a restore that ended has gone, and with it its lock.
    for attempt in stamina.retry_context(on=RefusedError, attempts=None, timeout=_LOCK_SECONDS, wait_max=0.5):
        with attempt:
            if not try_lock(admin, name):
                raise RefusedError(
                    f"another restore into {name} is running",
                    hint="wait for it to end; pg_stat_activity shows its session",
                )


def try_lock(admin: Connection, name: str) -> bool:
    """Take the same lock if it is free; it ends with the session."""
    row = admin.execute("SELECT pg_catalog.pg_try_advisory_lock(%s, hashtext(%s))", [_LOCK_CLASS, name]).fetchone()
    return row == (True,)


def drop_interrupted(dsn: str, *, dry_run: bool = False) -> list[str]:
    """Drop what interrupted restores into the DSN's database left behind, and return the names; or only name it.

    Databases of a restore that is still running are left alone.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target), purpose="clean-up")) as admin:
        return drop_leftovers(admin, target, dry_run=dry_run)


def target_name(dsn: str) -> str:
    """Return the database a DSN means, as libpq would choose it."""
    defaults = {option.keyword: option.val for option in psycopg.pq.Conninfo.get_defaults() if option.val is not None}
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    name = given.get("dbname") or _text(defaults.get(b"dbname")) or given.get("user") or _text(defaults.get(b"user"))
    if not name:
        raise EnvironmentLacksError("the address of the database names no database", hint="add dbname=NAME to it")
    return str(name)


def admin_database(target: str) -> str:
    """Return the database of the server from which ``target`` is created, renamed and dropped."""
    # A session in the target would be in the way of renaming it; both of these exist everywhere.
    return "template1" if target == "postgres" else "postgres"


def side_name(target: str, stamp: str) -> str:
    """Return a side database's name: in ASCII, so that any session can write it whatever its encoding."""
    return suffixed(_NOT_ASCII.sub("_", target), f"_restoring_{stamp}")


def suffixed(name: str, suffix: str) -> str:
    """Return a name with a suffix, cut to what the server takes."""
    room = _LONGEST_NAME - len(suffix)
    return name.encode()[:room].decode("utf-8", "ignore") + suffix


def _leftovers(admin: Connection, target: str) -> list[Interrupted]:
    rows = admin.execute(
        "SELECT datname, pg_catalog.pg_get_userbyid(datdba), pg_catalog.shobj_description(oid, 'pg_database'),"
        " datconnlimit = -2 FROM pg_catalog.pg_database WHERE pg_catalog.pg_has_role(datdba, 'USAGE') ORDER BY datname"
    ).fetchall()
    found = []
    for name, owner, comment, undone in rows:
        if _LEFTOVER.match(name) and (mark := _read_mark(name, comment, target)) is not None:
            found.append(Interrupted(name, owner, mark, undone))
    return found


def _read_mark(name: str, comment: str | None, target: str) -> Mapping[str, Any] | None:
    """Return the mark of a database that a restore into ``target`` left, None for one that is not ours."""
    if comment is None:  # killed between creating and marking it
        _, part, stamp = name.rpartition("_restoring_")
        return {} if part and name == side_name(target, stamp) else None
    try:
        mark = json.loads(comment)
    except ValueError:
        return None
    ours = isinstance(mark, dict) and mark.get("made_by") == _MARK and mark.get("target") == target
    return mark if ours else None


def _not_resumed(target: str, reason: str) -> RefusedError:
    return RefusedError(
        f"the interrupted restore into {target} cannot be resumed: {reason}",
        hint="drop what it left with `recovery restore --drop-interrupted`, or restore again without --resume",
    )


def _words(dump: object) -> str:
    return ", ".join(f"{key} {value}" for key, value in dump.items()) if isinstance(dump, dict) else "not known"


def _version() -> str:
    try:
        return importlib.metadata.version("agentverse-dr")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _current_user(admin: Connection) -> str:
    row: Any = admin.execute("SELECT current_user::text").fetchone()
    return str(row[0])


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) and value else None
