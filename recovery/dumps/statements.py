"""What a dump is made of: statements, COPY blocks and psql commands, each with its line and pg_dump's own label."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING

from recovery.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTIFIER = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)'
QUALIFIED = IDENTIFIER + rb"(?:\." + IDENTIFIER + rb")?"

_LABEL = re.compile(
    rb"(?:Data for )?Name: (?P<name>.*); Type: (?P<type>[^;]+); Schema: (?P<schema>.*?); Owner: (?P<owner>.*)\Z",
    re.DOTALL,
)
_COPY = re.compile(
    rb"COPY\s+(?P<table>" + QUALIFIED + rb")\s*"
    rb"(?:\((?P<columns>\s*(?:" + IDENTIFIER + rb"\s*(?:,\s*" + IDENTIFIER + rb"\s*)*)?)\)\s*)?"
    rb"FROM\s+stdin\s*;\Z",
    re.IGNORECASE,
)
_PART = re.compile(IDENTIFIER)

# An INSERT of nothing but literals as pg_dump --inserts writes it, where a backslash in a string is one.  It calls
# nothing and reads nothing, and what it needs is its table.
_VALUE = rb"(?:B?'[^']*+(?:''[^']*+)*+'|-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]++)?|NULL|DEFAULT|true|false)"
_ROW = rb"\(" + _VALUE + rb"(?:, " + _VALUE + rb")*+\)"
_COLUMNS = rb" (?:\(" + IDENTIFIER + rb"(?:, " + IDENTIFIER + rb")*+\) )?(?:OVERRIDING SYSTEM VALUE )?"
_ROWS = rb"VALUES\s++" + _ROW + rb"(?:,\s*+" + _ROW + rb")*+"
_CONFLICT = rb"(?:\s++ON CONFLICT DO NOTHING)?;"
_INTO = _COLUMNS + rb"(?:" + _ROWS + rb"|DEFAULT VALUES)" + _CONFLICT
_INSERTS = re.compile(
    rb"INSERT INTO (?P<table>" + QUALIFIED + rb")" + _INTO + rb"(?:\s*+INSERT INTO (?P=table)" + _INTO + rb")*+"
)
_INSERT = re.compile(
    rb"INSERT INTO (?P<table>"
    + QUALIFIED
    + rb")"
    + _COLUMNS
    + rb"(?:(?P<rows>"
    + _ROWS
    + rb")|DEFAULT VALUES)"
    + _CONFLICT
)
_ONE_ROW = re.compile(_ROW)
# So much of them is one message to the server, which holds what it has made of a message's text until its end.
_INSERTS_BYTES = 256 * 1024

# PostgreSQL's name of a client encoding -> Python's; every other one is read as UTF-8 with escapes for what is not.
_CODECS = {
    b"UTF8": "utf-8",
    b"LATIN1": "iso8859-1",
    b"LATIN2": "iso8859-2",
    b"LATIN3": "iso8859-3",
    b"LATIN4": "iso8859-4",
    b"LATIN5": "iso8859-9",
    b"LATIN6": "iso8859-10",
    b"LATIN7": "iso8859-13",
    b"LATIN8": "iso8859-14",
    b"LATIN9": "iso8859-15",
    b"LATIN10": "iso8859-16",
    b"ISO_8859_5": "iso8859-5",
    b"ISO_8859_6": "iso8859-6",
    b"ISO_8859_7": "iso8859-7",
    b"ISO_8859_8": "iso8859-8",
    b"WIN866": "cp866",
    b"WIN874": "cp874",
    b"WIN1250": "cp1250",
    b"WIN1251": "cp1251",
    b"WIN1252": "cp1252",
    b"WIN1253": "cp1253",
    b"WIN1254": "cp1254",
    b"WIN1255": "cp1255",
    b"WIN1256": "cp1256",
    b"WIN1257": "cp1257",
    b"WIN1258": "cp1258",
    b"KOI8R": "koi8-r",
    b"KOI8U": "koi8-u",
    b"EUC_CN": "gb2312",
    b"EUC_JP": "euc_jp",
    b"EUC_JIS_2004": "euc_jis_2004",
    b"EUC_KR": "euc_kr",
}


# In these client encodings a byte that looks like a quote or a backslash can be half of a character.
UNSAFE_ENCODINGS = frozenset({b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB"})


@dataclasses.dataclass(frozen=True)
class Label:
    """The comment pg_dump writes above an object.  It helps people and planning; nothing is decided on it alone."""

    name: str
    type: str
    schema: str
    owner: str

    @classmethod
    def read(cls, comment: bytes) -> Label | None:
        """Read the text of one comment line, without its dashes; None when it is no label."""
        found = _LABEL.match(comment.strip())
        if found is None:
            return None
        return cls(**{key: value.decode("utf-8", "backslashreplace") for key, value in found.groupdict().items()})

    def __str__(self) -> str:
        schema = "" if self.schema in {"-", ""} else f"{self.schema}."
        return printable(f"{self.type} {schema}{self.name}")


@dataclasses.dataclass(frozen=True)
class Statement:
    """One SQL statement with its semicolon, as it stands in the dump; ``line`` counts from 1."""

    text: bytes
    line: int
    label: Label | None = None

    @property
    def subject(self) -> str:
        """What the statement is about, for messages: its label, else its first words."""
        if self.label is not None:
            return str(self.label)
        words = " ".join(self.text[:80].decode("utf-8", "backslashreplace").split())
        return printable(words if len(words) < 70 else words[:67] + "...")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inserts(Statement):
    """One or more INSERTs of nothing but literals into one table, with the white space between them."""

    table: TableName

    @classmethod
    def match(cls, buffer: bytes, start: int) -> re.Match[bytes] | None:
        """Find as many as go together at ``start``; the text must be one where backslashes in strings are plain."""
        return _INSERTS.match(buffer, start, start + _INSERTS_BYTES) or _INSERT.match(buffer, start)

    @functools.cached_property
    def rows_of_each(self) -> list[int]:
        """How many rows each of them has."""
        return [self._rows(*found.span("rows")) for found in _INSERT.finditer(self.text)]

    def _rows(self, start: int, end: int) -> int:
        if self.text.find(b"),", start, end) < 0:  # one row, or DEFAULT VALUES at (-1, -1)
            return 1
        return sum(1 for _ in _ONE_ROW.finditer(self.text, start, end))

    @property
    def passes_over_conflicts(self) -> bool:
        """Whether any row may be left out for one that came before, so that their order matters."""
        return b"ON CONFLICT DO NOTHING;" in self.text

    def each(self) -> Iterator[Statement]:
        """Yield the INSERTs one by one, each with its line."""
        line, start = self.line, 0
        for found in _INSERT.finditer(self.text):
            line += self.text.count(b"\n", start, found.start())
            start = found.start()
            yield Statement(found.group(), line, self.label)


@dataclasses.dataclass(frozen=True)
class TableName:
    """A table as the dump writes it (``sql``) and as the catalogue holds it (``schema``, ``name``)."""

    sql: bytes
    schema: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.schema}.{self.name}" if self.schema else self.name)


@dataclasses.dataclass
class CopyBlock:
    """A ``COPY table FROM stdin`` with its rows.

    ``pieces`` gives the data in order and must be read to its end before the dump is read on.  A piece ends at a row's
    end unless one row is longer than a piece, in which case it ends anywhere inside that row.  ``rows`` is final once
    ``pieces`` is exhausted.
    """

    statement: Statement
    table: TableName
    columns: tuple[str, ...] | None
    pieces: Iterator[bytes]
    rows: int = 0


@dataclasses.dataclass(frozen=True)
class PsqlCommand:
    r"""A psql command that stands alone on its line: its name without the backslash, and the rest of the line."""

    name: str
    argument: str
    line: int


Item = Statement | CopyBlock | PsqlCommand


def codec_of(client_encoding: bytes) -> str:
    """Return Python's codec for names in a dump of this client encoding."""
    return _CODECS.get(client_encoding.upper(), "utf-8")


