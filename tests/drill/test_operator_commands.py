"""Every command an operator has besides the drill itself, on a real embedded cloud, each also with --json."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

if TYPE_CHECKING:
    from conftest import Cloud

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PRIMARY_REGION = "us-east-1"
BUCKETS = {"us-east-1": "agentverse-backups", "us-west-2": "agentverse-backups-dr"}
OTHER_ACCOUNT = "999999999999"
UNKNOWN_DRILL = "20260109-020000-1a2b"


@dataclass
class Operator:
    """Somebody at a shell: a recovery.toml of their own, a cloud, and what is in the environment."""

    cloud: Cloud
    settings: Path
    local_dir: Path

    def environment(self, **more: str) -> dict[str, str]:
        """What their shell has set."""
        return {**self.cloud.environment, "AGENTVERSE_CONFIG": str(self.settings), **more}

    def __call__(
        self, *arguments: str, local: bool = True, stdin: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `recovery` to its end; whatever it says, it never shows a traceback."""
        with (stdin or Path(os.devnull)).open("rb") as given:
            done = subprocess.run(
                [sys.executable, "-m", "recovery", *(["--local"] if local else []), *arguments],
                env=self.environment(**more), cwd=ROOT, stdin=given,
                capture_output=True, text=True, check=False, timeout=280,
            )  # fmt: skip
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0, **more: Any) -> Any:
        """Run `recovery --json`, which must print one document and nothing else; return it."""
        done = self("--json", *arguments, **more)
        assert done.returncode == code, done.stderr
        document = json.loads(done.stdout)
        assert document["schema_version"] == 1
        return document

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `recovery --local` in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def operator(cloud: Cloud, tmp_path: Path) -> Operator:
    local_dir = tmp_path / "local backups"
    settings = tmp_path / "recovery.toml"
    settings.write_text(
        f"[platform]\nproject = {json.dumps(str(ROOT))}\n[database]\nlocal_dir = {json.dumps(str(local_dir))}\n"
        '[verify]\nrequired = ["server", "schema", "rows"]\n'
    )
    return Operator(cloud=cloud, settings=settings, local_dir=local_dir)


@dataclass(frozen=True)
class Database:
    """A database on an RDS instance of the embedded cloud."""

    dsn: str
    password: str

    def named(self, name: str) -> Database:
        """Return another database of the same server."""
        return Database(dsn=f"{self.dsn.rpartition('/')[0]}/{name}", password=self.password)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, password=self.password) as connection:
            return connection.execute(query).fetchall()

    def change(self, statement: str) -> None:
        with psycopg.connect(self.dsn, password=self.password) as connection:
            connection.execute(statement)


def database_of(cloud: Cloud, identifier: str) -> Database:
    rds, vault = cloud.client("rds", PRIMARY_REGION), cloud.client("secretsmanager", PRIMARY_REGION)
    instance = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
    arn = instance["MasterUserSecret"]["SecretArn"]
    secret = json.loads(vault.get_secret_value(SecretId=arn)["SecretString"])
    address = f"{instance['Endpoint']['Address']}:{instance['Endpoint']['Port']}"
    return Database(
        dsn=f"postgresql://{secret['username']}@{address}/{instance['DBName']}", password=secret["password"]
    )


@pytest.fixture
def production(cloud: Cloud) -> Database:
    return database_of(cloud, "agentverse-prod-db")


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
    yield database_of(cloud, "operator-target")
    rds.delete_db_instance(DBInstanceIdentifier="operator-target", SkipFinalSnapshot=True)


@pytest.fixture
def target(server: Database) -> Database:
    """A database that does not exist yet."""
    return server.named(f"t{secrets.token_hex(4)}")


def keys(cloud: Cloud, region: str) -> dict[str, int]:
    listed = cloud.client("s3", region).list_objects_v2(Bucket=BUCKETS[region], Prefix="db/")
    return {item["Key"]: item["Size"] for item in listed.get("Contents", [])}


