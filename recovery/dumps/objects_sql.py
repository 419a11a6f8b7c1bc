"""The catalogue query that describes every object which pg_dump can write, one row each.

Columns: kind, identity, definition, owner, privileges.  A definition is text that is the same for the same object in
another database of the same major version, whatever its OIDs and column numbers; privileges name the owner `@owner`,
so that they compare equal under another owner.
"""

from __future__ import annotations

import re

# Names what this module puts into a definition: another name when that changes, and fingerprints of different names are
# never compared.
RECIPE = "definition2"

# Objects made by initdb have OIDs below this: FirstNormalObjectId in PostgreSQL's access/transam.h.
_FIRST_OWN = 16384

_RELATION = """
SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS classid, c.oid, c.relowner AS owner, c.relacl AS acl,
       CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END AS acltype,
       (pg_catalog.jsonb_build_object(
         'kind', c.relkind, 'persistence', c.relpersistence, 'options', c.reloptions,
         'replica_identity', c.relreplident,
         'row_security', ARRAY[c.relrowsecurity, c.relforcerowsecurity],
         'method', (SELECT am.amname FROM pg_catalog.pg_am am WHERE am.oid = c.relam),
         'of', CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END,
         'parents', (SELECT pg_catalog.array_agg(i.inhparent::pg_catalog.regclass::pg_catalog.text ORDER BY i.inhseqno)
                       FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
         'partition_key', CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
         'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
         'view', CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END,
         'foreign', (SELECT pg_catalog.jsonb_build_array(s.srvname, ft.ftoptions) FROM pg_catalog.pg_foreign_table ft
                       JOIN pg_catalog.pg_foreign_server s ON s.oid = ft.ftserver WHERE ft.ftrelid = c.oid),
         'sequence', (SELECT pg_catalog.jsonb_build_array(pg_catalog.format_type(q.seqtypid, NULL), q.seqstart,
                                q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle)
                        FROM pg_catalog.pg_sequence q WHERE q.seqrelid = c.oid),
         'owned_by', CASE WHEN c.relkind = 'S' THEN
              (SELECT d.refobjid::pg_catalog.regclass::pg_catalog.text || '.' || a.attname
                 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a
                      ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')) END,
         'columns', CASE WHEN c.relkind <> 'S' THEN
              (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                        a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                        a.attgenerated, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid),
                        CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::pg_catalog.regcollation END,
                        CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage END, a.attoptions, a.attfdwoptions)
                      || coalesce(NULLIF(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
                           'statistics', NULLIF(a.attstattarget, -1),
                           -- Made anew, what inherits a column compresses it as its parents do.
                           'compression', CASE WHEN a.attinhcount = 0 OR c.relispartition
                                               THEN NULLIF(a.attcompression, '') END,
                           -- From 18 on: a NOT NULL that is not proven, or not for those who inherit.
                           'not_null', (SELECT pg_catalog.jsonb_build_array(k.convalidated, k.connoinherit)
                                          FROM pg_catalog.pg_constraint k
                                         WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
                                           AND k.coninhcount = 0 AND (k.connoinherit OR NOT k.convalidated)))),
                         pg_catalog.jsonb_build_object()), pg_catalog.jsonb_build_array())
                      -- A child's own columns move behind the inherited ones when it is made anew.
                      ORDER BY CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
                                         AND NOT c.relispartition THEN 0 ELSE a.attnum END, a.attname)
                 FROM pg_catalog.pg_attribute a
                 JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END)
       || pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
         'toast_options', (SELECT tt.reloptions FROM pg_catalog.pg_class tt WHERE tt.oid = c.reltoastrelid),
         'unfilled', CASE WHEN c.relkind = 'm' AND c.oid IN (SELECT u.oid FROM unfilled u) THEN true END))
       )::pg_catalog.text AS definition
  FROM pg_catalog.pg_class c
 WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relpersistence <> 't'
"""

