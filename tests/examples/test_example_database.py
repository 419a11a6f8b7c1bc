"""The schema and its rows, in a real PostgreSQL, as a master user who is no superuser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from examples.agentverse import database
from examples.agentverse.errors import EnvironmentLacksError, RefusedError
from examples.agentverse.rows import DEFAULT_UNTIL, Platform
from examples.agentverse.stack import ROOT
from machine.programs import postgresql_client_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    NewDatabase = Callable[[], str]

SMALL = Platform(seed=7, projects=6)


def _silent(_: str) -> None:
    return None


def _dump(dsn: str) -> tuple[list[str], list[str]]:
    """Return the dump as psql reads it, and its lines sorted: COPY may place rows anywhere, so order says nothing.

    pg_dump makes the keys of \\restrict up anew for every dump; they are left out.
    """
    program = postgresql_client_folder(16) / "pg_dump"
    text = subprocess.run([program, "-d", dsn], check=True, capture_output=True).stdout.decode()
    lines = [line for line in text.split("\n") if not line.startswith(("\\restrict", "\\unrestrict"))]
    return lines, sorted(lines)


def _example(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTVERSE_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "examples.agentverse", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**clean, **environment},
    )


@pytest.fixture(scope="module")
def seeded(postgresql: Path) -> str:
    dsn = f"host={postgresql} user=master dbname=seeded_platform"
    with psycopg.connect(f"host={postgresql} user=master dbname=postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE seeded_platform")
    with database.connect(dsn) as connection:
        database.seed(connection, SMALL, _silent)
    return dsn


def test_two_databases_of_one_seed_dump_to_the_same_text(seeded: str, new_database: NewDatabase) -> None:
    other = new_database()
    with database.connect(other) as connection:
        database.seed(connection, SMALL, _silent)
    assert _dump(seeded)[1] == _dump(other)[1]


def test_a_dump_of_it_loads_into_an_empty_database_without_a_single_error(
    seeded: str, new_database: NewDatabase
) -> None:
    copy = new_database()
    program = postgresql_client_folder(16) / "psql"
    loaded = subprocess.run(
        [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy],
        input="\n".join(_dump(seeded)[0]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert _dump(copy)[1] == _dump(seeded)[1]


def test_no_extension_but_plpgsql_is_needed(seeded: str) -> None:
    with database.connect(seeded) as connection:
        assert connection.execute("SELECT array_agg(extname::text) FROM pg_extension").fetchone() == (["plpgsql"],)


def test_every_foreign_key_is_validated_and_the_tree_of_nodes_has_one_root_for_each_project(seeded: str) -> None:
    with database.connect(seeded) as connection:
        keys = connection.execute("SELECT count(*), bool_and(convalidated) FROM pg_constraint WHERE contype = 'f'")
        assert keys.fetchone() == (8, True)
        roots = connection.execute("SELECT count(*), count(DISTINCT project_id) FROM nodes WHERE parent_id IS NULL")
        assert roots.fetchone() == (6, 6)
        deepest = connection.execute("SELECT id, depth FROM nodes ORDER BY depth DESC, id LIMIT 1").fetchone()
        assert deepest is not None
        path = connection.execute("SELECT cardinality(node_path(%s))", deepest[:1]).fetchone()
        assert path == (deepest[1] + 1,)


def test_nothing_is_newer_than_the_asked_time_and_runs_are_in_every_state(seeded: str) -> None:
    with database.connect(seeded) as connection:
        newest = connection.execute("SELECT greatest(max(at), (SELECT max(finished_at) FROM runs)) FROM run_events")
        row = newest.fetchone()
        assert row is not None
        assert datetime(2025, 6, 1, tzinfo=UTC) < row[0] <= DEFAULT_UNTIL
        unfinished = connection.execute(
            "SELECT array_agg(status::text ORDER BY status) FROM runs WHERE finished_at IS NULL"
        )
        assert unfinished.fetchone() == (["queued", "running"],)


def test_the_application_can_go_on_where_the_seed_ended(new_database: NewDatabase) -> None:
    with database.connect(new_database()) as connection:
        database.seed(connection, Platform(seed=3, projects=2), _silent)
        connection.execute(
            "INSERT INTO nodes (project_id, parent_id, depth, title)"
            " SELECT project_id, id, 1, 'a new branch' FROM nodes WHERE parent_id IS NULL"
        )
        connection.execute("UPDATE projects SET name = 'renamed'")
        touched = connection.execute("SELECT count(*) FROM projects WHERE updated_at > now() - interval '1 hour'")
        assert touched.fetchone() == (2,)


def test_a_database_that_has_tables_is_refused_and_left_alone(seeded: str) -> None:
    before = _dump(seeded)[1]
    with database.connect(seeded) as connection, pytest.raises(RefusedError, match="is not empty"):
        database.seed(connection, SMALL, _silent)
    assert _dump(seeded)[1] == before


def test_a_seeding_interrupted_at_its_end_leaves_nothing_behind(new_database: NewDatabase) -> None:
    dsn = new_database()

    def interrupt(text: str) -> None:
        if text.startswith("indexes"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), database.connect(dsn) as connection:
        database.seed(connection, SMALL, interrupt)
    with database.connect(dsn) as connection:
        assert database.counts(connection) is None


def test_an_unreachable_database_is_a_lack_of_the_environment(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentLacksError, match="cannot be reached"),
        database.connect(f"host={tmp_path} dbname=nowhere"),
    ):
        pass


def test_the_command_seeds_what_the_environment_names_and_counts_it_as_json(new_database: NewDatabase) -> None:
    dsn = new_database()
    done = _example("seed", "--scale", "2", "--json", AGENTVERSE_DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    with database.connect(dsn) as connection:
        assert json.loads(done.stdout)["rows"] == database.counts(connection)
    again = _example("seed", "--scale", "2", "--dsn", dsn)
    assert (again.returncode, again.stdout) == (3, "")
    assert "is not empty" in again.stderr


def test_the_command_takes_its_password_from_a_secret(new_database: NewDatabase, fake_aws: str) -> None:
    address = conninfo_to_dict(new_database())
    secrets = boto3.client("secretsmanager", region_name="us-west-2")
    secret = {"username": "master", "password": "secret"}
    arn = secrets.create_secret(Name=f"db-{address['dbname']}", SecretString=json.dumps(secret))["ARN"]
    where = ["--secret", arn, "--host", str(address["host"]), "--database", str(address["dbname"])]
    done = _example("seed", "--scale", "1", *where, AWS_ENDPOINT_URL=fake_aws)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no database was named"),
        (["--dsn", "postgresql://a:hunter2@localhost/x"], "can be read by every process"),
        (["--dsn", "host=/tmp", "--secret", "x"], "both say where"),
        (["--secret", "x"], "needs --host"),
        (["--megabytes", "1", "--scale", "1"], "both say how much"),
    ],
)
def test_arguments_that_say_too_little_or_too_much_are_wrong_usage(arguments: list[str], says: str) -> None:
    done = _example("seed", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "hunter2" not in done.stderr
