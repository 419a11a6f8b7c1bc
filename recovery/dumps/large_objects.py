"""The number of a database's large objects and the checksum of their content, page by page in one shared snapshot.

The checksum is the pair of sums, over every page of every large object, of two 64-bit hashes of the text
`number:page:bytes in hex`; one that is empty has one page without bytes.  The number of the page makes their order
matter and the length of the last one that of the object, so that no two contents have the same pages.  A page is all
that the server holds in memory, whatever the size of an object.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any, cast

from recovery.dumps import session
from recovery.dumps.checksum import PIECE_BYTES
from recovery.dumps.manifest import LargeObjectOwner, LargeObjects
from recovery.dumps.objects_sql import PRIVILEGES
from recovery.dumps.workers import in_snapshot
from recovery.errors import RefusedError

if TYPE_CHECKING:
    import psycopg

# Names the recipe above, the size of its pages included.
RECIPE = "pagehash1"
_MODULUS = 1 << 96  # 64 bits of hash and room for the sum of 2^32 pages
PAGE_BYTES = 1024 * 1024

# So many are looked at in one query: their numbers and sizes are all that is kept of them here.
_AT_ONCE = 10_000

_RANGES = """
SELECT pg_catalog.min(o.number), pg_catalog.max(o.number), pg_catalog.count(*)
  FROM (SELECT m.oid::pg_catalog.int8 AS number, (pg_catalog.row_number() OVER (ORDER BY m.oid) - 1) / %s AS part
          FROM pg_catalog.pg_largeobject_metadata m) o
 GROUP BY o.part ORDER BY 1
"""

# A size is where the end of an opened one is; 262144 is INV_READ.  OFFSET 0 keeps the three steps apart and in order,
# and each is closed before the next is opened: a transaction that holds many open grows slow.
_SIZES = """
SELECT b.number, b.size, pg_catalog.lo_close(b.handle) AS closed
  FROM (SELECT a.number, a.handle, pg_catalog.lo_lseek64(a.handle, 0, 2) AS size
          FROM (SELECT m.oid::pg_catalog.int8 AS number, pg_catalog.lo_open(m.oid, 262144) AS handle
                  FROM pg_catalog.pg_largeobject_metadata m
                 WHERE m.oid BETWEEN %(first)s::pg_catalog.int8::pg_catalog.oid
                                 AND %(last)s::pg_catalog.int8::pg_catalog.oid OFFSET 0) a OFFSET 0) b
OFFSET 0
"""

# As the server decides it, which tells this of a large object only from 18 on.
_UNREADABLE = """
SELECT m.oid::pg_catalog.int8 FROM pg_catalog.pg_largeobject_metadata m
 WHERE pg_catalog.current_setting('lo_compat_privileges') = 'off' AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a
                    WHERE a.privilege_type = 'SELECT'
                      AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
 ORDER BY m.oid LIMIT %s
"""
_MOST_NAMED = 10

_OWNERS = f"""
SELECT pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text, {PRIVILEGES}, o.number
  FROM (SELECT m.lomowner AS owner, m.lomacl AS acl, 'L' AS acltype, pg_catalog.count(*) AS number
          FROM pg_catalog.pg_largeobject_metadata m GROUP BY m.lomowner, m.lomacl) o
"""  # noqa: S608  # made of the constant of another module

_SUMS = f"""
SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended(r, 1)), 0),
       coalesce(pg_catalog.sum(pg_catalog.hashtextextended(r, 2)), 0)
  FROM (SELECT (s.number || ':' || p.page || ':' || pg_catalog.encode(pg_catalog.lo_get(
                  s.number::pg_catalog.oid, p.page * {PAGE_BYTES}, {PAGE_BYTES}), 'hex')) COLLATE "C" AS r
          FROM ({_SIZES}) s,
               LATERAL (SELECT pg_catalog.generate_series(
                          %(page)s::pg_catalog.int8,
                          least(%(last_page)s::pg_catalog.int8, greatest(s.size - 1, 0) / {PAGE_BYTES})) AS page) p
        OFFSET 0) pages
"""  # noqa: S608  # made of the constants above


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Pages of the large objects of some numbers, from `page` to `last_page` or, if that is None, to the end."""

    first: int
    last: int
    page: int = 0
    last_page: int | None = None


