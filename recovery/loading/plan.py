"""Which statements of a dump may run beside others, and as what.

Only statements whose whole text is of a form known here are planned; every other one is a barrier: all before it is
done first, it runs alone, then the restore goes on.  pg_dump's labels are not trusted for this.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from recovery.dumps.statements import IDENTIFIER, QUALIFIED, Statement, TableName, table_name, unquote
from recovery.loading.pool import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# All rows of all tables, for what may look at more than its own table.
ALL_DATA = "all data"
COPYING = "copying"
INDEXING = "indexing"
READING = "reading"

_NAMES = rb"\(" + IDENTIFIER + rb"(?:, " + IDENTIFIER + rb")*\)"
_INDEX = re.compile(
    rb"CREATE (?:UNIQUE )?INDEX " + IDENTIFIER + rb" ON (?P<only>ONLY )?(?P<table>" + QUALIFIED + rb") USING "
)
# Columns with nothing computed from them, so that building the index reads its own table and runs no one's function.
_PLAIN_INDEX = re.compile(
    rb"[a-z]+ \(" + IDENTIFIER + rb"(?: DESC)?(?: NULLS (?:FIRST|LAST))?"
    rb"(?:, " + IDENTIFIER + rb"(?: DESC)?(?: NULLS (?:FIRST|LAST))?)*\)(?: INCLUDE " + _NAMES + rb")?;\Z"
)
_KEY = re.compile(
    rb"ALTER TABLE ONLY (?P<table>" + QUALIFIED + rb")\s+ADD CONSTRAINT (?P<name>" + IDENTIFIER + rb") "
    rb"(?P<kind>PRIMARY KEY|UNIQUE)(?P<nulls> NULLS NOT DISTINCT)? (?P<columns>" + _NAMES + rb")"
    rb"(?P<include> INCLUDE "
    + _NAMES
    + rb")?(?P<with> WITH \([a-z_]+='?[A-Za-z0-9]+'?(?:, [a-z_]+='?[A-Za-z0-9]+'?)*\))?"
    rb"(?P<deferrable> DEFERRABLE(?: INITIALLY DEFERRED)?)?;\Z"
)
_ACTION = rb"(?:CASCADE|RESTRICT|NO ACTION|SET NULL|SET DEFAULT)(?: " + _NAMES + rb")?"
_FOREIGN_KEY = re.compile(
    rb"ALTER TABLE (?P<only>ONLY )?(?P<table>" + QUALIFIED + rb")\s+ADD CONSTRAINT (?P<name>" + IDENTIFIER + rb") "
    rb"FOREIGN KEY " + _NAMES + rb" REFERENCES (?P<other>" + QUALIFIED + rb")" + _NAMES + rb"(?: MATCH FULL)?"
    rb"(?: ON UPDATE " + _ACTION + rb")?(?: ON DELETE " + _ACTION + rb")?(?: DEFERRABLE(?: INITIALLY DEFERRED)?)?;\Z"
)
_REFRESH = re.compile(rb"REFRESH MATERIALIZED VIEW (?P<view>" + QUALIFIED + rb");\Z")
# Quick ones that need what stands before them and that nothing planned needs: they wait for the next barrier, or for
# rows or a setting.
_DEFERRED = re.compile(
    rb"(?:COMMENT ON (?:INDEX|CONSTRAINT|COLUMN|TABLE) "
    rb"|ALTER INDEX " + QUALIFIED + rb" ATTACH PARTITION "
    rb"|ALTER INDEX " + QUALIFIED + rb" ALTER COLUMN \d+ SET STATISTICS "
    rb"|ALTER TABLE (?:ONLY )?" + QUALIFIED + rb" (?:CLUSTER ON|REPLICA IDENTITY USING INDEX) "
    rb"|CREATE (?:CONSTRAINT )?TRIGGER " + IDENTIFIER + rb" (?:BEFORE|AFTER|INSTEAD OF) "
    rb"|CREATE STATISTICS "
    rb"|SELECT \* FROM pg_catalog\.pg_restore_(?:relation|attribute|extended)_stats\()"
)
_OF_STATISTICS = re.compile(rb"CREATE STATISTICS |ALTER INDEX [^;]* SET STATISTICS |SELECT ")
_BESIDE = re.compile(rb"SELECT pg_catalog\.setval\('(?:[^']|'')+', -?\d+, (?:true|false)\);\Z")
_SETTING = re.compile(rb"SET (?!LOCAL|SESSION|ROLE|TRANSACTION|CONSTRAINTS)([a-z_]+) = [^;]*;\Z")
_SEARCH_PATH = re.compile(rb"SELECT pg_catalog\.set_config\('search_path', '[^']*', false\);\Z")
_AUTHORIZATION = re.compile(rb"(?:SET|RESET)\s+(?:SESSION\s+AUTHORIZATION|ROLE)\b", re.IGNORECASE)
# What may change how the statements and rows after it are read, in a way that is not known here and that the other
# sessions cannot follow: other wordings of SET, and whatever runs functions that pg_dump does not call.
_UNKNOWN_SETTING = re.compile(
    rb"(?:SET|RESET|DISCARD|DO|CALL|WITH|VALUES|SELECT(?!\s+(?:\*\s+FROM\s+)?pg_catalog\.(?!set_config\b)))\b",
    re.IGNORECASE,
)
_TRANSACTION = re.compile(rb"(?:BEGIN|START|COMMIT|END)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Step:
    """One piece of planned work: its statement and the tables it claims, its own first.

    A ``late`` step only has to be done before the next barrier: others of the same table are put before it.  One
    ``after_deferred`` needs what was put off until the next barrier.
    """

    statement: Statement
    claims: Mapping[str, str]
    late: bool = False
    after_deferred: bool = False


@dataclasses.dataclass(frozen=True)
class Setting:
    """A statement that changes only the session; ``name`` is what it sets."""

    name: str


DEFERRED = "deferred"
BESIDE = "beside"
BARRIER = "barrier"
AUTHORIZATION = "authorization"
Plan = list[Step] | Setting | str
_WHOLE = ((_BESIDE, BESIDE), (_AUTHORIZATION, AUTHORIZATION), (_TRANSACTION, AUTHORIZATION), (_DEFERRED, DEFERRED))


def _no_partitions(table: TableName) -> list[TableName]:
    del table
    return []


def _unknown(view: TableName) -> None:
    del view


def plan(
    statement: Statement,
    is_plain_table: Callable[[TableName], bool],
    partitions: Callable[[TableName], list[TableName]] = _no_partitions,
    views_read: Callable[[TableName], list[TableName] | None] = _unknown,
) -> Plan:
    """Say how a statement may run: as steps beside others, as a setting, or as DEFERRED, BESIDE or BARRIER.

    ``is_plain_table`` asks whether a table is an ordinary one, neither partitioned nor foreign nor absent.
    ``partitions`` gives a partitioned table and what belongs to it, where foreign keys of these can be checked later.
    ``views_read`` gives the materialized views that one is made of, None where that cannot be known.
    """
    text = statement.text
    if setting := _SETTING.match(text):
        return Setting(setting.group(1).decode())
    if _SEARCH_PATH.match(text):
        return Setting("search_path")
    for pattern, steps in ((_INDEX, _index), (_KEY, _key)):
        if found := pattern.match(text):
            return steps(statement, found, is_plain_table)
    if found := _FOREIGN_KEY.match(text):
        return _foreign_key(statement, found, is_plain_table, partitions)
    if found := _REFRESH.match(text):
        return _refresh(statement, found, views_read)
    return next((how for pattern, how in _WHOLE if pattern.match(text)), BARRIER)


def may_change_settings(statement: Statement) -> bool:
    """Whether a statement that is no Setting may yet change its session's settings."""
    return bool(_UNKNOWN_SETTING.match(statement.text)) and not _AUTHORIZATION.match(statement.text)


