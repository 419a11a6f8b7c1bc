"""Restore a plain dump into a database: all of it, or nothing.

The dump is loaded into a new database beside the target and takes its place when every statement has succeeded, every
byte has been checked and the target's own state is applied.  Until then the target is not touched.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING

import psycopg
import pydantic

from recovery.dumps import describe, sorting
from recovery.dumps.facts import DumpFacts
from recovery.dumps.reader import DumpReader, check
from recovery.dumps.source import CHECK_FIRST_BYTES, open_dump
from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError
from recovery.loading import statistics
from recovery.loading.given import Whose
from recovery.loading.loader import Loader, Moment
from recovery.loading.notes import Note, Notes, strict_hint
from recovery.loading.pool import Pool
from recovery.loading.rules import Rulebook, strict_kinds
from recovery.loading.session import Session, connect, explain
from recovery.loading.side import (
    admin_database,
    drop_interrupted,
    look_at_interrupted,
    side_database,
    target_name,
)
from recovery.loading.wal import awake_wal_writer
from recovery.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mypy_boto3_s3 import S3Client

    from recovery.dumps.manifest import DatabaseState, Manifest
    from recovery.dumps.source import DumpSource
    from recovery.loading.leftovers import Interrupted
    from recovery.loading.side import SideDatabase

__all__ = ["DumpFacts", "Note", "Phase", "RestoreResult", "drop_interrupted", "find_resumable", "restore"]

# A session that is sent rows waits for them between whiles; one more than the jobs keeps all processors at work.
_MORE_FOR_ROWS = 1


class Phase(pydantic.BaseModel):
    """One phase of a restore, the seconds it took, and the CPU seconds of this process in it."""

    model_config = pydantic.ConfigDict(frozen=True)

    name: str
    seconds: float
    cpu_seconds: float = 0.0


class RestoreResult(pydantic.BaseModel):
    """What a restore did.

    ``bytes`` counts the dump as stored, ``data_bytes`` the text of its rows; ``tables`` and ``rows`` are those of COPY
    blocks and of INSERTs of nothing but literals.  ``row_counts`` maps "schema.table" to the rows the dump's text
    holds; tables whose rows cannot be counted there are left out.  ``resumed_tables`` and ``resumed_rows`` are how much
    of ``tables`` and ``rows`` an interrupted restore had loaded and this one did not load again.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    schema_version: int = 1
    source: str
    database: str
    bytes: int
    data_bytes: int
    statements: int
    tables: int
    rows: int
    seconds: float
    phases: list[Phase]
    notes: list[Note]
    row_counts: dict[str, int]
    resumed_tables: int = 0
    resumed_rows: int = 0
    server_version: str | None
    pg_dump_version: str | None


