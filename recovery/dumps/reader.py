"""Read one dump from start to end, refuse what is not a whole plain dump, and count what it holds.

The same reader serves the check before a restore and the restore itself: what one refuses, the other refuses.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from recovery.dumps.created import Created, created_by, key_added_by
from recovery.dumps.facts import DumpFacts
from recovery.dumps.lexer import Lexer
from recovery.dumps.members import inflate
from recovery.dumps.rowsum import Content, RowSum
from recovery.dumps.statements import (
    IDENTIFIER,
    QUALIFIED,
    CopyBlock,
    Inserts,
    PsqlCommand,
    Statement,
    table_name,
    unquote,
)
from recovery.errors import BadDumpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.dumps.manifest import Manifest
    from recovery.dumps.source import DumpSource

# What a dump may begin a statement with: all that pg_dump writes, and what people put into plain SQL files by hand.
_COMMANDS = frozenset(
    b"ALTER ANALYZE BEGIN CALL COMMENT COMMIT COPY CREATE DELETE DO DROP END GRANT INSERT LOCK REFRESH RESET REVOKE "
    b"SECURITY SELECT SET START TRUNCATE UPDATE VALUES WITH".split()
)
_WORD = re.compile(rb"[A-Za-z]+")
_TABLE = re.compile(rb"CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(" + QUALIFIED + rb")", re.IGNORECASE)
_PARTITIONED = re.compile(
    rb"""\)\s*PARTITION\s+BY\s+(?:RANGE|LIST|HASH)\s*\((?:[^;'"]|"(?:[^"]|"")*+"|'(?:[^']|'')*+')*+;\Z""", re.IGNORECASE
)
_ATTACH = re.compile(
    rb"ALTER\s+TABLE\s+(?:ONLY\s+)?(" + QUALIFIED + rb")\s+ATTACH\s+PARTITION\s+(" + QUALIFIED + rb")", re.IGNORECASE
)
_INSERT = re.compile(rb"INSERT\s+INTO\s+(" + QUALIFIED + rb")", re.IGNORECASE)
_SETVAL = re.compile(rb"SELECT\s+pg_catalog\.setval\('((?:[^']|'')+)',\s*(-?\d+),\s*(true|false)\);\Z", re.IGNORECASE)
_EXTENSION = re.compile(
    rb"CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?("
    + IDENTIFIER
    + rb")(?:\s+WITH)?(?:\s+SCHEMA\s+("
    + IDENTIFIER
    + rb"))?",
    re.IGNORECASE,
)
_CREATE_DATABASE = re.compile(rb"CREATE\s+DATABASE\s", re.IGNORECASE)
# Tables named in an error.
_MOST_DIFFERENT = 10
# gzip reaches 1000:1 with nothing but equal bytes, ordinary dumps 4:1 to 50:1.  A dump of which nobody says how long it
# is may be this many times as long as its stored bytes, or this long in any case.
MOST_TEXT_PER_STORED = 200
ALWAYS_ALLOWED_TEXT = 256 * 1024 * 1024
_RESTRICT_KEY = re.compile(r"[A-Za-z0-9]+\Z")


class DumpReader:
    """One pass over a dump.

    ``stored_done`` counts stored bytes read so far, ``text_done`` those of the text.  ``facts`` are final once
    :meth:`items` is exhausted, and only then is the dump known to be whole.
    """

    def __init__(self, source: DumpSource, manifest: Manifest | None = None) -> None:
        self._source = source
        self._manifest = manifest
        self._digest = hashlib.sha256()
        self._lexer = Lexer(self._counted(inflate(self._stored(), source.name)))
        self._restrict_key: str | None = None
        self._databases = 0
        self._connects = 0
        self._rows: dict[tuple[str, str], int] = {}
        self._inserted: set[tuple[str, str]] = set()
        self._partitioned: set[tuple[str, str]] = set()
        self._filled: set[tuple[str, str]] = set()
        self._parents: dict[tuple[str, str], tuple[str, str]] = {}
        self._sequences: dict[tuple[str, str], tuple[int, bool]] = {}
        self.stored_done = 0
        self.text_done = 0
        self.statements = 0
        self._created: set[Created] = set()
        self._foreign_keys: dict[tuple[str, str, str], bool] = {}
        self._extensions: dict[str, str | None] = {}
        self._sums: dict[tuple[str, str], tuple[RowSum, tuple[str, ...]] | None] = {}  # None where none can be had

    def items(self) -> Iterator[Statement | CopyBlock]:
        """Yield statements and COPY blocks in order.

        Raises BadDumpError at the first thing wrong; what only the end can tell (cut off, wrong checksum) is raised in
        place of the end.
        """
        self._refuse_size()
        for item in self._lexer.items():
            if self._lexer.is_cluster_dump:
                raise BadDumpError(
                    f"{self._source.name} is a dump of a whole cluster (pg_dumpall)",
                    hint="restore one database's dump, made with pg_dump",
                )
            if isinstance(item, PsqlCommand):
                self._psql_command(item)
                continue
            self.statements += len(item.rows_of_each) if isinstance(item, Inserts) else 1
            if isinstance(item, CopyBlock):
                yield item
                for _ in item.pieces:
                    pass
                self._count(item)
            elif isinstance(item, Inserts):
                self._count_inserts(item)
                yield item
            else:
                self._look_at(item)
                yield item
        self._refuse_incomplete()

    def sum(self, block: CopyBlock) -> None:
        """Read a block's rows and sum them; with other ends than a server writes they cannot be compared with its."""
        table = block.table.schema or "public", block.table.name
        # Partitions that are loaded through their root have a block each, of rows of one table.
        begun = self._sums.get(table, (RowSum(), block.columns) if block.columns is not None else None)
        found = begun if begun is not None and begun[1] == block.columns else None
        for piece in block.pieces:
            if found is not None and b"\r" not in piece:
                found[0].feed(piece)
            else:
                found = None
        self._sums[table] = found

    @property
    def facts(self) -> DumpFacts:
        """What the text says about the data.

        Uncounted are tables filled by INSERTs of more than literals or with ON CONFLICT, and partitions that are loaded
        through their root, whose rows count as the root's.  Other partitioned tables hold no rows.
        """
        empty = self._partitioned - self._filled
        through_root = {
            table
            for table in self._parents.keys() - self._filled
            if any(above in self._filled for above in self._above(table))
        }
        uncounted = (self._inserted | through_root) & self._rows.keys() - self._partitioned
        counted = self._rows.keys() - self._inserted - through_root - empty
        return DumpFacts(
            tables={table: rows for table, rows in self._rows.items() if table in counted},
            uncounted=frozenset(uncounted),
            sequences=dict(self._sequences),
            extensions=dict(self._extensions),
            created=frozenset(self._created) if self.is_pg_dump else None,
            foreign_keys=dict(self._foreign_keys) if self.is_pg_dump else None,
            contents={
                table: Content(found[0].rows, found[0].checksum(found[1]), found[1])
                for table, found in self._sums.items()
                if found is not None and table in counted and found[0].rows == self._rows[table] and self.is_pg_dump
            },
            encoding=self._lexer.encoding,
            server_version=self._lexer.server_version,
            pg_dump_version=self._lexer.pg_dump_version,
        )

    @property
    def is_pg_dump(self) -> bool:
        """Whether the dump is pg_dump's, whose last line proves that nothing is missing."""
        return self._lexer.is_pg_dump

    @property
    def codec(self) -> str:
        """Python's codec for the names in what was read last."""
        return self._lexer.codec

    def _stored(self) -> Iterator[bytes]:
        for chunk in self._source.stored():
            if self._manifest is not None:
                self._digest.update(chunk)
            self.stored_done += len(chunk)
            yield chunk

    def _counted(self, text: Iterator[bytes]) -> Iterator[bytes]:
        layout = self._manifest.layout if self._manifest is not None else None
        for piece in text:
            self.text_done += len(piece)
            if layout is not None and self.text_done > layout.uncompressed_size:
                raise self._not_the_manifests(
                    f"its text goes on after the {layout.uncompressed_size:,} bytes that the manifest says"
                )
            # The size of a stream is what has come of it so far.
            if layout is None and self.text_done > max(ALWAYS_ALLOWED_TEXT, MOST_TEXT_PER_STORED * self._source.size):
                raise self._bomb()
            yield piece

    def _refuse_size(self) -> None:
        if self._manifest is not None and not self._source.once and self._source.size != self._manifest.size:
            raise self._not_the_manifests(
                f"it has {self._source.size:,} bytes, the manifest says {self._manifest.size:,}"
            )

    def _refuse_incomplete(self) -> None:
        name = self._source.name
        if self._restrict_key is not None or (self._lexer.is_pg_dump and not self._lexer.complete):
            raise self._cut_off()
        if self.statements == 0:
            raise BadDumpError(f"the dump {name} holds no SQL statement")
        if self._manifest is not None and self._digest.hexdigest() != self._manifest.sha256:
            raise self._not_the_manifests(
                f"its SHA-256 is {self._digest.hexdigest()}, the manifest says {self._manifest.sha256}"
            )
        if self._manifest is not None:
            self._refuse_other_rows(self._manifest)

    def _refuse_other_rows(self, manifest: Manifest) -> None:
        """Compare table by table: each may be whole, and yet one of the two not say what was backed up."""
        facts = self.facts
        stated = {(table.schema_name, table.name): table.rows for table in manifest.tables}
        # A table that no row of is in the dump need not be in the manifest: a backup of ours has a block for each.
        found = {table: rows for table, rows in facts.tables.items() if rows or table in stated}
        different = [
            f"{'.'.join(table)}: {found.get(table, 'no')} rows, the manifest says {stated.get(table, 'none')}"
            for table in sorted((found.keys() | stated.keys()) - facts.uncounted)
            if found.get(table) != stated.get(table)
        ]
        if different:
            raise BadDumpError(
                f"the dump {self._source.name} does not hold the rows that its manifest states",
                detail="; ".join(different[:_MOST_DIFFERENT]),
                hint="restore another copy or an older backup: `recovery backups list`",
            )

    def _not_the_manifests(self, difference: str) -> BadDumpError:
        return BadDumpError(
            f"the dump {self._source.name} is not the one its manifest describes",
            detail=difference,
            hint="restore another copy or an older backup: `recovery backups list`",
        )

    def _bomb(self) -> BadDumpError:
        return BadDumpError(
            f"the dump {self._source.name} inflates to more than {MOST_TEXT_PER_STORED} times its size",
            detail=f"{self.text_done:,} bytes from {self._source.size:,}, and no manifest says how many there are",
            hint="nothing but equal rows can be like that: if it is your own, decompress it and restore the file",
        )

    def _cut_off(self) -> BadDumpError:
        return BadDumpError(
            f"the dump {self._source.name} is cut off: pg_dump's last lines are missing",
            hint="restore another copy or an older backup: `recovery backups list`",
        )

    # -- psql commands

    def _psql_command(self, command: PsqlCommand) -> None:
        if command.name == "restrict" and self._restrict_key is None and _RESTRICT_KEY.match(command.argument):
            self._restrict_key = command.argument
        elif command.name == "unrestrict" and self._restrict_key == command.argument:
            self._restrict_key = None
        elif command.name in {"connect", "c"} and self._restrict_key is None and self._databases == self._connects + 1:
            # pg_dump --create: the database it would connect to is the one being restored into.
            self._connects += 1
            if self._connects > 1:
                raise self._refused(command, "it holds more than one database")
        elif command.name == "unrestrict" and (self._restrict_key or "").startswith(command.argument):
            raise self._cut_off()
        else:
            raise self._refused(command, "only pg_dump's own \\restrict, \\unrestrict and \\connect are understood")

    def _refused(self, command: PsqlCommand, reason: str) -> BadDumpError:
        return BadDumpError(
            f"line {command.line} of the dump: the psql command \\{command.name} is refused",
            detail=reason,
            hint="a dump made by pg_dump can be restored; a script for psql cannot",
        )

    # -- what the statements say

    def _look_at(self, statement: Statement) -> None:
        text = statement.text
        word = _WORD.match(text)
        if text != b";" and (word is None or word.group().upper() not in _COMMANDS):
            raise BadDumpError(
                f"line {statement.line} of the dump is not SQL that a dump consists of",
                detail=repr(text[:60].decode("utf-8", "backslashreplace")),
                hint="is it the right file?",
            )
        match word.group().upper() if word else b"":
            case b"CREATE":
                self._look_at_create(text)
                self._note_created(text)
            case b"INSERT":
                if found := _INSERT.match(text):
                    self._inserted.add(self._key(found.group(1)))
                    self._filled.add(self._key(found.group(1)))
            case b"ALTER":
                if found := _ATTACH.match(text):
                    self._parents[self._key(found.group(2))] = self._key(found.group(1))
                else:
                    self._note_created(text)
            case b"SELECT":
                if found := _SETVAL.match(text):
                    sequence = self._key(found.group(1).replace(b"''", b"'"))
                    self._sequences[sequence] = (int(found.group(2)), found.group(3).lower() == b"true")

    def _look_at_create(self, text: bytes) -> None:
        if found := _TABLE.match(text):
            table = self._key(found.group(1))
            self._rows.setdefault(table, 0)
            if _PARTITIONED.search(text):
                self._partitioned.add(table)
        elif found := _EXTENSION.match(text):
            name, schema = (unquote(part, self._lexer.codec) if part else None for part in found.groups())
            self._extensions[str(name)] = schema
        elif _CREATE_DATABASE.match(text):
            self._databases += 1

    def _note_created(self, text: bytes) -> None:
        if created := created_by(text, self._lexer.codec):
            self._created.add(created)
        if key := key_added_by(text, self._lexer.codec):
            self._foreign_keys[key[0]] = key[1]

    def _key(self, qualified: bytes) -> tuple[str, str]:
        # Plain SQL files without schema names mean the default schema.
        table = table_name(qualified, self._lexer.codec)
        return table.schema or "public", table.name

    def _count(self, block: CopyBlock) -> None:
        table = (block.table.schema or "public", block.table.name)
        self._filled.add(table)
        self._rows[table] = self._rows.get(table, 0) + block.rows

    def _above(self, table: tuple[str, str]) -> Iterator[tuple[str, str]]:
        """Yield what a partition is a partition of, and what that is one of, and so on."""
        seen = {table}
        while (parent := self._parents.get(table)) is not None and parent not in seen:
            yield parent
            seen.add(parent)
            table = parent

    def _count_inserts(self, inserts: Inserts) -> None:
        table = (inserts.table.schema or "public", inserts.table.name)
        self._filled.add(table)
        if inserts.passes_over_conflicts:
            self._inserted.add(table)
        self._rows[table] = self._rows.get(table, 0) + sum(inserts.rows_of_each)


def check(source: DumpSource, manifest: Manifest | None = None, *, sums: bool = False) -> DumpReader:
    """Read the whole dump without doing anything with it, and return the reader with what it found.

    With ``sums`` the facts have checksums of what its COPY blocks hold.

    Raises BadDumpError when it is damaged, cut off, not what the manifest says or not SQL.
    """
    reader = DumpReader(source, manifest)
    for item in reader.items():
        if sums and isinstance(item, CopyBlock):
            reader.sum(item)
    return reader