# Materialized views that no dump fills: those that are empty at the source, and whatever reads from one of them.
_UNFILLED = """
unfilled (oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind = 'm' AND NOT c.relispopulated
  UNION
  SELECT v.oid FROM unfilled u
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = u.oid
     AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm'))
"""

_TYPE = """
SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner, t.typacl, 'T',
       pg_catalog.jsonb_build_object(
         'kind', t.typtype,
         'labels', (SELECT pg_catalog.array_agg(e.enumlabel ORDER BY e.enumsortorder)
                      FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
         'domain', CASE WHEN t.typtype = 'd' THEN pg_catalog.jsonb_build_array(
              pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
              t.typcollation::pg_catalog.regcollation,
              (SELECT pg_catalog.array_agg(k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
                                           ORDER BY k.conname)
                 FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c')) END,
         'range', (SELECT pg_catalog.jsonb_build_array(pg_catalog.format_type(r.rngsubtype, NULL),
                            r.rngcanonical::pg_catalog.regproc, r.rngsubdiff::pg_catalog.regproc,
                            r.rngcollation::pg_catalog.regcollation)
                          || coalesce((SELECT pg_catalog.jsonb_build_array(oc.opcname) FROM pg_catalog.pg_opclass oc
                                        WHERE oc.oid = r.rngsubopc AND NOT oc.opcdefault),
                                      pg_catalog.jsonb_build_array())
                     FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid),
         'attributes', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname,
                                 pg_catalog.format_type(a.atttypid, a.atttypmod))
                               || CASE WHEN a.attcollation <> ty.typcollation
                                       THEN pg_catalog.jsonb_build_array(a.attcollation::pg_catalog.regcollation)
                                       ELSE pg_catalog.jsonb_build_array() END ORDER BY a.attnum)
                          FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
                         WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
         'base', CASE WHEN t.typtype = 'b' THEN pg_catalog.jsonb_build_array(t.typlen, t.typbyval, t.typcategory,
              t.typinput::pg_catalog.regproc, t.typoutput::pg_catalog.regproc, t.typalign, t.typstorage,
              t.typreceive::pg_catalog.regproc, t.typsend::pg_catalog.regproc, t.typmodin::pg_catalog.regproc,
              t.typmodout::pg_catalog.regproc, t.typanalyze::pg_catalog.regproc, t.typispreferred, t.typdelim,
              pg_catalog.format_type(NULLIF(t.typelem, 0), NULL), t.typdefault, t.typcollation <> 0) END
       )::pg_catalog.text
  FROM pg_catalog.pg_type t
 WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r')
   AND (t.typrelid = 0 OR (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type el WHERE el.typarray = t.oid)
"""

