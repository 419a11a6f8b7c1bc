"""The database beside the target: loaded first, then given the target's name in one transaction.

Until that transaction commits the target is not touched; when anything fails before it, the side database is dropped.
What a killed restore leaves is known by its name and its comment, and is told from a running restore's by an advisory
lock that ends with the session holding it.  Another restore of the same dump may go on from there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import secrets
import threading
import zlib
from typing import TYPE_CHECKING

import psycopg
import stamina
from psycopg import sql

from recovery.errors import ConnectionLostError, EnvironmentLacksError, RecoveryError, RefusedError
from recovery.loading.bookmark import Bookmark
from recovery.loading.given import NO_SUCH_LOCALE, GivenState, Whose, given_state, refuse_other_locale
from recovery.loading.leftovers import (
    Dump,
    Interrupted,
    admin_database,
    disconnect,
    drop_database,
    drop_interrupted,
    drop_leftovers,
    find_interrupted,
    make_mark,
    side_name,
    suffixed,
    take_lock,
    target_name,
)
from recovery.loading.notes import strict_hint
from recovery.loading.session import connect, explain
from recovery.loading.state import DatabaseState, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.dumps import manifest
    from recovery.loading.notes import Notes
    from recovery.loading.session import Connection

__all__ = [
    "SideDatabase",
    "admin_database",
    "drop_interrupted",
    "look_at_interrupted",
    "look_at_target",
    "side_database",
    "target_name",
]

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
        self,
        dsn: str,
        admin: Connection,
        target: str,
        state: DatabaseState | None,
        given: GivenState,
        *,
        notes: Notes,
        replace: bool,
        dump: Dump | None,
    ) -> None:
        self._dsn = dsn
        self._admin = admin
        self.target = target
        self._state = state
        self._given = given
        self._notes = notes
        self._replace = replace
        stamp = f"{dt.datetime.now(dt.UTC):%Y%m%d%H%M%S}_{secrets.token_hex(3)}"
        self.name = side_name(target, stamp)
        self._replaced = suffixed(target, f"_replaced_{stamp}")
        self._mark = make_mark("restoring", target, admin, dump)
        never = "its dump is read once and cannot be asked for again" if dump is None else None
        self.bookmark = Bookmark(self.name, self._mark, notes, never=never)
        self._exists = False
        self._swapped = False
        self.sorts_otherwise = False

    def connect(self) -> Connection:
        """Open another connection to the side database, which after the swap has the target's name."""
        return connect(self._dsn, database=self.target if self._swapped else self.name)

    def create(self) -> None:
        """Create it with the encoding and locale that it is given."""
        take_lock(self._admin, self.name)
        try:
            self._exists = True  # from here on it may, even when the answer never comes
            made = self._create()
            self._admin.execute(_comment_on(self.name, self.bookmark.comment()))
            if made is not None:
                made.let_create(self._admin, self.name)
        except psycopg.errors.InsufficientPrivilege as error:
            raise EnvironmentLacksError(
                "the role may not create the database that is loaded beside the target",
                detail=error.diag.message_primary,
                hint="restore as a role with CREATEDB, such as the master user of an RDS instance",
            ) from error
        except psycopg.Error as error:
            raise explain(error, what=f"creating {self.name} beside {self.target}") from error

    def _create(self) -> DatabaseState | None:
        """Create it with the first of the choices that the server can make; the last one's failure is raised."""
        create = sql.SQL("CREATE DATABASE {} {}")
        name, choices = sql.Identifier(self.name), self._given.choices
        for state in choices[:-1]:
            try:
                self._admin.execute(create.format(name, state.create_clauses(self._admin.info.server_version)))
            except NO_SUCH_LOCALE:
                continue
            self._note_sorting(state)
            return state
        last = choices[-1] if choices else None
        clauses = last.create_clauses(self._admin.info.server_version) if last else sql.SQL("TEMPLATE template0")
        self._admin.execute(create.format(name, clauses))
        self._note_sorting(last)
        return last

    def _note_sorting(self, made: DatabaseState | None) -> None:
        """Note it when the server could not make a database of the encoding and locale that was wished for.

        Raises RecoveryError when that is to be a failure.
        """
        if made is not None and self._given.choices and made.sorting != self._given.choices[0].sorting:
            self.sorts_otherwise = True
            text = f"the server has no {self._given.choices[0].sorting}; text is sorted by {made.sorting}"
            if self._notes.is_strict("collation"):
                raise RecoveryError(text, hint=strict_hint("collation", text))
            self._notes.add("collation", self.target, text)

    def resume(self) -> bool:
        """Go on with what an interrupted restore left instead; False when that is nothing.

        Raises RefusedError when there is no such restore or one that cannot be gone on with.
        """
        owner = self._state.owner if self._state is not None else None
        left = find_interrupted(self._admin, self.target, self._mark, owner=owner)
        if left is None:
            return False
        self._note_sorting(refuse_other_locale(self._admin, left.name, self.target, self._given))
        self.name, self._exists = left.name, True
        mark = {**self._mark, "since": left.since}
        try:
            self.bookmark = Bookmark(self.name, mark, self._notes, earlier=left.progress)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            self._exists = False
            raise RefusedError(
                f"the interrupted restore into {self.target} cannot be resumed: its notes in the comment are damaged",
                detail=f"{type(error).__name__}: {error}",
                hint="restore again without --resume",
            ) from error
        text = (
            f"{left.rows} rows in {left.tables} tables are from the restore that began {left.since} and was interrupted"
        )
        self._notes.add("resumed", self.target, text)
        return True

    def keep(self) -> bool:
        """Leave the side database to a later restore if that can go on with it; says whether it can."""
        kept = self._exists and self.bookmark.is_written and self.bookmark.never is None
        if kept:
            self._exists = False
        return kept

    def swap(self) -> None:
        """Give the side database its final state and name; what the target was before stays beside it.

        Raises RecoveryError when the names cannot be swapped or what cannot be set is to be a failure, RefusedError
        when somebody has begun to use a target that was empty, both with the target as it was.
        """
        if self._state is not None and not self._replace:
            _refuse_content(self._dsn, f"the database {self.target} was empty and is no longer: it is not given up")
        not_set: list[tuple[str, str | None]] = []
        try:
            for attempt in stamina.retry_context(
                on=psycopg.errors.ObjectInUse, attempts=6, wait_initial=0.2, wait_max=2
            ):
                with attempt:
                    disconnect(self._admin, self.name)
                    disconnect(self._admin, self.target)
                    not_set = self._rename()
        except psycopg.errors.ObjectInUse as error:
            raise RecoveryError(
                f"{self.target} stays in use, so the restored database cannot take its place",
                detail=f"{error.diag.message_primary}: {self._users()}",
                hint="stop the application and restore again; the target is as it was",
            ) from error
        except psycopg.Error as error:
            raise explain(error, what=f"giving the restored database the name {self.target}") from error
        self._exists, self._swapped = False, True
        for what, why in not_set:
            self._notes.add("database", what, f"not set on the restored database ({why})")

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
                    take_lock(admin, self.name)  # which broke with the session: another restore may be at work on it
                    drop_database(admin, self.name)
            else:
                drop_database(self._admin, self.name)
            self._exists = False
        except (psycopg.Error, RecoveryError) as error:
            self._notes.add("left over", self.name, f"it could not be dropped: {error}")

    def _rename(self) -> list[tuple[str, str | None]]:
        """Swap the names and give the new target its state; return what could not be set, and why.

        All in one transaction: a limit of connections or a setting would stop a later restore from going on with the
        side database.
        """
        with self._admin.transaction():
            if self._state is not None:
                self._admin.execute(_rename(self.target, self._replaced))
                self._admin.execute(
                    _comment_on(self._replaced, json.dumps(make_mark("replaced", self.target, self._admin)))
                )
            self._admin.execute(_rename(self.name, self.target))
            self._admin.execute(_comment_on(self.target, self._given.comment))
            not_set = self._given.apply(self._admin, self.target)
            if not_set and self._notes.is_strict("database"):
                text = "not set on the restored database"
                raise RecoveryError(f"{text}: {not_set[0][0]}: {not_set[0][1]}", hint=strict_hint("database", text))
            return not_set

    def _users(self) -> str:
        rows = self._admin.execute(
            "SELECT DISTINCT COALESCE(usename, '?') || ' (' || COALESCE(NULLIF(application_name, ''), 'no name') || ')'"
            " FROM pg_catalog.pg_stat_activity WHERE datname = %s",
            [self.target],
        ).fetchall()
        return ", ".join(str(row[0]) for row in rows) or "nobody that can be seen"


