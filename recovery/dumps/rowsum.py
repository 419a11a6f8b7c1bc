r"""The checksum of a table's content: a sum over its rows, so that their order makes no difference.

It is the sum of the 128-bit XXH3 hashes of every row's text, as COPY writes it (``\N`` for NULL, tabs between values,
every special character escaped, without the newline), and of one line more: the names of the columns in the same order,
with tabs between them.

- A sum does not depend on the order of rows, so that parts of a table can be added up by different sessions, and a
  restore that changes the physical order compares equal.  Unlike XOR it sees duplicated rows.
- COPY's text of a value is the same from PostgreSQL 12 to 18 under the fixed settings of `recovery.dumps.session`, and
  is what the dump holds: so a backup takes the sums of what pg_dump writes as it passes by, a database answers with
  COPY TO, and a dump can be asked without any database.  The server does nothing twice.
- Two rows that differ collide with a probability of 2^-128, and so do two differing multisets of rows.  It guards
  against damage, loss and mistakes.  It is no defence against somebody who may write to the database and wants a
  collision: a keyless sum of non-cryptographic hashes cannot be one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import xxhash

# Names the recipe above; another recipe gets another name, and sums of different names are never compared.
RECIPE = "copysum1"
_BITS = 160  # 128 of hash and room for the sum of 2^32 rows
# Rows are cut apart so much text at a time: a row of one byte becomes an object of 34.
_SLICE = 512 * 1024

_hash = xxhash.xxh3_128_intdigest


@dataclasses.dataclass(frozen=True)
class Content:
    """Count and checksum of one table; `checksum` is None where only the count was asked for.

    `columns` are those that the checksum was taken of, in this order.
    """

    rows: int
    checksum: str | None
    columns: tuple[str, ...] = ()


class RowSum:
    """Counts and sums rows of COPY text, which may come in pieces cut anywhere or row by row.

    `rows` is the number of rows that are counted already, and not summed.
    """

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows
        self._total = 0
        self._row: xxhash.xxh3_128 | None = None  # of a row whose end has not come

    def feed(self, text: bytes) -> None:
        """Take text whose rows end with newlines."""
        if len(text) <= _SLICE:
            self._feed(text)
        else:
            for start in range(0, len(text), _SLICE):
                self._feed(text[start : start + _SLICE])

    def _feed(self, text: bytes) -> None:
        rows = text.split(b"\n")
        begun = rows.pop()
        if rows and self._row is not None:
            self._row.update(rows[0])
            self._total += self._row.intdigest() + sum(map(_hash, itertools.islice(rows, 1, None)))
            self._row = None
        else:
            self._total += sum(map(_hash, rows))
        self.rows += len(rows)
        if begun:
            if self._row is None:
                self._row = xxhash.xxh3_128()
            self._row.update(begun)

    def add(self, row: bytes | memoryview) -> None:
        """Take one row, without its newline."""
        self._total += _hash(row)
        self.rows += 1

    def merge(self, other: RowSum) -> None:
        """Take the rows of another sum as well."""
        self._total += other._total
        self.rows += other.rows

    def checksum(self, columns: Iterable[str]) -> str:
        """Return the recipe's name and the sum, of rows whose values are those of these columns, in hex."""
        header = "\t".join(columns).encode("utf-8", "surrogateescape")
        return f"{RECIPE}:{(self._total + _hash(header)) % (1 << _BITS):0{_BITS // 4}x}"
