"""Restores and verifications as an operator has them, into real servers of an embedded cloud, each also with --json."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Cloud, Database, Operator

pytestmark = pytest.mark.slow

PRIMARY_REGION = "us-east-1"


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Iterator[Database]:
    """An RDS instance of this module's own, in the region that no leftover is looked for in."""
    rds = cloud.client("rds", PRIMARY_REGION)
    rds.create_db_instance(
        DBInstanceIdentifier="operator-target", DBInstanceClass="db.t4g.medium", Engine="postgres",
        EngineVersion="16", AllocatedStorage=20, MasterUsername="master", ManageMasterUserPassword=True,
        DBName="target",
    )  # fmt: skip
    rds.get_waiter("db_instance_available").wait(
        DBInstanceIdentifier="operator-target", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    yield cloud.database("operator-target")
    rds.delete_db_instance(DBInstanceIdentifier="operator-target", SkipFinalSnapshot=True)


@pytest.fixture
def target(server: Database) -> Database:
    """A database that does not exist yet."""
    return server.named(f"t{secrets.token_hex(4)}")


def test_a_backup_is_restored_from_everywhere_and_proven_equal(
    operator: Operator, production: Database, server: Database
) -> None:
    taken = operator.backup(production)
    file = operator.local_dir / f"{taken['id']}.sql.gz"
    rows = production.ask("SELECT count(*) FROM run_events")
    for number, source in enumerate(("latest", taken["id"], str(file), taken["address"], "-")):
        into = server.named(f"from_{number}_{secrets.token_hex(3)}")
        done = operator.json(
            "restore", source, "--to", into.dsn, stdin=file if source == "-" else None, PGPASSWORD=into.password
        )
        assert done["row_counts"]["public.run_events"] == rows[0][0]
        manifest = str(file).replace(".sql.gz", ".manifest.json")
        if number % 2:
            manifest = f"s3://agentverse-backups-dr/db/{taken['id']}.manifest.json"
        proven = operator.json("verify", "--database", into.dsn, "--manifest", manifest, PGPASSWORD=into.password)
        outcomes = {rung["name"]: rung["outcome"] for rung in proven["rungs"]}
        assert {outcomes[name] for name in ("schema", "rows", "content", "sequences", "foreign-keys")} == {"PASS"}


def test_a_target_that_holds_something_is_refused_untouched_until_told_to_replace_it(
    operator: Operator, target: Database
) -> None:
    words: dict[str, Any] = {"PGPASSWORD": target.password}
    assert operator("restore", "latest", "--to", target.dsn, **words).returncode == 0
    target.change("CREATE TABLE mine (word text)")
    target.change("INSERT INTO mine VALUES ('kept')")
    refused = operator.json("restore", "latest", "--to", target.dsn, code=3, **words)["error"]
    assert "not empty" in refused["message"]
    assert refused["hint"]
    dry = operator.json("restore", "latest", "--to", target.dsn, "--dry-run", code=3, **words)["error"]
    assert dry["message"] == refused["message"]
    unasked = operator.json("restore", "latest", "--to", target.dsn, "--replace", code=3, **words)["error"]
    assert "--yes" in unasked["hint"]
    planned = operator.json("restore", "latest", "--to", target.dsn, "--replace", "--dry-run", **words)
    assert planned["target_state"] == "would be replaced"
    assert target.ask("SELECT word FROM mine") == [("kept",)]
    replaced = operator.json("--yes", "restore", "latest", "--to", target.dsn, "--replace", **words)
    assert replaced["tables"] == 6
    assert target.ask("SELECT to_regclass('mine')") == [(None,)]
    # Neither of the two restores has left a database beside it.
    beside = f"SELECT datname FROM pg_database WHERE datname LIKE '{target.dsn.rpartition('/')[2]}\\_%'"
    assert target.ask(beside) == []


def test_a_dry_run_of_a_restore_makes_nothing(operator: Operator, server: Database, target: Database) -> None:
    planned = operator.json("restore", "latest", "--to", target.dsn, "--dry-run", PGPASSWORD=target.password)
    assert planned["target_state"] == "does not exist yet"
    name = target.dsn.rpartition("/")[2]
    assert server.ask(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == [(0,)]


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("postgresql://u:s3cret-word@127.0.0.1/x", 2, "--to holds a password"),
        ("nonsense", 2, "--to is not the address of a database"),
        ("postgresql://u@127.0.0.1:9/x", 4, "cannot be reached"),
        ("postgresql://u@no-such-host.invalid/x", 4, "cannot be reached"),
    ],
)
def test_an_address_that_will_not_do_is_an_error_that_hides_its_password(
    address: str, code: int, said: str, operator: Operator
) -> None:
    done = operator("restore", "latest", "--to", address, PGCONNECT_TIMEOUT="5")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert "s3cret-word" not in done.stderr + done.stdout


def test_a_dump_that_will_not_do_leaves_the_target_as_it_was(
    operator: Operator, server: Database, target: Database, tmp_path: Path
) -> None:
    words: dict[str, Any] = {"PGPASSWORD": target.password}
    cut = tmp_path / "cut.sql.gz"
    cut.write_bytes(gzip.compress(b"CREATE TABLE t (a int);\n" * 9000)[:-9])
    for source, said in (
        (str(cut), "damaged"),
        (str(tmp_path / "none.sql.gz"), "There is no dump"),
        ("s3://agentverse-backups-dr/db/none.sql.gz", "there is no dump"),
        ("nothing-of-that-name", "there is no backup"),
    ):
        error = operator.json("restore", source, "--to", target.dsn, code=1, **words)["error"]
        assert said in error["message"] + str(error["detail"]), error
    name = target.dsn.rpartition("/")[2]
    assert server.ask(f"SELECT count(*) FROM pg_database WHERE datname LIKE '{name}%'") == [(0,)]


def test_a_database_that_differs_fails_verification_with_one_document(operator: Operator, target: Database) -> None:
    words: dict[str, Any] = {"PGPASSWORD": target.password}
    assert operator("restore", "latest", "--to", target.dsn, **words).returncode == 0
    target.change("DELETE FROM reports WHERE ctid = (SELECT min(ctid) FROM reports)")
    manifest = operator.json("backups", "show")["backup"]["address"].replace(".sql.gz", ".manifest.json")
    found = operator.json("verify", "--database", target.dsn, "--manifest", manifest, code=1, **words)
    outcomes = {rung["name"]: rung["outcome"] for rung in found["rungs"]}
    assert (outcomes["rows"], outcomes["content"], outcomes["schema"]) == ("FAIL", "FAIL", "PASS")
    page = operator("verify", "--database", target.dsn, "--manifest", manifest, **words)
    assert page.returncode == 1
    assert "error: The database is not proven" in page.stderr
    missing = operator.json("verify", "--database", target.dsn, "--manifest", "/none.json", code=4, **words)
    assert "/none.json" in missing["error"]["message"]
    bad = operator.json("verify", "--database", "nonsense", "--manifest", manifest, code=2)
    assert "--database" in bad["error"]["message"]
