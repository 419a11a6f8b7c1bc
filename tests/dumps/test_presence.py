"""Without a manifest: what a dump's text creates must be there, and what it says of keys and extensions is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.dumps import describe
from recovery.dumps.created import created_as
from recovery.dumps.manifest import Extension
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recovery.dumps.facts import DumpFacts

pytestmark = pytest.mark.slow  # a server and a database with everything in it

HERE = Path(__file__).parent
ZOO = (HERE / "zoo.sql").read_bytes()
ODD = b"""
CREATE SCHEMA "on";
CREATE TABLE "on"."a on b" (id int PRIMARY KEY, ref int, "x OR y" int);
CREATE INDEX "i ON ""j"".k" ON "on"."a on b" (ref);
CREATE FUNCTION "on"."f (x)"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "t ON z" AFTER INSERT OR UPDATE OF ref, "x OR y" OR DELETE ON "on"."a on b" FOR EACH ROW
  EXECUTE FUNCTION "on"."f (x)"();
CREATE POLICY "p ON q" ON "on"."a on b" USING (true);
ALTER TABLE "on"."a on b" ADD CONSTRAINT "k; NOT VALID;" FOREIGN KEY (ref) REFERENCES "on"."a on b";
ALTER TABLE "on"."a on b" ADD CONSTRAINT unproven FOREIGN KEY (ref) REFERENCES "on"."a on b" NOT VALID;
"""


def facts_of(path: Path) -> DumpFacts:
    with open_dump(str(path)) as dump:
        return check(dump).facts


@pytest.fixture(scope="module")
def makes(make_databases_of: Any) -> Iterator[Callable[..., str]]:
    with make_databases_of(16) as make:
        yield make


@pytest.fixture(scope="module")
def pair(makes: Callable[..., str], programs: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[DumpFacts, str]:
    """What a dump of the zoo tells, and a database restored from it, to be copied and altered."""
    source, target = makes(), makes()
    programs.psql(source, ZOO, "-v", "ON_ERROR_STOP=1")
    programs.psql(source, ODD, "-v", "ON_ERROR_STOP=1")
    path = tmp_path_factory.mktemp("dump") / "dump.sql"
    path.write_bytes(programs.pg_dump(source))
    restore(str(path), target)
    return facts_of(path), target


def test_everything_that_the_text_creates_is_known_by_its_name_and_found_again(pair: tuple[DumpFacts, str]) -> None:
    facts, target = pair
    rung = verify(target, facts=facts).rung("schema")
    assert rung.outcome is Outcome.PASS, rung
    with psycopg.connect(target) as connection:
        connection.execute("SET search_path = ''")
        found = describe.read_objects(connection)
    assert facts.created is not None
    whole = {"view", "materialized view", "function", "procedure", "aggregate", "type", "trigger", "policy", "rule"}
    named = {created_as(each.kind, each.identity) for each in found if each.kind in whole}
    assert named == {each for each in facts.created if each.kind in whole}
    assert {each.kind for each in facts.created} == {*whole, "sequence", "index", "table constraint"}
    assert f"and {len(facts.created)} other objects by their names" in rung.reason


@pytest.mark.parametrize(
    ("loss", "missing"),
    [
        ("DROP VIEW zoo.checked_view", "view zoo.checked_view"),
        ("DROP MATERIALIZED VIEW zoo.second_view", "materialized view zoo.second_view"),
        ("DROP INDEX zoo.animal_name", "index zoo.animal_name"),
        ('DROP INDEX "on"."i ON ""j"".k"', 'index on.i ON "j".k'),
        ("DROP FUNCTION zoo.looks_like_copy", "function zoo.looks_like_copy"),
        ("DROP PROCEDURE zoo.nothing", "procedure zoo.nothing"),
        ("DROP AGGREGATE zoo.product(int)", "aggregate zoo.product"),
        ("DROP TYPE zoo.span CASCADE", "type zoo.span"),
        ("DROP TRIGGER later ON zoo.hen", "trigger zoo.hen.later"),
        ('DROP TRIGGER "t ON z" ON "on"."a on b"', "trigger on.a on b.t ON z"),
        ('DROP POLICY "p ON q" ON "on"."a on b"', "policy on.a on b.p ON q"),
        ("DROP RULE two_things ON zoo.simple_view", "rule zoo.simple_view.two_things"),
        ("ALTER TABLE zoo.egg DROP CONSTRAINT egg_hen", "table constraint zoo.egg.egg_hen"),
        ("ALTER TABLE zoo.broken DROP CONSTRAINT unproven", "table constraint zoo.broken.unproven"),
        ("DROP TABLE zoo.of_pair", "zoo.of_pair"),
        ("ALTER SEQUENCE zoo.plain_sequence RENAME TO other", "sequence zoo.plain_sequence"),
    ],
)
def test_what_is_missing_of_it_fails_the_schema_and_is_named(
    makes: Callable[..., str], pair: tuple[DumpFacts, str], loss: str, missing: str
) -> None:
    facts, target = pair
    copy = makes(TEMPLATE=str(psycopg.conninfo.conninfo_to_dict(target)["dbname"]))
    with psycopg.connect(copy, autocommit=True) as connection:
        connection.execute(loss.encode())
    rung = verify(copy, facts=facts).rung("schema")
    assert rung.outcome is Outcome.FAIL
    assert missing in rung.evidence["missing"]


def test_a_key_that_the_dump_has_validated_is_held_to_it_and_one_that_it_has_not_is_not(
    makes: Callable[..., str], pair: tuple[DumpFacts, str]
) -> None:
    facts, target = pair
    assert facts.foreign_keys is not None
    assert facts.foreign_keys["on", "a on b", "k; NOT VALID;"] is True
    assert facts.foreign_keys["on", "a on b", "unproven"] is False
    copy = makes(TEMPLATE=str(psycopg.conninfo.conninfo_to_dict(target)["dbname"]))
    with psycopg.connect(copy, autocommit=True) as connection:
        rung = verify(copy, facts=facts).rung("foreign-keys")
        assert rung.outcome is Outcome.PASS
        assert rung.evidence["broken_at_source"] == {"zoo.broken.broken_fk": {"rows": 1, "at_source": None}}
        # A restore that left the key out, and one that gave back what proves nothing.
        connection.execute('ALTER TABLE "on"."a on b" DROP CONSTRAINT "k; NOT VALID;"')
        assert verify(copy, facts=facts).rung("foreign-keys").evidence["missing"] == ["on.a on b.k; NOT VALID;"]
        connection.execute('INSERT INTO "on"."a on b" VALUES (1, 1)')
        connection.execute("SET session_replication_role = replica")
        connection.execute('UPDATE "on"."a on b" SET ref = 404')
        key = 'ALTER TABLE "on"."a on b" ADD CONSTRAINT "k; NOT VALID;" FOREIGN KEY (ref) REFERENCES "on"."a on b"'
        connection.execute(f"{key} NOT VALID".encode())
    rung = verify(copy, facts=facts).rung("foreign-keys")
    assert rung.outcome is Outcome.FAIL
    assert list(rung.evidence["broken"]) == ["on.a on b.k; NOT VALID;"]
    assert "on.a on b.unproven" in rung.evidence["broken_at_source"]


def test_a_text_that_is_not_pg_dumps_is_not_held_to_the_names_it_creates(database: str, tmp_path: Path) -> None:
    path = tmp_path / "own.sql"
    path.write_bytes(b"CREATE TABLE public.a (x int);\nCREATE VIEW public.v AS SELECT 1;\nDROP VIEW public.v;\n")
    restore(str(path), database)
    facts = facts_of(path)
    assert (facts.created, facts.foreign_keys) == (None, None)
    assert verify(database, facts=facts).rung("schema").outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("extension", "outcome", "said"),
    [
        (Extension(name="plpgsql", version="0.9", schema="pg_catalog"), "PASS", "plpgsql was 0.9, is 1.0"),
        (Extension(name="plpgsql", version="1.0", schema="app"), "FAIL", "1 extensions in another schema"),
        (Extension(name="gone", version="1.0", schema="public"), "FAIL", "1 extensions missing"),
    ],
)
def test_extensions_must_be_there_in_their_schema_and_another_version_is_named(
    database: str, tmp_path: Path, extension: Extension, outcome: str, said: str
) -> None:
    manifest = take_backup(database, local_dir=tmp_path).manifest
    assert manifest is not None
    same = verify(database, manifest=manifest).rung("schema")
    assert (same.outcome, "versions" in same.reason) == (Outcome.PASS, False)
    rung = verify(database, manifest=manifest.model_copy(update={"extensions": (extension,)}).seal()).rung("schema")
    assert (rung.outcome, said in rung.reason) == (outcome, True), rung


def test_extensions_that_the_dumps_text_creates_must_be_there_in_their_schema(database: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"

    def outcome(statement: bytes) -> tuple[str, dict[str, Any]]:
        path.write_bytes(b"CREATE TABLE public.t (x int);\n" + statement)
        rung = verify(database, facts=facts_of(path)).rung("schema")
        return str(rung.outcome), rung.evidence

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (x int)")
    assert outcome(b"CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;\n")[0] == "PASS"
    assert outcome(b"CREATE EXTENSION plpgsql;\n")[0] == "PASS"
    failed, evidence = outcome(b'CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA "a b";\n')
    assert (failed, evidence["moved_extensions"]) == ("FAIL", {"plpgsql": ["a b", "pg_catalog"]})
    failed, evidence = outcome(b'CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;\n')
    assert (failed, evidence["missing_extensions"]) == ("FAIL", ["uuid-ossp"])
