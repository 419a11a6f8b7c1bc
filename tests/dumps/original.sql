-- A database with one of most things: what a backup has to describe and a check has to compare.
CREATE SCHEMA app;
CREATE SCHEMA "Weird ""Schema"" é";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE app.pair AS (a int, b text);
CREATE TYPE app.span AS RANGE (subtype = float8);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0) DEFAULT 1;
CREATE COLLATION app.plain (provider = libc, locale = 'C');
CREATE TABLE app.projects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE app.plain NOT NULL UNIQUE,
    mood app.mood DEFAULT 'ok', pair app.pair, span app.span, level app.positive, doubled bigint GENERATED ALWAYS AS (level * 2) STORED,
    at timestamptz DEFAULT now(), took interval, score double precision, price numeric(12,4), data jsonb, raw bytea, tags text[]);
CREATE TABLE app.nodes (id serial PRIMARY KEY, project_id bigint NOT NULL REFERENCES app.projects, parent int REFERENCES app.nodes, label text);
CREATE INDEX nodes_label ON app.nodes (lower(label)) WHERE label IS NOT NULL;
CREATE STATISTICS app.nodes_stats (dependencies) ON project_id, parent FROM app.nodes;
CREATE TABLE app.events (id bigint, at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE app.events_a PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE app.events_b PARTITION OF app.events DEFAULT;
CREATE TABLE app.parent (a int, b text);
CREATE TABLE app.child (c int) INHERITS (app.parent);
ALTER TABLE app.parent ADD COLUMN d int;
CREATE TABLE app.empty ();
CREATE UNLOGGED TABLE app.unlogged (x int);
CREATE TABLE "Weird ""Schema"" é"."Table; DROP -- 'x' (y)" ("Col "" umn" int, ", b" text, "select" text);
CREATE VIEW app.happy AS SELECT id, name FROM app.projects WHERE mood = 'happy';
CREATE MATERIALIZED VIEW app.counts AS SELECT project_id, count(*) FROM app.nodes GROUP BY 1;
CREATE RULE no_delete AS ON DELETE TO app.empty DO INSTEAD NOTHING;
CREATE FUNCTION app.trap() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
    RETURN 'it''s;
COPY app.nodes (id) FROM stdin;
1
\.
';
END $body$;
CREATE FUNCTION app.atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM app.nodes; SELECT 1::bigint; END;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER touched BEFORE UPDATE ON app.nodes FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE AGGREGATE app.total (int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE OPERATOR app.=== (leftarg = int, rightarg = int, function = int4eq, commutator = OPERATOR(app.===));
CREATE TABLE app.secured (id int, owner text);
ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON app.secured USING (owner = CURRENT_USER);
CREATE PUBLICATION changes FOR TABLE app.nodes;
CREATE TEXT SEARCH CONFIGURATION app.search (COPY = pg_catalog.english);
CREATE SEQUENCE app.loose START 7 INCREMENT -3 MINVALUE -100 MAXVALUE 100;
CREATE SEQUENCE "Weird ""Schema"" é"."it's";
COMMENT ON TABLE app.nodes IS E'line one\nCOPY app.nodes FROM stdin;\n\\.\n';
COMMENT ON COLUMN app.nodes.label IS 'a label';
GRANT SELECT ON app.nodes TO PUBLIC;
GRANT SELECT (id) ON app.projects TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;

INSERT INTO app.projects (name, mood, pair, span, level, at, took, score, price, data, raw, tags)
    SELECT 'p' || i, 'happy', ROW(i, E'x\ty\\')::app.pair, app.span(i, i + 0.5), i, timestamptz '2026-01-01 00:00:00.123456+02' + i * interval '1 h',
           i * interval '1 month 2 days 03:04:05', i / 3.0, i / 7.0, jsonb_build_object('i', i, 't', E'\n"'), decode(md5(i::text), 'hex'),
           ARRAY[NULL, '', '{', '"', ',']
      FROM generate_series(1, 50) i;
INSERT INTO app.nodes (project_id, parent, label)
    SELECT 1 + i % 50, CASE WHEN i > 1 THEN i / 2 END, CASE WHEN i % 5 = 0 THEN NULL ELSE E'\\.\n' || i || E'\tü' END FROM generate_series(1, 4000) i;
INSERT INTO app.events SELECT i, date '2025-12-30' + i, '\.' FROM generate_series(1, 60) i;
INSERT INTO app.parent VALUES (1, 'one', 2);
INSERT INTO app.child VALUES (2, 'two', 3, 4);
INSERT INTO app.empty DEFAULT VALUES;
INSERT INTO app.unlogged VALUES (1);
INSERT INTO app.secured VALUES (1, 'a'), (2, 'b');
INSERT INTO "Weird ""Schema"" é"."Table; DROP -- 'x' (y)" VALUES (1, '\.', E'\\.\n'), (2, '', NULL);
SELECT nextval('app.loose'), nextval('app.loose'), setval('"Weird ""Schema"" é"."it''s"', 41);
SELECT lo_from_bytea(0, decode(repeat('00ff27', 3000), 'hex'));
SELECT lo_from_bytea(0, '');
REFRESH MATERIALIZED VIEW app.counts;