_PLAIN = """
SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.nspowner, n.nspacl, 'n', ''
  FROM pg_catalog.pg_namespace n
UNION ALL
SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, NULL, NULL, NULL,
       pg_catalog.pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisclustered THEN ' CLUSTER' ELSE '' END
       || CASE WHEN i.indisreplident THEN ' REPLICA IDENTITY' ELSE '' END
       -- No dump tells them of what belongs to a constraint.
       || coalesce((SELECT ' STATISTICS ' || pg_catalog.string_agg(a.attnum || ' ' || a.attstattarget, ', '
                                                                   ORDER BY a.attnum)
                      FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                        WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))), '')
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indisvalid AND c.relpersistence <> 't'
UNION ALL
-- Whether a key is validated stands apart: one that is broken at the source can only come back unvalidated.  A CHECK
-- that is inherited is as valid as it was made with its table: before or after its parent's.
SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, NULL, NULL, NULL,
       CASE WHEN k.contype = 'c' AND k.coninhcount = 0 THEN pg_catalog.pg_get_constraintdef(k.oid)
            ELSE pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '') END
  FROM pg_catalog.pg_constraint k
 WHERE k.conrelid <> 0 AND k.contype IN ('c', 'f', 'p', 'u', 'x')
   -- What a key to or of a partitioned table has per partition comes with it, under names that the server chooses.
   AND NOT (k.contype = 'f' AND k.conparentid <> 0)
UNION ALL
SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, NULL, NULL, NULL,
       pg_catalog.pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::pg_catalog.text
  FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
UNION ALL
SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, NULL, NULL, NULL,
       pg_catalog.pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::pg_catalog.text
  FROM pg_catalog.pg_rewrite r WHERE r.rulename <> '_RETURN'
UNION ALL
SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(p.polcmd, p.polpermissive,
         ARRAY(SELECT CASE WHEN r = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(r) END
                 FROM pg_catalog.unnest(p.polroles) r ORDER BY 1),
         pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
       )::pg_catalog.text
  FROM pg_catalog.pg_policy p
UNION ALL
SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid, f.proowner, f.proacl, 'f',
       CASE WHEN f.prokind = 'a' THEN
         (SELECT pg_catalog.jsonb_build_array(a.aggkind, a.aggnumdirectargs, a.aggtransfn::pg_catalog.regprocedure,
                   a.aggfinalfn::pg_catalog.regprocedure, a.aggcombinefn::pg_catalog.regprocedure,
                   a.aggmtransfn::pg_catalog.regprocedure, a.aggminvtransfn::pg_catalog.regprocedure,
                   pg_catalog.format_type(a.aggtranstype, NULL), a.aggsortop::pg_catalog.regoperator, a.agginitval,
                   f.proparallel, a.aggfinalextra, a.aggfinalmodify, a.aggserialfn::pg_catalog.regprocedure,
                   a.aggdeserialfn::pg_catalog.regprocedure, a.aggmfinalfn::pg_catalog.regprocedure, a.aggmfinalextra,
                   a.aggmfinalmodify, pg_catalog.format_type(NULLIF(a.aggmtranstype, 0), NULL), a.aggminitval,
                   a.aggtransspace, a.aggmtransspace)::pg_catalog.text
            FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = f.oid)
       -- A column that a BEGIN ATOMIC body leaves without a name has one when the body is read again: names stay out.
       WHEN pg_catalog.pg_get_functiondef(f.oid) ~ '\nBEGIN ATOMIC\n' THEN pg_catalog.regexp_replace(
         pg_catalog.pg_get_functiondef(f.oid), ' AS ("([^"]|"")+"|[a-z_][a-z0-9_$]*)(?=[,;\n])', '', 'g')
       ELSE pg_catalog.pg_get_functiondef(f.oid) END
  FROM pg_catalog.pg_proc f
UNION ALL
SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprowner, NULL, NULL,
       pg_catalog.jsonb_build_array(o.oprkind, o.oprcanmerge, o.oprcanhash, o.oprcom::pg_catalog.regoperator,
         o.oprnegate::pg_catalog.regoperator, o.oprcode::pg_catalog.regprocedure, o.oprrest::pg_catalog.regproc,
         o.oprjoin::pg_catalog.regproc)::pg_catalog.text
  FROM pg_catalog.pg_operator o WHERE o.oprcode <> 0
UNION ALL
SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, c.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(c.castfunc::pg_catalog.regprocedure, c.castcontext, c.castmethod)::pg_catalog.text
  FROM pg_catalog.pg_cast c
UNION ALL
SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, o.opcowner, NULL, NULL,
       pg_catalog.jsonb_build_array(pg_catalog.format_type(o.opcintype, NULL), o.opcdefault,
         pg_catalog.format_type(NULLIF(o.opckeytype, 0), NULL))::pg_catalog.text
  FROM pg_catalog.pg_opclass o
UNION ALL
SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid, o.opfowner, NULL, NULL,
       pg_catalog.jsonb_build_array(
         ARRAY(SELECT a.amopstrategy || ' ' || a.amopopr::pg_catalog.regoperator::pg_catalog.text
                 FROM pg_catalog.pg_amop a WHERE a.amopfamily = o.oid ORDER BY 1),
         ARRAY(SELECT a.amprocnum || ' ' || a.amproc::pg_catalog.regprocedure::pg_catalog.text
                 FROM pg_catalog.pg_amproc a WHERE a.amprocfamily = o.oid ORDER BY 1))::pg_catalog.text
  FROM pg_catalog.pg_opfamily o
UNION ALL
SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collowner, NULL, NULL,
       (pg_catalog.jsonb_build_array(c.collprovider, c.collisdeterministic,
          CASE WHEN c.collprovider = 'c' THEN c.collcollate END, CASE WHEN c.collprovider = 'c' THEN c.collctype END)
        -- Before 15 the locale of a provider other than libc stood where that of libc does.
        || CASE WHEN c.collprovider <> 'c' THEN pg_catalog.jsonb_build_array(
             coalesce(pg_catalog.to_jsonb(c) ->> 'colllocale', pg_catalog.to_jsonb(c) ->> 'colliculocale',
                      c.collcollate::pg_catalog.text),
             coalesce(pg_catalog.to_jsonb(c) ->> 'collrules', pg_catalog.to_jsonb(c) ->> 'collicurules'))
           ELSE pg_catalog.jsonb_build_array() END)::pg_catalog.text
  FROM pg_catalog.pg_collation c
UNION ALL
SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid, c.conowner, NULL, NULL,
       pg_catalog.jsonb_build_array(pg_catalog.pg_encoding_to_char(c.conforencoding),
         pg_catalog.pg_encoding_to_char(c.contoencoding), c.conproc::pg_catalog.regproc, c.condefault)::pg_catalog.text
  FROM pg_catalog.pg_conversion c
UNION ALL
SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid, c.cfgowner, NULL, NULL,
       pg_catalog.jsonb_build_array(c.cfgparser::pg_catalog.text,
         ARRAY(SELECT m.maptokentype || ' ' || m.mapseqno || ' ' || m.mapdict::pg_catalog.regdictionary::pg_catalog.text
                 FROM pg_catalog.pg_ts_config_map m WHERE m.mapcfg = c.oid ORDER BY m.maptokentype, m.mapseqno)
       )::pg_catalog.text
  FROM (SELECT oid, cfgowner, (SELECT prsname FROM pg_catalog.pg_ts_parser p WHERE p.oid = cfgparser) AS cfgparser
          FROM pg_catalog.pg_ts_config) c
UNION ALL
SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid, d.dictowner, NULL, NULL,
       pg_catalog.jsonb_build_array((SELECT t.tmplname FROM pg_catalog.pg_ts_template t WHERE t.oid = d.dicttemplate),
         d.dictinitoption)::pg_catalog.text
  FROM pg_catalog.pg_ts_dict d
UNION ALL
SELECT 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, p.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype)::pg_catalog.text
  FROM pg_catalog.pg_ts_parser p
UNION ALL
SELECT 'pg_catalog.pg_ts_template'::pg_catalog.regclass, t.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(t.tmplinit, t.tmpllexize)::pg_catalog.text
  FROM pg_catalog.pg_ts_template t
UNION ALL
SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid, l.lanowner, l.lanacl, 'l',
       pg_catalog.jsonb_build_array(l.lanpltrusted, l.lanplcallfoid::pg_catalog.regproc,
         l.laninline::pg_catalog.regproc, l.lanvalidator::pg_catalog.regproc)::pg_catalog.text
  FROM pg_catalog.pg_language l
UNION ALL
SELECT 'pg_catalog.pg_transform'::pg_catalog.regclass, t.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(t.trffromsql::pg_catalog.regproc, t.trftosql::pg_catalog.regproc)::pg_catalog.text
  FROM pg_catalog.pg_transform t
UNION ALL
SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, a.oid, NULL, NULL, NULL,
       pg_catalog.jsonb_build_array(a.amtype, a.amhandler::pg_catalog.regproc)::pg_catalog.text
  FROM pg_catalog.pg_am a
UNION ALL
SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid, e.evtowner, NULL, NULL,
       pg_catalog.jsonb_build_array(e.evtevent, e.evtfoid::pg_catalog.regproc, e.evtenabled, e.evttags)::pg_catalog.text
  FROM pg_catalog.pg_event_trigger e
UNION ALL
SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, s.stxowner, NULL, NULL,
       pg_catalog.pg_get_statisticsobjdef(s.oid)
       || coalesce(' STATISTICS ' || NULLIF(pg_catalog.to_jsonb(s) ->> 'stxstattarget', '-1'), '')
  FROM pg_catalog.pg_statistic_ext s
UNION ALL
SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, w.oid, w.fdwowner, w.fdwacl, 'F',
       pg_catalog.jsonb_build_array(w.fdwhandler::pg_catalog.regproc, w.fdwvalidator::pg_catalog.regproc, w.fdwoptions
       )::pg_catalog.text
  FROM pg_catalog.pg_foreign_data_wrapper w
UNION ALL
SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid, s.srvowner, s.srvacl, 'S',
       pg_catalog.jsonb_build_array((SELECT w.fdwname FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.oid = s.srvfdw),
         s.srvtype, s.srvversion, s.srvoptions)::pg_catalog.text
  FROM pg_catalog.pg_foreign_server s
"""

