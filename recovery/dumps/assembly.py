"""Puts a dump together: the text of one pg_dump, and in their places the rows that several sessions read beside it.

pg_dump writes plain SQL over one connection, whatever the server and the disks could do.  So it is told to leave out
the rows of the larger tables, and these are put where it would have written them: the dump is the same, byte for byte.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, cast

from recovery.dumps.copyscan import Block, CopyScanner, Entry
from recovery.dumps.relations import DUMPED
from recovery.dumps.rowsum import RowSum
from recovery.dumps.table_data import FOOTER, TableData
from recovery.errors import RecoveryError
from recovery.progress import ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recovery.dumps.describe import Description
    from recovery.dumps.gzip_writer import GzipWriter
    from recovery.dumps.relations import Relation
    from recovery.dumps.snapshot import Snapshot
    from recovery.progress import Progress

# Of smaller tables pg_dump has written the rows before another session has been asked for them.
LEAST_BYTES = 1024 * 1024
# Each is an argument of pg_dump.
MOST_TABLES = 500
# And each is a lock of every session that reads rows: the server has room for some 64 per connection, for everybody.
MOST_LOCKS = 1500
_HEADER_LINES = 5
# The newest pg_dump whose kinds of entries are known here.
_NEWEST_KNOWN = 18

# Kinds of entries that pg_dump writes after all definitions that rows need (its SECTION_DATA and SECTION_POST_DATA, and
# what its restore passes put last).  Comments and labels stand right behind what they are of.
_AFTER_DEFINITIONS = frozenset(
    {
        "",  # the end
        "SEQUENCE SET", "BLOBS", "STATISTICS DATA",
        "INDEX", "INDEX ATTACH", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "STATISTICS", "RULE", "TRIGGER",
        "EVENT TRIGGER", "POLICY", "ROW SECURITY", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA",
        "SUBSCRIPTION", "SUBSCRIPTION TABLE", "MATERIALIZED VIEW DATA", "DEFAULT ACL", "ACL",
    }
)  # fmt: skip

_REPORT_BYTES = 32 * 1024 * 1024

_HEADERS = f"""
SELECT c.oid::pg_catalog.int8,
       pg_catalog.format(E'--\\n-- Data for Name: %%s; Type: TABLE DATA; Schema: %%s; Owner: %%s\\n--\\n\\n'
                         'COPY %%I.%%I (%%s) FROM stdin;\\n',
                         c.relname, n.nspname,
                         pg_catalog.translate(pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text, E'\\n\\r', '  '),
                         n.nspname, c.relname,
                         (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
                            FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = c.oid AND {DUMPED}))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%s::pg_catalog.oid[])