def restore(
    source: str,
    dsn: str,
    *,
    manifest: Manifest | None = None,
    replace: bool = False,
    progress: Progress = silent,
    s3: S3Client | None = None,
    region: str | None = None,
    stdin: IO[bytes] | None = None,
    check_first: bool | None = None,
    jobs: int | None = None,
    resume: bool = False,
    database_state: Whose | None = None,
    strict: Collection[str] = (),
    owner: bool = True,
    privileges: bool = True,
    analyze: bool = True,
) -> RestoreResult:
    """Restore the dump at ``source`` (FILE, s3://bucket/key or "-") into the database that ``dsn`` names.

    ``check_first`` reads the whole dump once before anything is created on the server; by default that is done for
    dumps up to CHECK_FIRST_BYTES, and cannot be done for a longer one on standard input.
    ``jobs`` indexes are built at once and one more session takes rows, by default one per core of this machine, 2 to 8.
    ``resume`` goes on where an interrupted restore of the same dump into the same target stopped: the whole dump is
    read and checked again, but what is known to be loaded is not loaded again.  ``database_state`` says whose encoding,
    locale, settings, privileges, limit of connections and comment the restored database is given, the "source"'s, which
    only a manifest tells, or the "target"'s: by default the target's if it exists.  ``strict`` names kinds of notes
    that are failures instead ("all", or those of STRICT_KINDS with hyphens).  Without ``owner`` or ``privileges`` the
    restoring role owns everything, or nothing is granted and revoked; neither is then tried.  Without ``analyze`` no
    statistics are collected: queries are planned without any until autovacuum comes to the tables.

    Raises BadDumpError (damaged, cut off, not the manifest's, not SQL), RefusedError (target not empty and not
    ``replace``; another restore running; nothing there that ``resume`` could go on with), EnvironmentLacksError
    (server, S3 or an extension missing), ConnectionLostError (the server was there and is gone), RecoveryError (the
    server refused a statement).  After any of them the target is as it was.
    """
    started = Moment.now()
    jobs = jobs if jobs is not None else min(8, max(2, os.cpu_count() or 2))
    notes = Notes(strict_kinds(strict))
    clock = _Clock()
    with open_dump(source, s3=s3, region=region, stdin=stdin) as dump, _in_words(dsn):
        known_by = _known_by(dump, manifest)
        if resume and known_by is None:
            raise _read_once(dump)
        small = not dump.once and dump.size <= CHECK_FIRST_BYTES
        first = check_first if check_first is not None else small
        extensions: list[str] = []
        if first:
            with clock.phase("check"):
                extensions = list(check(dump, manifest).facts.extensions)
        with clock.phase("prepare"):
            _refuse_missing_extensions(dsn, extensions)
        with contextlib.ExitStack() as stack:
            with clock.phase("create"):
                side = stack.enter_context(
                    side_database(
                        dsn,
                        replace=replace,
                        notes=notes,
                        dump=known_by,
                        resume=resume,
                        source=_state_of_source(manifest, privileges=privileges),
                        whose=database_state,
                        give_owner=owner,
                    )
                )
                rulebook = Rulebook(owner=owner, privileges=privileges)
                session, *sessions = _sessions(stack, side, rulebook, notes, count=1 + jobs + _MORE_FOR_ROWS)
                for each in (session, *sessions):
                    each.compress_fast()
                pool = Pool(sessions, busy=jobs)
                stack.callback(pool.close)
            reader = DumpReader(dump, manifest)
            loader = Loader(
                reader,
                session,
                pool,
                notes,
                side.bookmark,
                stored=dump.length,
                manifest=manifest,
                progress=progress,
                analyze=analyze,
            )
            with clock.phase("load"), awake_wal_writer(side.connect, lambda: loader.bytes):
                loader.run()
            clock.split("build", loader.rows_ended)
            if not reader.is_pg_dump and manifest is None:
                text = "it is not pg_dump's own text and has no manifest: nothing proves that it is whole"
                notes.add("completeness", dump.name, text)
            pool.close()
            session.close()
            if manifest is not None:
                _note_collations(side, manifest, notes)
            with clock.phase("swap"):
                side.swap()
            # The database is there from now on.  The server drops the old one with a checkpoint, which is all waiting
            # for disks: statistics are collected meanwhile.
            with clock.phase("analyze"), side.dropping_replaced():
                if analyze:
                    _collect_statistics(side, rulebook, loader, notes, jobs=jobs, progress=progress)
        facts = reader.facts
        return RestoreResult(
            source=dump.name,
            database=side.target,
            bytes=dump.size,
            data_bytes=loader.bytes,
            statements=reader.statements,
            tables=loader.tables,
            rows=loader.rows,
            seconds=Moment.now().seconds - started.seconds,
            phases=clock.phases,
            notes=notes.all(),
            row_counts={f"{schema}.{name}": rows for (schema, name), rows in facts.tables.items()},
            resumed_tables=side.bookmark.tables_kept,
            resumed_rows=side.bookmark.rows_kept,
            server_version=facts.server_version,
            pg_dump_version=facts.pg_dump_version,
        )


def _state_of_source(manifest: Manifest | None, *, privileges: bool) -> DatabaseState | None:
    state = manifest.database_state if manifest is not None else None
    return state if state is None or privileges else state.model_copy(update={"privileges": None})


def _note_collations(side: SideDatabase, manifest: Manifest, notes: Notes) -> None:
    """Note what text is sorted by otherwise than at the source; raises RecoveryError where that is to be a failure."""
    with contextlib.closing(side.connect()) as connection:
        now, state = describe.read_collations(connection), describe.read_database(connection)
    versions, locales = sorting.differing(manifest.database_state, manifest.collations, state, now)
    if side.sorts_otherwise:  # which is said in better words
        locales = {}
    for name, (was, here) in {**versions, **locales}.items():
        text = f"was {was} at the source and is {here} here: the order of text may differ"
        if notes.is_strict("collation"):
            raise RecoveryError(f"the collation {name} {text}", hint=strict_hint("collation", text))
        notes.add("collation", name, text)


