"""Exact row counts and content checksums of tables, read over several connections in one shared snapshot."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import queue
import select
import threading
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import psycopg
from psycopg import pq, sql

from recovery.dumps import session
from recovery.dumps.rowsum import Content, RowSum
from recovery.errors import RecoveryError
from recovery.progress import ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from recovery.dumps.relations import Relation
    from recovery.progress import Progress

Item = TypeVar("Item")

# One query's share of a table: small enough to spread over the workers, large enough not to be dominated by its start.
PIECE_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 8192
_FIRST_WITH_TID_RANGE_SCANS = 14

# How soon a stop reaches a query that runs, and how soon it is tried again: one that was just about to begin is missed.
_WATCH_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class _Piece:
    relation: Relation
    first_block: int | None = None
    end_block: int | None = None
    weight: int = 0

    def source(self) -> sql.Composed:
        """The piece as a FROM clause and what follows it."""
        source: sql.Composed = sql.SQL("FROM ONLY {}").format(self.relation.identifier)
        if self.relation.condition is not None:
            # The extension's own text from pg_extension, as pg_dump uses it: "WHERE ..." or nothing.
            source = sql.SQL("{} {}").format(source, sql.SQL(cast("Any", self.relation.condition)))
        bounds = [
            sql.SQL("ctid {} {}::pg_catalog.tid").format(sql.SQL(operator), sql.Literal(f"({block},0)"))
            for operator, block in ((">=", self.first_block), ("<", self.end_block))
            if block is not None
        ]
        return sql.SQL("{} WHERE {}").format(source, sql.SQL(" AND ").join(bounds)) if bounds else source


def measure(
    dsn: str,
    snapshot: str,
    relations: Iterable[Relation],
    *,
    jobs: int,
    checksums: bool = True,
    orders: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    encoding: str | None = None,
    progress: Progress = silent,
    stop: threading.Event | None = None,
) -> dict[tuple[str, str], Content]:
    """Count, and checksum if asked, every given table in the exported snapshot, over `jobs` connections.

    `orders` says by (schema, name) in which order values stand in a row, for tables with just these columns; otherwise
    it is the table's own.  `encoding` is the client encoding of the text that is summed, by default the database's.

    Returns the content by (schema, name).  Setting `stop` ends the work soon, by RecoveryError.  Raises RecoveryError
    when a query fails.
    """
    tables = [relation for relation in relations if relation.has_rows]
    stop = stop or threading.Event()
    sums: dict[tuple[str, str], RowSum] = {(t.schema, t.name): RowSum() for t in tables}
    columns = {(t.schema, t.name): _in_order(t.columns, (orders or {}).get((t.schema, t.name))) for t in tables}
    guard = threading.Lock()
    done_bytes = 0
    total = sum(table.total_bytes for table in tables)

    def work(connection: psycopg.Connection[tuple[object, ...]], piece: _Piece) -> None:
        nonlocal done_bytes
        name = piece.relation.schema, piece.relation.name
        if checksums:
            found = _sum(connection, columns[name], piece, encoding)
        else:
            query = sql.SQL("SELECT pg_catalog.count(*) {}").format(piece.source())
            found = RowSum(cast("tuple[int]", connection.execute(query).fetchone())[0])
        with guard:
            sums[name].merge(found)
            done_bytes += piece.weight
            progress(ProgressEvent("checksum", done_bytes, total, "bytes", piece.relation.title))

    in_snapshot(dsn, snapshot, lambda major: _pieces(tables, major), work, jobs=jobs, stop=stop)
    return {
        name: Content(found.rows, found.checksum(columns[name]) if checksums else None, columns[name])
        for name, found in sums.items()
    }


def _in_order(own: tuple[str, ...], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    return wanted if wanted is not None and sorted(wanted) == sorted(own) else own


def _sum(
    connection: psycopg.Connection[tuple[object, ...]], columns: tuple[str, ...], piece: _Piece, encoding: str | None
) -> RowSum:
    """Sum a piece's rows as COPY writes them."""
    pgconn = connection.pgconn
    query = sql.SQL("COPY (SELECT {} {}) TO STDOUT (ENCODING {})").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        piece.source(),
        sql.Literal(encoding or connection.info.parameter_status("server_encoding")),
    )
    _refuse(pgconn.exec_(query.as_bytes(connection)), pq.ExecStatus.COPY_OUT)
    found = RowSum()
    # Straight from libpq: psycopg's own way to wait for each row takes twice the time of what is done with it.
    length, row = pgconn.get_copy_data(1)
    while length >= 0:
        if length:
            found.add(row[:-1])
        else:  # no whole row has come; others work meanwhile, which they could not while libpq itself waits
            select.select([pgconn.socket], [], [])
            pgconn.consume_input()
        length, row = pgconn.get_copy_data(1)
    while (result := pgconn.get_result()) is not None:
        _refuse(result, pq.ExecStatus.COMMAND_OK)
    return found


def _refuse(result: pq.abc.PGresult, expected: pq.ExecStatus) -> None:
    if result.status != expected:
        raise psycopg.errors.error_from_result(cast("Any", result))


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
            stop.set()
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
            try:
                concurrent.futures.wait(futures)
            except BaseException:  # Ctrl-C or SIGTERM: the watcher cancels what the workers wait for
                stop.set()
                raise
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
    while not over.wait(_WATCH_SECONDS):
        if stop.is_set():
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