def wait_for_replica(cloud: Cloud, key: str) -> None:
    deadline = time.monotonic() + 30
    while key not in keys(cloud, "us-west-2"):
        assert time.monotonic() < deadline, f"{key} has no replica"
        time.sleep(0.1)


def backup(operator: Operator, production: Database) -> dict[str, Any]:
    """Take a backup and wait until the DR region has it; return its row."""
    taken = operator.json(
        "backup", AGENTVERSE_DATABASE_URL=production.dsn, PGPASSWORD=production.password
    )["backup"]  # fmt: skip
    for suffix in (".sql.gz", ".manifest.json"):
        wait_for_replica(operator.cloud, f"db/{taken['id']}{suffix}")
    return dict(taken)


# --- backup and backups


def test_a_backup_without_an_address_changes_nothing(operator: Operator) -> None:
    before = keys(operator.cloud, PRIMARY_REGION)
    refused = operator.json("backup", code=4)["error"]
    assert "AGENTVERSE_DATABASE_URL is not set" in refused["message"]
    assert refused["hint"]
    nonsense = operator.json("backup", code=2, AGENTVERSE_DATABASE_URL="hunter2-no-address")["error"]
    assert "AGENTVERSE_DATABASE_URL is not the address" in nonsense["message"]
    assert "hunter2" not in json.dumps(nonsense)
    away = operator("backup", AGENTVERSE_DATABASE_URL="postgresql://u:s3cret-word@127.0.0.1:9/x")
    assert away.returncode == 4
    assert "s3cret-word" not in away.stderr
    assert keys(operator.cloud, PRIMARY_REGION) == before
    # The lock that keeps two backups apart is no backup.
    assert [path for path in operator.local_dir.glob("*") if path.name != ".backup.lock"] == []


def test_a_backup_is_a_sealed_pair_in_both_regions_and_here_with_latest_moved(
    operator: Operator, production: Database
) -> None:
    taken = backup(operator, production)
    there = keys(operator.cloud, PRIMARY_REGION)
    here = {path.name: path.stat().st_size for path in operator.local_dir.iterdir()}
    for suffix in (".sql.gz", ".manifest.json"):
        assert there[f"db/{taken['id']}{suffix}"] == here[f"{taken['id']}{suffix}"]
    content = (operator.local_dir / f"{taken['id']}.sql.gz").read_bytes()
    assert (operator.local_dir / "latest.sql.gz").read_bytes() == content
    s3 = operator.cloud.client("s3", PRIMARY_REGION)
    latest = s3.get_object(Bucket=BUCKETS[PRIMARY_REGION], Key="db/latest.sql.gz")["Body"].read()
    assert hashlib.sha256(latest).digest() == hashlib.sha256(content).digest()
    for where in (("--region", "us-east-1"), ("--region", "us-west-2"), ("--here",)):
        listed = operator.json("backups", "list", *where)["backups"]
        assert listed[0]["id"] == taken["id"]
        assert listed[0]["sealed"]
        shown = operator.json("backups", "show", taken["id"], *where)
        assert shown["manifest"]["size"] == taken["size"]
        assert operator.json("backups", "verify", taken["id"], *where)["readable"]
    page = operator("backups", "list")
    assert page.returncode == 0
    # What is printed can be copied into the next command: nothing is cut, nothing is coloured.
    assert f"s3://agentverse-backups-dr/db/{taken['id']}.sql.gz\n" in page.stdout
    assert f"{operator.local_dir}/{taken['id']}.sql.gz\n" in page.stdout
    assert "\x1b" not in page.stdout + page.stderr


