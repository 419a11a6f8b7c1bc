"""Tables cut into parts that single queries read, so that several sessions share one table."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recovery.dumps.relations import Relation

_BLOCK_BYTES = 8192
# Before it, blocks are asked for by reading the whole table.
FIRST_WITH_TID_RANGE_SCANS = 14


@dataclasses.dataclass(frozen=True)
class Piece:
    """Blocks of a table, None where there is no bound; `weight` is about how many bytes they are with their TOAST."""

    relation: Relation
    first_block: int | None = None
    end_block: int | None = None
    weight: int = 0

    def source(self) -> sql.Composed:
        """The piece as a FROM clause and what follows it."""
        if self.relation.leaves:
            columns = sql.SQL(", ").join(map(sql.Identifier, self.relation.columns))
            each = [
                sql.SQL("SELECT {} FROM ONLY {}").format(columns, sql.Identifier(*leaf))
                for leaf in self.relation.leaves
            ]
            return sql.SQL("FROM ({}) leaves").format(sql.SQL(" UNION ALL ").join(each))
        source: sql.Composed = sql.SQL("FROM ONLY {}").format(self.relation.identifier)
        if self.relation.condition is not None:
            # The extension's own text from pg_extension, as pg_dump uses it: "WHERE ..." or nothing.
            source = sql.SQL("{} {}").format(source, sql.SQL(cast("Any", self.relation.condition)))
        bounds = within(sql.SQL("ctid"), self.first_block, self.end_block)
        return sql.SQL("{} WHERE {}").format(source, sql.SQL(" AND ").join(bounds)) if bounds else source

    def copy_out(self, columns: Sequence[str], encoding: str) -> sql.Composed:
        """The COPY that writes the values of these columns, in this order and encoding."""
        return sql.SQL("COPY (SELECT {} {}) TO STDOUT (ENCODING {})").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), self.source(), sql.Literal(encoding)
        )


def within(ctid: sql.SQL, first_block: int | None, end_block: int | None) -> list[sql.Composed]:
    """Conditions that a row's `ctid` is in blocks from the first one to before the end; None is no bound."""
    return [
        sql.SQL("{} {} {}::pg_catalog.tid").format(ctid, sql.SQL(comparison), sql.Literal(f"({block},0)"))
        for comparison, block in ((">=", first_block), ("<", end_block))
        if block is not None
    ]


def cut(table: Relation, major: int, piece_bytes: int) -> Iterator[Piece]:
    """Cut a table, on a server of this major version, into pieces of about so many bytes, in its blocks' order."""
    blocks = table.main_bytes // _BLOCK_BYTES
    count = min(blocks, -(-table.total_bytes // piece_bytes))
    splittable = table.is_heap and table.condition is None and major >= FIRST_WITH_TID_RANGE_SCANS
    if not splittable or count < 2:
        yield Piece(table, weight=table.total_bytes)
        return
    bound: int | None = None
    for index in range(1, count + 1):
        # Open at both ends: no assumption about the size holds for a table that grows meanwhile.
        first, bound = bound, blocks * index // count if index < count else None
        yield Piece(table, first, bound, table.total_bytes // count)