def unquote(identifier: bytes, codec: str = "utf-8") -> str:
    """Return the name an identifier stands for: quotes removed, else folded to lower case as PostgreSQL does."""
    if identifier.startswith(b'"'):
        return identifier[1:-1].replace(b'""', b'"').decode(codec, "backslashreplace")
    return identifier.lower().decode(codec, "backslashreplace")  # bytes.lower() folds ASCII only, as PostgreSQL does


def table_name(qualified: bytes, codec: str = "utf-8") -> TableName:
    """Read ``name`` or ``schema.name``."""
    parts = [unquote(part.group(), codec) for part in _PART.finditer(qualified)]
    return TableName(sql=qualified, schema=parts[0] if len(parts) == 2 else "", name=parts[-1])


def quote(name: str) -> str:
    """Return ``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return ``text`` as an SQL string that means the same whatever standard_conforming_strings says."""
    escaped = text.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{escaped}'"


def text_literal(text: bytes) -> bytes:
    """As :func:`literal`, of bytes as the dump has them: a name may be of no encoding that Python has."""
    return b"E'" + text.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"


def read_copy(text: bytes, codec: str = "utf-8") -> tuple[TableName, tuple[str, ...] | None] | None:
    """Read ``COPY table [(columns)] FROM stdin;`` as pg_dump writes it; None for every other form of COPY."""
    found = _COPY.match(text)
    if found is None:
        return None
    columns = found["columns"]
    names = None if columns is None else tuple(unquote(part.group(), codec) for part in _PART.finditer(columns))
    return table_name(found["table"], codec), names