# Column lists, row filters and schemas came with 15.  Columns of other releases are asked for by name in JSON, since a
# query that names a column the server lacks fails as a whole; where one is missing its default applies.
_PUBLICATION = """
SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid, p.pubowner, NULL, NULL,
       pg_catalog.jsonb_build_array(p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
         coalesce(pg_catalog.to_jsonb(p) ->> 'pubviaroot', 'false'),
         coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n'),
         ARRAY(SELECT r.prrelid::pg_catalog.regclass::pg_catalog.text{relation} FROM pg_catalog.pg_publication_rel r
                WHERE r.prpubid = p.oid ORDER BY 1){schemas})::pg_catalog.text
  FROM pg_catalog.pg_publication p
"""
_FIRST_WITH_PUBLISHED_COLUMNS = 15
_PUBLISHED_COLUMNS = """
    || coalesce(' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attname)
                           FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')', '')
    || coalesce(' WHERE ' || pg_catalog.pg_get_expr(r.prqual, r.prrelid), '')
"""
_NO_SCHEMAS = ", ARRAY[]::pg_catalog.text[]"
_PUBLISHED_SCHEMAS = """,
         ARRAY(SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_publication_namespace s
                 JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid ORDER BY 1)
"""

PRIVILEGES = """
ARRAY(SELECT pg_catalog.format('%s=%s', CASE WHEN x.grantee = o.owner THEN '@owner'
                                             WHEN x.grantee = 0 THEN 'public'
                                             ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
               pg_catalog.string_agg(x.privilege_type || CASE WHEN x.is_grantable AND x.grantee <> o.owner
                                                              THEN '*' ELSE '' END, ',' ORDER BY x.privilege_type))
        FROM pg_catalog.aclexplode(coalesce(o.acl, pg_catalog.acldefault(o.acltype::"char", o.owner))) x
       GROUP BY x.grantee ORDER BY 1)
"""