"""  # noqa: S608  # made of the constant of another module


def read_beside(
    snapshot: Snapshot, description: Description, pg_dump_version: str, *, sessions: int
) -> dict[Relation, bytes]:
    """Return the tables whose rows so many sessions read beside pg_dump, each with what pg_dump writes before them.

    They come in the order in which it writes tables: not those that it writes in a way of its own, and none where a
    name could be mistaken for its words.  Raises psycopg's errors.
    """
    major = pg_dump_version.partition(".")[0]
    named = [text for each in description.objects for text in (each.identity, each.owner or "")]
    if not major.isdigit() or int(major) > _NEWEST_KNOWN or any("; Type: " in text for text in named):
        return {}
    by_oid = {relation.oid: relation for relation in snapshot.relations}
    is_utf8 = description.database_state.encoding == "UTF8"

    def is_plain(relation: Relation) -> bool:
        above = relation
        while above.parent in by_oid:
            above = by_oid[above.parent]
            if above.hashes_enum:
                return False
        text = "".join((relation.schema, relation.name, *relation.columns))
        return relation.condition is None and not {"\n", "\r"} & set(text)

    large = [
        relation
        for relation in snapshot.relations
        if relation.kind == "r" and relation.columns and relation.total_bytes >= LEAST_BYTES and is_plain(relation)
    ]
    large.sort(key=lambda relation: relation.total_bytes, reverse=True)
    chosen = sorted(large[: min(MOST_TABLES, MOST_LOCKS // sessions)], key=_name)
    found = snapshot.connection.execute(_HEADERS.encode(), ([table.oid for table in chosen],)).fetchall()
    headers = dict(cast("list[tuple[int, str]]", found))
    for header in headers.values():
        if header.count("\n") != _HEADER_LINES:  # what a name brings along would be a statement of its own
            raise AssertionError(header)
    # The names are in the dump's encoding, which may not be one of Python's.
    return {table: headers[table.oid].encode() for table in chosen if is_utf8 or headers[table.oid].isascii()}


def _name(table: Relation) -> tuple[bytes, bytes]:
    """What pg_dump sorts tables by."""
    return table.schema.encode(), table.name.encode()


def _comes_before(table: Relation, entry: Entry) -> bool:
    """Whether pg_dump would have written the rows of this table before the entry."""
    if entry.kind == "TABLE DATA":
        return _name(table) <= (entry.schema, entry.name)
    return entry.kind in _AFTER_DEFINITIONS


def _misunderstood(what: str, detail: str) -> RecoveryError:
    return RecoveryError(
        what,
        detail=detail,
        hint="this backup was not sealed, and the previous one is still the latest; dump with pg_dump alone meanwhile:"
        " `recovery restore` restores such a dump",
    )


class Assembly:
    """Give :meth:`take` what pg_dump writes, then :meth:`finish`; `scanner` knows what the whole of it holds.

    `check` is called now and then and may raise what ends the work.
    """

    def __init__(
        self,
        compressor: GzipWriter,
        data: TableData,
        headers: Mapping[Relation, bytes],
        *,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        self.scanner = CopyScanner(self._at)
        self._compressor = compressor
        self._data = data
        self._progress, self._check = progress, check
        self._due = collections.deque(headers.items())
        self._made: set[tuple[bytes, bytes]] = set()
        self._held = b""  # what an entry may still begin in
        self._offset = 0  # of what is held, in the whole
        self._reported = 0

    def take(self, chunk: bytes) -> None:
        """Take the next of pg_dump's bytes; raises what reading rows raises."""
        self._check()
        self._data.check()
        self._held = self._held + chunk if self._held else chunk
        self.scanner.feed(chunk)
        self._pass_on(self.scanner.settled)
        self._report(self.scanner.blocks[-1].title if self.scanner.blocks else "")

    def finish(self) -> None:
        """Say that pg_dump has ended; raises BadDumpError when it ended inside something."""
        self.scanner.finish()
        if self._due:
            raise _misunderstood(
                f"pg_dump's text has no place for the rows of {self._due[0][0].title}",
                f"{len(self._due)} tables are left, after {self._offset} bytes",
            )
        self._pass_on(self._offset + len(self._held))
        self._compressor.finish()

    def _at(self, entry: Entry) -> None:
        if entry.kind == "TABLE":
            self._made.add((entry.schema, entry.name))
        due = []
        while self._due and _comes_before(self._due[0][0], entry):
            due.append(self._due.popleft())
        if due:
            self._pass_on(entry.offset)
        for table, header in due:
            if _name(table) not in self._made:
                raise _misunderstood(
                    f"pg_dump's text has the rows of tables before it makes {table.title}",
                    f"{entry.kind} {entry.name.decode('utf-8', 'replace')} at {entry.offset}",
                )
            self._insert(table, header)

    def _insert(self, table: Relation, header: bytes) -> None:
        rows, begun = RowSum(), self._offset
        for compressed, length in self._data.members(table, rows, self._check):
            self._compressor.add(compressed, length)
            self.scanner.shift(length)
            self._offset += length
            self._report(table.title)
        first = begun + len(header)
        block = Block(table.schema, table.name, table.columns, first, self._offset - len(FOOTER) - first, rows)
        # From its COPY to the line that ends it.
        self.scanner.insert(block, begun + header.rindex(b"\nCOPY ") + 1, self._offset - len(FOOTER) + len(b"\\.\n"))

    def _pass_on(self, offset: int) -> None:
        """Compress what is held up to this offset in the whole."""
        count = offset - self._offset
        if count < 0:
            raise AssertionError(f"{-count} bytes too many were written")
        if count:
            self._compressor.write(self._held if count == len(self._held) else self._held[:count])
            self._held = self._held[count:]
            self._offset = offset

    def _report(self, text: str) -> None:
        if self._offset - self._reported >= _REPORT_BYTES:
            self._reported = self._offset
            self._progress(ProgressEvent("dump", self._offset, None, "bytes", text))
