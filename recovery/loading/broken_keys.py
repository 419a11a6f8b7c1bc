"""Foreign keys that rows of the source break although its catalogue calls them valid: restored as they can be.

Rows get past a key where triggers are off (session_replication_role, ALTER TABLE ... DISABLE TRIGGER ALL).  The server
checks the key when it is made again, so that a restore can only have it NOT VALID: new rows are checked, old ones not.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from recovery.loading.plan import foreign_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recovery.dumps.manifest import ForeignKey
    from recovery.dumps.statements import Statement, TableName

# The first server that lets a partitioned table have a key that is NOT VALID.
FIRST_WITH_PARTITIONED = 180000


class BrokenKeys:
    """What a manifest says of keys that did not hold at the source."""

    def __init__(self, keys: Iterable[ForeignKey]) -> None:
        self._rows = {(key.schema_name, key.table, key.name): key.violations for key in keys if key.violations}

    def as_restored(
        self, statement: Statement, codec: str, server_version: int, is_plain_table: Callable[[TableName], bool]
    ) -> tuple[Statement, str | None]:
        """Return the statement as it can be run, and what to note of it; itself and None for all but a broken key.

        It is left as it is where the server has no such key, and fails there.
        """
        if not self._rows or (key := foreign_key(statement, codec)) is None:
            return statement, None
        table, name = key
        rows = self._rows.get((table.schema, table.name, name))
        if not rows or (server_version < FIRST_WITH_PARTITIONED and not is_plain_table(table)):
            return statement, None
        text = f"broken at the source: {rows} row{'s point' if rows > 1 else ' points'} nowhere; restored NOT VALID"
        return dataclasses.replace(statement, text=statement.text[:-1] + b" NOT VALID;"), text