def test_a_backup_that_is_damaged_here_is_told_from_the_good_one(operator: Operator, production: Database) -> None:
    taken = backup(operator, production)
    path = operator.local_dir / f"{taken['id']}.sql.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert operator.json("backups", "verify", taken["id"], "--here", code=1)["error"]["message"]
    path.write_bytes(content[:-1])
    error = operator.json("backups", "verify", taken["id"], "--here", code=1)["error"]
    assert error["message"]
    assert not operator.json("backups", "list", "--here")["backups"][0]["sealed"]
    assert operator("backups", "verify", taken["id"]).returncode == 0


def test_what_is_asked_of_the_backups_and_is_not_there_is_named(operator: Operator) -> None:
    assert "'nonsense'" in operator.json("backups", "show", "nonsense", code=1)["error"]["message"]
    assert "eu-west-1" in operator.json("backups", "list", "--region", "eu-west-1", code=2)["error"]["message"]
    assert operator.json("backups", "list", "--here") == {"schema_version": 1, "backups": []}
    assert operator.json("backups", "show", "--here", code=1)["error"]["message"] == "there is no sealed backup"
    operator.settings.write_text(operator.settings.read_text() + '[drill]\nrecovery_image = ""\n')
    text = operator.settings.read_text().replace("[platform]\n", '[platform]\ndr_backups_bucket = "not-here"\n')
    operator.settings.write_text(text)
    assert "not-here" in json.dumps(operator.json("backups", "list", code=4)["error"])


