"""What is asked of the catalogue before rows, keys and indexes of a table, and while they are under way."""

from __future__ import annotations

# Whether rows may arrive in any order and beside other tables': an ordinary table without triggers (foreign keys are
# triggers) or rules, of which no constraint, default, generated column or index runs a function that somebody wrote:
# it may look at other tables.  Such a function may also stand in the expressions that rows are partitioned by, and in
# a domain's constraint, however deep the domain is inside the column's type.
ANY_ORDER = """
SELECT c.relkind = 'r' AND NOT c.relhastriggers AND NOT c.relhasrules AND NOT c.relrowsecurity AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend d
   WHERE d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) AND d.refobjid >= 16384
   AND ((d.classid = 'pg_catalog.pg_constraint'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid))
     OR (d.classid = 'pg_catalog.pg_attrdef'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid))
     OR (d.classid = 'pg_catalog.pg_class'::regclass
         AND (d.objid = c.oid AND d.objsubid > 0  -- what generates a column, before 15
              OR d.objid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = c.oid)
              OR c.relispartition AND d.objid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid))))
     OR (d.classid = 'pg_catalog.pg_constraint'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE contypid <> 0)
         AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.atttypid >= 16384))))
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
PLAIN_TABLE = "SELECT relkind = 'r' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)"
# Whether INSERTs of an ordinary or partitioned table do the same in one transaction as each in its own: nothing is put
# off until a transaction's end, and no program looks at them.
TOGETHER = """
SELECT c.relkind IN ('r', 'p') AND NOT c.relhasrules
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgdeferrable OR NOT tgisinternal)
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
# Columns that a row is given numbers for by a sequence, unless it says them itself, and how many columns it can say.
# What a sequence has given is not taken back with the rows, and who asks first is given the lower number.
NUMBERED = """
SELECT count(*) FILTER (WHERE a.attgenerated = '') > {columns} AND bool_or(
         a.attidentity <> '' OR pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE '%%nextval(%%')
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
# Whether rows go, or may go, to another server, of which no transaction here takes them back, or through a partitioned
# table to where a crash would lose them and nobody could tell.
ELSEWHERE = """
SELECT c.relkind = 'f' OR c.relkind = 'p' AND EXISTS (
  SELECT FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class p ON p.oid = t.relid
   WHERE p.relkind = 'f' OR p.relkind = 'r' AND p.relpersistence = 'u')
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""

IDENTIFIER_OF = b"SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%b)"

# A role sees the progress of its own sessions.  The index itself has no name for others before it is committed.
INDEXES_UNDER_WAY = b"""
SELECT relid::regclass::text, phase, COALESCE(100 * blocks_done / NULLIF(blocks_total, 0),
       100 * tuples_done / NULLIF(tuples_total, 0), 0)
  FROM pg_catalog.pg_stat_progress_create_index WHERE datname = pg_catalog.current_database()
"""

# A partitioned table and all that belongs to it, as the dump writes names, and whether that is on another server;
# nothing for any other table.
PARTITIONS = b"""
SELECT pg_catalog.textsend(pg_catalog.format('%%I.%%I', n.nspname, c.relname)), c.relkind = 'f'
  FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%b)) t
  JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class p WHERE p.oid = pg_catalog.to_regclass(%b) AND p.relkind = 'p')
"""

# The views and materialized views that one is made of, itself included, and whether any of them runs a function that
# somebody wrote: that may read more.
VIEWS_READ = b"""
WITH RECURSIVE made_of (oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%b) AND c.relkind = 'm'
  UNION
  SELECT d.refobjid FROM made_of JOIN pg_catalog.pg_rewrite r ON r.ev_class = made_of.oid
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
                               AND d.refclassid = 'pg_catalog.pg_class'::regclass)
SELECT pg_catalog.textsend(pg_catalog.format('%%I.%%I', n.nspname, c.relname)), EXISTS (
         SELECT FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
             ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
          WHERE r.ev_class = c.oid AND d.refobjid >= 16384
            AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))
  FROM made_of JOIN pg_catalog.pg_class c ON c.oid = made_of.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('m', 'v')
"""
