"""What a database is compared with: a manifest, the facts of a dump's text, or another live database."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

import psycopg

from recovery.dumps import checksum, describe, foreign_keys, large_objects, session
from recovery.dumps.objects_sql import RECIPE
from recovery.dumps.rowsum import Content
from recovery.dumps.snapshot import explained, take_snapshot
from recovery.progress import Progress, silent
from recovery.verify.sequences import read_sequences

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recovery.dumps.created import Created
    from recovery.dumps.facts import DumpFacts
    from recovery.dumps.manifest import Collation, DatabaseState, Extension, LargeObjects, Manifest, SchemaObject

Name = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is known of the original; None means that this kind of reference cannot tell.

    `objects_recipe` names how the objects' fingerprints were made.
    `extensions` maps to (schema, version).  `created` are objects by name alone, where nothing tells their definition.
    `encoding` is that of the rows' text, and `settings_known` whether it was written under the settings that are used
    here: role and server of just any pg_dump decide how some types are written.  `uncounted` are tables that are not
    among `tables` because nothing tells how many rows they had.
    `sequences` maps to (value, is_called), `foreign_keys` from (schema, table, name) to the violations at the source.
    """

    origin: str
    tables: Mapping[Name, Content] | None
    sequences: Mapping[Name, tuple[int, bool]] | None
    foreign_keys: Mapping[tuple[str, str, str], int | None] | None = None
    objects: tuple[SchemaObject, ...] | None = None
    objects_recipe: str | None = RECIPE
    extensions: Mapping[str, tuple[str | None, str | None]] | None = None
    created: frozenset[Created] | None = None
    collations: tuple[Collation, ...] | None = None
    database_state: DatabaseState | None = None
    large_objects: LargeObjects | None = None
    server_version: str | None = None
    recovery_point: dt.datetime | None = None
    newest_commit_time: dt.datetime | None = None
    uncounted: frozenset[Name] = frozenset()
    encoding: str | None = None
    settings_known: bool = True

    @property
    def major(self) -> int | None:
        """The original server's major version."""
        digits = (self.server_version or "").partition(".")[0].strip()
        return int(digits) if digits.isdigit() else None


def of_nothing() -> Reference:
    """The reference of a check that has neither manifest nor dump."""
    return Reference("nothing", tables=None, sequences=None)


def of_facts(facts: DumpFacts) -> Reference:
    """What a dump's text tells: tables, rows, sequence values, extensions and the names of what it creates.

    A key that it leaves unvalidated may have been broken at the source.
    """
    keys = facts.foreign_keys
    return Reference(
        "the dump's own text",
        tables={name: facts.contents.get(name, Content(rows, None)) for name, rows in facts.tables.items()},
        encoding=facts.encoding,
        settings_known=False,
        sequences=dict(facts.sequences),
        foreign_keys={key: 0 if valid else None for key, valid in keys.items()} if keys is not None else None,
        extensions={name: (schema, None) for name, schema in facts.extensions.items()},
        created=facts.created,
        server_version=facts.server_version,
        uncounted=facts.uncounted,
    )


def of_manifest(manifest: Manifest) -> Reference:
    """What a manifest tells."""
    blocks = manifest.layout.copy_blocks if manifest.layout is not None else ()
    columns = {(block.schema_name, block.name): tuple(block.columns) for block in blocks}
    return Reference(
        f"the manifest of {manifest.backup_id}",
        tables={
            (t.schema_name, t.name): Content(t.rows, t.checksum, columns.get((t.schema_name, t.name), ()))
            for t in manifest.tables
        },
        sequences={(s.schema_name, s.name): (s.value, s.is_called) for s in manifest.sequences},
        foreign_keys={(k.schema_name, k.table, k.name): k.violations for k in manifest.foreign_keys},
        objects=manifest.objects,
        objects_recipe=manifest.objects_recipe,
        extensions=_extensions(manifest.extensions),
        collations=manifest.collations,
        database_state=manifest.database_state,
        encoding=manifest.database_state.encoding if manifest.database_state is not None else None,
        large_objects=manifest.large_objects,
        server_version=manifest.server_version,
        recovery_point=manifest.snapshot_time,
        newest_commit_time=manifest.newest_commit_time,
    )


def _extensions(known: tuple[Extension, ...] | None) -> Mapping[str, tuple[str | None, str | None]] | None:
    return {e.name: (e.schema_name, e.version) for e in known} if known is not None else None


def of_database(dsn: str, *, jobs: int = 2, progress: Progress = silent) -> Reference:
    """Read another live database as a backup of it would, without the dump.

    Raises what taking a snapshot raises.
    """
    with take_snapshot(dsn) as snapshot, explained("the database to compare with could not be read"):
        description = describe.describe(snapshot.connection)
        contents = checksum.measure(dsn, snapshot, snapshot.relations, jobs=jobs, progress=progress)
        keys = foreign_keys.check_all(dsn, snapshot.identifier, jobs=jobs)
        try:
            blobs = large_objects.measure(dsn, snapshot.identifier, jobs=jobs)
        except psycopg.errors.InsufficientPrivilege:  # then only their number is compared
            blobs = large_objects.measure(dsn, snapshot.identifier, jobs=jobs, checksums=False)
        return Reference(
            f"the database {session.place_of(dsn)}",
            tables=contents,
            sequences={name: (s[0], s[1]) for name, s in read_sequences(snapshot.connection).items()},
            foreign_keys={(k.schema, k.table, k.name): violations for k, violations in keys},
            objects=description.objects,
            extensions=_extensions(description.extensions),
            collations=description.collations,
            database_state=description.database_state,
            encoding=description.database_state.encoding,
            large_objects=blobs,
            server_version=snapshot.server_version,
            recovery_point=snapshot.time,
            newest_commit_time=snapshot.newest_commit_time,
        )
