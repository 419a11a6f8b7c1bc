"""What an operator sees of backups, restores and checks: the commands themselves, against real servers and an S3."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery import cli, space
from recovery.clients import Clients
from recovery.dumps.retention import TAG
from recovery.dumps.writer import take_backup
from recovery.restore import restore
from recovery.space import compare_space, look_at_space, rds_disk

pytestmark = pytest.mark.slow  # many restores into real servers

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command said and ended with."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclasses.dataclass(frozen=True)
class Operator:
    """A person with a recovery.toml, a folder of backups and a bucket in each region."""

    run: Callable[..., Answer]
    folder: Path
    primary: str
    dr: str


@pytest.fixture
def operator(  # the buckets bring the environment that leads to them
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    bucket: str, bucket_west: str,
) -> Operator:  # fmt: skip
    folder = tmp_path / "backups"
    settings = tmp_path / "recovery.toml"
    settings.write_text(
        '[platform]\naccount = "123456789012"\n'
        f'backups_bucket = "{bucket}"\ndr_backups_bucket = "{bucket_west}"\n'
        f'[database]\nlocal_dir = "{folder}"\n'
        "[verify]\nnewest_row = \"SELECT timestamptz '2026-01-02 03:04+00'\"\n"
        '[[checks]]\nname = "rows"\nsql = "SELECT count(*) FROM t"\nexpected = 20000\nwhen = "t"\n'
    )
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(settings))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def run(*arguments: str, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = cli._run(list(arguments))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return Operator(run, folder, bucket, bucket_west)


@pytest.fixture
def filled(database: str) -> str:
    execute(database, "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS v FROM generate_series(1, 20000) i")
    return database


def execute(dsn: str, text: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode())


def value(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return row[0] if row else None


def renamed(name: str, days: int) -> str:
    """The same backup's name as one of some days ago."""
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    return name.replace(name[8:23], f"{moment:%Y%m%d_%H%M%S}")


def test_pruning_says_what_it_would_do_in_every_place_and_does_it_only_when_told(
    operator: Operator, filled: str, s3: Any, s3_west: Any
) -> None:
    old: dict[str, str] = {}
    for region, client, bucket in (("us-east-1", s3, operator.primary), ("us-west-2", s3_west, operator.dr)):
        backup = take_backup(filled, s3=client, bucket=bucket, local_dir=operator.folder)
        # An old dump of the time before manifests: superseded by the sealed one once it is past the retention.
        old[region] = renamed(backup.backup_id, 40)
        client.put_object(Bucket=bucket, Key=f"db/{old[region]}.sql.gz", Body=b"old")
    ancient = operator.folder / f"{old['us-east-1']}.sql.gz"
    ancient.write_bytes(b"old")

    def tags(client: Any, bucket: str, region: str) -> Any:
        return client.get_object_tagging(Bucket=bucket, Key=f"db/{old[region]}.sql.gz")["TagSet"]

    planned = operator.run("--json", "backups", "prune")
    assert (planned.code, planned.document["applied"]) == (0, False)
    assert [(p["region"], p["superseded"], p["problem"]) for p in planned.document["places"]] == [
        ("us-east-1", [old["us-east-1"]], None), ("us-west-2", [old["us-west-2"]], None),
        (None, [old["us-east-1"]], None),
    ]  # fmt: skip
    assert "it is the newest sealed backup" in planned.document["places"][0]["kept"].values()
    assert "--apply does it" in operator.run("backups", "prune").err
    assert tags(s3, operator.primary, "us-east-1") == []
    assert ancient.exists()
    # Nobody is there to confirm, and both at once is a contradiction.
    assert operator.run("backups", "prune", "--apply").code == 3
    assert operator.run("backups", "prune", "--apply", "--dry-run").code == 2
    assert operator.run("backups", "prune", "--region", "us-west-2", "--yes").code == 0
    assert tags(s3, operator.primary, "us-east-1") == []
    assert tags(s3_west, operator.dr, "us-west-2") == [TAG]
    assert ancient.exists()
    page = operator.run("backups", "prune", "--yes")
    assert page.code == 0
    assert "were tagged agentverse:superseded=true" in page.out
    assert tags(s3, operator.primary, "us-east-1") == [TAG]
    assert not ancient.exists()


