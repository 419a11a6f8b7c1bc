"""Climbs the ladder: every check that can be made of a database, in one snapshot, each with its reason and evidence.

Nothing is modified: all sessions are read-only.  Only `install_checks` creates an extension (amcheck), and says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg

from recovery.dumps import checksum, describe, foreign_keys, large_objects, session
from recovery.dumps.relations import Relation, gathered
from recovery.dumps.rowsum import RECIPE
from recovery.dumps.snapshot import Snapshot, take_snapshot
from recovery.errors import EnvironmentLacksError, RecoveryError, UsageError
from recovery.progress import Progress, ProgressEvent, silent
from recovery.rungs import RUNG_NAMES
from recovery.verify import collations, compare, indexes, reference, samples, sequences, settings_free
from recovery.verify.result import Outcome, Rung, SampleQuery, Verification, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recovery.dumps.facts import DumpFacts
    from recovery.dumps.manifest import LargeObjects, Manifest, SchemaObject
    from recovery.dumps.rowsum import Content

_FIRST_WITH_SET_OPTION = 16

Answer = tuple[Outcome, str, dict[str, Any]]

_TITLES = {
    "server": "The server is up",
    "schema": "Every object is there and defined as in the original",
    "grants": "Owners and privileges are those of the original",
    "rows": "Every table has as many rows as the original",
    "content": "Every table's content is that of the original",
    "sequences": "Every sequence is at or past the original's value",
    "foreign-keys": "Every foreign key holds, by query",
    "indexes": "Heaps and B-tree indexes are sound (amcheck), unique indexes unique",
    "collations": "Text sorts as its indexes and partitions were built",
    "samples": "The sample queries return what they should",
    "freshness": "The recovery point is recent enough",
}


@dataclasses.dataclass(frozen=True)
class Checks:
    """What is checked and how.

    `max_age` is the oldest recovery point that passes (None: any is stated and passes); `newest_row` is a query for one
    timestamp that corroborates it.  `at` is the moment ages are counted to, now if None.
    """

    samples: Sequence[SampleQuery] = ()
    required: frozenset[str] = frozenset({"server"})
    jobs: int = 2
    checksums: bool = True
    install_checks: bool = False
    max_age: dt.timedelta | None = None
    newest_row: str | None = None
    at: dt.datetime | None = None


def verify(
    dsn: str,
    *,
    manifest: Manifest | None = None,
    facts: DumpFacts | None = None,
    samples: Iterable[SampleQuery] = (),
    required: Iterable[str] = ("server",),
    against: str | None = None,
    options: Checks | None = None,
    progress: Progress = silent,
) -> Verification:
    """Check a database against a manifest, a dump's facts or another live database (`against`, a DSN).

    Returns all rungs whatever their outcome.  Raises UsageError for a required rung that does not exist, and what
    connecting to `against` raises; an unreachable `dsn` is a failed rung.
    """
    unknown = set(required) - set(RUNG_NAMES)
    if unknown:
        raise UsageError(
            f"there is no check named {', '.join(sorted(unknown))}", hint=f"the checks are {', '.join(RUNG_NAMES)}"
        )
    checks = dataclasses.replace(options or Checks(), samples=tuple(samples), required=frozenset(required))
    if against is not None:
        original = reference.of_database(against, jobs=checks.jobs, progress=progress)
    elif manifest is not None:
        original = reference.of_manifest(manifest)
    elif facts is not None:
        original = reference.of_facts(facts)
    else:
        original = reference.of_nothing()
    started, clock = dt.datetime.now(dt.UTC), time.monotonic()
    rungs = _Ladder(dsn, original, checks, progress).climb()
    return Verification(
        started_at=started,
        seconds=round(time.monotonic() - clock, 3),
        database=session.place_of(dsn),
        reference=original.origin,
        rungs=rungs,
        required=sorted(checks.required),
        verdict=verdict(rungs, set(checks.required)),
        recovery_point=original.recovery_point,
    )


class _Ladder:
    def __init__(self, dsn: str, original: reference.Reference, checks: Checks, progress: Progress) -> None:
        self._dsn = dsn
        self._original = original
        self._checks = checks
        self._progress = progress
        self._contents: dict[tuple[str, str], Content] | None = None
        self._known_objects: tuple[SchemaObject, ...] | None = None
        self._without_checksums: str | None = None  # why
        self._relations: list[Relation] = []  # as the original has their rows
        self._rungs: list[Rung] = []

    def climb(self) -> list[Rung]:
        started = time.monotonic()
        try:
            # No locks: a check that holds off nobody may run against production.
            snapshot = take_snapshot(self._dsn, locks=False)
        except (EnvironmentLacksError, RecoveryError, psycopg.Error) as error:
            self._add("server", started, (Outcome.FAIL, str(error).splitlines()[0], {"error": str(error)}))
            for name in RUNG_NAMES[1:]:
                self._add(name, time.monotonic(), (Outcome.NOT_RUN, "the server could not be asked", {}))
            return self._rungs
        self._relations = gathered(snapshot.relations, (self._original.tables or {}).keys())
        with snapshot:
            evidence = {"server_version": snapshot.server_version, "database": snapshot.database}
            reason = f"PostgreSQL {snapshot.server_version} answers"
            self._add("server", started, (Outcome.PASS, reason, evidence))
            self._run("schema", lambda: self._schema(snapshot))
            self._run("grants", lambda: self._grants(snapshot))
            self._run("rows", lambda: self._rows(snapshot))
            self._run("content", lambda: self._content(snapshot))
            self._run("sequences", lambda: self._sequences(snapshot))
            self._run("foreign-keys", lambda: self._foreign_keys(snapshot))
            self._run("indexes", lambda: self._indexes(snapshot))
            self._run("collations", lambda: self._collations(snapshot))
            self._run("samples", lambda: self._samples(snapshot))
            self._run("freshness", lambda: self._freshness(snapshot))
        return self._rungs

    def _run(self, name: str, check: Callable[[], Answer]) -> None:
        started = time.monotonic()
        self._progress(ProgressEvent("verify", len(self._rungs), len(RUNG_NAMES), "checks", _TITLES[name]))
        try:
            answer = check()
        except psycopg.errors.InsufficientPrivilege as error:
            answer = (Outcome.NOT_RUN, "the role may not look", {"error": str(error).strip()})
        except (psycopg.Error, RecoveryError) as error:
            # A table that cannot be read is a finding about the database.
            answer = (Outcome.FAIL, f"it could not be read: {str(error).splitlines()[0]}", {"error": str(error)})
        self._add(name, started, answer)

    def _add(self, name: str, started: float, answer: Answer) -> None:
        outcome, reason, evidence = answer
        seconds = round(time.monotonic() - started, 3)
        self._rungs.append(
            Rung(name=name, title=_TITLES[name], outcome=outcome, reason=reason, evidence=evidence, seconds=seconds)
        )

    def _schema(self, snapshot: Snapshot) -> Answer:
        found = self._objects(snapshot)
        with snapshot.connection.transaction():
            extensions = describe.read_extensions(snapshot.connection)
        relations = [*snapshot.relations, *self._relations]
        tables = {(relation.schema, relation.name) for relation in relations if relation.has_rows}
        return compare.schema(self._original, found, extensions, tables, snapshot.major)

    def _objects(self, snapshot: Snapshot) -> tuple[SchemaObject, ...]:
        if self._known_objects is None:
            with snapshot.connection.transaction():
                self._known_objects = describe.read_objects(snapshot.connection)
        return self._known_objects

    def _grants(self, snapshot: Snapshot) -> Answer:
        found = self._objects(snapshot)
        with snapshot.connection.transaction():
            rows = snapshot.connection.execute(
                "SELECT r.rolname::pg_catalog.text, pg_catalog.pg_has_role(r.oid, %s) FROM pg_catalog.pg_roles r",
                ("SET" if snapshot.major >= _FIRST_WITH_SET_OPTION else "MEMBER",),
            ).fetchall()
            blobs = large_objects.owners(snapshot.connection)
        roles = {str(name) for name, _ in rows}
        return compare.grants(self._original, found, blobs, roles, {str(name) for name, assumable in rows if assumable})

    def _rows(self, snapshot: Snapshot) -> Answer:
        expected = self._original.tables
        unreadable = [r.title for r in self._relations if r.has_rows and (r.hidden_rows or not r.readable)]
        if unreadable:
            return (
                Outcome.NOT_RUN,
                f"the role may not see every row of {len(unreadable)} tables",
                {"tables": unreadable[:20]},
            )
        told = [content.checksum for content in (expected or {}).values() if content.checksum is not None]
        wanted = self._checks.checksums and any(each.startswith(f"{RECIPE}:") for each in told)
        if wanted:
            try:
                session.client_programs(snapshot.major)
            except EnvironmentLacksError as error:
                self._without_checksums = error.message
                wanted = False
        self._contents = checksum.measure(
            self._dsn,
            snapshot,
            self._relations,
            jobs=self._checks.jobs,
            checksums=wanted,
            orders={name: content.columns for name, content in (expected or {}).items()},
            encoding=self._original.encoding,
            progress=self._progress,
        )
        total = sum(content.rows for content in self._contents.values())
        if expected is None:
            return Outcome.NOT_RUN, f"{total} rows, and nothing to compare them with", {"rows": total}
        # An extension makes tables of its own that a dump, or another version of it, need not know.
        extra = {(r.schema, r.name) for r in snapshot.relations if r.condition is not None} - expected.keys()
        return compare.rows(expected, self._contents, self._uncounted() | extra)

    def _uncounted(self) -> frozenset[tuple[str, str]]:
        """The tables of which the original tells nothing: not those whose rows it has as another one's."""
        return self._original.uncounted - {leaf for each in self._relations for leaf in each.leaves}

    def _content(self, snapshot: Snapshot) -> Answer:
        if not self._checks.checksums:
            return Outcome.NOT_RUN, "content checksums were not asked for", {}
        if self._without_checksums is not None:
            return Outcome.NOT_RUN, f"rows are read by psql: {self._without_checksums}", {}
        unsettled: set[tuple[str, str]] = set()
        if not self._original.settings_known:
            with snapshot.connection.transaction():
                unsettled = settings_free.unsettled(snapshot.connection, self._original.tables or ())
        original = dataclasses.replace(self._original, uncounted=self._uncounted())
        return compare.content(original, self._contents, self._large_objects(snapshot), unsettled)

    def _large_objects(self, snapshot: Snapshot) -> LargeObjects | None:
        then = self._original.large_objects
        if then is None:
            return None
        comparable = (then.checksum or "").startswith(f"{large_objects.RECIPE}:")
        measure = functools.partial(large_objects.measure, self._dsn, snapshot.identifier, jobs=self._checks.jobs)
        try:
            return measure(checksums=comparable)
        except psycopg.errors.InsufficientPrivilege:
            return measure(checksums=False)

    def _sequences(self, snapshot: Snapshot) -> Answer:
        if self._original.sequences is None:
            return Outcome.NOT_RUN, "nothing tells where the sequences were", {}
        with snapshot.connection.transaction():
            found = sequences.read_sequences(snapshot.connection)
        return compare.sequence_values(self._original.sequences, found)

    def _foreign_keys(self, snapshot: Snapshot) -> Answer:
        checked = foreign_keys.check_all(self._dsn, snapshot.identifier, jobs=self._checks.jobs)
        return compare.keys(self._original, checked)

    def _indexes(self, snapshot: Snapshot) -> Answer:
        not_installed = indexes.install(self._dsn) if self._checks.install_checks else None
        return indexes.check(self._dsn, snapshot.identifier, jobs=self._checks.jobs, not_installed=not_installed)

    def _collations(self, snapshot: Snapshot) -> Answer:
        return collations.check(self._original, self._dsn, snapshot, jobs=self._checks.jobs)

    def _samples(self, snapshot: Snapshot) -> Answer:
        if not self._checks.samples:
            return Outcome.NOT_RUN, "no sample query is configured", {}
        answers = [samples.run_sample(snapshot.connection, sample) for sample in self._checks.samples]
        wrong = [evidence["name"] for right, evidence in answers if not right]
        evidence = {"queries": [{**found, "right": right} for right, found in answers]}
        if wrong:
            return Outcome.FAIL, f"{len(wrong)} of {len(answers)} came out wrong: {', '.join(wrong)}", evidence
        return Outcome.PASS, f"{len(answers)} queries came out right", evidence

    def _freshness(self, snapshot: Snapshot) -> Answer:
        evidence: dict[str, Any] = {}
        newest = ""
        if self._checks.newest_row is not None:
            query = SampleQuery(name="newest row", sql=self._checks.newest_row)
            _, found = samples.run_sample(snapshot.connection, query)
            evidence["newest_row"] = found.get("found", found.get("error"))
            newest = f"; the newest row: {' '.join(str(evidence['newest_row']).split())}"
        point = self._original.recovery_point
        if point is None:
            reason = f"the recovery point is unknown: a dump's text does not tell it{newest}"
            return Outcome.NOT_RUN, reason, evidence
        if self._original.newest_commit_time is not None:
            evidence["newest_commit"] = self._original.newest_commit_time.isoformat()
        age = (self._checks.at or dt.datetime.now(dt.UTC)) - point
        evidence |= {"recovery_point": point.isoformat(), "age_seconds": round(age.total_seconds(), 3)}
        limit = self._checks.max_age
        said = f"the recovery point is {point.isoformat()}, {_hours(age)} old{newest}"
        if limit is not None:
            evidence["limit_seconds"] = limit.total_seconds()
            if age > limit:
                return Outcome.FAIL, f"{said}; {_hours(limit)} are allowed", evidence
        return Outcome.PASS, said, evidence


def _hours(span: dt.timedelta) -> str:
    return f"{span.total_seconds() / 3600:.2f} h"