def find_resumable(
    dump: DumpSource, dsn: str, manifest: Manifest | None = None, *, database_state: Whose | None = None
) -> Interrupted | None:
    """Return what a restore with ``resume`` would go on with, None when it would begin anew; nothing is changed.

    Raises RefusedError as such a restore would.
    """
    known_by = _known_by(dump, manifest)
    if known_by is None:
        raise _read_once(dump)
    with _in_words(dsn):
        source = manifest.database_state if manifest is not None else None
        return look_at_interrupted(dsn, known_by, source=source, whose=database_state)


def _read_once(dump: DumpSource) -> RefusedError:
    return RefusedError(
        f"a restore of {dump.name} cannot be resumed: it is read once and cannot be asked for again",
        hint="restore it without --resume; from a file or from S3 it could be resumed",
    )


def _known_by(dump: DumpSource, manifest: Manifest | None) -> dict[str, str | int] | None:
    """What tells this dump from another one: its manifest's checksum, wherever it lies, or what its source knows."""
    if dump.identity is None or manifest is None:
        return dump.identity
    return {"sha256": manifest.sha256, "size": manifest.size}


@contextlib.contextmanager
def _in_words(dsn: str) -> Iterator[None]:
    """Say in our words what the server says at any moment: a session may be ended between two statements, too."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, what=f"restoring into {target_name(dsn)}") from error


def _sessions(
    stack: contextlib.ExitStack, side: SideDatabase, rulebook: Rulebook, notes: Notes, *, count: int
) -> list[Session]:
    """Open sessions in the side database; `stack` closes each, also when a later one cannot be opened."""
    sessions: list[Session] = []
    for _ in range(count):
        session = Session(side.connect(), rulebook, notes)
        stack.callback(session.close)
        sessions.append(session)
    return sessions


def _collect_statistics(
    side: SideDatabase, rulebook: Rulebook, loader: Loader, notes: Notes, *, jobs: int, progress: Progress
) -> None:
    """Collect statistics of the restored database; the restore has succeeded, so that a failure is only noted."""
    with contextlib.ExitStack() as stack:
        try:
            sessions = _sessions(stack, side, rulebook, notes, count=jobs)
            statistics.collect(sessions, loader.settings, progress, passing_over=loader.analyzed)
        except (psycopg.Error, RecoveryError) as error:
            notes.add("warning", side.target, f"no statistics, run ANALYZE or wait for autovacuum: {error}")


class _Clock:
    """Times the phases of one restore."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._last = Moment(0.0, 0.0)

    def split(self, name: str, moment: Moment) -> None:
        """Say that the last phase ended at a moment within it and another one of this name began."""
        phase = self.phases.pop()
        seconds = max(0.0, moment.seconds - self._last.seconds)
        cpu_seconds = max(0.0, moment.cpu_seconds - self._last.cpu_seconds)
        self.phases += [
            Phase(name=phase.name, seconds=seconds, cpu_seconds=cpu_seconds),
            Phase(name=name, seconds=phase.seconds - seconds, cpu_seconds=phase.cpu_seconds - cpu_seconds),
        ]

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._last = started = Moment.now()
        yield
        ended = Moment.now()
        seconds, cpu_seconds = ended.seconds - started.seconds, ended.cpu_seconds - started.cpu_seconds
        self.phases.append(Phase(name=name, seconds=seconds, cpu_seconds=cpu_seconds))


def _refuse_missing_extensions(dsn: str, extensions: list[str]) -> None:
    if not extensions:
        return
    with contextlib.closing(connect(dsn, database=admin_database(target_name(dsn)))) as connection:
        available = {str(row[0]) for row in connection.execute("SELECT name FROM pg_catalog.pg_available_extensions")}
        version = connection.info.parameter_status("server_version")
    missing = [name for name in extensions if name not in available]
    if missing:
        raise EnvironmentLacksError(
            f"the dump needs {'extensions' if len(missing) > 1 else 'an extension'} that the server does not have: "
            + ", ".join(missing),
            detail=f"the server is PostgreSQL {version}",
            hint="install it on the server, or restore into one that has it; nothing was changed",
        )