def test_without_a_sealed_backup_nothing_is_superseded_and_a_lost_region_is_said(
    operator: Operator, s3_west: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_west.put_object(Bucket=operator.dr, Key="db/db_full_20250101_020000.sql.gz", Body=b"old")
    settings = tmp_path / "recovery.toml"
    settings.write_text(settings.read_text().replace(operator.primary, "no-such-bucket-here"))
    answer = operator.run("--json", "backups", "prune", "--yes")
    assert answer.code == 4
    lost, kept, _ = answer.document["places"]
    assert "no-such-bucket-here" in lost["problem"]
    assert kept["kept"] == {"db_full_20250101_020000": "there is no sealed backup that could replace it"}
    assert "1 of 3 places" in answer.err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert operator.run("backups", "prune", "--here").code == 0


def test_verifying_a_backup_reads_its_content_and_not_only_the_listing(operator: Operator, filled: str) -> None:
    backup = take_backup(filled, local_dir=operator.folder)
    assert backup.path is not None
    good = operator.run("--json", "backups", "verify", "--here")
    assert (good.code, good.document["readable"], good.document["reread"]["rows"]) == (0, True, 20000)
    content = bytearray(backup.path.read_bytes())
    content[len(content) // 2] ^= 1
    backup.path.write_bytes(content)
    # The listing still calls it sealed: its size is right.
    assert operator.run("--json", "backups", "list", "--here").document["backups"][0]["sealed"]
    bad = operator.run("--json", "backups", "verify", "--here")
    assert (bad.code, bad.document["readable"]) == (1, False)
    assert any("SHA-256" in problem for problem in bad.document["reread"]["problems"])
    assert bad.document["error"]["code"] == 1


def test_verifying_an_unsealed_backup_says_that_it_is_whole_and_unsealed(
    operator: Operator, filled: str, programs: Any
) -> None:
    old = operator.folder / "db_full_20250101_020000.sql.gz"
    operator.folder.mkdir(parents=True, exist_ok=True)
    old.write_bytes(gzip.compress(programs.pg_dump(filled)))
    answer = operator.run("backups", "verify", "db_full_20250101_020000", "--here")
    assert (answer.code, "whole but unsealed: it has no manifest" in answer.out) == (0, True)
    document = operator.run("--json", "backups", "verify", "db_full_20250101_020000", "--here").document
    assert (document["readable"], document["backup"]["sealed"], document["reread"]["rows"]) == (True, False, 20000)
    old.write_bytes(old.read_bytes()[:-9])
    assert operator.run("backups", "verify", "db_full_20250101_020000", "--here").code == 1


def test_a_backup_in_any_bucket_of_any_region_is_listed_shown_and_verified_by_its_address(
    operator: Operator, filled: str, fake_aws: str, make_database: Callable[..., str]
) -> None:
    far = boto3.client("s3", region_name="eu-west-1", endpoint_url=fake_aws)
    bucket = f"far-{operator.dr}"
    far.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    other, backup = (take_backup(filled, s3=far, bucket=bucket, prefix="old/db/") for _ in range(2))
    region = ("--region", "eu-west-1")
    for where in ((), region):
        listed = operator.run("--json", "backups", "list", f"s3://{bucket}/old/db/", *where).document["backups"]
        assert [item["id"] for item in listed] == [backup.backup_id, other.backup_id]
        shown = operator.run("--json", "backups", "show", backup.address, *where).document
        assert shown["manifest"]["sha256"] == backup.manifest.sha256 if backup.manifest else False
        verified = operator.run("--json", "backups", "verify", backup.address, *where)
        assert (verified.code, verified.document["reread"]["address"]) == (0, backup.address)
        assert operator.run("restore", backup.address, "--to", make_database(), *where).code == 0
        database = ("--database", filled, "--manifest", backup.manifest_address)
        assert operator.run("verify", *database, *where).code == 0
    content = bytearray(far.get_object(Bucket=bucket, Key=backup.key)["Body"].read())
    content[len(content) // 2] ^= 1
    far.put_object(Bucket=bucket, Key=backup.key, Body=bytes(content))
    assert operator.run("backups", "verify", backup.address).code == 1
    nowhere = operator.run("backups", "list", *region)
    assert (nowhere.code, "s3://BUCKET" in nowhere.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "db/"),
        ("list", "s3://"),
        ("list", "s3://bucket/db/", "--here"),
        ("show", "s3://bucket/db/latest.sql.gz"),
        ("verify", "s3://bucket/db/db_full_20260109_020000.sql.gz", "--here"),
    ],
)
def test_what_is_no_address_of_backups_is_said(operator: Operator, arguments: tuple[str, ...]) -> None:
    answer = operator.run("backups", *arguments)
    assert (answer.code, "s3://" in answer.err) == (2, True)


def test_an_unsealed_backup_is_listed_with_its_problem_beside_the_sealed_ones(
    operator: Operator, filled: str, s3_west: Any
) -> None:
    take_backup(filled, s3=s3_west, bucket=operator.dr, local_dir=operator.folder)
    s3_west.put_object(Bucket=operator.dr, Key="db/db_full_20250101_020000.sql.gz", Body=b"old")
    listed = operator.run("--json", "backups", "list").document["backups"]
    assert [(item["sealed"], item["problem"], item["address"].startswith("s3://")) for item in listed] == [
        (True, None, True), (False, "it has no manifest", True), (True, None, False),
    ]  # fmt: skip


def test_a_restored_database_is_verified_against_the_manifest_and_against_the_original(
    operator: Operator, filled: str, make_database: Callable[..., str]
) -> None:
    backup = take_backup(filled, local_dir=operator.folder)
    target = make_database()
    restored = operator.run("--json", "restore", str(backup.path), "--to", target, "--jobs", "3")
    assert (restored.code, restored.document["rows"]) == (0, 20000)
    for reference in (("--manifest", backup.manifest_address), ("--against", filled)):
        good = operator.run("--json", "verify", "--database", target, *reference)
        outcomes = {rung["name"]: rung["outcome"] for rung in good.document["rungs"]}
        assert (good.code, good.document["verdict"], outcomes["content"], outcomes["samples"]) == (
            0, "PASS", "PASS", "PASS",
        )  # fmt: skip
    execute(target, "UPDATE t SET v = 'x' WHERE id = 77")
    bad = operator.run("verify", "--database", target, "--against", filled)
    assert bad.code == 1
    assert "content" in bad.err.lower()
    both = operator.run("verify", "--database", target, "--against", filled, "--manifest", backup.manifest_address)
    assert both.code == 2


def test_a_database_is_verified_against_a_dump_that_has_no_manifest(
    operator: Operator, filled: str, make_database: Callable[..., str], programs: Any
) -> None:
    dump = operator.folder.parent / "dump.sql"
    dump.write_bytes(programs.pg_dump(filled))
    s3 = boto3.client("s3", region_name="us-west-2")
    s3.put_object(Bucket=operator.dr, Key="other/dump.sql.gz", Body=gzip.compress(dump.read_bytes()))
    target = make_database()
    assert operator.run("restore", str(dump), "--to", target).code == 0
    for source in (str(dump), f"s3://{operator.dr}/other/dump.sql.gz"):
        good = operator.run("--json", "verify", "--database", target, "--dump", source)
        outcomes = {rung["name"]: rung["outcome"] for rung in good.document["rungs"]}
        assert (good.code, good.document["reference"]) == (0, "the dump's own text")
        assert {outcomes[name] for name in ("schema", "rows", "content", "foreign-keys", "samples")} == {"PASS"}
        assert {outcomes[name] for name in ("grants", "freshness")} == {"NOT RUN"}
    execute(target, "DELETE FROM t WHERE id = 77")
    bad = operator.run("verify", "--database", target, "--dump", str(dump))
    assert (bad.code, "rows" in bad.err) == (1, True)
    assert operator.run("verify", "--database", target, "--dump", str(dump), "--against", filled).code == 2
    dump.write_bytes(dump.read_bytes()[:-200])
    assert operator.run("verify", "--database", target, "--dump", str(dump)).code == 1


def test_the_oldest_recovery_point_that_passes_is_said_as_a_span(operator: Operator, filled: str) -> None:
    backup = take_backup(filled, local_dir=operator.folder)
    manifest = ("--database", filled, "--manifest", backup.manifest_address)
    assert operator.run("verify", *manifest, "--max-age", "1h").code == 0
    stale = operator.run("--json", "verify", *manifest, "--max-age", "0.0001m")
    assert stale.code == 1
    assert {r["name"]: r["outcome"] for r in stale.document["rungs"]}["freshness"] == "FAIL"
    assert {r["name"]: r["evidence"] for r in stale.document["rungs"]}["freshness"]["newest_row"].startswith(
        "2026-01-02T"
    )
    assert operator.run("verify", *manifest, "--max-age", "soon").code == 2


def test_checks_are_installed_only_when_that_is_asked_for(
    operator: Operator, make_database15: Callable[..., str]
) -> None:
    database = make_database15()
    if not value(database, "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"):
        pytest.skip("this machine's PostgreSQL 15 has no amcheck")
    installed = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'"
    operator.run("verify", "--database", database)
    assert value(database, installed) == 0
    answer = operator.run("--json", "verify", "--database", database, "--install-checks")
    assert {r["name"]: r["outcome"] for r in answer.document["rungs"]}["indexes"] == "PASS"
    assert value(database, installed) == 1


def test_what_killed_restores_left_is_dropped_by_one_command(operator: Operator, database: str) -> None:
    name = conninfo_to_dict(database)["dbname"]
    left = f"{name}_restoring_20260101000000_abcdef"
    admin = make_conninfo(database, dbname="postgres")
    execute(admin, f"CREATE DATABASE {left}")
    execute(admin, f"""COMMENT ON DATABASE {left} IS '{{"made_by": "agentverse-dr", "target": "{name}"}}'""")
    there = f"SELECT count(*) FROM pg_database WHERE datname = '{left}'"
    planned = operator.run("--json", "restore", "--drop-interrupted", "--dry-run", "--to", database)
    assert (planned.code, planned.document["dropped"], value(admin, there)) == (0, [left], 1)
    assert operator.run("restore", "--drop-interrupted", "--to", database).code == 3
    done = operator.run("--yes", "--json", "restore", "--drop-interrupted", "--to", database)
    assert (done.document["dry_run"], done.document["dropped"], value(admin, there)) == (False, [left], 0)
    assert "left anything" in operator.run("restore", "--drop-interrupted", "--to", database).out


def test_standard_input_and_a_folder_are_restored_too(
    operator: Operator, filled: str, make_database: Callable[..., str], tmp_path: Path
) -> None:
    program = postgresql_client_folder(16) / "pg_dump"
    dump = subprocess.run([program, "-d", filled], check=True, capture_output=True).stdout
    piped, folder = make_database(), make_database()
    assert operator.run("restore", "-", "--to", piped, stdin=dump).code == 0
    subprocess.run([program, "-Fd", "-f", tmp_path / "archive", "-d", filled], check=True)
    assert operator.run("restore", str(tmp_path / "archive"), "--to", folder).code == 0
    assert value(piped, "SELECT count(*) FROM t") == value(folder, "SELECT count(*) FROM t") == 20000


def test_a_restore_that_is_estimated_not_to_fit_is_refused_and_the_estimate_can_be_overruled(
    operator: Operator, filled: str, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, target = take_backup(filled, local_dir=operator.folder), make_database()
    plan = operator.run("--json", "restore", str(backup.path), "--to", target, "--dry-run").document["space"]
    assert (plan["verdict"], "an estimate" in plan["needed_basis"]) == ("ENOUGH", True)
    monkeypatch.setattr(space, "DATABASE_PER_TEXT", 1e12)
    refused = operator.run("restore", str(backup.path), "--to", target)
    assert (refused.code, "an estimate" in refused.err) == (4, True)
    assert value(target, "SELECT to_regclass('t') IS NULL")
    assert operator.run("restore", str(backup.path), "--to", target, "--ignore-space").code == 0


def test_the_need_of_a_dump_without_a_manifest_is_known_where_its_text_is(
    operator: Operator, filled: str, make_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, plain, packed = make_database(), tmp_path / "dump.sql", tmp_path / "dump.sql.gz"
    text = subprocess.run([postgresql_client_folder(16) / "pg_dump", "-d", filled], check=True, capture_output=True)
    plain.write_bytes(text.stdout)
    packed.write_bytes(gzip.compress(text.stdout))
    for path in (plain, packed):  # the one is known by its size, the other once it has been read
        plan = operator.run("--json", "restore", str(path), "--to", target, "--dry-run").document["space"]
        assert (plan["verdict"], plan["needed"]) == ("ENOUGH", int(len(text.stdout) * space.DATABASE_PER_TEXT))
    monkeypatch.setattr(space, "DATABASE_PER_TEXT", 1e12)
    assert operator.run("restore", str(plain), "--to", target).code == 4
    assert operator.run("restore", str(packed), "--to", target, "--dry-run").code == 4
    assert value(target, "SELECT to_regclass('t') IS NULL")
    assert operator.run("restore", str(packed), "--to", target).code == 0  # nothing tells


def test_what_cannot_be_known_of_a_disk_is_not_known(filled: str, tmp_path: Path) -> None:
    manifest = take_backup(filled, local_dir=tmp_path).manifest
    without = look_at_space(filled, None)
    assert (without.verdict, without.needed) == ("NOT KNOWN", None)
    execute(filled, "CREATE ROLE knows_little LOGIN")
    try:
        hidden = look_at_space(make_conninfo(filled, user="knows_little"), manifest)
    finally:
        execute(filled, "DROP ROLE knows_little")
    assert (hidden.verdict, hidden.free) == ("NOT KNOWN", None)
    assert "may not see" in hidden.free_basis
    assert "free space NOT KNOWN" in hidden.line


def test_an_instances_free_disk_is_what_cloudwatch_measured_and_else_not_known(fake_aws: str) -> None:
    clients = Clients("us-west-2")
    clients("rds").create_db_instance(
        DBInstanceIdentifier="restored", Engine="postgres", DBInstanceClass="db.t4g.micro", AllocatedStorage=20
    )
    disk = rds_disk(clients, "restored")
    assert (disk.free, disk.total, "20 GiB in all" in disk.basis) == (None, 20 * 1024**3, True)
    # How much of the 20 GiB is free nobody knows; that 60 GiB do not go into them is known all the same.
    assert compare_space(1024**3, disk).verdict == "NOT KNOWN"
    assert compare_space(40 * 1024**3, disk).verdict == "TOO LITTLE"
    boto3.client("cloudwatch", region_name="us-west-2", endpoint_url=fake_aws).put_metric_data(
        Namespace="AWS/RDS",
        MetricData=[
            {
                "MetricName": "FreeStorageSpace",
                "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": "restored"}],
                "Timestamp": dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2),
                "Value": 7_000_000_000,
                "Unit": "Bytes",
            }
        ],
    )
    disk = rds_disk(clients, "restored")
    assert (disk.free, disk.basis.startswith("CloudWatch")) == (7_000_000_000, True)
    assert [compare_space(text, disk).verdict for text in (1_000_000_000, 7_000_000_000)] == ["ENOUGH", "TOO LITTLE"]
    disk = rds_disk(clients, "absent")
    assert (disk.free, disk.total, disk.basis.startswith("AWS does not tell")) == (None, None, True)


