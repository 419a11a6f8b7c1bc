"""Dumps as the pg_dump of each version writes them, by hand where no server of that version is here.

Every text is restored by psql as well: equal is what counts, whatever the version wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.dumps.statements import Statement
from recovery.loading.plan import DEFERRED, plan
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # two restores into real servers in every test

# What all versions have in common, under the first lines of one of them.
BODY = """
--
-- Name: mood; Type: TYPE; Schema: public; Owner: postgres
--

CREATE TYPE public.mood AS ENUM (
    'sad',
    'ok'
);


ALTER TYPE public.mood OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: parent; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.parent (
    id integer NOT NULL,
    m public.mood,
    v text
);


ALTER TABLE public.parent OWNER TO postgres;

--
-- Name: parent_id_seq; Type: SEQUENCE; Schema: public; Owner: postgres
--

ALTER TABLE public.parent ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.parent_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: root; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.root (
    id integer,
    k text
)
PARTITION BY LIST (k);


CREATE TABLE public.leaf (
    id integer,
    k text
);


{attach}--
-- Data for Name: leaf; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.leaf (id, k) FROM stdin;
1\ta
\\.


--
-- Data for Name: parent; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.parent (id, m, v) FROM stdin;
1\tsad\ttab\\there
2\t\\N\t\\\\.
\\.


{blobs}--
-- Name: parent_id_seq; Type: SEQUENCE SET; Schema: public; Owner: postgres
--

SELECT pg_catalog.setval('public.parent_id_seq', 2, true);


--
-- Name: parent parent_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.parent
    ADD CONSTRAINT parent_pkey PRIMARY KEY (id);


--
-- Name: parent_v; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX parent_v ON public.parent USING btree (v);


{tail}--
-- PostgreSQL database dump complete
--

"""
ATTACH = "ALTER TABLE ONLY public.root ATTACH PARTITION public.leaf FOR VALUES IN ('a');\n\n\n"
ATTACH_LABELLED = f"--\n-- Name: leaf; Type: TABLE ATTACH; Schema: public; Owner: postgres\n--\n\n{ATTACH}"
HEAD = """--
-- PostgreSQL database dump
--

{restrict}-- Dumped from database version {version}
-- Dumped by pg_dump version {version}

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
{more}SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
"""
# Until 16 the content of all large objects came under one label.
BLOBS = """--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('4711', 131072);
SELECT pg_catalog.lowrite(0, '\\x6c61726765');
SELECT pg_catalog.lo_close(0);

COMMIT;

"""
BLOB = """--
-- Name: 4711; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('4711');


ALTER LARGE OBJECT 4711 OWNER TO postgres;

"""
# From 17 on they are made many at a time.
BLOB_METADATA = """--
-- Name: 4711..4712; Type: BLOB METADATA; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('4711');
SELECT pg_catalog.lo_create('4712');
ALTER LARGE OBJECT 4711 OWNER TO postgres;
ALTER LARGE OBJECT 4712 OWNER TO postgres;

"""
OLD_PUBLIC = """--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: postgres
--

REVOKE ALL ON SCHEMA public FROM postgres;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO postgres;
GRANT ALL ON SCHEMA public TO PUBLIC;


"""
NEW_PUBLIC = """--
-- Name: public; Type: SCHEMA; Schema: -; Owner: pg_database_owner
--

CREATE SCHEMA public;


ALTER SCHEMA public OWNER TO pg_database_owner;

--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: pg_database_owner
--

COMMENT ON SCHEMA public IS 'standard public schema';


"""
# pg_dump 18 --statistics; the version it writes is that of the server the statistics are from.
STATISTICS = """--
-- Statistics for Name: {name}; Type: STATISTICS DATA; Schema: public; Owner: -
--

