"""Tasks as ECS runs them: a process with addresses for arguments, JSON lines for a log and an exit code."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import ProgramNotFoundError, redis_server
from recovery import task
from recovery.places import DatabasePlace
from recovery.procedures.commands import verify_command
from recovery.procedures.points import RecoveryPoint
from recovery.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # real servers or processes in every test

DUMP = b"CREATE TABLE public.t (v int);\nCOPY public.t (v) FROM stdin;\n1\n2\n\\.\n"


@pytest.fixture
def target(fake_aws: str, master_database: str) -> list[str]:
    """The arguments that name the database and its secret."""
    del fake_aws
    given = conninfo_to_dict(master_database)
    return [
        *("--host", str(given["host"]), "--port", str(given["port"]), "--database", str(given["dbname"])),
        *("--secret-arn", secret(json.dumps({"username": given["user"], "password": "not-used-here"}))),
        *("--region", "us-east-1"),
    ]


def secret(value: str) -> str:
    client = boto3.client("secretsmanager", region_name="us-east-1")
    return str(client.create_secret(Name=f"s-{secrets.token_hex(6)}", SecretString=value)["ARN"])


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_restore_task_reports_progress_and_its_result(
    target: list[str], s3: Any, bucket: str, master_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.put_object(Bucket=bucket, Key="db/x.sql.gz", Body=gzip.compress(DUMP))
    assert task.run(["restore", f"s3://{bucket}/db/x.sql.gz", *target]) == 0
    output = capsys.readouterr().out
    assert {event["event"] for event in events(output)} == {"progress", "result"}
    result = events(output)[-1]
    assert (result["kind"], result["data"]["rows"]) == ("restore", 2)
    assert "not-used-here" not in output
    with psycopg.connect(master_database) as connection:
        assert connection.execute("SELECT sum(v) FROM t").fetchone() == (3,)


def test_a_bad_dump_ends_a_task_with_an_error_event_of_its_kind(
    target: list[str], s3: Any, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.put_object(Bucket=bucket, Key="db/x.sql.gz", Body=gzip.compress(DUMP)[:-5])
    assert task.run(["restore", "--dump", f"s3://{bucket}/db/x.sql.gz", *target]) == 1
    error = events(capsys.readouterr().out)[-1]
    assert (error["event"], error["kind"], error["code"]) == ("error", "BadDumpError", 1)
    assert "damaged" in error["message"]


@pytest.fixture
def verify_as_the_drill(target: list[str], s3: Any, bucket: str, tmp_path: Path) -> Callable[..., list[str]]:
    """verify_as_the_drill(recovery.toml's text) -> the arguments that a drill gives its task, of a restored DUMP."""
    dump = f"s3://{bucket}/db/x.sql.gz"
    s3.put_object(Bucket=bucket, Key="db/x.sql.gz", Body=gzip.compress(DUMP))
    assert task.run(["restore", dump, *target]) == 0
    given = dict(zip(target[::2], target[1::2], strict=True))
    database = DatabasePlace(
        identifier="x",
        host=given["--host"],
        port=int(given["--port"]),
        name=given["--database"],
        user="master",
        secret_arn=given["--secret-arn"],
        version="16",
    )

    def arguments(toml: str) -> list[str]:
        (tmp_path / "recovery.toml").write_text(toml)
        point = RecoveryPoint(
            bucket=bucket,
            key="db/x.sql.gz",
            size=1,
            text_size=None,
            manifest_key=None,
            snapshot_time=None,
            backup_id="x",
            given=True,
        )
        return verify_command(point, database, given["--region"], load_settings(tmp_path), ["public.t"])[1:]

    return arguments


@pytest.mark.parametrize(
    ("sql", "bound", "outcome"),
    [
        ("SELECT sum(v) FROM t", "expected = 3", "PASS"),
        ("SELECT sum(v) FROM t", "expected = 4", "FAIL"),
        ("SELECT sum(v) FROM t", "at_least = 3", "PASS"),
        ("SELECT sum(v) FROM t", "at_least = 3.5", "FAIL"),
        ("SELECT v FROM t ORDER BY v", "expected = [1, 2]", "PASS"),
        ("SELECT v FROM t ORDER BY v", "expected = [2, 1]", "FAIL"),
        ("SELECT date '2026-01-02'", "expected = 2026-01-02", "PASS"),
        ("SELECT date '2026-01-02'", "expected = 2026-01-03", "FAIL"),
        ("SELECT timestamptz '2026-01-02 03:04:05+00'", "expected = 2026-01-02T03:04:05Z", "PASS"),
        ("SELECT v FROM nowhere", "", "FAIL"),
    ],
)
def test_a_verify_task_holds_the_drills_sample_queries_against_what_they_should_return(
    verify_as_the_drill: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    sql: str,
    bound: str,
    outcome: str,
) -> None:
    capsys.readouterr()
    toml = f'[verify]\nrequired = ["rows", "samples"]\n[[checks]]\nname = "q"\nsql = "{sql}"\nwhen = "t"\n{bound}\n'
    elsewhere = '[[checks]]\nname = "elsewhere"\nsql = "SELECT count(*) FROM nowhere"\nwhen = "nowhere"\n'
    code = task.run(verify_as_the_drill(toml + elsewhere))
    result = events(capsys.readouterr().out)[-1]
    assert (result["event"], result["kind"], result["data"]["verdict"]) == ("result", "verify", outcome)
    assert code == (0 if outcome == "PASS" else 1)
    rungs = {rung["name"]: rung for rung in result["data"]["rungs"]}
    assert (rungs["rows"]["outcome"], rungs["samples"]["outcome"]) == ("PASS", outcome)
    assert [query["name"] for query in rungs["samples"]["evidence"]["queries"]] == ["q"]


def test_a_verify_task_states_the_newest_row_that_recovery_toml_asks_for_and_may_install_what_it_checks_with(
    verify_as_the_drill: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    arguments = verify_as_the_drill("[verify]\nnewest_row = \"SELECT timestamptz '2026-01-02 03:04+00'\"\n")
    assert "--install-checks" in arguments
    assert task.run(arguments) == 0
    rungs = {rung["name"]: rung for rung in events(capsys.readouterr().out)[-1]["data"]["rungs"]}
    assert rungs["freshness"]["outcome"] == "NOT RUN"  # a dump without a manifest has no recovery point
    assert rungs["freshness"]["evidence"]["newest_row"] == "2026-01-02T03:04:00+00:00"
    assert rungs["freshness"]["reason"].endswith("the newest row: 2026-01-02T03:04:00+00:00")
    assert "nothing is installed unless asked" not in rungs["indexes"]["reason"]


@pytest.mark.parametrize("samples", ['[{"name": "q", "sql": "SELECT 1", "expect": 2}]', "{", '[{"name": "q"}]'])
def test_sample_queries_that_say_something_unknown_are_refused(
    target: list[str], capsys: pytest.CaptureFixture[str], samples: str
) -> None:
    assert task.run(["verify", "s3://bucket/db/x.sql.gz", *target, "--samples", samples]) == 2
    assert "--samples" in events(capsys.readouterr().out)[-1]["message"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["restore"], 2),
        (["nothing"], 2),
        (["ping", "--host", "127.0.0.1", "--port", "1", "--secret", "arn:x", "--region", "us-east-1"], 4),
    ],
)
def test_wrong_arguments_and_missing_secrets_are_said_as_events(
    argv: list[str], code: int, fake_aws: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del fake_aws
    assert task.run(argv) == code
    assert [event["event"] for event in events(capsys.readouterr().out)] == ["error"]


def test_a_manifest_that_is_none_is_refused(
    target: list[str], s3: Any, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"{}")
    arguments = ["restore", f"s3://{bucket}/x", "--manifest", f"s3://{bucket}/x", *target]
    assert task.run(arguments) == 1
    assert "manifest" in events(capsys.readouterr().out)[-1]["message"]


def test_sigterm_ends_a_restore_with_nothing_left_behind(
    target: list[str], master_database: str, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(DUMP + b"SELECT pg_catalog.pg_sleep(120);\n")
    code = "import sys; from recovery import task; sys.exit(task.run(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "restore", str(dump), *target],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    name = conninfo_to_dict(master_database)["dbname"]
    with psycopg.connect(make_conninfo(master_database, dbname="postgres"), autocommit=True) as connection:
        deadline = time.monotonic() + 60
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(120)%%' AND datname LIKE %s"
        while connection.execute(asleep, [f"{name}_restoring%"]).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert events(output)[-1]["kind"] == "RunInterruptedError"
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}%"]).fetchall()
        assert left == [(name,)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[int]:
    """A Redis on loopback that wants the token `opensesame`; gives its port."""
    try:
        program = redis_server()
    except ProgramNotFoundError as error:
        pytest.skip(f"NOT RUN: {error}")
    port = 20000 + secrets.randbelow(20000)
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "opensesame", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(0.3)
    yield port
    process.terminate()
    process.wait(20)


def test_ping_logs_in_writes_and_reads_back(cache: int, fake_aws: str, capsys: pytest.CaptureFixture[str]) -> None:
    del fake_aws
    where = ["--host", "127.0.0.1", "--port", str(cache), "--region", "us-east-1"]
    assert task.run(["ping", *where, "--secret-arn", secret("opensesame")]) == 0
    assert events(capsys.readouterr().out)[-1]["kind"] == "ping"
    assert task.run(["ping", *where, "--secret-arn", secret("wrong")]) == 1
    assert "token" in events(capsys.readouterr().out)[-1]["message"]


@pytest.mark.parametrize(
    ("host", "mode"),
    [("127.0.0.1", "prefer"), ("localhost", "prefer"), ("/run/postgresql", "prefer"), ("db.example", "require")],
)
def test_a_database_on_another_machine_is_never_spoken_to_in_plain_text(
    target: list[str], monkeypatch: pytest.MonkeyPatch, host: str, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def see(source: str, dsn: str, **rest: object) -> None:
        del source, rest
        asked.append(str(conninfo_to_dict(dsn)["sslmode"]))
        raise RuntimeError("seen")

    monkeypatch.setattr(task, "restore", see)
    target[target.index("--host") + 1] = host
    assert task.run(["restore", "s3://bucket/db/x.sql.gz", *target]) == 1
    assert asked == [mode]
    assert "seen" in capsys.readouterr().out