def test_a_warning_that_every_such_dump_gives_is_noted_as_expected(database: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    path.write_text("CREATE TABLE t (x int);\nCREATE PUBLICATION p FOR TABLE t;\n")
    notes = restore(str(path), database).notes
    assert ["wal_level = logical" in note.text for note in notes if note.kind == "expected"] == [True]
    assert not [note for note in notes if note.kind == "warning"]


def test_every_document_keeps_to_its_published_schema(
    operator: Operator, filled: str, make_database: Callable[..., str], s3_west: Any
) -> None:
    backup = take_backup(filled, s3=s3_west, bucket=operator.dr, local_dir=operator.folder)
    target = make_database()
    to = ("--to", target)
    calls = {
        "backups-list": ("backups", "list"),
        "backups-show": ("backups", "show"),
        "backups-verify": ("backups", "verify"),
        "backups-prune": ("backups", "prune"),
        "restore-dry-run": ("restore", "latest", *to, "--dry-run"),
        "restore": ("restore", "latest", *to),
        "restore-drop-interrupted": ("restore", "--drop-interrupted", *to),
        "verify": ("verify", "--database", target, "--manifest", backup.manifest_address),
        "error": ("restore", "no-such-backup", *to),
    }
    for name, arguments in calls.items():
        answer = operator.run("--json", *arguments)
        assert answer.code == (1 if name == "error" else 0), answer.err
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
        importlib.import_module("jsonschema").validate(answer.document, schema)


def test_restoring_what_is_not_sealed_says_so_and_goes_by_the_dumps_own_text(
    operator: Operator, filled: str, make_database: Callable[..., str]
) -> None:
    backup, target = take_backup(filled, local_dir=operator.folder), make_database()
    Path(backup.manifest_address).unlink()
    answer = operator.run("restore", str(backup.path), "--to", target)
    assert answer.code == 0
    assert "is not sealed: it has no manifest" in answer.err
    assert "no manifest tells how large" in answer.err


def test_a_manifest_that_was_changed_is_refused_before_anything_is_restored(
    operator: Operator, filled: str, make_database: Callable[..., str]
) -> None:
    backup, target = take_backup(filled, local_dir=operator.folder), make_database()
    manifest = Path(backup.manifest_address)
    changed = manifest.read_bytes().replace(b'"server_version"', b'"Server_version"', 1)
    assert changed != manifest.read_bytes()
    manifest.write_bytes(changed)
    refused = operator.run("restore", str(backup.path), "--to", target)
    assert refused.code == 1
    assert str(manifest) in refused.err
    assert "cannot be used" in refused.err
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []
    alone = operator.folder / "alone.sql.gz"
    alone.write_bytes(Path(str(backup.path)).read_bytes())
    assert operator.run("restore", str(alone), "--to", target).code == 0  # as the hint says
