"""The database beside the target: loaded first, then given the target's name in one transaction.

Until that transaction commits the target is not touched; when anything fails before it, the side database is dropped.
What a killed restore leaves is known by its name and its comment, and is told from a running restore's by an advisory
lock that ends with the session holding it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import secrets
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import stamina
from psycopg import sql

from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError
from recovery.loading.session import connect, explain
from recovery.loading.state import DatabaseState, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.loading.notes import Notes
    from recovery.loading.session import Connection

_MARK = "agentverse-dr"
_LEFTOVER = re.compile(r".*_(?:restoring|replaced)_\d{14}_[0-9a-f]{6}\Z", re.DOTALL)
_LOCK_CLASS = 0x41564452  # "AVDR": our advisory locks among everybody's
_LOCK_SECONDS = 5.0
_LONGEST_NAME = 63  # bytes, PostgreSQL's NAMEDATALEN - 1

# What a user makes, as opposed to what every database has or an extension brought.
_USER_OBJECTS = """
WITH of_extensions AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
     of_system AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'information_schema' OR nspname ~ '^pg_')
SELECT kind, name FROM (
  SELECT 'relation' AS kind, c.oid::regclass::text AS name FROM pg_catalog.pg_class c
   WHERE c.relnamespace NOT IN (SELECT oid FROM of_system) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
     AND ('pg_class'::regclass::oid, c.oid) NOT IN (SELECT classid, objid FROM of_extensions)
  UNION ALL
  SELECT 'function', p.oid::regprocedure::text FROM pg_catalog.pg_proc p
   WHERE p.pronamespace NOT IN (SELECT oid FROM of_system)
     AND ('pg_proc'::regclass::oid, p.oid) NOT IN (SELECT classid, objid FROM of_extensions)
  UNION ALL
  SELECT 'type', t.oid::regtype::text FROM pg_catalog.pg_type t
   WHERE t.typnamespace NOT IN (SELECT oid FROM of_system) AND t.typtype IN ('d', 'e', 'r')
     AND ('pg_type'::regclass::oid, t.oid) NOT IN (SELECT classid, objid FROM of_extensions)
  UNION ALL
  SELECT 'schema', n.nspname FROM pg_catalog.pg_namespace n
   WHERE n.oid NOT IN (SELECT oid FROM of_system) AND n.nspname <> 'public'
     AND ('pg_namespace'::regclass::oid, n.oid) NOT IN (SELECT classid, objid FROM of_extensions)
  UNION ALL
  (SELECT 'large object', oid::text FROM pg_catalog.pg_largeobject_metadata LIMIT 5)
) AS found ORDER BY kind, name
"""


class SideDatabase:
    """One restore's side database.  Use :func:`side_database`, which creates, locks and cleans up."""

    def __init__(
        self, dsn: str, admin: Connection, target: str, state: DatabaseState | None, notes: Notes, *, replace: bool
    ) -> None:
        self._dsn = dsn
        self._admin = admin
        self.target = target
        self._state = state
        self._notes = notes
        self._replace = replace
        stamp = f"{dt.datetime.now(dt.UTC):%Y%m%d%H%M%S}_{secrets.token_hex(3)}"
        self.name = _suffixed(target, f"_restoring_{stamp}")
        self._replaced = _suffixed(target, f"_replaced_{stamp}")
        self._exists = False
        self._swapped = False

    def connect(self) -> Connection:
        """Open another connection to the side database, which after the swap has the target's name."""
        return connect(self._dsn, database=self.target if self._swapped else self.name)

    def create(self) -> None:
        """Create it with the encoding and locale of the target."""
        _lock(self._admin, self.name)
        clauses = self._state.create_clauses() if self._state is not None else sql.SQL("TEMPLATE template0")
        try:
            self._exists = True  # from here on it may, even when the answer never comes
            self._admin.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(self.name), clauses))
            self._admin.execute(_comment_on(self.name, _mark("restoring", self.target)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise EnvironmentLacksError(
                "the role may not create the database that is loaded beside the target",
                detail=error.diag.message_primary,
                hint="restore as a role with CREATEDB, such as the master user of an RDS instance",
            ) from error
        except psycopg.Error as error:
            raise explain(error, what=f"creating {self.name} beside {self.target}") from error

    def swap(self) -> None:
        """Give the side database the target's state and name; what the target was before stays beside it.

        Raises RecoveryError when the names cannot be swapped, RefusedError when somebody has begun to use a target that
        was empty, both with the target as it was.
        """
        if self._state is not None and not self._replace:
            _refuse_content(self._dsn, f"the database {self.target} was empty and is no longer: it is not given up")
        if self._state is not None:
            self._state.apply(self._admin, self.name, self._notes)
        try:
            for attempt in stamina.retry_context(
                on=psycopg.errors.ObjectInUse, attempts=6, wait_initial=0.2, wait_max=2
            ):
                with attempt:
                    self._disconnect(self.name)
                    self._disconnect(self.target)
                    self._rename()
        except psycopg.errors.ObjectInUse as error:
            raise RecoveryError(
                f"{self.target} stays in use, so the restored database cannot take its place",
                detail=f"{error.diag.message_primary}: {self._users()}",
                hint="stop the application and restore again; the target is as it was",
            ) from error
        except psycopg.Error as error:
            raise explain(error, what=f"giving the restored database the name {self.target}") from error
        self._exists, self._swapped = False, True

    @contextlib.contextmanager
    def dropping_replaced(self) -> Iterator[None]:
        """Drop what the target was before the swap while the block runs; leave the block when both are done.

        The server writes a checkpoint for it, which takes its time.
        """
        if self._state is None:
            yield
            return
        thread = threading.Thread(target=self._drop_replaced, name="restore-drop")
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _drop_replaced(self) -> None:
        try:
            drop_database(self._admin, self._replaced)
        except psycopg.Error as error:
            self._notes.add("left over", self._replaced, f"what the target was before could not be dropped: {error}")

    def drop(self) -> None:
        """Drop the side database if it is still one.  Raises nothing: it runs while another failure is on its way."""
        if not self._exists:
            return
        try:
            if self._admin.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:  # broken, or interrupted
                self._admin.close()
                with connect(self._dsn, database=admin_database(self.target)) as admin:
                    drop_database(admin, self.name)
            else:
                drop_database(self._admin, self.name)
            self._exists = False
        except (psycopg.Error, RecoveryError) as error:
            self._notes.add("left over", self.name, f"it could not be dropped: {error}")

    def _rename(self) -> None:
        with self._admin.transaction():
            if self._state is not None:
                self._admin.execute(_rename(self.target, self._replaced))
                self._admin.execute(_comment_on(self._replaced, _mark("replaced", self.target)))
            self._admin.execute(_rename(self.name, self.target))
            self._admin.execute(_comment_on(self.target, self._state.comment if self._state else None))

    def _disconnect(self, database: str) -> None:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # then the rename says who is connected
            self._admin.execute(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'",
                [database],
            )

    def _users(self) -> str:
        rows = self._admin.execute(
            "SELECT DISTINCT COALESCE(usename, '?') || ' (' || COALESCE(NULLIF(application_name, ''), 'no name') || ')'"
            " FROM pg_catalog.pg_stat_activity WHERE datname = %s",
            [self.target],
        ).fetchall()
        return ", ".join(str(row[0]) for row in rows) or "nobody that can be seen"


@contextlib.contextmanager
def side_database(dsn: str, *, replace: bool, notes: Notes) -> Iterator[SideDatabase]:
    """Create the side database for a restore into the DSN's database, and drop it on the way out unless it was swapped.

    Raises RefusedError when the target holds something and ``replace`` is false, or another restore into it is running;
    EnvironmentLacksError when the role may not do what is needed.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target))) as admin:
        _lock(admin, target)  # before looking: what another restore finishes in between would be given up for this one
        state = look_at_target(dsn, replace=replace)[1]
        for name in _drop_interrupted(admin, target):
            notes.add("left over", name, "left by an earlier restore that was interrupted: dropped")
        if state is None:
            notes.add("database", target, "it did not exist and was created")
        side = SideDatabase(dsn, admin, target, state, notes, replace=replace)
        try:
            side.create()
            yield side
        finally:
            side.drop()


def drop_interrupted(dsn: str, *, dry_run: bool = False) -> list[str]:
    """Drop what interrupted restores into the DSN's database left behind, and return the names; or only name it.

    Databases of a restore that is still running are left alone.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target), purpose="clean-up")) as admin:
        return _drop_interrupted(admin, target, dry_run=dry_run)


