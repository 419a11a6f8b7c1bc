"""Taking backups of real databases, into a folder and into a bucket."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps import names, pg_dump, upload
from recovery.dumps.catalogue import list_backups, list_local_backups, newest_sealed
from recovery.dumps.manifest import Manifest
from recovery.dumps.writer import Options, take_backup
from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError, UsageError
from recovery.progress import ProgressEvent

pytestmark = pytest.mark.slow  # many restores into real servers

ORIGINAL = Path(__file__).with_name("original.sql").read_text()

# Without the column that inheritance moves when the table is made anew, by psql as by anybody.
ORDERED = ORIGINAL.replace("ALTER TABLE app.parent ADD COLUMN d int;", "").replace(
    "CREATE TABLE app.parent (a int, b text)", "CREATE TABLE app.parent (a int, b text, d int)"
)


def fill(dsn: str, script: str = ORIGINAL) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script.encode())


def psql(dsn: str, script: bytes, major: int = 16) -> None:
    """Restore as the runbook does, but stop at the first error."""
    subprocess.run(
        [postgresql_client_folder(major) / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=script,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def plain_dump(dsn: str, major: int = 16) -> list[bytes]:
    out = subprocess.run([postgresql_client_folder(major) / "pg_dump", "-d", dsn], capture_output=True, check=True)
    return [line for line in out.stdout.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict"))]


def dump_of(path: Path) -> list[bytes]:
    """The lines of a dump, without those that are random by design."""
    lines = gzip.decompress(path.read_bytes()).splitlines()
    return [line for line in lines if not line.startswith((b"\\restrict", b"\\unrestrict"))]


def test_a_backup_is_byte_for_byte_what_pg_dump_writes(database: str, tmp_path: Path) -> None:
    fill(database)
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.path is not None
    assert dump_of(backup.path) == plain_dump(database)


def test_a_backup_restored_by_psql_dumps_as_the_original(make_database: Callable[..., str], tmp_path: Path) -> None:
    source, target = make_database(), make_database()
    fill(source, ORDERED)
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.path is not None
    psql(target, gzip.decompress(backup.path.read_bytes()))
    assert plain_dump(target) == plain_dump(source)


def test_the_manifest_states_what_the_database_holds(database: str, tmp_path: Path) -> None:
    fill(database)
    before = dt.datetime.now(dt.UTC)
    backup = take_backup(database, local_dir=tmp_path)
    manifest = backup.manifest
    assert manifest is not None
    assert backup.path is not None
    content = backup.path.read_bytes()
    assert (manifest.size, manifest.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert abs(manifest.snapshot_time - before) < dt.timedelta(minutes=1)
    rows = {(table.schema_name, table.name): table.rows for table in manifest.tables}
    assert rows["app", "nodes"] == 4000
    assert rows["app", "events_a"] + rows["app", "events_b"] == 60
    assert ("app", "events") not in rows
    assert (rows["app", "parent"], rows["app", "child"], rows["app", "empty"]) == (1, 1, 1)
    assert rows['Weird "Schema" é', "Table; DROP -- 'x' (y)"] == 2
    sequences = {(s.schema_name, s.name): (s.value, s.is_called) for s in manifest.sequences}
    assert sequences["app", "loose"] == (4, True)
    assert sequences['Weird "Schema" é', "it's"] == (41, True)
    assert sequences["app", "nodes_id_seq"] == (4000, True)
    assert {(k.table, k.name, k.validated, k.violations) for k in manifest.foreign_keys} == {
        ("nodes", "nodes_parent_fkey", True, 0),
        ("nodes", "nodes_project_id_fkey", True, 0),
    }
    assert manifest.large_objects is not None
    assert manifest.large_objects.count == 2
    assert manifest.database_state is not None
    assert manifest.database_state.encoding == "UTF8"
    assert manifest.newest_commit_time is not None
    assert manifest.newest_commit_time <= manifest.snapshot_time
    kinds = {item.kind for item in manifest.objects or ()}
    assert kinds >= {
        "schema", "table", "view", "materialized view", "index", "sequence", "type", "function", "aggregate",
        "operator", "trigger", "rule", "policy", "publication", "statistics object", "table constraint", "comment",
        "collation", "text search configuration", "default privileges",
    }  # fmt: skip
    assert Manifest.from_bytes((tmp_path / f"{backup.backup_id}.manifest.json").read_bytes()) == manifest


def test_every_copy_block_is_where_the_manifest_says(database: str, tmp_path: Path) -> None:
    fill(database)
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.path is not None
    assert backup.manifest is not None
    layout = backup.manifest.layout
    assert layout is not None
    compressed = backup.path.read_bytes()
    text = gzip.decompress(compressed)
    assert layout.uncompressed_size == len(text)
    for block in layout.copy_blocks:
        data = text[block.offset : block.offset + block.length]
        assert data.count(b"\n") == block.rows
        assert text[: block.offset].endswith(b" FROM stdin;\n")
        assert text[block.offset + block.length :].startswith(b"\\.\n")
    position = 0
    rebuilt = b""
    for size, length in layout.members:
        member = gzip.decompress(compressed[position : position + size])
        assert len(member) == length
        rebuilt += member
        position += size
    assert rebuilt == text
    assert b"COPY" not in text[layout.data_end :]
    assert b"CREATE TABLE app.nodes" in text[: layout.data_start]
    assert b"PRIMARY KEY" in text[layout.data_end :]


def test_a_backup_in_a_bucket_is_sealed_and_named_latest(
    database: str, s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, "CREATE TABLE t AS SELECT i, md5(i::text) || md5((-i)::text) AS x FROM generate_series(1, 250000) i")
    monkeypatch.setattr(upload, "part_size", lambda _: 5 * 1024 * 1024)
    first = take_backup(database, s3=s3, bucket=bucket, local_dir=tmp_path)
    second = take_backup(database, s3=s3, bucket=bucket)
    listed = list_backups(s3, bucket)
    assert [(b.backup_id, b.sealed, b.problem) for b in listed] == [
        (second.backup_id, True, None),
        (first.backup_id, True, None),
    ]
    assert newest_sealed(listed).manifest == second.manifest
    latest = s3.get_object(Bucket=bucket, Key="db/latest.sql.gz")["Body"].read()
    assert second.manifest is not None
    assert hashlib.sha256(latest).hexdigest() == second.manifest.sha256
    assert first.path is not None
    assert first.path.read_bytes() == s3.get_object(Bucket=bucket, Key=first.key)["Body"].read()
    assert (first.manifest.object_checksum or "").endswith("-2") if first.manifest else False
    assert "db/backup.lock" not in {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}


def test_a_backup_carries_the_key_it_was_told_to_encrypt_with(database: str, s3: Any, bucket: str) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    backup = take_backup(database, s3=s3, bucket=bucket, kms_key_id=key)
    for name in (backup.filename, f"{backup.backup_id}.manifest.json", "latest.sql.gz"):
        head = s3.head_object(Bucket=bucket, Key=f"db/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_object_lock_is_set_where_the_bucket_has_it(database: str, s3: Any) -> None:
    s3.create_bucket(Bucket="locked-backups", ObjectLockEnabledForBucket=True)
    backup = take_backup(database, s3=s3, bucket="locked-backups")
    head = s3.head_object(Bucket="locked-backups", Key=backup.key)
    assert head["ObjectLockMode"] == "GOVERNANCE"
    assert head["ObjectLockRetainUntilDate"] - dt.datetime.now(dt.UTC) > dt.timedelta(days=29)


def test_a_rehearsal_does_not_move_latest(database: str, s3: Any, bucket: str) -> None:
    take_backup(database, s3=s3, bucket=bucket, options=Options(rehearsal="x"))
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert not any(key.endswith("latest.sql.gz") for key in keys)
    assert len(list_backups(s3, bucket, "drills/x/")) == 1
    assert list_backups(s3, bucket) == []


def test_what_an_sql_text_says_about_copy_does_not_count_as_data(database: str, tmp_path: Path) -> None:
    fill(database, "CREATE TABLE t (x int); INSERT INTO t VALUES (1);")
    fill(database, "COMMENT ON TABLE t IS E'\\nCOPY public.t (x) FROM stdin;\\n1\\n2\\n\\\\.\\n'")
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.manifest is not None
    assert [table.rows for table in backup.manifest.tables] == [1]


def test_writers_are_never_blocked_and_the_dump_is_of_one_moment(database: str, tmp_path: Path) -> None:
    fill(database, "CREATE TABLE a (x int); CREATE TABLE b (x int); INSERT INTO a SELECT generate_series(1, 50000)")
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(database) as connection:
            while not stop.is_set():
                connection.execute(
                    "WITH moved AS (DELETE FROM a WHERE ctid IN (SELECT ctid FROM a LIMIT 50) RETURNING x)"
                    " INSERT INTO b SELECT x FROM moved"
                )
                connection.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup = take_backup(database, local_dir=tmp_path)
    finally:
        stop.set()
        writer.join()
    assert backup.manifest is not None
    assert sum(table.rows for table in backup.manifest.tables) == 50000


def test_a_table_under_an_exclusive_lock_fails_the_backup_in_bounded_time(database: str, tmp_path: Path) -> None:
    fill(database, "CREATE TABLE t (x int)")
    with psycopg.connect(database) as connection:
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(RecoveryError, match=r"locked by somebody else for longer than 0\.2 s"):
            take_backup(database, local_dir=tmp_path, options=Options(lock_timeout_seconds=0.2))
    assert list_local_backups(tmp_path) == []


def test_rows_that_a_policy_hides_refuse_the_backup(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    database = make_database()
    fill(database, "CREATE TABLE secured (x int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY")
    fill(database, f"GRANT SELECT ON secured TO {master16}")
    with pytest.raises(RefusedError, match="row security would hide rows of 1 table"):
        take_backup(make_conninfo(database, user=master16), local_dir=tmp_path)


def test_a_table_the_role_may_not_read_refuses_the_backup(
    make_database: Callable[..., str], master16: str, tmp_path: Path
) -> None:
    database = make_database()
    fill(database, "CREATE TABLE closed (x int)")
    with pytest.raises(RefusedError, match="may not read 1 of the tables") as caught:
        take_backup(make_conninfo(database, user=master16), local_dir=tmp_path)
    assert caught.value.detail == "public.closed"


def test_a_master_role_without_superuser_takes_a_whole_backup(master_database: str, tmp_path: Path) -> None:
    fill(master_database, ORIGINAL.replace("CREATE PUBLICATION changes FOR TABLE app.nodes;", ""))
    backup = take_backup(master_database, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.manifest.globals is not None
    assert b"PASSWORD" not in (tmp_path / backup.manifest.globals.filename).read_bytes()


def test_settings_of_role_and_database_change_neither_text_nor_checksum(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    database = make_database()
    fill(database)
    fill(database, "CREATE TABLE app.texts AS SELECT now() AS at, '\\x00ff'::bytea AS raw, 0.1::float8 / 3 AS third")
    before = take_backup(database, local_dir=tmp_path / "before").manifest
    name = conninfo_to_dict(database)["dbname"]
    for setting in (
        "DateStyle = 'German, DMY'", "TimeZone = 'Asia/Kolkata'", "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -3", "bytea_output = 'escape'", "search_path = app, public", "row_security = on",
        "quote_all_identifiers = on", "statement_timeout = '50ms'", "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off", "escape_string_warning = off",
    ):  # fmt: skip
        fill(database, f'ALTER DATABASE "{name}" SET {setting}')
    after = take_backup(database, local_dir=tmp_path / "after").manifest
    assert before is not None
    assert after is not None
    assert after.tables == before.tables
    assert after.objects == before.objects
    texts = [
        dump_of(tmp_path / folder / manifest.filename) for folder, manifest in (("before", before), ("after", after))
    ]
    assert texts[0] == texts[1]
    assert after.database_state is not None
    assert "TimeZone=Asia/Kolkata" in after.database_state.settings


def test_a_dump_that_lacks_rows_is_not_sealed(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database, "CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 10)")
    run = pg_dump.run

    def lossy(dsn: str, major: int, snapshot: str, take: Callable[[bytes], None], **settings: Any) -> None:
        run(dsn, major, snapshot, lambda chunk: take(chunk.replace(b"\n7\n", b"\n")), **settings)

    monkeypatch.setattr(pg_dump, "run", lossy)
    with pytest.raises(RecoveryError, match="does not hold what the database held") as caught:
        take_backup(database, local_dir=tmp_path)
    assert "public.t: 9 in the dump, 10 in the database" in (caught.value.detail or "")
    assert list_local_backups(tmp_path) == []


def test_no_password_stands_in_an_argument_of_pg_dump(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    start = subprocess.Popen.__init__

    def watch(self: Any, args: Any, *rest: Any, **more: Any) -> None:
        seen.append([str(part) for part in args])
        start(self, args, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", watch)
    take_backup(make_conninfo(database, password="hunter2", keepalives_idle=10), local_dir=tmp_path)
    assert any("pg_dump" in call[0] for call in seen)
    assert not any("hunter2" in part for call in seen for part in call)


def test_a_database_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="cannot be connected to") as caught:
        take_backup("host=127.0.0.1 port=1 user=u password=hunter2 dbname=d", local_dir=tmp_path)
    assert "127.0.0.1 port 1 database d" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_backup_without_a_destination_is_a_usage_error(database: str) -> None:
    with pytest.raises(UsageError):
        take_backup(database)


def test_a_bucket_that_is_not_there_is_named(database: str, s3: Any) -> None:
    with pytest.raises(EnvironmentLacksError, match="s3://no-such-bucket/"):
        take_backup(database, s3=s3, bucket="no-such-bucket")


def test_a_dump_is_readable_by_its_owner_only(database: str, tmp_path: Path) -> None:
    backup = take_backup(database, local_dir=tmp_path)
    assert backup.path is not None
    assert backup.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / names.LATEST).samefile(backup.path)


def test_a_backup_says_how_far_it_is(database: str, tmp_path: Path) -> None:
    fill(database)
    events: list[ProgressEvent] = []
    take_backup(database, local_dir=tmp_path, progress=events.append)
    assert {event.stage for event in events} == {"checksum", "dump", "backup"}
    assert all(ProgressEvent.from_json(event.to_json()) == event for event in events)


def test_a_server_of_18_is_dumped_by_its_own_pg_dump(make_database18: Callable[..., str], tmp_path: Path) -> None:
    source, target = make_database18(), make_database18()
    fill(source, ORDERED)
    backup = take_backup(source, local_dir=tmp_path)
    assert backup.manifest is not None
    assert backup.path is not None
    assert backup.manifest.pg_dump_version.startswith("18.")
    psql(target, gzip.decompress(backup.path.read_bytes()), 18)
    assert plain_dump(target, 18) == plain_dump(source, 18)
