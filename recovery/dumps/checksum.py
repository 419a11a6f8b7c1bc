"""Exact row counts and content checksums of tables, read over several connections in one shared snapshot."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from psycopg import sql

from recovery.dumps.copy_out import CopyOut
from recovery.dumps.pieces import Piece, cut
from recovery.dumps.rowsum import Content, RowSum
from recovery.dumps.workers import in_snapshot, share_out
from recovery.progress import ProgressEvent, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from recovery.dumps.relations import Relation
    from recovery.dumps.snapshot import Snapshot
    from recovery.progress import Progress

# One query's share of a table: small enough to spread over the workers, large enough not to be dominated by its start.
PIECE_BYTES = 64 * 1024 * 1024


def measure(
    dsn: str,
    snapshot: Snapshot,
    relations: Iterable[Relation],
    *,
    jobs: int,
    checksums: bool = True,
    orders: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    encoding: str | None = None,
    progress: Progress = silent,
    stop: threading.Event | None = None,
) -> dict[tuple[str, str], Content]:
    """Count, and checksum if asked, every given table in the exported snapshot, over `jobs` sessions.

    `orders` says by (schema, name) in which order values stand in a row, for tables with just these columns; otherwise
    it is the table's own.  `encoding` is the client encoding of the text that is summed, by default the database's.

    Returns the content by (schema, name).  Setting `stop` ends the work soon, by RecoveryError.  Raises psycopg's error
    when a query fails, EnvironmentLacksError where checksums are asked for and this machine has no psql.
    """
    tables = [relation for relation in relations if relation.has_rows]
    stop = stop or threading.Event()
    sums: dict[tuple[str, str], RowSum] = {(t.schema, t.name): RowSum() for t in tables}
    columns = {(t.schema, t.name): _in_order(t.columns, (orders or {}).get((t.schema, t.name))) for t in tables}
    text_encoding = encoding or snapshot.connection.info.parameter_status("server_encoding") or "UTF8"
    pieces = [piece for table in tables for piece in cut(table, snapshot.major, PIECE_BYTES)]
    pieces.sort(key=lambda piece: piece.weight, reverse=True)
    guard = threading.Lock()
    done_bytes = 0
    total = sum(table.total_bytes for table in tables)

    def add(piece: Piece, found: RowSum) -> None:
        nonlocal done_bytes
        with guard:
            sums[piece.relation.schema, piece.relation.name].merge(found)
            done_bytes += piece.weight
            progress(ProgressEvent("checksum", done_bytes, total, "bytes", piece.relation.title))

    def read(session: CopyOut, piece: Piece) -> None:
        """Sum a piece's rows as COPY writes them."""
        found = RowSum()
        session.rows(piece.copy_out(columns[piece.relation.schema, piece.relation.name], text_encoding), found.feed)
        add(piece, found)

    def count(connection: psycopg.Connection[tuple[object, ...]], piece: Piece) -> None:
        query = sql.SQL("SELECT pg_catalog.count(*) {}").format(piece.source())
        add(piece, RowSum(cast("tuple[int]", connection.execute(query).fetchone())[0]))

    if checksums:
        share_out(lambda: CopyOut(dsn, snapshot.major), snapshot.identifier, pieces, read, jobs=jobs, stop=stop)
    else:
        in_snapshot(dsn, snapshot.identifier, pieces, count, jobs=jobs, stop=stop)
    return {
        name: Content(found.rows, found.checksum(columns[name]) if checksums else None, columns[name])
        for name, found in sums.items()
    }


def _in_order(own: tuple[str, ...], wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    return wanted if wanted is not None and sorted(wanted) == sorted(own) else own
