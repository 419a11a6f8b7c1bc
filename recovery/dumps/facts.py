"""What can be known of a dump from its own text, when no manifest speaks for it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recovery.dumps.created import Created
    from recovery.dumps.rowsum import Content


@dataclasses.dataclass(frozen=True)
class DumpFacts:
    """Facts counted while reading a dump.

    ``tables`` maps (schema, name), unquoted, to the number of rows the dump's COPY blocks and INSERTs hold for that
    table; a table that the dump defines without data has 0.  ``uncounted`` are the tables that it defines and of whose
    rows its text cannot tell how many come to be.  ``sequences`` maps (schema, name) to (value, is_called)
    of its setval line.  ``extensions`` maps the extensions it creates to their schemas, None where it names none.
    ``created`` are the other objects that it creates, as far as their names can be told, and ``foreign_keys`` maps
    (schema, table, name) to whether the dump has the key validated; both are None for a text that is not pg_dump's,
    which may drop and rename what it creates.  ``contents`` are the sums of rows that were asked for, by table, of
    text in ``encoding`` (PostgreSQL's name), as the dumping server's settings had it written.  ``server_version`` and
    ``pg_dump_version`` are the texts of the dump's header comments, None where it has none.
    """

    tables: Mapping[tuple[str, str], int]
    uncounted: frozenset[tuple[str, str]] = frozenset()
    sequences: Mapping[tuple[str, str], tuple[int, bool]] = dataclasses.field(default_factory=dict)
    extensions: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    created: frozenset[Created] | None = None
    foreign_keys: Mapping[tuple[str, str, str], bool] | None = None
    contents: Mapping[tuple[str, str], Content] = dataclasses.field(default_factory=dict)
    encoding: str | None = None
    server_version: str | None = None
    pg_dump_version: str | None = None
