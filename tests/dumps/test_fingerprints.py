"""An object that was altered in any way that a dump tells is another object; one that was restored is the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recovery.dumps.catalogue import Backup
    from recovery.verify import Rung

pytestmark = pytest.mark.slow  # a server and a database with everything in it

ZOO = (Path(__file__).parent / "zoo.sql").read_bytes()
# What the zoo has not, or has in a form that cannot be altered further.
MORE = b"""
SET search_path = zoo;
CREATE VIEW plain_view AS SELECT 1 AS x;
CREATE MATERIALIZED VIEW filled AS SELECT 1 AS x;
CREATE MATERIALIZED VIEW emptied AS SELECT 1 AS x;
CREATE VIEW between_two AS SELECT x FROM emptied;
CREATE MATERIALIZED VIEW on_emptied AS SELECT x FROM between_two;
REFRESH MATERIALIZED VIEW emptied WITH NO DATA;
CREATE TABLE checked (a text, b int, CONSTRAINT positive_b CHECK (b > 0));
CREATE RULE no_delete AS ON DELETE TO checked DO INSTEAD NOTHING;
CREATE TYPE loose AS (a text);
CREATE TABLE above (a text, b int);
CREATE TABLE below (c int) INHERITS (above);
ALTER TABLE ONLY above ALTER COLUMN a SET COMPRESSION pglz;
ALTER TABLE above ADD CONSTRAINT doubtful CHECK (b > 0) NOT VALID;
CREATE TABLE later_below () INHERITS (above);
CREATE STATISTICS checked_statistics ON a, b FROM checked;
CREATE AGGREGATE summed(int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION cost_of(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
"""


@pytest.fixture(scope="module")
def makes(make_databases_of: Any) -> Iterator[Callable[..., str]]:
    with make_databases_of(16) as make:
        yield make


@pytest.fixture(scope="module")
def pair(makes: Callable[..., str], programs: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backup, str]:
    """A backup of the zoo and a database restored from it, to be altered and put back."""
    source, target = makes(), makes()
    for text in (ZOO, MORE):
        programs.psql(source, text, "-v", "ON_ERROR_STOP=1")
    backup = take_backup(source, local_dir=tmp_path_factory.mktemp("backup"))
    restore(str(backup.path), target)
    return backup, target


def schema_of(dsn: str, backup: Backup) -> Rung:
    return verify(dsn, manifest=backup.manifest).rung("schema")


def test_what_was_restored_is_the_same(pair: tuple[Backup, str]) -> None:
    backup, target = pair
    found = schema_of(target, backup)
    assert found.outcome is Outcome.PASS, found


@pytest.mark.parametrize(
    ("kind", "alteration"),
    [
        ("view", "CREATE OR REPLACE VIEW plain_view AS SELECT 2 AS x"),
        ("view", "ALTER VIEW plain_view SET (security_barrier = true)"),
        ("materialized view", "REFRESH MATERIALIZED VIEW filled WITH NO DATA"),
        ("materialized view", "REFRESH MATERIALIZED VIEW unfilled_view"),
        ("policy", "ALTER POLICY only_small ON base USING (id < 6)"),
        ("type", "ALTER TYPE mood ADD VALUE 'calm'"),
        ("type", 'ALTER TYPE loose ALTER ATTRIBUTE a TYPE text COLLATE "C"'),
        ("type", "ALTER DOMAIN positive SET DEFAULT 2"),
        ("type", "ALTER DOMAIN positive DROP CONSTRAINT is_positive"),
        ("type", "ALTER DOMAIN positive SET NOT NULL"),
        ("sequence", "ALTER SEQUENCE plain_sequence INCREMENT 4"),
        ("sequence", "ALTER SEQUENCE plain_sequence NO CYCLE"),
        ("sequence", "ALTER TABLE animal ALTER COLUMN id SET INCREMENT BY 6"),
        ("operator", "ALTER OPERATOR === (int, int) SET (RESTRICT = eqsel)"),
        (
            "operator family",
            "ALTER OPERATOR FAMILY odd_family USING btree ADD FUNCTION 1 (int4, int8) btint48cmp(int4, int8)",
        ),
        ("collation", "DROP COLLATION german; CREATE COLLATION german (locale = 'POSIX')"),
        ("function", "ALTER FUNCTION cost_of(int) COST 7"),
        ("function", "CREATE OR REPLACE FUNCTION cost_of(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'"),
        ("procedure", "ALTER PROCEDURE nothing SECURITY DEFINER"),
        ("aggregate", "CREATE OR REPLACE AGGREGATE summed(int) (SFUNC = int4pl, STYPE = int, SSPACE = 8)"),
        ("trigger", "ALTER TABLE egg ENABLE TRIGGER before_change"),
        ("rule", "ALTER TABLE checked DISABLE RULE no_delete"),
        ("index", "ALTER INDEX animal_name SET (fillfactor = 71)"),
        ("index", "ALTER INDEX animal_expression ALTER COLUMN 1 SET STATISTICS 78"),
        ("index", "CLUSTER first_view USING first_view_mood"),
        ("table constraint", "ALTER TABLE egg ALTER CONSTRAINT egg_hen DEFERRABLE"),
        (
            "table constraint",
            "ALTER TABLE checked DROP CONSTRAINT positive_b, ADD CONSTRAINT positive_b CHECK (b > 0) NOT VALID",
        ),
        ("table constraint", "TRUNCATE broken; ALTER TABLE broken VALIDATE CONSTRAINT unproven"),
        ("statistics object", "ALTER STATISTICS checked_statistics SET STATISTICS 9"),
        ("table", "ALTER TABLE checked ALTER COLUMN a SET STATISTICS 9"),
        ("table", "ALTER TABLE checked ALTER COLUMN a SET COMPRESSION pglz"),
        ("table", "ALTER TABLE checked ALTER COLUMN a SET STORAGE EXTERNAL"),
        ("table", "ALTER TABLE checked SET (toast.autovacuum_enabled = off)"),
        ("table", "ALTER TABLE base NO FORCE ROW LEVEL SECURITY"),
        ("publication", "ALTER PUBLICATION partial SET (publish = 'delete')"),
        ("event trigger", "ALTER EVENT TRIGGER watch DISABLE"),
        ("text search configuration", "ALTER TEXT SEARCH CONFIGURATION simple_configuration DROP MAPPING FOR word"),
        ("text search dictionary", "ALTER TEXT SEARCH DICTIONARY simple_dictionary (ACCEPT = false)"),
        ("cast", "DROP CAST (pair AS text); CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair) AS IMPLICIT"),
        (
            "conversion",
            """DROP CONVERSION odd_conversion;
            CREATE DEFAULT CONVERSION odd_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8""",
        ),
        ("server", "ALTER SERVER elsewhere OPTIONS (SET host 'c')"),
        ("foreign table", "ALTER FOREIGN TABLE far ALTER COLUMN id OPTIONS (SET c 'e')"),
        ("foreign-data wrapper", "ALTER FOREIGN DATA WRAPPER no_wrapper OPTIONS (debug 'x')"),
        ("comment", "COMMENT ON SCHEMA zoo IS 'another'"),
    ],
)
def test_an_altered_object_of_any_kind_fails_the_schema(
    makes: Callable[..., str], pair: tuple[Backup, str], kind: str, alteration: str
) -> None:
    backup, target = pair
    name = psycopg.conninfo.conninfo_to_dict(target)["dbname"]
    copy = makes(TEMPLATE=str(name))
    with psycopg.connect(copy, autocommit=True) as connection:
        connection.execute("SET search_path = zoo")
        connection.execute(alteration.encode())
    found = schema_of(copy, backup)
    assert found.outcome is Outcome.FAIL, found
    assert found.evidence["missing"] == []
    assert [name for name in found.evidence["changed"] if name.startswith(f"{kind} ")], found.evidence


def test_definitions_that_another_version_put_into_words_are_not_compared_and_objects_are_looked_for(
    makes: Callable[..., str], pair: tuple[Backup, str]
) -> None:
    backup, target = pair
    assert backup.manifest is not None
    copy = makes(TEMPLATE=str(psycopg.conninfo.conninfo_to_dict(target)["dbname"]))
    for recipe in ("definition999", None):
        other = backup.manifest.model_copy(update={"objects_recipe": recipe})
        with psycopg.connect(copy, autocommit=True) as connection:
            connection.execute("CREATE OR REPLACE VIEW zoo.plain_view AS SELECT 2 AS x")
            found = verify(copy, manifest=other).rung("schema")
            assert found.outcome is Outcome.NOT_RUN, found
            assert "their definitions were not compared" in found.reason
            connection.execute("DROP VIEW zoo.plain_view")
            assert verify(copy, manifest=other).rung("schema").outcome is Outcome.FAIL


def test_a_collation_of_another_locale_of_icu_is_another_one(
    make_database15: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database15(), make_database15()
    with psycopg.connect(source, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 15 has no ICU")
        connection.execute("CREATE COLLATION own (provider = icu, locale = 'und')")
    backup = take_backup(source, local_dir=tmp_path)
    restore(str(backup.path), target)
    assert schema_of(target, backup).outcome is Outcome.PASS
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("DROP COLLATION own; CREATE COLLATION own (provider = icu, locale = 'und-u-kn-true')")
    assert schema_of(target, backup).evidence["changed"] == ["collation public.own"]


def test_not_null_that_is_unproven_or_not_inherited_is_another_one(
    make_database18: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database18(), make_database18()
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int, b int NOT NULL, c int, d int PRIMARY KEY)")
        connection.execute("ALTER TABLE t ADD CONSTRAINT later NOT NULL a NOT VALID, ADD NOT NULL c NO INHERIT")
    backup = take_backup(source, local_dir=tmp_path)
    restore(str(backup.path), target)
    assert schema_of(target, backup).outcome is Outcome.PASS
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("ALTER TABLE t VALIDATE CONSTRAINT later")
        assert schema_of(target, backup).evidence["changed"] == ["table public.t"]
