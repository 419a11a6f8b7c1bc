"""The tables whose rows pg_dump writes into a dump of a whole database, as the catalogue tells them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg

# A schema that pg_dump never dumps.
_FOREIGN_SCHEMAS = r"(n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname ~ '^pg_(toast|temp_|toast_temp_)')"

# Columns whose values stand in a dump: those of a table's attributes `a`, in the order of their numbers.
DUMPED = "a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"

# Ordinary tables that are no member of an extension, or are among the configuration tables that the extension names,
# which are dumped under its condition. Partitioned tables hold no rows, but are locked with the others.
_RELATIONS = f"""
SELECT c.oid::pg_catalog.int8, n.nspname, c.relname, c.relkind::pg_catalog.text,
       CASE WHEN cf.extconfig IS NULL THEN NULL ELSE coalesce(cf.condition, '') END,
       c.relrowsecurity AND pg_catalog.row_security_active(c.oid),
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       coalesce(am.amname = 'heap', false),
       ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND {DUMPED}
              ORDER BY a.attnum),
       CASE WHEN c.relispartition THEN (SELECT i.inhparent::pg_catalog.int8 FROM pg_catalog.pg_inherits i
                                         WHERE i.inhrelid = c.oid LIMIT 1) END,
       EXISTS (SELECT FROM pg_catalog.pg_partitioned_table p, pg_catalog.pg_opclass o
                 JOIN pg_catalog.pg_am oa ON oa.oid = o.opcmethod
                WHERE p.partrelid = c.oid AND o.oid = ANY (p.partclass) AND oa.amname = 'hash'
                  AND o.opcname = 'enum_ops' AND o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
  LEFT JOIN (SELECT e.extconfig[i] AS extconfig, e.extcondition[i] AS condition
               FROM pg_catalog.pg_extension e, pg_catalog.generate_subscripts(e.extconfig, 1) i) cf
         ON cf.extconfig = c.oid
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT {_FOREIGN_SCHEMAS}
   AND (cf.extconfig IS NOT NULL
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                          AND d.deptype = 'e'))
 ORDER BY n.nspname, c.relname
"""  # noqa: S608  # the only thing filled in is the constant above


# Apart from the list, because asking for a size waits for whoever holds the table exclusively.
_SIZES = """
SELECT c.oid::pg_catalog.int8, pg_catalog.pg_relation_size(c.oid), pg_catalog.pg_table_size(c.oid)
  FROM pg_catalog.pg_class c WHERE c.oid = ANY (%s::pg_catalog.oid[]) AND c.relkind = 'r'
"""


@dataclasses.dataclass(frozen=True)
class Relation:
    """A table of the database as a backup sees it.

    `condition` is None for an ordinary table, else the text after the table's name by which an extension limits what
    is dumped of its configuration table (possibly empty).  `hidden_rows` says that a policy would hide rows from this
    role.  `columns` are the ones whose values stand in a dump (no generated ones), in the dump's order.
    `parent` is the partitioned table of a partition.  `hashes_enum` says of a partitioned one that the place of a row
    depends on an enum value's number, which is another in every database.  `leaves` are the partitions whose rows stand
    in a dump as rows of this table.
    """

    oid: int
    schema: str
    name: str
    kind: str
    condition: str | None
    hidden_rows: bool
    readable: bool
    is_heap: bool
    columns: tuple[str, ...]
    parent: int | None
    hashes_enum: bool
    leaves: tuple[tuple[str, str], ...] = ()
    main_bytes: int = 0
    total_bytes: int = 0

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, qualified name."""
        return sql.Identifier(self.schema, self.name)

    @property
    def title(self) -> str:
        """The qualified name for people."""
        return f"{self.schema}.{self.name}"

    @property
    def has_rows(self) -> bool:
        """Whether a dump has rows under this table's name: those of its own, or of its `leaves`."""
        return self.kind == "r" or bool(self.leaves)


def list_relations(connection: psycopg.Connection[tuple[object, ...]]) -> list[Relation]:
    """Return every table that a dump of this database names, as this session's transaction sees them."""
    rows = cast("list[tuple[Any, ...]]", connection.execute(_RELATIONS).fetchall())
    return [Relation(*[*row[:-3], tuple(row[-3]), *row[-2:]]) for row in rows]


def gathered(relations: list[Relation], named: Collection[tuple[str, str]]) -> list[Relation]:
    """Return the relations as a dump that has rows of the tables `named` (by schema and name) has them.

    pg_dump writes the rows of partitions as those of the table at the top when it is told to
    (--load-via-partition-root), and always below one that `hashes_enum`.  A partition that is not named itself is a
    leaf of the nearest table above it that is.
    """
    by_oid = {relation.oid: relation for relation in relations}
    partitioned = {r.oid for r in relations if r.kind == "p" and (r.schema, r.name) in named}
    leaves: dict[int, list[Relation]] = {}
    for relation in relations:
        above = relation
        while above.oid not in partitioned and above.parent in by_oid:
            above = by_oid[above.parent]
        if relation.kind == "r" and above.oid in partitioned and (relation.schema, relation.name) not in named:
            leaves.setdefault(above.oid, []).append(relation)
    elsewhere = {leaf.oid for found in leaves.values() for leaf in found}
    return [
        dataclasses.replace(
            relation,
            leaves=tuple((leaf.schema, leaf.name) for leaf in leaves[relation.oid]),
            hidden_rows=relation.hidden_rows or any(leaf.hidden_rows for leaf in leaves[relation.oid]),
            readable=relation.readable and all(leaf.readable for leaf in leaves[relation.oid]),
            total_bytes=sum(leaf.total_bytes for leaf in leaves[relation.oid]),
        )
        if relation.oid in leaves
        else relation
        for relation in relations
        if relation.oid not in elsewhere
    ]


def with_sizes(connection: psycopg.Connection[tuple[object, ...]], relations: list[Relation]) -> list[Relation]:
    """Return the relations with their sizes in bytes, of the heap alone and with its TOAST.

    Waits for tables that somebody holds exclusively, as long as the session's lock_timeout allows.
    """
    found = connection.execute(_SIZES, ([relation.oid for relation in relations],)).fetchall()
    sizes = {row[0]: row[1:] for row in cast("list[tuple[int, int | None, int | None]]", found)}
    sized = []
    for relation in relations:
        main, total = sizes.get(relation.oid, (0, 0))
        sized.append(dataclasses.replace(relation, main_bytes=main or 0, total_bytes=total or 0))
    return sized