_COLUMN_PRIVILEGES = """
ARRAY(SELECT DISTINCT pg_catalog.format('%s(%s)=%s', CASE WHEN x.grantee = o.owner THEN '@owner'
                                                 WHEN x.grantee = 0 THEN 'public'
                                                 ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
                               a.attname, x.privilege_type)
        FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x
       WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.attrelid = o.oid AND a.attnum > 0
         AND NOT a.attisdropped AND a.attacl IS NOT NULL ORDER BY 1)
"""


_FIRST_WITH_COMPRESSION = 14
_FIRST_WITH_REGCOLLATION = 13
_REGCOLLATION = re.compile(r"(\w+\.\w+)::pg_catalog\.regcollation")
# What that type writes, in words that 12 knows.
_COLLATION_NAME = r"""
coalesce((SELECT CASE WHEN pg_catalog.pg_collation_is_visible(l.oid) THEN ''
                      ELSE pg_catalog.quote_ident(ln.nspname) || '.' END || pg_catalog.quote_ident(l.collname)
            FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
           WHERE l.oid = \1), '-')
"""


def objects(major: int) -> str:
    """Return the query for a server of this major version."""
    modern = major >= _FIRST_WITH_PUBLISHED_COLUMNS
    publication = _PUBLICATION.format(
        relation=_PUBLISHED_COLUMNS if modern else "", schemas=_PUBLISHED_SCHEMAS if modern else _NO_SCHEMAS
    )
    query = f"""
WITH RECURSIVE {_UNFILLED},
     every AS ({_RELATION} UNION ALL {_TYPE} UNION ALL {_PLAIN} UNION ALL {publication}),
     o AS (SELECT e.*, i.type, i.identity
             FROM every e, pg_catalog.pg_identify_object(e.classid, e.oid, 0) i
            WHERE (e.oid >= {_FIRST_OWN} OR (e.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                             AND i.identity = 'public'))
              AND coalesce(i.schema, i.identity) !~ '^pg_(toast|temp_|toast_temp_)'
              -- An extension's members come and go with it, and what makes ranges of a type comes with the type.
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.classid = e.classid AND d.objid = e.oid
                                 AND (d.deptype = 'e' OR d.deptype = 'i' AND e.classid IN (
                                        'pg_catalog.pg_proc'::pg_catalog.regclass,
                                        'pg_catalog.pg_cast'::pg_catalog.regclass))))
SELECT o.type, o.identity, o.definition,
       CASE WHEN o.owner IS NOT NULL THEN pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text END,
       CASE WHEN o.acltype IS NOT NULL THEN {PRIVILEGES} || {_COLUMN_PRIVILEGES} END
  FROM o
UNION ALL
SELECT 'comment', i.type || ' ' || i.identity, d.description, NULL, NULL
  FROM pg_catalog.pg_description d JOIN o ON o.classid = d.classoid AND o.oid = d.objoid,
       pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
UNION ALL
SELECT 'comment', 'large object ' || d.objoid, d.description, NULL, NULL
  FROM pg_catalog.pg_description d WHERE d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass
UNION ALL
SELECT 'security label', l.provider || ' ' || i.type || ' ' || i.identity, l.label, NULL, NULL
  FROM pg_catalog.pg_seclabel l JOIN o ON o.classid = l.classoid AND o.oid = l.objoid,
       pg_catalog.pg_identify_object(l.classoid, l.objoid, l.objsubid) i
UNION ALL
SELECT 'default privileges',
       pg_catalog.format('%s %s %s', pg_catalog.pg_get_userbyid(a.defaclrole),
                         coalesce((SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n
                                    WHERE n.oid = a.defaclnamespace), ''),
                         a.defaclobjtype),
       ARRAY(SELECT pg_catalog.format('%s=%s%s', CASE WHEN x.grantee = 0 THEN 'public'
                                                 ELSE pg_catalog.pg_get_userbyid(x.grantee) END, x.privilege_type,
                                      CASE WHEN x.is_grantable THEN '*' ELSE '' END)
               FROM pg_catalog.aclexplode(a.defaclacl) x ORDER BY 1)::pg_catalog.text,
       pg_catalog.pg_get_userbyid(a.defaclrole)::pg_catalog.text, NULL
  FROM pg_catalog.pg_default_acl a
UNION ALL
SELECT 'subscription', s.subname, '', pg_catalog.pg_get_userbyid(s.subowner)::pg_catalog.text, NULL
  FROM pg_catalog.pg_subscription s
 WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
UNION ALL
SELECT 'user mapping', pg_catalog.format('%s on %s', m.usename, m.srvname), '', NULL, NULL
  FROM pg_catalog.pg_user_mappings m
 ORDER BY 1, 2
"""  # noqa: S608  # made of the constants above
    if major < _FIRST_WITH_COMPRESSION:
        query = query.replace("a.attcompression", "NULL")
    return query if major >= _FIRST_WITH_REGCOLLATION else _REGCOLLATION.sub(_COLLATION_NAME, query)
