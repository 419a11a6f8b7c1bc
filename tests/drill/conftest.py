"""One embedded cloud with a seeded production for the session, and people at a shell who run commands against it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
PRIMARY_REGION = "us-east-1"
DR_REGION = "us-west-2"
BUCKETS = {PRIMARY_REGION: "agentverse-backups", DR_REGION: "agentverse-backups-dr"}
# The published schema of each command's document, by the command's words.
SCHEMAS = {
    **{
        name: name
        for name in (
            "backup", "backups-list", "backups-show", "backups-verify", "doctor", "drills-list", "drills-report",
            "environment-down", "environment-status", "environment-up", "restore", "verify",
        )
    },
    "drill-quarterly": "drill-report",
    "drills-show": "drill-report",
    "environment-reap": "environment-down",
}  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what could point a command at another cloud."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTVERSE_", "AWS_", "PULUMI_"))}
    return {**own, **more}


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


@dataclass
class Cloud:
    """A running embedded cloud and the folder drills are written to."""

    home: Path
    drills: Path
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to act on this cloud and no other."""
        return clean_environment(
            AGENTVERSE_LOCALCLOUD_HOME=str(self.home),
            AGENTVERSE_LOCALCLOUD_PORT="0",
            AGENTVERSE_DRILLS=str(self.drills),
        )

    def localcloud(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `localcloud`."""
        return subprocess.run(
            [sys.executable, "-m", "localcloud", *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and learn where it is."""
        started = self.localcloud("start", "--json")
        assert started.returncode == 0, started.stderr
        self.document = json.loads(started.stdout)

    def recovery(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Run `recovery --local` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `recovery --local` in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def client(self, service: str, region: str = DR_REGION) -> Any:
        """Return a boto3 client."""
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region)
        client: Any = session.client(
            service,  # type: ignore[call-overload]  # any service, by name
            endpoint_url=self.document["endpoint"],
            config=Config(retries={"total_max_attempts": 2}),
        )
        return client

    def status(self) -> dict[str, Any]:
        """Return what runs in it."""
        said = self.localcloud("status", "--json")
        assert said.returncode == 0, said.stderr
        document: dict[str, Any] = json.loads(said.stdout)
        return document

    def stacks(self) -> set[str]:
        """Return the names of the Pulumi stacks whose state this cloud keeps."""
        folder = Path(self.document["env"]["PULUMI_BACKEND_URL"].removeprefix("file://"))
        return {path.stem for path in folder.glob(".pulumi/stacks/*/*.json")}

    def leftovers(self) -> list[str]:
        """Return everything of a drill that is still there, asked of each service itself; empty when nothing is."""
        found: list[str] = []
        found += [f"stack {name}" for name in self.stacks() if name.startswith("dr-")]
        found += [
            f"{row['kind']} {row['name']}" for row in self.status()["running"]
            if row["region"] == DR_REGION and row["kind"] != "replication"
        ]  # fmt: skip
        ec2 = self.client("ec2")
        for vpc in ec2.describe_vpcs()["Vpcs"]:
            if not vpc["IsDefault"]:
                found.append(f"vpc {vpc['VpcId']}")
        found += [i["NetworkInterfaceId"] for i in ec2.describe_network_interfaces()["NetworkInterfaces"]]
        found += [d["DBInstanceIdentifier"] for d in self.client("rds").describe_db_instances()["DBInstances"]]
        cache = self.client("elasticache")
        found += [g["ReplicationGroupId"] for g in cache.describe_replication_groups()["ReplicationGroups"]]
        found += [g["CacheSubnetGroupName"] for g in cache.describe_cache_subnet_groups()["CacheSubnetGroups"]]
        ecs = self.client("ecs")
        # A deleted cluster stays discoverable as INACTIVE for a while, on AWS too.
        clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
        found += [c["clusterName"] for c in clusters if c["status"] != "INACTIVE"]
        found += ecs.list_task_definitions()["taskDefinitionArns"]
        found += [s["Name"] for s in self.client("secretsmanager").list_secrets()["SecretList"]]
        found += [g["logGroupName"] for g in self.client("logs").describe_log_groups()["logGroups"]]
        return found

    def processes(self) -> list[str]:
        """Return the command lines of this session's helpers of a drill: engine, language host, provider, tasks."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                mine = process.environ().get("AGENTVERSE_LOCALCLOUD_HOME") == str(self.home)
                tasks = str(self.home) in process.environ().get("TMPDIR", "")
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            line = " ".join(words)
            helper = any(word in line for word in ("pulumi", "language_host", "localcloud.provider", "recovery task"))
            if (mine or tasks) and helper and process.pid != os.getpid():
                found.append(line)
        return found

    def database(self, identifier: str) -> Database:
        """Return the initial database of an RDS instance in the primary region, with its master's password."""
        rds, vault = self.client("rds", PRIMARY_REGION), self.client("secretsmanager", PRIMARY_REGION)
        instance = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
        arn = instance["MasterUserSecret"]["SecretArn"]
        secret = json.loads(vault.get_secret_value(SecretId=arn)["SecretString"])
        address = f"{instance['Endpoint']['Address']}:{instance['Endpoint']['Port']}"
        return Database(
            dsn=f"postgresql://{secret['username']}@{address}/{instance['DBName']}", password=secret["password"]
        )

    def dumps(self, region: str) -> dict[str, int]:
        """Return the sizes of what is in a region's bucket of backups, by key."""
        listed = self.client("s3", region).list_objects_v2(Bucket=BUCKETS[region], Prefix="db/")
        return {item["Key"]: item["Size"] for item in listed.get("Contents", [])}


def keeps_to_its_schema(arguments: tuple[str, ...], document: Any) -> None:
    """Whatever a command prints is what is published for it."""
    command = "-".join(word for word in arguments if not word.startswith("--"))
    name = max((name for name in SCHEMAS if f"{command}-".startswith(f"{name}-")), key=len)
    if document.keys() == {"schema_version", "error"}:
        name = "error"
    elif "--dry-run" in arguments:
        name = f"{SCHEMAS[name]}-dry-run"
    else:
        name = SCHEMAS[name]
    schema = (ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    importlib.import_module("jsonschema").validate(document, json.loads(schema))


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
        keeps_to_its_schema(arguments, document)
        return document

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `recovery --local` in a process group of its own, as a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "recovery", "--local", *arguments],
            env=self.environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def backup(self, production: Database) -> dict[str, Any]:
        """Take a backup and wait until the DR region has it; return its row."""
        taken = self.json("backup", AGENTVERSE_DATABASE_URL=production.dsn, PGPASSWORD=production.password)["backup"]
        deadline = time.monotonic() + 30
        for suffix in (".sql.gz", ".manifest.json"):
            while f"db/{taken['id']}{suffix}" not in self.cloud.dumps(DR_REGION):
                assert time.monotonic() < deadline, f"{taken['id']}{suffix} has no replica"
                time.sleep(0.1)
        return dict(taken)


def _new_cloud(tmp: Path) -> Iterator[Cloud]:
    home = Path(tempfile.mkdtemp(prefix="avd-", dir="/var/tmp"))
    home.chmod(0o711)
    cloud = Cloud(home=home / "c", drills=tmp / "drills")
    try:
        cloud.start()
        yield cloud
    finally:
        stopped = cloud.localcloud("stop")
        shutil.rmtree(home, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr


def _produce(cloud: Cloud) -> None:
    """Make a small production of the example platform in it."""
    made = subprocess.run(
        [sys.executable, "-m", "examples.agentverse", "production", "up", "--megabytes", "3", "--objects", "30"],
        env={**cloud.environment, **cloud.document["env"]},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Yield a cloud with a seeded, backed up and replicated production."""
    for made in _new_cloud(tmp_path_factory.mktemp("drill")):
        _produce(made)
        yield made


@pytest.fixture
def operator(cloud: Cloud, tmp_path: Path) -> Operator:
    """Somebody at a shell, with a recovery.toml of their own."""
    local_dir = tmp_path / "local backups"
    settings = tmp_path / "recovery.toml"
    settings.write_text(
        f"[platform]\nproject = {json.dumps(str(ROOT))}\n[database]\nlocal_dir = {json.dumps(str(local_dir))}\n"
        '[verify]\nrequired = ["server", "schema", "rows"]\n'
    )
    return Operator(cloud=cloud, settings=settings, local_dir=local_dir)


@pytest.fixture
def production(cloud: Cloud) -> Database:
    """The database that backups are taken of."""
    return cloud.database("agentverse-prod-db")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: no region dark, nothing of a drill left, so that the next one begins clean."""
    yield
    cloud: Cloud = request.getfixturevalue("cloud")
    for region in cloud.status()["dark_regions"]:
        cloud.localcloud("restore", region)
    if cloud.leftovers():
        cloud.recovery("--yes", "environment", "reap")
