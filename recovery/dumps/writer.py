"""Takes a backup: one snapshot, one plain .sql.gz, one sealed manifest.

The order is what makes a crash harmless: dump, read back, manifest, `latest.sql.gz`.  Until the manifest is there the
previous backup is the newest sealed one, and nothing that is read by machines changes after it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import hashlib
import importlib.metadata
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recovery.dumps import assembly, checksum, describe, foreign_keys, large_objects, names, objects_sql, pg_dump
from recovery.dumps import manifest as form
from recovery.dumps.catalogue import Backup
from recovery.dumps.destinations import Bucket, Folder, has_object_lock
from recovery.dumps.gzip_writer import GzipWriter
from recovery.dumps.lock import BucketLock, folder_lock
from recovery.dumps.relations import Relation, gathered
from recovery.dumps.rowsum import Content
from recovery.dumps.session import LOCK_TIMEOUT_SECONDS
from recovery.dumps.snapshot import Snapshot, explained, take_snapshot
from recovery.dumps.table_data import TableData
from recovery.errors import RecoveryError, UsageError
from recovery.progress import Progress, ProgressEvent, silent

if TYPE_CHECKING:
    from recovery.dumps.destinations import Destination

RETENTION = dt.timedelta(days=30)

# Sessions for rows beyond the number that work at once: while what one has read is summed and compressed, its backend
# waits.
_MORE_FOR_ROWS = 1


@dataclasses.dataclass(frozen=True)
class Options:
    """How a backup is taken; the defaults are right for production.

    `rehearsal` is the id of a drill or of any other exercise: its backup goes under drills/<id>/, wherever it goes, is
    not locked and is never `latest`.  `jobs` is how many sessions that read rows are busy at once; as many check keys
    beside them.
    """

    jobs: int = 2
    password_hashes: bool = False
    rehearsal: str | None = None
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
    retention: dt.timedelta = RETENTION


@dataclasses.dataclass
class _Facts:
    """What is read in the snapshot beside the dump."""

    rows: dict[tuple[str, str], int]
    keys: list[form.ForeignKey]
    large_objects: form.LargeObjects


def take_backup(
    dsn: str,
    *,
    s3: Any = None,
    bucket: str | None = None,
    prefix: str = names.DEFAULT_PREFIX,
    local_dir: Path | None = None,
    kms_key_id: str | None = None,
    progress: Progress = silent,
    options: Options | None = None,
) -> Backup:
    """Take a backup of one database into a bucket, a folder, or both, and return it sealed.

    Raises RefusedError when another backup runs or rows would be hidden from the role, EnvironmentLacksError when the
    database, a program, the bucket or the folder is not there, RecoveryError when anything else fails.  On any failure
    the previous backup is still the latest one.  What fails after sealing is a note of the backup, which is one.
    """
    options = options or Options()
    if local_dir is None and bucket is None:
        raise UsageError("a backup needs a bucket, a folder, or both to go to")
    notes: list[str] = []
    if options.rehearsal is not None:
        prefix = names.rehearsal_prefix(options.rehearsal)
        local_dir = local_dir / prefix if local_dir is not None else None
    with contextlib.ExitStack() as held:
        places: list[Destination] = []
        bucket_lock: BucketLock | None = None
        if local_dir is not None:
            held.enter_context(folder_lock(local_dir))
            folder = Folder(local_dir)
            folder.clear()
            places.append(folder)
        if bucket is not None:
            bucket_lock = held.enter_context(BucketLock(s3, bucket, prefix))
            retain = None if options.rehearsal is not None else _retain_until(s3, bucket, options.retention, notes)
            store = Bucket(s3, bucket, prefix, kms_key_id, retain)
            store.clear()
            places.append(store)
        snapshot = held.enter_context(take_snapshot(dsn, lock_timeout_seconds=options.lock_timeout_seconds))
        with explained("the large objects could not be listed"):
            large_objects.refuse_unreadable(snapshot.connection)
        identifier = _free_identifier(snapshot.time, places)
        manifest = _write_dump(
            dsn,
            snapshot,
            identifier=identifier,
            places=places,
            options=options,
            progress=progress,
            prefix=prefix if bucket is not None else None,
            notes=notes,
        )
        sealed = manifest.seal()
        if bucket_lock is not None:
            bucket_lock.check()
        for place in places:
            place.put(identifier + names.MANIFEST_SUFFIX, sealed.to_bytes())
        afterwards = _point_latest(places, sealed.filename) if options.rehearsal is None else []
    progress(ProgressEvent("backup", sealed.size, sealed.size, "bytes", f"{sealed.filename} is sealed"))
    return Backup(
        backup_id=identifier,
        filename=sealed.filename,
        size=sealed.size,
        created_at=sealed.snapshot_time,
        sealed=True,
        bucket=bucket,
        key=prefix + sealed.filename if bucket is not None else None,
        path=local_dir / sealed.filename if local_dir is not None else None,
        manifest=sealed,
        notes=tuple(afterwards),
    )


def _retain_until(s3: Any, bucket: str, retention: dt.timedelta, notes: list[str]) -> dt.datetime | None:
    """Return until when dump and manifest are to be locked, None where the bucket has no object lock."""
    locks = has_object_lock(s3, bucket)
    if locks is None:
        notes.append(
            f"not locked: the role may not ask whether {bucket} has object lock (s3:GetBucketObjectLockConfiguration)"
        )
    return dt.datetime.now(dt.UTC) + retention if locks else None


def _point_latest(places: list[Destination], filename: str) -> list[str]:
    """Move `latest.sql.gz`; returns what failed.  No reader of ours goes by it, and the backup is sealed."""
    failed = []
    for place in places:
        try:
            place.point_latest(filename)
        except RecoveryError as error:
            why = f"{error.message}: {error.detail}" if error.detail else error.message
            failed.append(f"sealed; {names.LATEST} could not be moved: {why}")
    return failed


def _free_identifier(time: dt.datetime, places: list[Destination]) -> str:
    """Return the id of this moment, or of the next second that no backup has: names have seconds, snapshots more."""
    for _ in range(60):
        identifier = names.backup_id(time)
        if not any(place.taken(identifier) for place in places):
            return identifier
        time += dt.timedelta(seconds=1)
    raise RecoveryError(
        "there is a backup for every second of the next minute",
        hint="the clock of the database server may have been set back: compare it with this machine's",
    )


def _write_dump(
    dsn: str,
    snapshot: Snapshot,
    *,
    identifier: str,
    places: list[Destination],
    options: Options,
    progress: Progress,
    prefix: str | None,
    notes: list[str],
) -> form.Manifest:
    """Write the dump to every place and make its manifest, not sealed yet."""
    pg_dump_version = pg_dump.version(snapshot.major)
    if not pg_dump_version.startswith(f"{snapshot.major}."):
        notes.append(
            f"written by pg_dump {pg_dump_version}, since this machine has none of {snapshot.major}: psql meets"
            f" settings in it that a server of {snapshot.major} does not know, and goes on unless told to stop there"
        )
    description = describe.describe(snapshot.connection, lock_timeout_seconds=options.lock_timeout_seconds)
    encoding = description.database_state.encoding
    sessions = options.jobs + _MORE_FOR_ROWS
    with explained("the database could not be described", lock_timeout_seconds=options.lock_timeout_seconds):
        headers = assembly.read_beside(snapshot, description, pg_dump_version, sessions=sessions)
    stop = threading.Event()
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(place.dump(identifier)) for place in places]
        size = 0

        def write(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += len(data)
            for sink in sinks:
                sink.write(data)

        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="facts"))
        stack.callback(stop.set)
        stack.enter_context(
            explained("the rows of a table could not be read", lock_timeout_seconds=options.lock_timeout_seconds)
        )
        data = stack.enter_context(
            TableData(
                dsn,
                snapshot,
                headers,
                encoding=encoding,
                sessions=sessions,
                lock_timeout_seconds=options.lock_timeout_seconds,
            )
        )
        compressor = stack.enter_context(GzipWriter(write))
        facts = pool.submit(_read_facts, dsn, snapshot, options, progress, stop)

        def check() -> None:
            if facts.done() and facts.exception() is not None:
                facts.result()

        dump = assembly.Assembly(compressor, data, headers, progress=progress, check=check)
        scanner = dump.scanner
        pg_dump.run(
            dsn,
            snapshot.major,
            snapshot.identifier,
            dump.take,
            encoding=encoding,
            lock_timeout_seconds=options.lock_timeout_seconds,
            without_rows=[(table.schema, table.name) for table in headers],
        )
        dump.finish()
        progress(ProgressEvent("dump", scanner.position, scanner.position, "bytes", "written"))
        read = facts.result()
        if not snapshot.still_open():
            raise RecoveryError(
                "the snapshot was lost while the backup ran",
                detail="its session was ended by the server or the network",
                hint="look at the server's log; take the backup again",
            )
        contents = scanner.contents()
        relations = gathered(snapshot.relations, contents.keys())
        _compare(contents, relations, read.rows)
        globals_entry = _write_globals(
            dsn, snapshot.major, identifier=identifier, places=places, options=options, notes=notes
        )
        sha256 = digest.hexdigest()
        checksums = [sink.finish(size, sha256) for sink in sinks]
    return form.Manifest(
        schema_version=form.SCHEMA_VERSION,
        backup_id=identifier,
        filename=identifier + names.DUMP_SUFFIX,
        dump_key=prefix + identifier + names.DUMP_SUFFIX if prefix is not None else None,
        size=size,
        sha256=sha256,
        object_checksum=next((stated for stated in checksums if stated is not None), None),
        snapshot_time=snapshot.time,
        finished_at=dt.datetime.now(dt.UTC),
        snapshot_lsn=snapshot.lsn,
        newest_commit_time=snapshot.newest_commit_time,
        server_version=snapshot.server_version,
        pg_dump_version=pg_dump_version,
        tool_version=_tool_version(),
        database=snapshot.database,
        tables=tuple(
            form.Table(
                schema_name=relation.schema,
                name=relation.name,
                rows=contents[relation.schema, relation.name].rows,
                checksum=contents[relation.schema, relation.name].checksum,
                filter=relation.condition,
            )
            for relation in relations
            if relation.has_rows
        ),
        sequences=tuple(
            form.Sequence(schema_name=s.schema, name=s.name, value=s.value, is_called=s.is_called)
            for s in scanner.sequences
        ),
        foreign_keys=tuple(read.keys),
        layout=form.Layout(
            uncompressed_size=scanner.position,
            members=tuple(compressor.members),
            data_start=scanner.data_start if scanner.data_start is not None else scanner.position,
            data_end=scanner.data_end if scanner.data_end is not None else scanner.position,
            copy_blocks=tuple(
                form.CopyBlock(
                    schema_name=b.schema, name=b.name, columns=b.columns, offset=b.offset, length=b.length, rows=b.rows
                )
                for b in scanner.blocks
            ),
        ),
        objects=description.objects,
        objects_recipe=objects_sql.RECIPE,
        extensions=description.extensions,
        roles=description.roles,
        collations=description.collations,
        database_state=description.database_state,
        large_objects=read.large_objects,
        sizes=description.sizes,
        system_identifier=description.system_identifier,
        globals=globals_entry,
        notes=(*description.notes, *notes),
    )


def _read_facts(dsn: str, snapshot: Snapshot, options: Options, progress: Progress, stop: threading.Event) -> _Facts:
    """Count rows, check keys and checksum large objects in the snapshot, over connections of their own."""
    with explained("the content of the database could not be read"):
        contents = checksum.measure(
            dsn,
            snapshot,
            snapshot.relations,
            jobs=options.jobs,
            checksums=False,
            progress=progress,
            stop=stop,
        )
        keys = foreign_keys.check_all(dsn, snapshot.identifier, jobs=options.jobs, stop=stop)
        blobs = large_objects.measure(dsn, snapshot.identifier, jobs=options.jobs, stop=stop)
    return _Facts(
        {name: content.rows for name, content in contents.items()},
        [
            form.ForeignKey(
                schema_name=k.schema, table=k.table, name=k.name, validated=k.validated, violations=violations
            )
            for k, violations in keys
        ],
        blobs,
    )


def _compare(
    contents: dict[tuple[str, str], Content], relations: list[Relation], counts: dict[tuple[str, str], int]
) -> None:
    """Compare the rows that went into the dump with those counted beside it; they must agree before it is sealed."""
    dumped = {name: content.rows for name, content in contents.items()}
    counted = {
        (r.schema, r.name): sum(counts[leaf] for leaf in r.leaves) if r.leaves else counts[r.schema, r.name]
        for r in relations
        if r.has_rows
    }
    if dumped != counted:
        different = [
            f"{'.'.join(key)}: {dumped.get(key, 'absent')} in the dump, {counted.get(key, 'absent')} in the database"
            for key in sorted(dumped.keys() | counted.keys())
            if dumped.get(key) != counted.get(key)
        ]
        raise RecoveryError(
            "the dump does not hold what the database held in the same snapshot",
            detail="; ".join(different[:10]),
            hint="this backup was not sealed; the previous one is still the latest",
        )


def _write_globals(
    dsn: str,
    major: int,
    *,
    identifier: str,
    places: list[Destination],
    options: Options,
    notes: list[str],
) -> form.Globals | None:
    try:
        text = pg_dump.globals_of(dsn, major, password_hashes=options.password_hashes)
    except RecoveryError as error:
        if options.password_hashes:
            raise
        # The dump is whole without them, and many providers do not let everybody read tablespaces' options.
        notes.append(f"roles and tablespaces could not be written: {error.detail}")
        return None
    filename = identifier + names.GLOBALS_SUFFIX
    for place in places:
        place.put(filename, text)
    return form.Globals(
        filename=filename,
        size=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        password_hashes=options.password_hashes,
    )


def _tool_version() -> str:
    try:
        return importlib.metadata.version("agentverse-dr")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