def test_nobody_reads_the_password_in_the_process_list(operator: Operator, production: Database) -> None:
    dsn = psycopg.conninfo.make_conninfo(production.dsn, password=production.password)
    process = subprocess.Popen(
        [sys.executable, "-m", "recovery", "--local", "backup"],
        env=operator.environment(AGENTVERSE_DATABASE_URL=dsn),
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen: set[str] = set()
    while process.poll() is None:
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                seen.add(" ".join(child.cmdline()))
            except psutil.Error:
                continue
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert any("pg_dump" in line for line in seen)
    assert not [line for line in seen if production.password in line]
    assert production.password not in output + errors


# --- restore and verify


def test_a_backup_is_restored_from_everywhere_and_proven_equal(
    operator: Operator, production: Database, server: Database
) -> None:
    taken = backup(operator, production)
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


# --- environments and drills


def test_an_environment_is_made_looked_at_and_removed(operator: Operator) -> None:
    cloud = operator.cloud
    assert operator.json("environment", "up", "--dry-run")["dry_run"] is True
    assert cloud.leftovers() == []
    made = operator.json("environment", "up")
    drill = made["drill"]
    assert made["outputs"]["drillId"] == drill
    assert made["outputs"]["mode"] == "drill"
    [found] = operator.json("environment", "status")["environments"]
    assert (found["drill"], found["reap"], found["has_stack"]) == (drill, False, True)
    page = operator("environment", "status")
    assert drill in page.stdout
    assert "it is kept until" in page.stdout
    # Kept on purpose and not expired: nothing for the reaper.
    assert operator.json("environment", "reap", "--dry-run")["would_remove"] == {}
    assert operator.json("--yes", "environment", "reap")["removed"] == []
    # Another account's person, on the same cloud, can neither make nor remove.
    foreign: dict[str, Any] = {"local": False, "AGENTVERSE_ACCOUNT": OTHER_ACCOUNT, **cloud.document["env"]}
    for command in (("environment", "up"), ("environment", "down", drill)):
        refused = operator.json("--yes", *command, code=3, **foreign)["error"]
        assert OTHER_ACCOUNT in refused["message"]
        assert cloud.document["account"] in refused["message"]
    unasked = operator.json("environment", "down", drill, code=3)["error"]
    assert "--yes" in unasked["hint"]
    planned = operator.json("environment", "down", drill, "--dry-run")["would_remove"][drill]
    assert any("aws:rds/instance:Instance" in line for line in planned)
    assert cloud.leftovers() != []
    removed = operator.json("--yes", "environment", "down", drill)["removed"]
    assert [item["drill"] for item in removed] == [drill]
    assert cloud.leftovers() == []
    assert operator.json("environment", "status")["environments"] == []
    listed = {item["id"]: item for item in operator.json("drills", "list")["drills"]}
    assert (listed[drill]["verdict"], listed[drill]["kept"]) == ("PASS", False)


def test_what_never_was_is_not_said_to_be_removed(operator: Operator) -> None:
    before = set(operator.cloud.drills.glob("*"))
    error = operator.json("--yes", "environment", "down", UNKNOWN_DRILL, code=2)["error"]
    assert UNKNOWN_DRILL in error["message"]
    assert "not a drill's id" in operator.json("--yes", "environment", "down", "../x", code=2)["error"]["message"]
    assert set(operator.cloud.drills.glob("*")) == before


def test_a_failover_is_never_reaped_and_never_taken_down(operator: Operator) -> None:
    ec2 = operator.cloud.client("ec2")
    drill = f"20260109-020000-{secrets.token_hex(2)}"
    tags = {
        "agentverse:drill-id": drill, "agentverse:mode": "failover", "agentverse:expires-at": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": pairs}])["Vpc"]
    # Somebody's mistake: one thing in it is tagged as a drill's.
    pairs[1]["Value"] = "drill"
    subnet = ec2.create_subnet(
        VpcId=vpc["VpcId"], CidrBlock="10.9.0.0/24", TagSpecifications=[{"ResourceType": "subnet", "Tags": pairs}]
    )["Subnet"]
    try:
        [found] = operator.json("environment", "status")["environments"]
        assert (found["drill"], found["reap"]) == (drill, False)
        assert "only drills are reaped" in found["reason"]
        assert operator.json("--yes", "environment", "reap")["removed"] == []
        for more in ((), ("--dry-run",)):
            assert "failover" in json.dumps(operator.json("--yes", "environment", "down", drill, *more, code=3))
        assert ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"]
    finally:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def test_an_environment_interrupted_while_it_is_made_is_taken_down(operator: Operator) -> None:
    before = set(operator.cloud.drills.glob("*"))
    process = operator.begin("--json", "environment", "up")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        new = set(operator.cloud.drills.glob("*/journal.jsonl")) - {path / "journal.jsonl" for path in before}
        if any('"resources":' in journal.read_text() for journal in new):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert json.loads(output)["error"]["code"] == 130
    assert "Traceback" not in errors
    assert operator.cloud.leftovers() == []
    assert operator.cloud.processes() == []


def test_a_drill_that_is_kept_stays_until_it_is_taken_down(operator: Operator) -> None:
    cloud = operator.cloud
    report = operator.json("--yes", "drill", "quarterly", "--keep")
    drill = report["drill"]
    assert (report["verdict"], report["kept"]) == ("PASS", True)
    assert f"dr-{drill}" in cloud.stacks()
    assert operator.json("environment", "reap", "--dry-run")["would_remove"] == {}
    first = operator.json("drills", "list")["drills"][0]
    assert (first["id"], first["state"], first["kept"]) == (drill, "finished", True)
    shown = operator.json("drills", "show", drill)
    assert shown["rto_seconds"] == report["rto_seconds"]
    written = operator.json("drills", "report", drill)
    assert Path(written["html"]).read_text().startswith("<!doctype html>")
    page = operator("drills", "show", drill)
    assert page.returncode == 0
    assert f"recovery --local --yes environment down {drill}" in page.stdout
    removed = operator("--yes", "environment", "down", drill)
    assert removed.returncode == 0, removed.stderr
    assert f"{drill}: nothing is left" in removed.stdout
    assert cloud.leftovers() == []
    assert cloud.processes() == []
    again = operator.json("drills", "list")["drills"][0]
    assert (again["id"], again["kept"]) == (drill, False)


# --- the rest


def test_pulumi_previews_dr_by_hand_from_the_repository(operator: Operator, tmp_path: Path) -> None:
    """What README says; in a copy, because selecting a stack writes into its settings file."""
    copy = tmp_path / "repository"
    aside = shutil.ignore_patterns(".git", ".venv", ".tools", "drills", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=aside)
    (copy / ".venv").symlink_to(sys.prefix)
    script = (
        'set -e; export PATH="$PWD/.venv/bin:$PATH"; eval "$(localcloud env)"; '
        "pulumi stack select --create dr; pulumi preview -s dr --non-interactive --color never; "
        "pulumi preview -s dr --policy-pack policy --non-interactive --color never; pulumi stack rm dr --yes"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=operator.environment(), cwd=copy,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("to create") == 2
    assert "error" not in done.stdout


def test_the_doctor_tells_what_is_there_and_what_is_not(operator: Operator) -> None:
    well = operator.json("doctor")
    assert {check["outcome"] for check in well["checks"]} == {"ok"}
    text = operator.settings.read_text().replace("[platform]\n", '[platform]\nevidence_bucket = "not-here"\n')
    operator.settings.write_text(text)
    ill = operator.json("doctor", code=4)
    assert [check["name"] for check in ill["checks"] if check["outcome"] != "ok"] == ["evidence bucket"]
    page = operator("doctor")
    assert page.returncode == 4
    assert "not-here does not answer" in page.stdout


def test_a_list_that_is_cut_off_by_its_reader_is_no_crash(operator: Operator) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "recovery", "--local", "backups", "list"],
        env=operator.environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[object]]]:
    """A place that no call may reach: its address, and who has called."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, caller = listener.accept()
                except OSError:
                    return
                callers.append(caller)
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", callers
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_an_operators_own_aws_settings_lead_nothing_astray(
    operator: Operator, production: Database, elsewhere: tuple[str, list[object]], tmp_path: Path
) -> None:
    address, callers = elsewhere
    profiles = tmp_path / "config"
    services = "".join(f"{name} =\n  endpoint_url = {address}\n" for name in ("s3", "sts", "ec2", "rds"))
    profiles.write_text(
        f"[profile real]\nregion = eu-central-1\nendpoint_url = {address}\nservices = all\n"
        f"[default]\nendpoint_url = {address}\nservices = all\n[services all]\n{services}"
    )
    credentials = tmp_path / "credentials"
    credentials.write_text("[real]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n")
    own: dict[str, Any] = {
        "AWS_PROFILE": "real", "AWS_DEFAULT_PROFILE": "real", "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real", "AWS_SESSION_TOKEN": "real", "AWS_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": str(profiles), "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_ENDPOINT_URL": address, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_USE_FIPS_ENDPOINT": "true",
        **{f"AWS_ENDPOINT_URL_{name}": address for name in ("S3", "STS", "EC2", "RDS", "ECS", "SECRETS_MANAGER")},
        "HTTP_PROXY": address, "HTTPS_PROXY": address, "http_proxy": address, "ALL_PROXY": address,
        "PULUMI_BACKEND_URL": address, "PULUMI_ACCESS_TOKEN": "real", "PULUMI_CONFIG_PASSPHRASE_FILE": "/none",
        "AGENTVERSE_ACCOUNT": OTHER_ACCOUNT,
    }  # fmt: skip
    assert {check["outcome"] for check in operator.json("doctor", **own)["checks"]} == {"ok"}
    taken = operator.json("backup", AGENTVERSE_DATABASE_URL=production.dsn, PGPASSWORD=production.password, **own)
    assert taken["backup"]["sealed"]
    assert operator.json("backups", "verify", "--region", "us-east-1", **own)["readable"]
    made = operator.json("environment", "up", **own)
    assert made["outputs"]["account"] == operator.cloud.document["account"]
    assert operator.json("--yes", "environment", "down", made["drill"], **own)["removed"]
    assert operator.cloud.leftovers() == []
    assert callers == []