def target_name(dsn: str) -> str:
    """Return the database a DSN means, as libpq would choose it."""
    defaults = {option.keyword: option.val for option in psycopg.pq.Conninfo.get_defaults() if option.val is not None}
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    name = given.get("dbname") or _text(defaults.get(b"dbname")) or given.get("user") or _text(defaults.get(b"user"))
    if not name:
        raise EnvironmentLacksError("the address of the database names no database", hint="add dbname=NAME to it")
    return str(name)


def drop_database(admin: Connection, name: str) -> None:
    """Drop a database and end the sessions in it."""
    force = sql.SQL(" WITH (FORCE)") if admin.info.server_version >= 130000 else sql.SQL("")
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}{}").format(sql.Identifier(name), force))


def look_at_target(dsn: str, *, replace: bool) -> tuple[str, DatabaseState | None]:
    """Return the name and state of the DSN's database, without a state where it does not exist; nothing is changed.

    Raises RefusedError when it holds something and ``replace`` is false, EnvironmentLacksError when the server does not
    answer or the database belongs to somebody else.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target))) as admin:
        state = read_state(admin, target)
    if state is None:
        return target, None
    if not state.ours:
        raise EnvironmentLacksError(
            f"the database {target} belongs to {state.owner}, so it cannot be given up for the restored one",
            hint=f"restore as {state.owner} or as a role that is a member of it",
        )
    if not replace:
        _refuse_content(dsn, f"the database {target} is not empty, so nothing is restored into it")
    return target, state


def _refuse_content(dsn: str, problem: str) -> None:
    with contextlib.closing(connect(dsn)) as connection:
        found = connection.execute(_USER_OBJECTS).fetchmany(6)
    if found:
        more = " and more" if len(found) > 5 else ""
        raise RefusedError(
            problem,
            detail=f"it holds {', '.join(f'{kind} {name}' for kind, name in found[:5])}{more}",
            hint="restore into a new database, or say --replace to give this one up",
        )


def _drop_interrupted(admin: Connection, target: str, *, dry_run: bool = False) -> list[str]:
    rows = admin.execute(
        "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database ORDER BY datname"
    ).fetchall()
    dropped = []
    for name, comment in rows:
        if not _LEFTOVER.match(name) or not _is_ours(name, comment, target):
            continue
        if not _try_lock(admin, name):  # its restore is running
            continue
        if not dry_run:
            drop_database(admin, name)
        dropped.append(name)
    return dropped


def _is_ours(name: str, comment: str | None, target: str) -> bool:
    if comment is None:  # killed between creating and marking it
        return any(name == _suffixed(target, name[name.rindex(part) :]) for part in ("_restoring_",) if part in name)
    try:
        mark = json.loads(comment)
    except ValueError:
        return False
    return isinstance(mark, dict) and mark.get("made_by") == _MARK and mark.get("target") == target


def _mark(role: str, target: str) -> str:
    return json.dumps(
        {
            "made_by": _MARK,
            "role": role,
            "target": target,
            "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
    )


def _lock(admin: Connection, name: str) -> None:
    # A busy server notices a moment late that the session of a restore that ended has gone, and with it its lock.
    for attempt in stamina.retry_context(on=RefusedError, attempts=None, timeout=_LOCK_SECONDS, wait_max=0.5):
        with attempt:
            if not _try_lock(admin, name):
                raise RefusedError(
                    f"another restore into {name} is running",
                    hint="wait for it to end; pg_stat_activity shows its session",
                )


def _try_lock(admin: Connection, name: str) -> bool:
    row = admin.execute("SELECT pg_catalog.pg_try_advisory_lock(%s, hashtext(%s))", [_LOCK_CLASS, name]).fetchone()
    return row == (True,)


def admin_database(target: str) -> str:
    """Return the database of the server from which ``target`` is created, renamed and dropped."""
    # A session in the target would be in the way of renaming it; both of these exist everywhere.
    return "template1" if target == "postgres" else "postgres"


def _suffixed(name: str, suffix: str) -> str:
    room = _LONGEST_NAME - len(suffix)
    return name.encode()[:room].decode("utf-8", "ignore") + suffix


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def _comment_on(database: str, comment: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(comment))


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) and value else None