def foreign_key(statement: Statement, codec: str) -> tuple[TableName, str] | None:
    """Return table and name of the foreign key that a statement adds to be checked at once, None for all others."""
    found = _FOREIGN_KEY.match(statement.text)
    return None if found is None else (table_name(found["table"], codec), unquote(found["name"], codec))


def claim(table: TableName) -> str:
    """Return the resource that stands for a table, the same whatever encoding its name was read in."""
    same = table_name(table.sql)
    return f"table {same.schema}.{same.name}"


def keys_of(table: str) -> str:
    """Return the resource that whoever checks a foreign key of a claimed table has to itself."""
    return f"keys of {table}"


def concerns_statistics(statement: Statement) -> bool:
    """Whether a statement that was put off says which statistics there are to be, or what they are."""
    return bool(_OF_STATISTICS.match(statement.text))


def _index(statement: Statement, found: re.Match[bytes], is_plain_table: Callable[[TableName], bool]) -> Plan:
    del is_plain_table  # an index of a partitioned table is made ON ONLY it, like any other
    table = table_name(found["table"])
    if not table.schema:
        return BARRIER  # without its schema a table may have two names here
    claims = {claim(table): INDEXING}
    if not _PLAIN_INDEX.match(statement.text, found.end()):
        claims[ALL_DATA] = READING
    return [Step(statement, claims)]