SELECT * FROM pg_catalog.pg_restore_relation_stats(
	'version', '180000'::integer,
	'schemaname', 'public',
	'relname', '{name}',
	'relpages', '77'::integer,
	'reltuples', '4711'::real,
	'relallvisible', '0'::integer,
	'relallfrozen', '0'::integer
);
"""
ATTRIBUTE = """SELECT * FROM pg_catalog.pg_restore_attribute_stats(
	'version', '180000'::integer,
	'schemaname', 'public',
	'relname', 'parent',
	'attname', 'v',
	'inherited', 'f'::boolean,
	'null_frac', '0'::real,
	'avg_width', '9'::integer,
	'n_distinct', '-1'::real,
	'histogram_bounds', '{"a;b",c''d}'::text
);


"""
STORED_BY_18 = STATISTICS.format(name="parent") + ATTRIBUTE
LEGACY = "SET default_with_oids = false;\n\n"
LANGUAGE = (
    "CREATE OR REPLACE PROCEDURAL LANGUAGE plpgsql;\n\n\nALTER PROCEDURAL LANGUAGE plpgsql OWNER TO postgres;\n\n"
)

DUMPS = {
    "11": HEAD.format(version="11.22", restrict="", more="") + LANGUAGE + LEGACY
    + BODY.replace("SET default_table_access_method = heap;\n", "").format(
        attach=ATTACH, blobs=BLOB + BLOBS, tail=OLD_PUBLIC),
    "12": HEAD.format(version="12.22", restrict="", more="")
    + BODY.format(attach=ATTACH, blobs=BLOB + BLOBS, tail=OLD_PUBLIC),
    "13": HEAD.format(version="13.23 (Debian 13.23-1)", restrict="\\restrict {key}\n\n", more="")
    + BODY.format(attach=ATTACH_LABELLED, blobs=BLOB + BLOBS, tail="") + "\\unrestrict {key}\n\n",
    "14": HEAD.format(version="14.5", restrict="", more="")
    + BODY.format(attach=ATTACH_LABELLED, blobs=BLOB + BLOBS, tail=OLD_PUBLIC),
    "15": HEAD.format(version="15.1", restrict="", more="") + NEW_PUBLIC
    + BODY.format(attach=ATTACH_LABELLED, blobs=BLOB + BLOBS, tail=""),
    "17": HEAD.format(version="17.4", restrict="", more="SET transaction_timeout = 0;\n")
    + BODY.format(attach=ATTACH_LABELLED, blobs=BLOB_METADATA + BLOBS, tail=""),
    "18": HEAD.format(version="18.1", restrict="\\restrict {key}\n\n", more="SET transaction_timeout = 0;\n")
    + BODY.format(attach=ATTACH_LABELLED, blobs=BLOB_METADATA + BLOBS, tail=STORED_BY_18) + "\\unrestrict {key}\n\n",
}  # fmt: skip


@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize("origin", DUMPS)
def test_a_dump_of_any_version_is_restored_as_psql_restores_it(
    request: pytest.FixtureRequest, programs: Any, tmp_path: Path, origin: str, major: int
) -> None:
    make: Callable[..., str] = request.getfixturevalue("make_database" if major == 16 else "make_database18")
    ours, theirs = make(), make()
    dump = DUMPS[origin].replace("{key}", "abcDEF123")
    (tmp_path / "dump.sql").write_text(dump)
    result = restore(str(tmp_path / "dump.sql"), ours, jobs=2)
    programs.psql(theirs, dump.encode(), major=major)
    programs.assert_same(ours, theirs, major)
    assert result.rows == 3
    assert result.server_version is not None
    assert result.server_version.startswith(origin)
    expected = {
        "setting": origin in {"17", "18"} and major == 16,
        "exists": origin == "15",
        "not restored": origin == "18" and major == 16,
    }
    kinds = {note.kind for note in result.notes} - {"warning", "expected"}
    assert kinds == {kind for kind, is_expected in expected.items() if is_expected}
    with psycopg.connect(ours) as connection:
        assert connection.execute("SELECT lo_get(4711)").fetchone() == (b"large",)


def test_statistics_of_18_hold_nothing_up() -> None:
    """They stand between the indexes of a dump; were each waited for, no two indexes would be built at once."""
    for text in (STATISTICS.format(name="parent"), ATTRIBUTE):
        statement = Statement(text[text.index("SELECT") :].strip().encode(), 1)
        assert plan(statement, bool) == DEFERRED
