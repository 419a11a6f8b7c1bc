"""The check of indexes: amcheck where it may be asked, uniqueness by query, and no finding lost to what may not be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from recovery.dumps.snapshot import take_snapshot
from recovery.verify import RUNG_NAMES, Checks, Outcome, indexes, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from recovery.verify import Rung

pytestmark = pytest.mark.slow  # real servers in every test


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rung(dsn: str, *, jobs: int = 2, install_checks: bool = False) -> Rung:
    return verify(dsn, options=Checks(jobs=jobs, install_checks=install_checks)).rung("indexes")


def insert_unchecked(dsn: str, *rows: str) -> None:
    """Insert what the unique indexes of t forbid, which they then hold: what a change of sorting rules leaves."""
    run(
        dsn,
        "UPDATE pg_index SET indisunique = false WHERE indrelid = 't'::regclass",
        *(f"INSERT INTO t VALUES {row}" for row in rows),
        "UPDATE pg_index SET indisunique = true WHERE indrelid = 't'::regclass",
    )


@pytest.mark.parametrize(
    ("table", "index", "allowed", "forbidden"),
    [
        ("a int, b text", "(a)", "(NULL, 'x'), (NULL, 'x'), (1, 'x'), (2, 'x')", "(1, 'y')"),
        ("a int, b text", "(a, b)", "(1, 'x'), (1, 'y'), (1, NULL), (1, NULL)", "(1, 'y')"),
        ("a int, b text", "(a) NULLS NOT DISTINCT", "(NULL, 'x'), (1, 'x')", "(NULL, 'x')"),
        ("a int, b text", "(a) WHERE b = 'x'", "(1, 'x'), (1, 'y'), (1, NULL)", "(1, 'x')"),
        ("a int, b text", "(lower(b), (a + 1))", "(1, 'x'), (2, 'X')", "(1, 'X')"),
        ("a int, b text", "((1))", "(1, 'x')", "(2, 'y')"),
        ("a int, b text", "(a) INCLUDE (b)", "(1, 'x'), (2, 'x')", "(1, 'y')"),
        ("a int, b text", "(b text_pattern_ops)", "(1, 'x'), (1, 'X')", "(2, 'x')"),
        ('"order" int, "a""b" text', '("order", "a""b")', "(1, 'x'), (2, 'x')", "(2, 'x')"),
        ("a int, r record_of_two", "(r)", "(1, ROW(1, NULL)), (1, NULL)", "(2, ROW(1, NULL))"),
        ("a int, r record_of_two", "(r)", "(1, ROW(NULL, NULL))", "(2, ROW(NULL, NULL))"),
    ],
)  # fmt: skip
def test_a_value_that_stands_twice_under_a_unique_index_fails_without_amcheck(
    database: str, table: str, index: str, allowed: str, forbidden: str
) -> None:
    run(
        database,
        "CREATE TYPE record_of_two AS (a int, b int)",
        f"CREATE TABLE t ({table})",
        f"CREATE UNIQUE INDEX t_unique ON t {index}",
        f"INSERT INTO t VALUES {allowed}",
    )
    unasked = rung(database)
    assert (unasked.outcome, unasked.evidence["unique"]) == (Outcome.NOT_RUN, 0)
    assert unasked.reason.startswith("the extension amcheck is not installed")
    found = rung(database, install_checks=True)
    assert (found.outcome, found.evidence) == (Outcome.NOT_RUN, {"indexes": 0, "heaps": 0, "unique": 1})
    assert "amcheck cannot be installed" in found.reason
    assert found.reason.endswith("1 unique indexes hold no value twice")
    insert_unchecked(database, forbidden)
    found = rung(database, install_checks=True)
    assert found.outcome is Outcome.FAIL
    assert found.evidence["problems"] == ["public.t_unique: 1 values stand there more than once"]


def test_a_value_twice_under_rules_by_which_letters_are_the_same_fails(make_database15: Callable[..., str]) -> None:
    database = make_database15()
    with psycopg.connect(database, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 15 has no ICU")
    run(
        database,
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE t (a text)",
        "CREATE UNIQUE INDEX t_unique ON t (a COLLATE blind)",
        "INSERT INTO t VALUES ('x'), ('y')",
    )
    assert not rung(database, install_checks=True).evidence.get("problems")
    insert_unchecked(database, "('X')")
    assert rung(database, install_checks=True).outcome is Outcome.FAIL


def test_the_damaged_index_itself_is_not_asked_whether_it_is_unique(database: str) -> None:
    run(
        database,
        "CREATE TABLE t (a int)",
        "CREATE UNIQUE INDEX t_unique ON t (a)",
        "INSERT INTO t SELECT i FROM generate_series(1, 20000) i",
        "UPDATE pg_index SET indisready = false WHERE indrelid = 't'::regclass",
        "INSERT INTO t VALUES (7)",
        "UPDATE pg_index SET indisready = true WHERE indrelid = 't'::regclass",
        "VACUUM ANALYZE t",
    )
    assert rung(database, install_checks=True).outcome is Outcome.FAIL


def test_what_cannot_be_asked_is_named_and_hides_nothing(database: str) -> None:
    run(
        database,
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " 'BEGIN IF current_setting(''search_path'') = '''' THEN RAISE ''not like that''; END IF; RETURN $1; END'",
        "CREATE TABLE other (a int)",
        "INSERT INTO other VALUES (1)",
        "CREATE UNIQUE INDEX other_unique ON other (fails(a))",
        "CREATE TABLE t (a int)",
        "CREATE UNIQUE INDEX t_unique ON t (a)",
    )
    found = rung(database, jobs=1, install_checks=True)
    assert (found.outcome, found.evidence["unique"]) == (Outcome.NOT_RUN, 1)
    assert "public.other_unique: not like that" in found.evidence["not_checked"][0]
    insert_unchecked(database, "(1)", "(1)")
    assert rung(database, jobs=1, install_checks=True).outcome is Outcome.FAIL


@pytest.fixture
def checked15(make_database15: Callable[..., str]) -> tuple[str, str]:
    """A database of 15 with amcheck, as its superuser and as a role that may call it for indexes alone."""
    database = make_database15()
    with psycopg.connect(database, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 15 has no amcheck")
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'checker'").fetchone() is None:
            connection.execute("CREATE ROLE checker LOGIN")
    run(
        database,
        "CREATE EXTENSION amcheck",
        "GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO checker",
        "CREATE TABLE t (x int PRIMARY KEY, y text)",
        "CREATE INDEX t_y ON t (y)",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i",
        "GRANT SELECT ON t TO checker",
    )
    return database, make_conninfo(database, user="checker")


def test_privileges_on_heaps_and_indexes_are_apart_and_a_finding_wins_over_what_may_not_be_asked(
    checked15: tuple[str, str],
) -> None:
    database, checker = checked15
    found = rung(checker)
    assert (found.outcome, found.evidence) == (Outcome.NOT_RUN, {"indexes": 3, "heaps": 0, "unique": 1})
    assert "the role may not call amcheck's verify_heapam; 3 B-tree indexes and 0 heaps are sound" in found.reason
    run(
        database,
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 't_y'::regclass",
        "INSERT INTO t SELECT i, i FROM generate_series(5001, 5100) i",
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 't_y'::regclass",
    )
    found = rung(checker)
    assert found.outcome is Outcome.FAIL
    assert "t_y" in found.evidence["problems"][0]


def test_an_extension_too_old_to_check_heaps_proves_nothing_of_them(checked15: tuple[str, str]) -> None:
    database, _ = checked15
    run(database, "DROP EXTENSION amcheck", "CREATE EXTENSION amcheck VERSION '1.2'")
    found = rung(database)
    assert (found.outcome, found.evidence) == (Outcome.NOT_RUN, {"indexes": 3, "heaps": 0, "unique": 1})
    assert "ALTER EXTENSION amcheck UPDATE" in found.reason


def test_indexes_are_checked_over_several_sessions_and_a_locked_table_is_no_finding(
    checked15: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, _ = checked15
    run(database, *(f"CREATE TABLE more_{i} (a int PRIMARY KEY)" for i in range(20)))
    found = rung(database, jobs=4)
    assert (found.outcome, found.evidence) == (Outcome.PASS, {"indexes": 23, "heaps": 21, "unique": 21})
    monkeypatch.setattr(
        "recovery.dumps.session.connect.__kwdefaults__", {"read_only": True, "lock_timeout_seconds": 0.2}
    )
    with take_snapshot(database, locks=False) as snapshot, psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE more_7 IN ACCESS EXCLUSIVE MODE")
        outcome, reason, evidence = indexes.check(database, snapshot.identifier, jobs=2)
    assert (outcome, evidence["indexes"]) == (Outcome.NOT_RUN, 22)
    assert "amcheck could not look at 2: " in reason
    assert all("more_7" in each and "lock timeout" in each for each in evidence["not_checked"][:2])


def test_from_17_on_amcheck_tells_of_uniqueness_itself(make_database18: Callable[..., str]) -> None:
    database = make_database18()
    with psycopg.connect(database, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 18 has no amcheck")
    run(database, "CREATE EXTENSION amcheck", "CREATE TABLE t (a int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    assert (rung(database).outcome, rung(database).evidence["unique"]) == (Outcome.PASS, 1)
    insert_unchecked(database, "(1)")
    assert rung(database).outcome is Outcome.FAIL


def test_a_server_that_does_not_answer_is_a_failed_rung_where_amcheck_should_be_installed_too() -> None:
    dsn = "host=127.0.0.1 port=1 dbname=x user=y password=hunter2"
    found = verify(dsn, options=Checks(install_checks=True))
    assert [str(each.outcome) for each in found.rungs] == ["FAIL", *["NOT RUN"] * (len(RUNG_NAMES) - 1)]
    assert "hunter2" not in json.dumps(found.model_dump(mode="json"))


def test_an_extension_that_cannot_be_installed_is_said_and_uniqueness_checked_all_the_same(
    make_database: Callable[..., str], master16: str
) -> None:
    database = make_database(owner=master16)
    master = make_conninfo(database, user=master16)
    run(master, "CREATE TABLE t (a int)", "CREATE UNIQUE INDEX t_unique ON t (a)")
    found = verify(master, options=Checks(install_checks=True)).rung("indexes")
    assert found.outcome is Outcome.NOT_RUN
    assert found.reason.startswith("amcheck cannot be installed")
    assert found.evidence["unique"] == 1
    insert_unchecked(database, "(1)", "(1)")
    assert verify(master, options=Checks(install_checks=True)).rung("indexes").outcome is Outcome.FAIL