def _key(statement: Statement, found: re.Match[bytes], is_plain_table: Callable[[TableName], bool]) -> Plan:
    table = table_name(found["table"])
    if not table.schema or not is_plain_table(table):
        return BARRIER
    # The key's index is built like any other, several on one table at a time; the constraint then takes it over, which
    # gives the same catalogue entries and takes a moment.
    build = b"CREATE UNIQUE INDEX %b ON %b USING btree %b%b%b%b;" % (
        found["name"],
        found["table"],
        found["columns"],
        found["include"] or b"",
        found["nulls"] or b"",
        found["with"] or b"",
    )
    attach = b"ALTER TABLE ONLY %b ADD CONSTRAINT %b %b USING INDEX %b%b;" % (
        found["table"],
        found["name"],
        found["kind"],
        found["name"],
        found["deferrable"] or b"",
    )
    return [
        Step(dataclasses.replace(statement, text=build), {claim(table): INDEXING}),
        Step(dataclasses.replace(statement, text=attach), {claim(table): EXCLUSIVE}),
    ]


def _foreign_key(
    statement: Statement,
    found: re.Match[bytes],
    is_plain_table: Callable[[TableName], bool],
    partitions: Callable[[TableName], list[TableName]],
) -> Plan:
    table, other = table_name(found["table"]), table_name(found["other"])
    if not (table.schema and other.schema):
        return BARRIER
    # Locks of a partitioned table reach its partitions.
    plain = is_plain_table(table) and is_plain_table(other)
    own = [table] if is_plain_table(table) else partitions(table)
    others = [other] if is_plain_table(other) else partitions(other)
    # On partitioned tables NOT VALID is refused before 18, and on keys to one a later check leaves parts unchecked.
    if not own or not others:
        return BARRIER
    add = statement.text[:-1] + b" NOT VALID;"
    validate = b"ALTER TABLE %b%b VALIDATE CONSTRAINT %b;" % (found["only"] or b"", found["table"], found["name"])
    names = [claim(each) for each in (*own, *others)]
    both = dict.fromkeys(names, EXCLUSIVE)
    # The server lets two validations run at once unless they are of the same table, and both only read.
    reads = {**dict.fromkeys(names, READING), **{keys_of(claim(each)): EXCLUSIVE for each in own}}
    return [
        # The indexes of partitions that a key to a partitioned table needs are attached by what was put off.
        Step(dataclasses.replace(statement, text=add), both, after_deferred=not plain),
        Step(dataclasses.replace(statement, text=validate), reads, late=True),
    ]


def _refresh(
    statement: Statement, found: re.Match[bytes], views_read: Callable[[TableName], list[TableName] | None]
) -> Plan:
    view = table_name(found["view"])
    read = views_read(view) if view.schema else None
    if read is None:
        return BARRIER
    claims = {claim(view): EXCLUSIVE, ALL_DATA: READING}
    return [Step(statement, {**{claim(other): READING for other in read}, **claims})]
