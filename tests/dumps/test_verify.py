"""The ladder of checks: passes for a true copy, and each rung fails for the damage it exists to find."""

from __future__ import annotations

import datetime as dt
import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps import foreign_keys, session
from recovery.dumps.catalogue import Backup
from recovery.dumps.facts import DumpFacts
from recovery.dumps.manifest import Manifest
from recovery.dumps.writer import take_backup
from recovery.errors import EnvironmentLacksError, UsageError
from recovery.restore import restore
from recovery.verify import RUNG_NAMES, Checks, Outcome, SampleQuery, Verification, verify

pytestmark = pytest.mark.slow  # many restores into real servers

ORIGINAL = Path(__file__).with_name("original.sql").read_text()


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


def load(backup: Backup, dsn: str, major: int = 16) -> None:
    assert backup.path is not None
    subprocess.run(
        [postgresql_client_folder(major) / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=gzip.decompress(backup.path.read_bytes()),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def outcomes(verification: Verification) -> dict[str, str]:
    return {rung.name: str(rung.outcome) for rung in verification.rungs}


@pytest.fixture
def pair(make_database: Callable[..., str], tmp_path: Path) -> tuple[Backup, str]:
    """A backup of the original and a database restored from it."""
    source, target = make_database(), make_database()
    run(source, ORIGINAL)
    backup = take_backup(source, local_dir=tmp_path)
    load(backup, target)
    return backup, target


def test_a_true_copy_passes_every_rung_that_can_be_climbed(pair: tuple[Backup, str]) -> None:
    backup, target = pair
    found = verify(
        target,
        manifest=backup.manifest,
        samples=[SampleQuery(name="n", sql="SELECT count(*) FROM app.nodes", expected=4000)],
    )
    failed = [(rung.name, rung.reason, rung.evidence) for rung in found.rungs if rung.outcome is Outcome.FAIL]
    assert failed == []
    assert [rung.name for rung in found.rungs] == list(RUNG_NAMES)
    assert {name for name, outcome in outcomes(found).items() if outcome != "PASS"} <= {"indexes"}
    assert found.verdict == "PASS"
    assert found.recovery_point == backup.created_at


def test_without_psql_rows_are_counted_and_the_content_is_not_run(
    pair: tuple[Backup, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, target = pair

    def none(major: int) -> Path:
        raise EnvironmentLacksError(f"this machine has no psql of {major}")

    monkeypatch.setattr(session, "client_programs", none)
    found = verify(target, manifest=backup.manifest)
    assert found.rung("rows").outcome is Outcome.PASS
    assert (found.rung("content").outcome, found.verdict) == (Outcome.NOT_RUN, "PASS")
    assert "this machine has no psql of 16" in found.rung("content").reason
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("DELETE FROM app.child")
    assert verify(target, manifest=backup.manifest).rung("rows").outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("damage", "rung"),
    [
        ("UPDATE app.nodes SET label = label || ' ' WHERE id = 77", "content"),
        ("UPDATE app.nodes SET label = '' WHERE id = (SELECT min(id) FROM app.nodes WHERE label IS NULL)", "content"),
        ("UPDATE app.projects SET score = score + 1e-14 WHERE name = 'p7'", "content"),
        ("UPDATE app.child SET c = d, d = c WHERE a = 2", "content"),
        ("SELECT lo_put(min(oid), 5, 'x') FROM pg_largeobject_metadata", "content"),
        ("DELETE FROM app.unlogged", "rows"),
        ("INSERT INTO app.events VALUES (1, '2026-01-01', NULL)", "rows"),
        ("DROP INDEX app.nodes_label", "schema"),
        ("ALTER TABLE app.nodes ALTER label SET DEFAULT 'x'", "schema"),
        ("ALTER TABLE app.nodes DISABLE TRIGGER touched", "schema"),
        ("CREATE TABLE app.surplus (x int)", "schema"),
        ("COMMENT ON TABLE app.nodes IS 'other'", "schema"),
        (
            "CREATE OR REPLACE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
            "schema",
        ),
        ("REVOKE SELECT ON app.nodes FROM PUBLIC", "grants"),
        ("SELECT setval('app.nodes_id_seq', 12)", "sequences"),
        ("SELECT setval('app.loose', 5)", "sequences"),
        ("SET session_replication_role = replica; DELETE FROM app.projects WHERE id = 3", "foreign-keys"),
    ],
)
def test_each_kind_of_damage_fails_its_rung(pair: tuple[Backup, str], damage: str, rung: str) -> None:
    backup, target = pair
    run(target, damage)
    found = verify(target, manifest=backup.manifest)
    assert found.rung(rung).outcome is Outcome.FAIL, found.rung(rung)
    assert found.verdict == "FAIL"


def test_a_sequence_that_went_on_is_no_failure(pair: tuple[Backup, str]) -> None:
    backup, target = pair
    run(target, "SELECT nextval('app.nodes_id_seq'), nextval('app.loose')")
    assert verify(target, manifest=backup.manifest).rung("sequences").outcome is Outcome.PASS


def test_a_key_broken_at_the_source_is_reported_and_not_blamed_on_the_restore(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database()
    run(source, "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int REFERENCES a); INSERT INTO a VALUES (1)")
    run(source, "SET session_replication_role = replica; INSERT INTO b VALUES (1), (2), (NULL)")
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert [key.violations for key in backup.manifest.foreign_keys] == [1]
    run(target, "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int)")
    run(target, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1), (2), (NULL)")
    run(target, "ALTER TABLE b ADD CONSTRAINT b_x_fkey FOREIGN KEY (x) REFERENCES a NOT VALID")
    found = verify(target, manifest=backup.manifest)
    assert found.verdict == "PASS", found
    assert "broken as they were at the source: public.b.b_x_fkey" in found.rung("foreign-keys").reason


def test_without_a_manifest_a_broken_key_that_the_dump_leaves_unvalidated_is_not_blamed_on_the_restore(
    database: str,
) -> None:
    run(database, "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (x int); INSERT INTO b VALUES (2), (3)")
    run(database, "ALTER TABLE b ADD CONSTRAINT b_x_fkey FOREIGN KEY (x) REFERENCES a NOT VALID")
    for facts in (None, DumpFacts(tables={("public", "a"): 0, ("public", "b"): 2})):
        rung = verify(database, facts=facts).rung("foreign-keys")
        assert rung.outcome is Outcome.PASS
        assert rung.reason.endswith("the dump itself leaves them unvalidated: public.b.b_x_fkey")
        assert rung.evidence["broken_at_source"] == {"public.b.b_x_fkey": {"rows": 2, "at_source": None}}


def test_keys_of_every_shape_are_checked_by_their_own_rules(database: str) -> None:
    run(database, 'CREATE TABLE p (a int, b text COLLATE "C", PRIMARY KEY (a, b)) PARTITION BY LIST (a)')
    run(database, "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p DEFAULT")
    run(database, "CREATE TABLE simple (a int, b text, FOREIGN KEY (a, b) REFERENCES p)")
    run(database, "CREATE TABLE whole (a int, b varchar(9), FOREIGN KEY (a, b) REFERENCES p MATCH FULL)")
    run(database, "INSERT INTO p VALUES (1, 'x'), (2, 'y'); INSERT INTO simple VALUES (1, 'x'), (9, NULL)")
    assert verify(database).rung("foreign-keys").outcome is Outcome.PASS
    run(database, "SET session_replication_role = replica; INSERT INTO whole VALUES (2, 'y'), (2, NULL), (NULL, NULL)")
    rung = verify(database).rung("foreign-keys")
    assert rung.outcome is Outcome.FAIL
    assert rung.evidence["broken"] == {"public.whole.whole_a_b_fkey": {"rows": 1, "at_source": None}}


def test_a_key_of_a_large_table_is_asked_in_parts_with_the_same_answer(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "CREATE TABLE p (a int PRIMARY KEY); INSERT INTO p SELECT i FROM generate_series(0, 9) i")
    run(database, 'CREATE TABLE "a ""child" (a int REFERENCES p, pad text)')
    run(database, "CREATE TABLE parts (a int REFERENCES p, pad text) PARTITION BY LIST (a)")
    run(database, "CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1) PARTITION BY HASH (pad)")
    run(database, "CREATE TABLE part_1_1 PARTITION OF part_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    run(database, "CREATE TABLE no_rows PARTITION OF parts FOR VALUES IN (77) PARTITION BY LIST (a)")
    run(database, 'CREATE TABLE "a ""part" PARTITION OF parts DEFAULT')
    for table in ('"a ""child"', "parts"):
        rows = f"INSERT INTO {table} SELECT i % 11, repeat('x', 200) FROM generate_series(1, 11000) i"
        run(database, f"SET session_replication_role = replica; {rows}")
    run(database, "ANALYZE")
    whole = verify(database).rung("foreign-keys").evidence
    assert [each["rows"] for each in whole["broken"].values()] == [1000, 1000]
    monkeypatch.setattr("recovery.dumps.foreign_keys.PART_BLOCKS", 50)
    asked: list[object] = []
    query = foreign_keys._violations_query
    monkeypatch.setattr(foreign_keys, "_violations_query", lambda *given: asked.append(given) or query(*given))
    assert verify(database, options=Checks(jobs=3)).rung("foreign-keys").evidence == whole
    assert len(asked) == 3 + 1 + 3  # the child, the partition with a tenth of the rows, the one with the others


def test_without_a_manifest_only_what_the_dump_tells_is_checked(pair: tuple[Backup, str]) -> None:
    backup, target = pair
    assert backup.manifest is not None
    facts = DumpFacts(
        tables={(t.schema_name, t.name): t.rows for t in backup.manifest.tables},
        sequences={(s.schema_name, s.name): (s.value, s.is_called) for s in backup.manifest.sequences},
    )
    found = verify(target, facts=facts)
    said = outcomes(found)
    assert {said[name] for name in ("server", "schema", "rows", "sequences", "foreign-keys")} == {"PASS"}
    assert {said[name] for name in ("content", "grants", "freshness", "samples")} == {"NOT RUN"}
    assert found.recovery_point is None
    run(target, "DELETE FROM app.unlogged; DROP TABLE app.secured")
    found = verify(target, facts=facts)
    assert (found.rung("rows").outcome, found.rung("schema").outcome) == (Outcome.FAIL, Outcome.FAIL)


def test_owners_that_a_master_role_cannot_give_back_are_stated_and_not_failed(
    pair: tuple[Backup, str], make_database: Callable[..., str], master16: str
) -> None:
    backup, _ = pair
    target = make_conninfo(make_database(owner=master16), user=master16)
    restore(str(backup.path), target, manifest=backup.manifest)
    found = verify(target, manifest=backup.manifest)
    assert [(rung.name, rung.reason, rung.evidence) for rung in found.rungs if rung.outcome is Outcome.FAIL] == []
    assert "not this role's to use: postgres" in found.rung("grants").reason
    run(target, "GRANT INSERT ON app.nodes TO PUBLIC")
    assert verify(target, manifest=backup.manifest).rung("grants").outcome is Outcome.FAIL


def test_a_required_rung_that_was_not_run_fails_the_verdict(database: str) -> None:
    assert verify(database).verdict == "PASS"
    assert verify(database, required={"content"}).verdict == "FAIL"
    with pytest.raises(UsageError, match="no check named contents"):
        verify(database, required={"contents"})


def test_a_server_that_does_not_answer_fails_the_first_rung_and_runs_no_other() -> None:
    found = verify("host=127.0.0.1 port=1 dbname=x user=y password=hunter2")
    assert outcomes(found) == {"server": "FAIL", **dict.fromkeys(RUNG_NAMES[1:], "NOT RUN")}
    assert "hunter2" not in found.model_dump_json()


def test_two_live_databases_are_compared_with_each_other(
    pair: tuple[Backup, str], make_database: Callable[..., str]
) -> None:
    _, target = pair
    other = make_database()
    run(other, ORIGINAL)
    # The large objects' numbers are the server's own choice, and `now()` is another moment.
    found = outcomes(verify(target, against=target))
    assert "FAIL" not in found.values()
    run(other, "DELETE FROM app.nodes WHERE id = 4000")
    found = outcomes(verify(other, against=target))
    assert (found["rows"], found["content"]) == ("FAIL", "FAIL")


def test_sample_queries_compare_values_rows_and_bounds(database: str) -> None:
    run(database, "CREATE TABLE t AS SELECT i, 'n' || i AS n, i / 2.0 AS half FROM generate_series(1, 3) i")
    right = [
        SampleQuery(name="value", sql="SELECT count(*) FROM t", expected=3),
        SampleQuery(name="rows", sql="SELECT i, n FROM t ORDER BY i LIMIT 2", expected=[[1, "n1"], [2, "n2"]]),
        SampleQuery(name="column", sql="SELECT n FROM t ORDER BY i", expected=["n1", "n2", "n3"]),
        SampleQuery(name="number", sql="SELECT sum(half) FROM t", expected=3),
        SampleQuery(name="bound", sql="SELECT count(*) FROM t", at_least=2),
        SampleQuery(name="runs", sql="SELECT 1"),
        SampleQuery(name="day", sql="SELECT date '2026-01-02'", expected=dt.date(2026, 1, 2)),
    ]
    assert verify(database, samples=right).rung("samples").outcome is Outcome.PASS
    for wrong in (
        SampleQuery(name="w", sql="SELECT count(*) FROM t", expected=4),
        SampleQuery(name="w", sql="SELECT count(*) FROM t", at_least=4),
        SampleQuery(name="w", sql="SELECT nonsense"),
        SampleQuery(name="w", sql="DELETE FROM t"),
        SampleQuery(name="w", sql="SELECT n FROM t WHERE i = 0", expected="n0"),
    ):
        found = verify(database, samples=[wrong, right[0]]).rung("samples")
        assert found.outcome is Outcome.FAIL
        assert [query["right"] for query in found.evidence["queries"]] == [False, True]


def test_a_recovery_point_older_than_allowed_fails_freshness(database: str, tmp_path: Path) -> None:
    manifest = take_backup(database, local_dir=tmp_path).manifest
    assert manifest is not None
    later = manifest.snapshot_time + dt.timedelta(hours=25)
    fresh = Checks(max_age=dt.timedelta(hours=26), at=later, newest_row="SELECT timestamp '2026-01-01'")
    rung = verify(database, manifest=manifest, options=fresh).rung("freshness")
    assert rung.outcome is Outcome.PASS
    assert rung.evidence["newest_row"] == "2026-01-01T00:00:00"
    stale = Checks(max_age=dt.timedelta(hours=24), at=later)
    assert verify(database, manifest=manifest, options=stale).rung("freshness").outcome is Outcome.FAIL


def test_a_check_changes_nothing_and_waits_for_no_lock_without_bound(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "CREATE TABLE t (x int)")
    monkeypatch.setattr(
        "recovery.dumps.session.connect.__kwdefaults__", {"read_only": True, "lock_timeout_seconds": 0.2}
    )
    monkeypatch.setattr(
        "recovery.verify.ladder.take_snapshot.__kwdefaults__", {"lock_timeout_seconds": 0.2, "locks": True}
    )
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        assert verify(database).verdict == "FAIL"


def test_names_are_data_and_never_sql(make_database: Callable[..., str], tmp_path: Path) -> None:
    source, target = make_database(), make_database()
    name = 'x"; DROP TABLE keep; --'
    quoted = '"' + name.replace('"', '""') + '"'
    for dsn in (source, target):
        run(
            dsn,
            f"CREATE TABLE keep (x int); CREATE TABLE {quoted} ({quoted} int PRIMARY KEY);"
            f"INSERT INTO {quoted} VALUES (1)",
        )
        run(dsn, f'CREATE SEQUENCE {quoted[:-1]}s"; CREATE TABLE r (y int REFERENCES {quoted})')
    backup = take_backup(source, local_dir=tmp_path)
    assert verify(target, manifest=backup.manifest).verdict == "PASS"
    run(target, "SELECT FROM keep")


def test_a_role_that_may_not_read_everything_gets_not_run_and_no_wrong_count(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    source = make_database()
    run(source, "CREATE TABLE t (x int)")
    backup = take_backup(source, local_dir=tmp_path)
    found = verify(make_conninfo(source, user=master16), manifest=backup.manifest)
    assert found.rung("rows").outcome is Outcome.NOT_RUN
    assert conninfo_to_dict(source)["dbname"] in found.database


def test_the_same_content_has_the_same_checksum_on_every_major_version(
    make_database: Callable[..., str],
    make_database15: Callable[..., str],
    make_database18: Callable[..., str],
    tmp_path: Path,
) -> None:
    sums = []
    for make in (make_database15, make_database, make_database18):
        dsn = make()
        run(dsn, ORIGINAL.replace("DEFAULT now()", "DEFAULT '2026-01-01'"))
        manifest = take_backup(dsn, local_dir=tmp_path / conninfo_to_dict(dsn)["dbname"]).manifest  # type: ignore[operator]
        assert manifest is not None
        sums.append({(t.schema_name, t.name): (t.rows, t.checksum) for t in manifest.tables})
    assert sums[0] == sums[1] == sums[2]


def test_a_copy_on_a_newer_major_version_passes(
    make_database: Callable[..., str], make_database18: Callable[..., str], tmp_path: Path
) -> None:
    source, target = make_database(), make_database18()
    run(source, ORIGINAL)
    backup = take_backup(source, local_dir=tmp_path)
    load(backup, target, 18)
    found = verify(target, manifest=backup.manifest)
    assert [(r.name, r.reason, r.evidence) for r in found.rungs if r.outcome is Outcome.FAIL] == []


@pytest.fixture
def sorted15(make_database15: Callable[..., str]) -> str:
    """A database of a server with ICU, whose default collation and one column's have versions."""
    with psycopg.connect(make_database15()) as connection:
        if connection.execute("SELECT FROM pg_collation WHERE collname = 'und-x-icu'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 15 has no ICU, and the C locale has no versions")
    database = make_database15(template="template0", locale_provider="icu", icu_locale="und")
    run(database, "CREATE COLLATION own (provider = icu, locale = 'und')")
    run(database, "CREATE TABLE words (x text COLLATE own PRIMARY KEY) PARTITION BY RANGE (x)")
    run(database, "CREATE TABLE early PARTITION OF words FOR VALUES FROM ('0') TO ('9')")
    run(database, "CREATE TABLE late PARTITION OF words DEFAULT; INSERT INTO words VALUES ('10'), ('b')")
    return database


def with_versions(manifest: Manifest | None, version: str) -> Manifest:
    """The manifest of a source whose library was of another version."""
    assert manifest is not None
    assert manifest.collations is not None
    assert manifest.database_state is not None
    return manifest.model_copy(
        update={
            "collations": tuple(c.model_copy(update={"version": version}) for c in manifest.collations),
            "database_state": manifest.database_state.model_copy(update={"collation_version": version}),
        }
    ).seal()


def test_a_source_with_another_version_of_the_sorting_rules_passes_and_is_named_with_what_may_differ(
    sorted15: str, tmp_path: Path
) -> None:
    manifest = take_backup(sorted15, local_dir=tmp_path).manifest
    same = verify(sorted15, manifest=manifest).rung("collations")
    assert (same.outcome, "differing" in same.evidence) == (Outcome.PASS, False)
    found = verify(sorted15, manifest=with_versions(manifest, "1.0")).rung("collations")
    assert found.outcome is Outcome.PASS
    assert found.evidence["differing"].keys() == {"public.own", "the database's default"}
    now = found.evidence["collations"]["public.own"]
    assert f"public.own was 1.0, is {now}, and 1 more; the order of text may differ" in found.reason
    assert (found.evidence["partitions_by_text"], found.evidence["misplaced"]) == (2, [])
    assert any("range partition" in line for line in found.evidence["may_differ"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("UPDATE pg_collation SET collversion = '1.0' WHERE collname = 'own'", "public.own"),
        ("UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()", "the database's default"),
    ],
)
def test_rules_that_changed_under_the_targets_own_indexes_fail(
    sorted15: str, tmp_path: Path, change: str, name: str
) -> None:
    manifest = take_backup(sorted15, local_dir=tmp_path).manifest
    run(sorted15, change)
    found = verify(sorted15, manifest=manifest).rung("collations")
    assert found.outcome is Outcome.FAIL
    assert found.evidence["stale"] == [name]
    assert f"1 collations have changed under the indexes built with them: {name}" in found.reason


def test_rows_outside_the_bounds_of_their_partition_fail_where_the_sorting_rules_differ(
    sorted15: str, tmp_path: Path
) -> None:
    manifest = take_backup(sorted15, local_dir=tmp_path).manifest
    # 9 before 10, from now on: what a change of the library does, with its version made to look the same.
    run(sorted15, "UPDATE pg_collation SET colliculocale = 'und-u-kn-true' WHERE collname = 'own'")
    run(sorted15, "ALTER COLLATION own REFRESH VERSION")
    found = verify(sorted15, manifest=with_versions(manifest, "1.0")).rung("collations")
    assert found.outcome is Outcome.FAIL
    assert found.evidence["misplaced"] == ["public.early"]
    assert "rows stand outside the bounds of 1 partitions: public.early" in found.reason


def test_another_locale_fails_and_an_unknown_version_does_not(pair: tuple[Backup, str]) -> None:
    backup, target = pair
    manifest = backup.manifest
    assert manifest is not None
    assert manifest.database_state is not None

    def outcome_with(**state: str | None) -> Outcome:
        changed = manifest.database_state.model_copy(update=state)  # type: ignore[union-attr]
        sealed = manifest.model_copy(update={"database_state": changed}).seal()
        return verify(target, manifest=sealed).rung("collations").outcome

    assert outcome_with(collate="de_DE.UTF-8", locale=None) is Outcome.FAIL
    assert outcome_with(collation_version=None) is Outcome.PASS
    assert outcome_with(ctype=str(manifest.database_state.ctype).replace("UTF-8", "utf8")) is Outcome.PASS


@pytest.mark.parametrize(
    "change",
    [
        "ALTER PUBLICATION p SET TABLE t (x) WHERE (x > 1)",
        "ALTER PUBLICATION p SET TABLE t (x, y) WHERE (x > 2)",
        "ALTER PUBLICATION p SET TABLE t WHERE (x > 1)",
        "ALTER PUBLICATION p SET (publish_via_partition_root = true)",
        "ALTER PUBLICATION whole SET TABLES IN SCHEMA other",
    ],
)
def test_a_publication_of_other_columns_rows_or_schemas_is_another_one(
    make_database: Callable[..., str], tmp_path: Path, change: str
) -> None:
    source, target = make_database(), make_database()
    for dsn in (source, target):
        run(dsn, "CREATE SCHEMA one; CREATE SCHEMA other; CREATE TABLE t (x int PRIMARY KEY, y int, z int)")
        run(dsn, "CREATE PUBLICATION p FOR TABLE t (x, y) WHERE (x > 1)")
        run(dsn, "CREATE PUBLICATION whole FOR TABLES IN SCHEMA one")
    manifest = take_backup(source, local_dir=tmp_path).manifest
    assert verify(target, manifest=manifest).rung("schema").outcome is Outcome.PASS
    run(target, change)
    found = verify(target, manifest=manifest).rung("schema")
    assert found.outcome is Outcome.FAIL
    assert found.evidence["changed"] == [f"publication {change.split()[2]}"]


def test_amcheck_is_asked_when_it_is_there_or_may_be_installed(make_database15: Callable[..., str]) -> None:
    database = make_database15()
    with psycopg.connect(database, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None:
            pytest.skip("this machine's PostgreSQL 15 has no amcheck")
        connection.execute("CREATE TABLE t (x int PRIMARY KEY, y text); CREATE INDEX ON t (y)")
        connection.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 5000) i")
        assert verify(database).rung("indexes").outcome is Outcome.NOT_RUN
        found = verify(database, options=Checks(install_checks=True)).rung("indexes")
        # The third index is the one of the TOAST table.
        assert (found.outcome, found.evidence) == (Outcome.PASS, {"indexes": 3, "heaps": 1, "unique": 1})
        # An index that has lost what the table has: exactly what a broken collation or disk makes.
        connection.execute("UPDATE pg_index SET indisready = false WHERE indexrelid = 't_y_idx'::regclass")
        connection.execute("INSERT INTO t SELECT i, i FROM generate_series(5001, 5100) i")
        connection.execute("UPDATE pg_index SET indisready = true WHERE indexrelid = 't_y_idx'::regclass")
    found = verify(database).rung("indexes")
    assert found.outcome is Outcome.FAIL
    assert "t_y_idx" in found.evidence["problems"][0]
