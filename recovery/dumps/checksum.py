"""Exact row counts and order-independent checksums of tables, computed by the server in one shared snapshot.

The checksum of a table is the pair of sums, over all rows, of two 64-bit hashes (`hashtextextended` with two seeds) of
the row's text: `ROW(columns in the order of their names)::text`, which quotes every value, writes NULL and the empty
string differently and cannot be confused by delimiters inside values.

- A sum does not depend on the order of rows, so parts of a table can be added up by different connections, and a
  restore that changes the physical order compares equal.  Unlike XOR it sees duplicated rows.
- `hashtextextended` is in every server since 11, needs no extension, and its value for a given byte string may not
  change between releases (hash partitions on disk depend on it); it is the same on all little-endian machines.  With
  the fixed settings of `recovery.dumps.session` the text of a value is the same from 12 to 18.
- Two rows that differ collide with a probability of 2^-128, and so do two differing multisets of rows.  It guards
  against damage, loss and mistakes.  It is no defence against somebody who may write to the database and wants a
  collision: a keyless sum of non-cryptographic hashes cannot be one.
- It reads once what pg_dump reads, and hashing costs less than sending: in bulk it takes some 1.5 times the server time
  of a COPY, and unlike pg_dump it uses several backends for one table.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import queue
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import psycopg
from psycopg import sql

from recovery.dumps import session
from recovery.errors import RecoveryError
from recovery.progress import ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from recovery.dumps.relations import Relation
    from recovery.progress import Progress

Item = TypeVar("Item")

# Names the recipe above; another recipe gets another name, and sums of different names are never compared.
RECIPE = "rowhash1"
_SEEDS = (1, 2)
_MODULUS = 1 << 96  # 64 bits of hash and room for the sum of 2^32 rows

# One query's share of a table: small enough to spread over the workers, large enough not to be dominated by its start.
PIECE_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 8192
_FIRST_WITH_TID_RANGE_SCANS = 14

# How soon a stop reaches a query that runs, and how soon it is tried again: one that was just about to begin is missed.
_WATCH_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Content:
    """Count and checksum of one table; `checksum` is None where only the count was asked for."""

    rows: int
    checksum: str | None


@dataclasses.dataclass(frozen=True)
class _Piece:
    relation: Relation
    first_block: int | None = None
    end_block: int | None = None
    weight: int = 0


def content_query(
    relation: Relation, *, checksum: bool, first_block: int | None, end_block: int | None
) -> sql.Composed:
    """The query that gives (rows, sum, sum) of a piece of a table, or (rows,) when no checksum is asked for."""
    conditions: list[sql.Composable] = []
    source: sql.Composable = sql.SQL("FROM ONLY {} ").format(relation.identifier)
    if relation.condition is not None:
        # The extension's own text from pg_extension, as pg_dump uses it: "WHERE ..." or nothing.
        source = sql.SQL("FROM ONLY {} {} ").format(relation.identifier, sql.SQL(cast("Any", relation.condition)))
    if first_block is not None:
        conditions.append(sql.SQL("ctid >= {}::pg_catalog.tid").format(sql.Literal(f"({first_block},0)")))
    if end_block is not None:
        conditions.append(sql.SQL("ctid < {}::pg_catalog.tid").format(sql.Literal(f"({end_block},0)")))
    where = sql.SQL("WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
    if not checksum:
        return sql.SQL("SELECT pg_catalog.count(*) ") + source + where
    row = sql.SQL('ROW({})::pg_catalog.text COLLATE "C"').format(
        sql.SQL(", ").join(sql.Identifier(column) for column in relation.columns)
    )
    sums = sql.SQL(", ").join(
        sql.SQL("coalesce(pg_catalog.sum(pg_catalog.hashtextextended(r, {})), 0)").format(sql.Literal(seed))
        for seed in _SEEDS
    )
    # OFFSET 0 keeps the planner from flattening the subquery, which would make every row's text once per seed.
    return sql.SQL("SELECT pg_catalog.count(*), {} FROM (SELECT {} AS r {}{} OFFSET 0) s").format(
        sums, row, source, where
    )


def measure(
    dsn: str,
    snapshot: str,
    relations: Iterable[Relation],
    *,
    jobs: int,
    checksums: bool = True,
    progress: Progress = silent,
    stop: threading.Event | None = None,
) -> dict[tuple[str, str], Content]:
    """Count, and checksum if asked, every given table in the exported snapshot, over `jobs` connections.

    Returns the content by (schema, name).  Setting `stop` ends the work soon, by RecoveryError.  Raises RecoveryError
    when a query fails.
    """
    tables = [relation for relation in relations if relation.has_rows]
    stop = stop or threading.Event()
    sums: dict[tuple[str, str], list[int]] = {(t.schema, t.name): [0, 0, 0] for t in tables}
    guard = threading.Lock()
    done_bytes = 0
    total = sum(table.total_bytes for table in tables)

    def work(connection: psycopg.Connection[tuple[object, ...]], piece: _Piece) -> None:
        nonlocal done_bytes
        query = content_query(
            piece.relation, checksum=checksums, first_block=piece.first_block, end_block=piece.end_block
        )
        values = cast("tuple[int, ...]", connection.execute(query).fetchone())
        with guard:
            entry = sums[(piece.relation.schema, piece.relation.name)]
            for index, value in enumerate(values):
                entry[index] += int(value)
            done_bytes += piece.weight
            progress(ProgressEvent("checksum", done_bytes, total, "bytes", piece.relation.title))

    in_snapshot(dsn, snapshot, lambda major: _pieces(tables, major), work, jobs=jobs, stop=stop)
    return {
        key: Content(rows, text_of(first, second) if checksums else None) for key, (rows, first, second) in sums.items()
    }


def text_of(first: int, second: int, *, recipe: str = RECIPE) -> str:
    """Write the two sums as the checksum that stands in a manifest."""
    return f"{recipe}:{first % _MODULUS:024x}{second % _MODULUS:024x}"


def in_snapshot(
    dsn: str,
    snapshot: str,
    items: Callable[[int], Sequence[Item]],
    work: Callable[[psycopg.Connection[tuple[object, ...]], Item], None],
    *,
    jobs: int,
    stop: threading.Event,
) -> None:
    """Call `work` for every item, over `jobs` connections that import the snapshot; the first failure ends all.

    `items` is called with the server's major version.  Setting `stop` cancels what runs; then it raises RecoveryError.
    """
    pending: queue.SimpleQueue[Item] = queue.SimpleQueue()
    first = session.connect(dsn)
    connections = [first]
    try:
        todo = items(session.major_of(first))
        for item in todo:
            pending.put(item)
        workers = max(1, min(jobs, len(todo)))
        while len(connections) < workers:
            connections.append(session.connect(dsn))
    except BaseException:
        for connection in connections:
            connection.close()
        raise

    def drain(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        try:
            session.import_snapshot(connection, snapshot)
            while not stop.is_set():
                try:
                    item = pending.get_nowait()
                except queue.Empty:
                    return
                work(connection, item)
            _say_stopped()
        except psycopg.errors.QueryCanceled:
            if stop.is_set():
                _say_stopped()
            raise
        except BaseException:
            stop.set()
            raise

    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(connections, stop, over), name="snapshot-watcher")
    watcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="snapshot") as pool:
            futures = [pool.submit(drain, connection) for connection in connections]
    finally:
        over.set()
        watcher.join()
        for connection in connections:
            connection.close()
    failures = [error for error in (future.exception() for future in futures) if error is not None]
    if failures:
        # The first real cause, not the cancellations that followed it.
        raise min(failures, key=lambda error: isinstance(error, RecoveryError))


def _watch(
    connections: list[psycopg.Connection[tuple[object, ...]]], stop: threading.Event, over: threading.Event
) -> None:
    """Cancel whatever runs on the connections from when `stop` is set until all is over."""
    while not over.is_set():
        if stop.wait(_WATCH_SECONDS) and not over.wait(_WATCH_SECONDS):
            for connection in connections:
                # A server that does not answer ends the query by itself.
                with contextlib.suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)


def _say_stopped() -> NoReturn:
    raise RecoveryError("the work was stopped before it was done")


def _pieces(tables: Sequence[Relation], major: int) -> list[_Piece]:
    """Cut the tables into pieces, the heaviest first."""
    pieces: list[_Piece] = []
    for table in tables:
        blocks = table.main_bytes // _BLOCK_BYTES
        count = min(blocks, -(-table.total_bytes // PIECE_BYTES))
        splittable = table.is_heap and table.condition is None and major >= _FIRST_WITH_TID_RANGE_SCANS
        if not splittable or count < 2:
            pieces.append(_Piece(table, weight=table.total_bytes))
            continue
        bounds = [blocks * index // count for index in range(count)]
        weight = table.total_bytes // count
        for index, first_block in enumerate(bounds):
            # Open at both ends: no assumption about the size holds for a table that grows meanwhile.
            pieces.append(
                _Piece(
                    table,
                    first_block if index else None,
                    bounds[index + 1] if index + 1 < count else None,
                    weight,
                )
            )
    return sorted(pieces, key=lambda piece: piece.weight, reverse=True)
