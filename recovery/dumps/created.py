"""What a statement of pg_dump's creates: its kind and name, as far as its first words tell.

Only names with a schema count: what another name means, `search_path` decides.  Kinds are the words that PostgreSQL
itself uses for them in `pg_identify_object`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recovery.dumps.statements import IDENTIFIER, unquote

_IN_SCHEMA = rb"(?P<schema>" + IDENTIFIER + rb")\.(?P<name>" + IDENTIFIER + rb")"
_OF_TABLE = rb"(?P<schema>" + IDENTIFIER + rb")\.(?P<table>" + IDENTIFIER + rb")"
_NAME = rb"(?P<name>" + IDENTIFIER + rb")"
_EVENT = rb"(?:INSERT|DELETE|TRUNCATE|UPDATE(?: OF " + IDENTIFIER + rb"(?:, " + IDENTIFIER + rb")*+)?)"

_FORMS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(form))
    for kind, form in (
        ("view", rb"CREATE (?:OR REPLACE )?VIEW " + _IN_SCHEMA),
        ("materialized view", rb"CREATE MATERIALIZED VIEW " + _IN_SCHEMA),
        ("sequence", rb"CREATE (?:UNLOGGED )?SEQUENCE " + _IN_SCHEMA),
        ("function", rb"CREATE (?:OR REPLACE )?FUNCTION " + _IN_SCHEMA + rb"\("),
        ("procedure", rb"CREATE (?:OR REPLACE )?PROCEDURE " + _IN_SCHEMA + rb"\("),
        ("aggregate", rb"CREATE AGGREGATE " + _IN_SCHEMA + rb"\("),
        # Without a body it is a type whose definition follows, or never does.
        ("type", rb"CREATE TYPE " + _IN_SCHEMA + rb" (?:AS\b|\()"),
        ("type", rb"CREATE DOMAIN " + _IN_SCHEMA + rb" AS\b"),
        # It has its table's schema.  One ON ONLY a table is not valid before its parts are.
        ("index", rb"CREATE (?:UNIQUE )?INDEX " + _NAME + rb" ON (?!ONLY )(?P<schema>" + IDENTIFIER + rb")\."),
        ("trigger", rb"CREATE (?:CONSTRAINT )?TRIGGER " + _NAME + rb" (?:BEFORE|AFTER|INSTEAD OF) " + _EVENT
                    + rb"(?: OR " + _EVENT + rb")*+ ON " + _OF_TABLE),
        ("policy", rb"CREATE POLICY " + _NAME + rb" ON " + _OF_TABLE),
        ("rule", rb"CREATE RULE " + _NAME + rb" AS\s+ON (?:INSERT|UPDATE|DELETE) TO " + _OF_TABLE),
        ("table constraint", rb"ALTER TABLE (?:ONLY )?" + _OF_TABLE + rb"\s+ADD CONSTRAINT " + _NAME
                             + rb" (?:PRIMARY KEY|UNIQUE|FOREIGN KEY|CHECK|EXCLUDE)\b"),
    )
)  # fmt: skip
_FOREIGN_KEY = re.compile(rb"ALTER TABLE (?:ONLY )?" + _OF_TABLE + rb"\s+ADD CONSTRAINT " + _NAME + rb" FOREIGN KEY\b")

# As `pg_identify_object` writes it: "schema.name", "schema.name(arguments)" or "name on schema.table".
_IDENTITY = re.compile(
    rb"(?P<of_table>" + IDENTIFIER + rb") on " + _OF_TABLE + rb"\Z"
    rb"|(?P<space>" + IDENTIFIER + rb")\.(?P<own>" + IDENTIFIER + rb")(?:\(|\Z)"
)  # fmt: skip


class Created(NamedTuple):
    """An object: `table` is None unless it is one of a table's."""

    kind: str
    schema: str
    table: str | None
    name: str

    def __str__(self) -> str:
        names = (self.schema, self.name) if self.table is None else (self.schema, self.table, self.name)
        return f"{self.kind} {'.'.join(names)}"


def created_by(text: bytes, codec: str) -> Created | None:
    """Return what the statement creates, None where it creates nothing of these kinds."""
    for kind, form in _FORMS:
        if found := form.match(text):
            parts = found.groupdict()
            table = unquote(parts["table"], codec) if parts.get("table") else None
            return Created(kind, unquote(parts["schema"], codec), table, unquote(parts["name"], codec))
    return None


def key_added_by(text: bytes, codec: str) -> tuple[tuple[str, str, str], bool] | None:
    """Return (schema, table, name) of the foreign key that the statement adds and whether it is to be valid."""
    if found := _FOREIGN_KEY.match(text):
        schema, table, name = (unquote(found[part], codec) for part in ("schema", "table", "name"))
        return (schema, table, name), not text.rstrip(b"; \n").endswith(b" NOT VALID")
    return None


def created_as(kind: str, identity: str) -> Created | None:
    """Return the object that the server gives this kind and identity, None for one whose name is of another form."""
    found = _IDENTITY.match(identity.encode())
    if found is None:
        return None
    parts = {part: unquote(value, "utf-8") for part, value in found.groupdict().items() if value is not None}
    if "own" in parts:
        return Created(kind, parts["space"], None, parts["own"])
    return Created(kind, parts["schema"], parts["table"], parts["of_table"])
