-- What zoo.sql leaves out and a role without superuser rights can restore: odd names and bodies, every kind of
-- partition, inheritance, ownership and privilege.  The test makes the roles first.
CREATE SCHEMA m;
CREATE SCHEMA "M ""quoted""
newline";
SET search_path = m;

-- functions whose text looks like something else
CREATE FUNCTION dollars() RETURNS text LANGUAGE plpgsql AS $outer$
BEGIN
  RETURN $inner$ ' " ; -- /* \. $ $x $1 COPY m.t (a) FROM stdin;
1	2
\.
\connect other
$inner$;
END $outer$;
CREATE FUNCTION "odd $name$"("arg;1" text DEFAULT 'a;b', VARIADIC "rest" int[] DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS 'SELECT ''it''''s; '' || $1';
CREATE FUNCTION atomic_one(x int) RETURNS TABLE (a int, b text) LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT CASE WHEN x > 1 THEN CASE x WHEN 2 THEN 3 ELSE 4 END ELSE 0 END, 'begin; end; COPY x FROM stdin;';
  SELECT 1 AS "case", 'x'::text AS "end" WHERE (CASE WHEN true THEN 1 END) = 1;
END;
CREATE FUNCTION atomic_return("end" int, "case" int) RETURNS int LANGUAGE sql IMMUTABLE RETURN "end" + "case";
CREATE TABLE log_of_calls (at int, text text);
CREATE PROCEDURE atomic_procedure(IN v int) LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO log_of_calls VALUES (v, 'a;b');
  DELETE FROM log_of_calls WHERE at = -1;
END;
CREATE FUNCTION strict_parallel(a int, OUT b int, INOUT c text) LANGUAGE plpgsql STRICT PARALLEL SAFE COST 7 SECURITY DEFINER
  SET search_path = m, pg_temp SET work_mem = '5MB' AS $$ BEGIN b := a; END $$;
CREATE FUNCTION state(point[], point) RETURNS point[] LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE AGGREGATE collect(point) (SFUNC = state, STYPE = point[], INITCOND = '{}');

-- types
CREATE TYPE empty_enum AS ENUM ();
CREATE TYPE odd_enum AS ENUM ('', ' ', 'a', 'B', 'né', E'tab\t', '\.', '\N');
ALTER TYPE odd_enum ADD VALUE 'between' BEFORE 'B';
CREATE TYPE nothing AS ();
CREATE TYPE deep AS (a int[], b odd_enum, "c d" text COLLATE "C");
CREATE TYPE deeper AS (d deep, ds deep[]);
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = many_floats);
CREATE FUNCTION is_fine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 1000';
CREATE DOMAIN fine AS int CONSTRAINT "is fine; really" CHECK (m.is_fine(VALUE)) NOT NULL;
CREATE DOMAIN finer AS fine DEFAULT 3 CHECK (VALUE <> 13);
CREATE DOMAIN shapes AS finer[];
CREATE DOMAIN lowly AS text COLLATE "C" CHECK (VALUE = lower(VALUE));
ALTER DOMAIN lowly ADD CONSTRAINT later CHECK (length(VALUE) < 100) NOT VALID;
COMMENT ON DOMAIN lowly IS 'lower; case';
COMMENT ON TYPE deep IS E'multi\nline';
COMMENT ON COLUMN deep.a IS 'attribute';
CREATE COLLATION m_collation (provider = libc, locale = 'C');
COMMENT ON COLLATION m_collation IS 'c';
CREATE CAST (deep AS text) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (deep AS text) IS 'cast';
CREATE FUNCTION fine_plus(fine, fine) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1::int + $2::int';
CREATE OPERATOR @+@ (LEFTARG = fine, RIGHTARG = fine, FUNCTION = fine_plus, COMMUTATOR = @+@);
CREATE OPERATOR !!! (RIGHTARG = int, FUNCTION = int4um);
COMMENT ON OPERATOR @+@ (fine, fine) IS 'more';
CREATE CONVERSION m_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH DICTIONARY m_dictionary (TEMPLATE = pg_catalog.simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION m_configuration (PARSER = pg_catalog."default");
ALTER TEXT SEARCH CONFIGURATION m_configuration ADD MAPPING FOR word, asciiword WITH m_dictionary, english_stem;
COMMENT ON TEXT SEARCH CONFIGURATION m_configuration IS 'ts';

-- sequences
CREATE SEQUENCE "seq;'1" AS bigint INCREMENT BY -7 MINVALUE -9223372036854775808 MAXVALUE 100 START 100 CYCLE CACHE 3;
SELECT nextval('"seq;''1"'), nextval('"seq;''1"');
CREATE UNLOGGED SEQUENCE "back\slash";
SELECT setval('"back\slash"', 9223372036854775807);
CREATE SEQUENCE never_called START 5;

-- tables
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE all_dropped (a int, b text);
INSERT INTO all_dropped VALUES (1, 'x'), (2, 'y');
ALTER TABLE all_dropped DROP COLUMN a, DROP COLUMN b;
CREATE TABLE some_dropped (a int, b text DEFAULT 'd', c int, "d" int GENERATED ALWAYS AS (c + 1) STORED);
INSERT INTO some_dropped (a, b, c) VALUES (1, 'x', 3);
ALTER TABLE some_dropped DROP COLUMN a, ADD COLUMN e int DEFAULT 7, ADD COLUMN f timestamptz DEFAULT '2001-02-03 04:05+00';
INSERT INTO some_dropped (b, c) VALUES (NULL, 4);
CREATE TABLE only_generated (g int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO only_generated DEFAULT VALUES;
CREATE TABLE identities (
  always int GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT -3 MAXVALUE 100 MINVALUE -50 CYCLE),
  "by Default" bigint DEFAULT 4, serial_one serial, serial_two smallserial, unowned bigint DEFAULT nextval('m.never_called'),
  computed int GENERATED ALWAYS AS (atomic_return(5, 6)) STORED, d finer, s shapes, de deeper, fr float_range[], mf many_floats);
INSERT INTO identities (d, s, de, fr, mf) VALUES
  (5, '{1,2,999}', ROW(ROW('{1,NULL}', 'a', E'\\"x,'), ARRAY[ROW('{}', NULL, '')]::deep[]), '{"[1,2)",empty,"(,)",NULL}', '{[1,2),(3,4]}'),
  (1, NULL, NULL, '{}', '{}');
INSERT INTO identities (d) SELECT i FROM generate_series(20, 60) i;
ALTER TABLE identities ALTER COLUMN de SET STORAGE MAIN, ALTER COLUMN s SET COMPRESSION pglz, ALTER COLUMN d SET STATISTICS 1000,
  ALTER COLUMN d SET (n_distinct = -0.5), SET (fillfactor = 50, autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE "table""; DROP TABLE m.precious; --" ("column""; --" int, "from stdin;" text, "\." text, " " int, "a""b" int, "né	ü
x" int, "COPY" text, "--" text, "$$" text, "'" text);
INSERT INTO "table""; DROP TABLE m.precious; --" VALUES (1, 'COPY m.x (a) FROM stdin;', E'\\.', 2, 3, 4, E'\\.\n\\.', '--', '$$', '''');
CREATE TABLE "M ""quoted""
newline"."t
u" (a int PRIMARY KEY, b text);
INSERT INTO "M ""quoted""
newline"."t
u" SELECT i, repeat(E'\\', i) || E'\n' || repeat(E'\t', i % 3) FROM generate_series(1, 300) i;
CREATE INDEX "i
j;" ON "M ""quoted""
newline"."t
u" (b);
COMMENT ON TABLE "M ""quoted""
newline"."t
u" IS E'-- PostgreSQL database dump complete\n\\.\n';
CREATE TABLE precious (id int);
INSERT INTO precious VALUES (1);
CREATE TABLE "COPY" ("select" int, "from" int);
INSERT INTO "COPY" VALUES (1, 2);
CREATE TABLE "--" (a int);
CREATE TABLE "\." (a text);
INSERT INTO "\." VALUES (E'\\.'), (E'\n\\.\n'), ('\.'), (''), (NULL), ('\N'), (E'\\\\.'), (E'\r\n'), (E'\r'), (E'\b\f\v\x01\x7f'), ('👩‍👩‍👧‍👦 ﷽ ̈');
CREATE TABLE "$body$" ("$1" int, "a$b$c" int);
INSERT INTO "$body$" VALUES (1, 2);
CREATE TABLE "sixty-three bytes long: 012345678901234567890123456789012345678" (a int PRIMARY KEY);
CREATE TYPE row_type AS (id int, v text);
CREATE TABLE typed OF row_type (id WITH OPTIONS DEFAULT 5 PRIMARY KEY, CHECK (v <> 'no'));
INSERT INTO typed VALUES (1, 'yes');
CREATE TABLE wide AS SELECT i AS a, md5(i::text) AS b, decode(repeat(md5(i::text), 100), 'hex') AS c FROM generate_series(1, 500) i;
CREATE TABLE keyed (a int, b int, during tsrange, label text, UNIQUE (a, b) DEFERRABLE INITIALLY DEFERRED, UNIQUE (b) DEFERRABLE,
  PRIMARY KEY (a) WITH (fillfactor = 60), EXCLUDE USING gist (during WITH &&) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT "named ex" EXCLUDE USING btree (label text_pattern_ops WITH =) WHERE (a > 5), CONSTRAINT "odd ""check" CHECK (a <> b OR b IS NULL) NO INHERIT);
INSERT INTO keyed SELECT i, -i, tsrange('2020-01-01'::timestamp + i * interval '1 hour', '2020-01-01'::timestamp + (i + 1) * interval '1 hour'), 'l' || i FROM generate_series(1, 500) i;
ALTER TABLE keyed CLUSTER ON keyed_pkey;
CREATE UNIQUE INDEX keyed_partial ON keyed (lower(label)) WHERE a > 3;
CREATE UNIQUE INDEX keyed_identity ON keyed (a, b) INCLUDE (label);
ALTER TABLE keyed ALTER COLUMN b SET NOT NULL, REPLICA IDENTITY USING INDEX keyed_identity;
CREATE INDEX keyed_hash ON keyed USING hash (label);
CREATE INDEX keyed_brin ON keyed USING brin (a) WITH (pages_per_range = 4, autosummarize = on);
CREATE INDEX keyed_spgist ON keyed USING spgist (label);
CREATE INDEX keyed_many ON keyed ((a + b), (label || 'x') COLLATE "C" text_pattern_ops DESC NULLS LAST, during);
ALTER INDEX keyed_many ALTER COLUMN 2 SET STATISTICS 300;
COMMENT ON INDEX keyed_many IS 'expressions';
COMMENT ON CONSTRAINT "odd ""check" ON keyed IS 'check';
CREATE STATISTICS m_statistics (mcv, ndistinct, dependencies) ON a, b, label FROM keyed;
CREATE STATISTICS m_expressions ON (a % 10), lower(label) FROM keyed;
ALTER STATISTICS m_statistics SET STATISTICS 77;
COMMENT ON STATISTICS m_statistics IS 'st';
ALTER TABLE wide REPLICA IDENTITY FULL;
ALTER TABLE precious REPLICA IDENTITY NOTHING;

-- foreign keys
CREATE TABLE circle_a (id int PRIMARY KEY, b int);
CREATE TABLE circle_b (id int PRIMARY KEY, c int);
CREATE TABLE circle_c (id int PRIMARY KEY, a int REFERENCES circle_a DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE circle_a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES circle_b DEFERRABLE;
ALTER TABLE circle_b ADD CONSTRAINT "b;c" FOREIGN KEY (c) REFERENCES circle_c ON DELETE SET NULL (c) ON UPDATE SET DEFAULT;
INSERT INTO circle_a SELECT i FROM generate_series(1, 50) i;
INSERT INTO circle_c SELECT i, i FROM generate_series(1, 50) i;
INSERT INTO circle_b SELECT i, i FROM generate_series(1, 50) i;
UPDATE circle_a SET b = id;
CREATE TABLE self (id int PRIMARY KEY, parent int REFERENCES self ON DELETE CASCADE, other int, FOREIGN KEY (other) REFERENCES self);
INSERT INTO self SELECT i, NULLIF(500 - i, 0), i FROM generate_series(1, 499) i WHERE false;
INSERT INTO self VALUES (1, 2, 1), (2, 1, NULL);
CREATE TABLE composite_key (x int, y text COLLATE "C", PRIMARY KEY (y, x));
CREATE TABLE composite_reference (p text COLLATE "C", q int, FOREIGN KEY (q, p) REFERENCES composite_key (x, y) MATCH FULL);
INSERT INTO composite_key VALUES (1, 'a'), (2, 'b');
INSERT INTO composite_reference VALUES ('a', 1), (NULL, NULL);
COMMENT ON CONSTRAINT composite_reference_q_p_fkey ON composite_reference IS 'fk; comment';
CREATE TABLE broken (id int PRIMARY KEY, to_nothing int, checked int);
INSERT INTO broken VALUES (1, 404, -1);
ALTER TABLE broken ADD CONSTRAINT to_nothing_fk FOREIGN KEY (to_nothing) REFERENCES self NOT VALID;
ALTER TABLE broken ADD CONSTRAINT positive CHECK (checked > 0) NOT VALID;

-- partitions
CREATE TABLE ranged (k int, at date, v text DEFAULT 'p', PRIMARY KEY (at, k)) PARTITION BY RANGE (at, k);
CREATE TABLE ranged_min PARTITION OF ranged FOR VALUES FROM (MINVALUE, MINVALUE) TO ('2020-01-01', 10);
CREATE TABLE ranged_mid PARTITION OF ranged (v DEFAULT 'mid', CONSTRAINT short CHECK (length(v) < 50)) FOR VALUES FROM ('2020-01-01', 10) TO ('2021-01-01', MINVALUE) PARTITION BY HASH (k);
CREATE TABLE ranged_mid_0 PARTITION OF ranged_mid FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE ranged_mid_1 PARTITION OF ranged_mid FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY LIST (k);
CREATE TABLE ranged_mid_1_few PARTITION OF ranged_mid_1 FOR VALUES IN (101, 102, 103, 104, 105);
CREATE TABLE ranged_mid_1_rest PARTITION OF ranged_mid_1 DEFAULT;
CREATE TABLE "ranged mid 2" (v text DEFAULT 'own', k int NOT NULL, dropped int, at date NOT NULL, CONSTRAINT short CHECK (length(v) < 50));
ALTER TABLE "ranged mid 2" DROP COLUMN dropped;
ALTER TABLE ranged_mid ATTACH PARTITION "ranged mid 2" FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE ranged_rest PARTITION OF ranged DEFAULT;
INSERT INTO ranged SELECT i, '2019-10-01'::date + i, CASE i % 4 WHEN 0 THEN NULL ELSE 'v' || i END FROM generate_series(1, 900) i;
CREATE INDEX ranged_v ON ranged (v, k);
CREATE UNIQUE INDEX ranged_unique ON ranged (k, at) INCLUDE (v);
CREATE INDEX only_here ON ONLY ranged (lower(v));
CREATE INDEX only_one_leaf ON ranged_rest (lower(v));
ALTER INDEX only_here ATTACH PARTITION only_one_leaf;
CREATE INDEX leaf_own ON ranged_mid_0 (v DESC);
CREATE TABLE to_ranged (id int PRIMARY KEY, at date, k int, FOREIGN KEY (at, k) REFERENCES ranged ON DELETE CASCADE);
INSERT INTO to_ranged SELECT k, at, k FROM ranged WHERE k % 3 = 0;
CREATE TABLE listed (code text, ref int REFERENCES to_ranged, note text) PARTITION BY LIST (code);
CREATE TABLE listed_a PARTITION OF listed FOR VALUES IN ('a', 'it''s; ', NULL);
CREATE TABLE listed_rest PARTITION OF listed DEFAULT;
INSERT INTO listed VALUES ('a', 3, 'x'), (NULL, NULL, 'y'), ('z', 6, 'z'), ('it''s; ', 9, E'\\');
CREATE TABLE by_expression (a int, b text) PARTITION BY RANGE ((m.atomic_return(a, 0)), lower(b) COLLATE "C");
CREATE TABLE by_expression_1 PARTITION OF by_expression FOR VALUES FROM (MINVALUE, MINVALUE) TO (100, 'm');
CREATE TABLE by_expression_2 PARTITION OF by_expression DEFAULT;
INSERT INTO by_expression SELECT i, chr(97 + i % 26) FROM generate_series(1, 200) i;
CREATE TABLE empty_root (a int) PARTITION BY LIST (a);
COMMENT ON TABLE ranged_mid IS 'sub-partitioned';

-- inheritance
CREATE TABLE parent_a (a int CHECK (a > 0), shared text NOT NULL DEFAULT 'pa');
CREATE TABLE parent_b (b int, shared text NOT NULL DEFAULT 'pb');
CREATE TABLE child (shared text DEFAULT 'child', own int GENERATED ALWAYS AS IDENTITY) INHERITS (parent_a, parent_b);
CREATE TABLE grandchild (CHECK (own < 1000)) INHERITS (child);
INSERT INTO parent_a VALUES (1, 'x');
INSERT INTO child (a, b) VALUES (2, 3);
INSERT INTO grandchild (a, b, own) VALUES (4, 5, 6);
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY, b text);
INSERT INTO unlogged VALUES (1, 'u');

-- views and rules
CREATE VIEW grouped AS SELECT id, b FROM circle_a GROUP BY id;
CREATE VIEW on_grouped AS SELECT g.id, count(*) AS n FROM grouped g GROUP BY g.id;
CREATE VIEW "view;\" WITH (security_invoker = true, check_option = cascaded) AS SELECT a, b AS "b;" FROM keyed WHERE label <> ';';
CREATE RECURSIVE VIEW tree (id, depth) AS SELECT 1, 0 UNION ALL SELECT id + 1, depth + 1 FROM tree WHERE depth < 3;
ALTER VIEW grouped ALTER COLUMN b SET DEFAULT 5;
COMMENT ON COLUMN grouped.b IS 'view column';
CREATE MATERIALIZED VIEW z_first AS SELECT label, count(*) AS n FROM keyed GROUP BY label;
CREATE MATERIALIZED VIEW a_second AS SELECT sum(n) AS n FROM z_first;
CREATE MATERIALIZED VIEW b_third WITH (fillfactor = 70) AS SELECT * FROM a_second, grouped;
CREATE MATERIALIZED VIEW no_data AS SELECT * FROM a_second WITH NO DATA;
CREATE MATERIALIZED VIEW on_no_data AS SELECT 1 AS x WHERE false WITH NO DATA;
CREATE UNIQUE INDEX z_first_label ON z_first (label);
ALTER MATERIALIZED VIEW z_first CLUSTER ON z_first_label;
CREATE RULE log_it AS ON UPDATE TO precious WHERE new.id <> old.id DO ALSO (INSERT INTO log_of_calls VALUES (new.id, 'a;b'); DELETE FROM log_of_calls WHERE at < 0);
CREATE RULE instead AS ON DELETE TO precious DO INSTEAD NOTHING;
ALTER TABLE precious DISABLE RULE instead;
COMMENT ON RULE log_it ON precious IS 'rule';

-- triggers
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER "t;1" BEFORE INSERT OR UPDATE OF b ON circle_a FOR EACH ROW WHEN (new.id > 0 AND 'x;' <> '') EXECUTE FUNCTION touch('a;', E'\\', 'it''s');
CREATE TRIGGER t2 AFTER INSERT ON wide REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION touch();
CREATE TRIGGER t3 BEFORE TRUNCATE ON wide EXECUTE FUNCTION touch();
CREATE CONSTRAINT TRIGGER t4 AFTER UPDATE ON wide FROM keyed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER t5 INSTEAD OF INSERT ON grouped FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER on_partitions AFTER INSERT ON listed FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE circle_a DISABLE TRIGGER "t;1";
ALTER TABLE wide ENABLE REPLICA TRIGGER t2, ENABLE ALWAYS TRIGGER t3;
ALTER TABLE listed_a DISABLE TRIGGER on_partitions;
COMMENT ON TRIGGER t2 ON wide IS 'trigger';

-- row security, privileges, owners
ALTER TABLE identities ENABLE ROW LEVEL SECURITY;
CREATE POLICY "p;1" ON identities AS PERMISSIVE FOR UPDATE TO menagerie_reader, CURRENT_USER USING (d < 50) WITH CHECK (d < (SELECT max(id) FROM self));
CREATE POLICY p2 ON identities AS RESTRICTIVE USING (true);
COMMENT ON POLICY p2 ON identities IS 'policy';
ALTER TABLE self FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (a, b) ON keyed TO menagerie_reader WITH GRANT OPTION;
GRANT USAGE ON SCHEMA m TO menagerie_reader, PUBLIC;
GRANT ALL ON SEQUENCE never_called TO "odd ""role; $$";
GRANT SELECT ON ALL TABLES IN SCHEMA m TO "odd ""role; $$";
REVOKE ALL ON precious FROM "odd ""role; $$";
REVOKE ALL ON FUNCTION dollars() FROM PUBLIC;
REVOKE USAGE ON TYPE deep FROM PUBLIC;
GRANT USAGE ON TYPE odd_enum TO menagerie_reader;
REVOKE INSERT ON precious FROM CURRENT_USER;
ALTER DEFAULT PRIVILEGES IN SCHEMA m GRANT SELECT ON TABLES TO menagerie_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA m GRANT EXECUTE ON FUNCTIONS TO menagerie_reader;
ALTER TABLE composite_key OWNER TO menagerie_owner;
ALTER TABLE composite_reference OWNER TO menagerie_owner;
ALTER VIEW tree OWNER TO menagerie_owner;
ALTER TYPE nothing OWNER TO menagerie_owner;
ALTER FUNCTION dollars() OWNER TO menagerie_owner;
CREATE SCHEMA owned AUTHORIZATION menagerie_owner;
CREATE PUBLICATION m_rows FOR TABLE keyed (a, b) WHERE (a > 5 AND label <> ';'), TABLE ranged WITH (publish = 'insert, delete', publish_via_partition_root = true);
COMMENT ON PUBLICATION m_rows IS 'publication';

-- large objects
SELECT lo_from_bytea(50001, decode(repeat('5c2e0a', 3000), 'hex'));
SELECT lo_from_bytea(50002, '');
ALTER LARGE OBJECT 50001 OWNER TO menagerie_owner;
GRANT SELECT ON LARGE OBJECT 50001 TO menagerie_reader;
COMMENT ON LARGE OBJECT 50002 IS E'\\.\n';
COMMENT ON SCHEMA public IS 'changed';
COMMENT ON FUNCTION dollars() IS $$ '; $x$ $$;
COMMENT ON AGGREGATE collect(point) IS 'agg';
COMMENT ON SEQUENCE never_called IS 'seq';
COMMENT ON VIEW grouped IS 'view';
COMMENT ON MATERIALIZED VIEW z_first IS 'mv';

-- every type's edge values; the bundled servers are built without xml
CREATE TABLE edges (id int, i2 int2, i8 int8, n numeric, f4 float4, f8 float8, mo money, t text, c char(5), vc varchar(3), nm name, ch "char",
  by bytea, b bit(5), vb varbit, bo boolean, d date, tm time, tz timetz, ts timestamp, tstz timestamptz, iv interval, u uuid, j json, jb jsonb, jp jsonpath,
  ine inet, ci cidr, ma macaddr, m8 macaddr8, p point, l line, ls lseg, bx box, pa path, po polygon, ce circle, tv tsvector, tq tsquery, x text,
  r int4range, mr nummultirange, dr daterange, ia int[], ta text[], sn pg_snapshot, ln pg_lsn, o oid, rc regclass, ty regtype);
INSERT INTO edges VALUES
(1, -32768, -9223372036854775808, 'NaN', 'NaN', 'NaN', '-92233720368547758.08', '', '', '', '', '', '', '00000', '', false, '4713-01-01 BC', '00:00', '00:00+15:59',
 '4713-01-01 00:00 BC', '-infinity', '-178000000 years', '00000000-0000-0000-0000-000000000000', ' { "a" :1, "a":2 } ', 'null', '$', '::', '0.0.0.0/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00',
 '(NaN,-Infinity)', '{1,0,0}', '[(0,0),(0,0)]', '(1,1),(0,0)', '[(0,0)]', '((0,0))', '<(0,0),0>', '', '', '', 'empty', '{}', '(-infinity,infinity)', '{}', '{}', '1:1:', '0/0', 0, '-', 'int'),
(2, 32767, 9223372036854775807, 'Infinity', 'Infinity', '-Infinity', '92233720368547758.07', E'\\.\n\\N\t\r\b\f\v\\', 'a', 'é🐘x', '"', '\', E'\\x00ff5c0a', '11111', '1', true, 'infinity', '24:00', '24:00-15:59',
 'infinity', '294276-12-31 23:59:59.999999+00', '178000000 years -11 mons 3 days -04:05:06.789', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '"\\u00e9\\n"', '{"é": [1e400, -0.0, "\\\\.", null, {}]}', 'strict $.a[*] ? (@ > 1)', 'ffff:ffff::1/64', '::/0', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff',
 '(1e300,-1e-300)', '{0,1,-5}', '[(1,2),(3,4)]', '(3,4),(1,2)', '((0,0),(1,1),(2,0))', '((0,0),(1,1),(2,0))', '<(1,2),3>', 'a:1A,2B ''b c'':3 ''it''''s''', '''a'' & !''b c'':*A <2> ''d''', '<a b="c;">\. &amp;</a>', '(,)', '{[1,2),(3.5,]}', '[2020-01-01,)', '[-2:0]={1,NULL,3}', '{{"a",NULL},{"NULL","\\\\"}}', '10:20:10,14', 'FFFFFFFF/FFFFFFFF', 4294967295, 'pg_class', 'm.deep'),
(3, 0, 0, '-0.000', '-0', '1e-307', '0', E'\u200b\ufeff\u202e', E'\n', E'\\.', E'\n', E'\t', '\x5c2e', '10101', '10101', NULL, '5874897-12-31', '23:59:59.999999', '12:00:00.000001+05:30:15', '0001-01-01 00:00:00.000001 BC', '1900-01-01 00:00+00',
 '-1 days +02:03:04.000005', NULL, '[]', '[]', NULL, '10.0.0.1', '10.0.0.0/8', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[1,1]', NULL, NULL, '{NULL}', '{"{}","",NULL,"a,b"}', NULL, NULL, NULL, NULL, NULL);
INSERT INTO edges (id, n, f8, f4) SELECT 100 + i, ('1e' || i)::numeric, ('1.7976931348623157e' || i)::float8, NULL FROM generate_series(-300, 300, 37) i;
INSERT INTO edges (id, n) VALUES (9, (repeat('9', 1000) || '.' || repeat('9', 1000))::numeric);