@contextlib.contextmanager
def side_database(
    dsn: str,
    *,
    replace: bool,
    notes: Notes,
    dump: Dump | None = None,
    resume: bool = False,
    source: manifest.DatabaseState | None = None,
    whose: Whose | None = None,
    give_owner: bool = True,
) -> Iterator[SideDatabase]:
    """Create the side database for a restore into the DSN's database, and drop it on the way out unless it was swapped.

    ``dump`` is what the dump is known by again, None for one that cannot be read again; with ``resume`` the side
    database that an interrupted restore of it left is gone on with.  When the connection or the dump is lost, what can
    be resumed stays.  ``source`` is the state of the database that was dumped, ``whose`` state the restored one is
    given: that of the target where it exists, by default.

    Raises RefusedError when the target holds something and ``replace`` is false, another restore into it is running, or
    there is nothing that can be resumed; EnvironmentLacksError when the role may not do what is needed.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target))) as admin:
        take_lock(admin, target)  # before looking: what another restore finishes in between would be given up for this
        state = look_at_target(dsn, replace=replace)[1]
        given = given_state(admin, state, source, whose, give_owner=give_owner)
        side = SideDatabase(dsn, admin, target, state, given, notes=notes, replace=replace, dump=dump)
        if not (resume and side.resume()):
            for name in drop_leftovers(admin, target):
                notes.add("left over", name, "left by an earlier restore that was interrupted: dropped")
        if state is None:
            like = " as the source's was" if given.choices else ""
            notes.add("database", target, f"it did not exist and was created{like}")
        try:
            if not side.bookmark.resumes:
                side.create()
            yield side
        except (EnvironmentLacksError, psycopg.Error) as error:
            lost = explain(error, what=f"restoring into {target}") if isinstance(error, psycopg.Error) else error
            # What the server lacks, such as room on its disk, it lacks the less for what is loaded being dropped.
            final = not isinstance(lost, ConnectionLostError) and (
                lost is not error or isinstance(error.__cause__, psycopg.Error)
            )
            if final or not side.keep():
                raise
            hint = f"`recovery restore --resume` goes on with what is in {side.name}; --drop-interrupted drops it"
            if lost.hint and not isinstance(lost, ConnectionLostError):
                hint = f"{lost.hint}; then {hint}"
            raise type(lost)(lost.message, detail=lost.detail, hint=hint) from error
        finally:
            side.drop()


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


def look_at_interrupted(
    dsn: str, dump: Dump, *, source: manifest.DatabaseState | None = None, whose: Whose | None = None
) -> Interrupted | None:
    """Return what `resume` would go on with, None when that is nothing but a database without rows; changes nothing.

    Raises RefusedError when there is no interrupted restore of this dump, or one that cannot be gone on with.
    """
    target = target_name(dsn)
    with contextlib.closing(connect(dsn, database=admin_database(target))) as admin:
        state = read_state(admin, target)
        mark = make_mark("restoring", target, admin, dump)
        left = find_interrupted(admin, target, mark, owner=state.owner if state else None, dry_run=True)
        if left is not None:
            refuse_other_locale(admin, left.name, target, given_state(admin, state, source, whose))
    return left


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


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def _comment_on(database: str, comment: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(comment))