def refuse_unreadable(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Raise RefusedError when this role may not read every large object."""
    rows = cast("list[tuple[int]]", connection.execute(_UNREADABLE, (_MOST_NAMED + 1,)).fetchall())
    if rows:
        some = ", ".join(str(number) for (number,) in rows[:_MOST_NAMED])
        raise RefusedError(
            "the role may not read all large objects",
            detail=f"{some} and more" if len(rows) > _MOST_NAMED else some,
            hint="connect as their owner, or GRANT SELECT ON LARGE OBJECT … TO it (pg_read_all_data is not enough)",
        )


def owners(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[LargeObjectOwner, ...]:
    """Return how many large objects each owner has, by their privileges."""
    found: dict[tuple[str, tuple[str, ...]], int] = {}
    for owner, privileges, number in cast("list[tuple[str, list[str], int]]", connection.execute(_OWNERS).fetchall()):
        # Privileges in another order, or spelled out where others are the default's, are the same.
        key = owner, tuple(sorted(privileges))
        found[key] = found.get(key, 0) + number
    return tuple(
        LargeObjectOwner(owner=owner, privileges=privileges, count=number)
        for (owner, privileges), number in sorted(found.items())
    )


def measure(
    dsn: str, snapshot: str, *, jobs: int, checksums: bool = True, stop: threading.Event | None = None
) -> LargeObjects:
    """Count, and checksum if asked, every large object in the exported snapshot, over `jobs` connections.

    Raises what `in_snapshot` raises; psycopg's InsufficientPrivilege where the role may not read one.
    """
    stop = stop or threading.Event()
    with session.connect(dsn) as connection:
        session.import_snapshot(connection, snapshot)
        ranges = cast("list[tuple[int, int, int]]", connection.execute(_RANGES, (_AT_ONCE,)).fetchall())
        whose = owners(connection)
    count = sum(found for _, _, found in ranges)
    if not checksums:
        return LargeObjects(count=count, checksum=None, owners=whose)
    pieces: list[_Piece] = []
    sums = [0, 0]
    guard = threading.Lock()

    def look(worker: psycopg.Connection[tuple[object, ...]], numbers: tuple[int, int, int]) -> None:
        rows = worker.execute(_SIZES.encode(), {"first": numbers[0], "last": numbers[1]}).fetchall()
        found = _pieces(sorted((number, size) for number, size, _ in cast("list[tuple[int, int, int]]", rows)))
        with guard:
            pieces.extend(found)

    def add(worker: psycopg.Connection[tuple[object, ...]], piece: _Piece) -> None:
        row = cast("tuple[Any, Any]", worker.execute(_SUMS.encode(), dataclasses.asdict(piece)).fetchone())
        with guard:
            sums[0] += int(row[0])
            sums[1] += int(row[1])

    if ranges:
        in_snapshot(dsn, snapshot, ranges, look, jobs=jobs, stop=stop)
        in_snapshot(dsn, snapshot, pieces, add, jobs=jobs, stop=stop)
    return LargeObjects(count=count, checksum=_text_of(*sums), owners=whose)


def _pieces(sizes: list[tuple[int, int]]) -> list[_Piece]:
    """Cut large objects, in the order of their numbers, into pieces of about the same number of bytes."""
    pieces: list[_Piece] = []
    first: int | None = None
    last = held = 0
    pages_of_a_piece = PIECE_BYTES // PAGE_BYTES
    for number, size in sizes:
        pages = max(1, -(-size // PAGE_BYTES))
        if first is not None and held + pages > pages_of_a_piece:
            pieces.append(_Piece(first, last))
            first, held = None, 0
        if pages > pages_of_a_piece:
            pieces += [
                _Piece(number, number, page, page + pages_of_a_piece - 1) for page in range(0, pages, pages_of_a_piece)
            ]
            continue
        first = number if first is None else first
        last, held = number, held + pages
    if first is not None:
        pieces.append(_Piece(first, last))
    return pieces


def _text_of(first: int, second: int) -> str:
    return f"{RECIPE}:{first % _MODULUS:024x}{second % _MODULUS:024x}"
