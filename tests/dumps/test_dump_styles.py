"""A dump in every style of pg_dump: restored as psql restores it, or refused in words with what to do instead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.errors import RecoveryError
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # two restores into real servers in every test

SCHEMA = b"""
CREATE SCHEMA s AUTHORIZATION styled;
CREATE TABLE s.parent (id int PRIMARY KEY, v text, big int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO s.parent SELECT i, E'it''s \\\\ a;\\n--t\\u00e9xt' || i FROM generate_series(1, 300) i;
CREATE TABLE s.child (id int GENERATED ALWAYS AS IDENTITY, parent int REFERENCES s.parent DEFERRABLE INITIALLY DEFERRED,
  n numeric, b bytea, bits bit(3), flag bool, at timestamptz, "odd, name" text, self int);
INSERT INTO s.child (parent, n, b, bits, flag, at, "odd, name")
SELECT NULLIF(i, 7), -i / 7.0, decode(md5(i::text), 'hex'), B'101', i % 2 = 0,
  '2020-01-01'::timestamptz + i * interval '1 hour', CASE WHEN i % 3 > 0 THEN ');\n' END
  FROM generate_series(1, 300) i;
INSERT INTO s.child (n) VALUES ('NaN'), ('Infinity'), (1e30), (-0.000);
CREATE TABLE s.nothing ();
INSERT INTO s.nothing DEFAULT VALUES;
INSERT INTO s.nothing DEFAULT VALUES;
CREATE TABLE s.root (id int, k text) PARTITION BY LIST (k);
CREATE TABLE s.leaf_a PARTITION OF s.root FOR VALUES IN ('a');
CREATE TABLE s.leaf PARTITION OF s.root DEFAULT;
INSERT INTO s.root SELECT i, chr(97 + i % 3) FROM generate_series(1, 60) i;
CREATE FUNCTION s.seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || ''!''; RETURN NEW; END';
CREATE TRIGGER seen BEFORE INSERT ON s.parent FOR EACH ROW EXECUTE FUNCTION s.seen();
ALTER TABLE s.child OWNER TO styled;
ALTER TABLE s.parent OWNER TO styled;
GRANT SELECT ON s.nothing TO styled;
CREATE MATERIALIZED VIEW s.summary AS SELECT count(*) FROM s.child;
CREATE VIEW s.looking AS SELECT * FROM s.parent;
SELECT lo_from_bytea(4711, 'large');
"""

STYLES = [
    "--use-set-session-authorization",
    "--inserts",
    "--column-inserts",
    "--rows-per-insert=50",
    "--rows-per-insert=50 --on-conflict-do-nothing",
    "--inserts --on-conflict-do-nothing --quote-all-identifiers",
    "--inserts --load-via-partition-root --use-set-session-authorization",
    "--inserts --disable-triggers --no-owner",
    "--inserts --encoding=LATIN1 --clean --if-exists",
    "--clean",
    "--clean --if-exists --no-owner --no-privileges",
    "--create --clean --if-exists",
    "--disable-triggers",
    "--quote-all-identifiers",
    "--load-via-partition-root",
    "--encoding=LATIN1",
    "--encoding=SQL_ASCII",
    "--section=pre-data",
    "--section=pre-data --section=data",
    "--schema-only",
    "--exclude-table-data=s.leaf --no-large-objects",
    "--schema=s --exclude-table=s.summary --exclude-table-data-and-children=s.root",
    "--strict-names --no-sync --no-comments --no-security-labels --no-tablespaces --no-toast-compression",
]


@pytest.fixture
def source(make_database: Callable[..., str], programs: Any) -> str:
    dsn = make_database()
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'styled'").fetchone() is None:
            connection.execute("CREATE ROLE styled")
    programs.psql(dsn, SCHEMA, "-v", "ON_ERROR_STOP=1")
    return dsn


@pytest.mark.parametrize("style", STYLES)
def test_a_dump_in_any_style_is_restored_as_psql_restores_it(
    make_database: Callable[..., str], programs: Any, source: str, tmp_path: Path, style: str
) -> None:
    ours, theirs = make_database(), make_database()
    for dsn in (ours, theirs):  # for what the dump does as that role
        programs.psql(dsn, b"GRANT CREATE ON DATABASE :DBNAME TO styled")
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source, *style.split()))
    result = restore(str(tmp_path / "dump.sql"), ours, jobs=2)
    if "insert" in style and "conflict" not in style:
        assert result.row_counts["s.parent"] == 300
        assert result.rows == 300 + 304 + 2 + 60
    if "--create" in style:  # psql would restore into the source itself
        dump = programs.pg_dump(source)
    programs.psql(theirs, dump)
    programs.assert_same(ours, theirs)


def test_the_three_sections_one_after_the_other_are_one_dump(
    make_database: Callable[..., str], programs: Any, source: str, tmp_path: Path
) -> None:
    pieces = [programs.pg_dump(source, f"--section={section}") for section in ("pre-data", "data", "post-data")]
    (tmp_path / "dump.sql").write_bytes(b"".join(pieces))
    restore(str(tmp_path / "dump.sql"), ours := make_database())
    programs.assert_same(ours, source)


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("--data-only", r"rows of s\..* does not exist"),
        ("--data-only --inserts", r"INSERT INTO|TABLE DATA.* does not exist"),
        ("--section=data", r"rows of s\..* does not exist"),
        ("--section=post-data", r"does not exist"),
    ],
)
def test_a_piece_that_needs_another_is_refused_with_what_to_do(  # noqa: PLR0917  # fixtures
    make_database: Callable[..., str], programs: Any, source: str, tmp_path: Path, style: str, said: str
) -> None:
    (tmp_path / "dump.sql").write_bytes(programs.pg_dump(source, "--no-large-objects", *style.split()))
    with pytest.raises(RecoveryError, match=r"line \d+ of the dump, ") as refused:
        restore(str(tmp_path / "dump.sql"), make_database())
    assert re.search(said, str(refused.value))
    assert "put the pieces together" in str(refused.value.hint)


def test_a_role_the_dump_acts_as_that_may_not_create_is_named_with_what_to_do(
    make_database: Callable[..., str], programs: Any, source: str, tmp_path: Path
) -> None:
    (tmp_path / "dump.sql").write_bytes(programs.pg_dump(source, "--use-set-session-authorization"))
    with pytest.raises(RecoveryError, match="permission denied for database") as refused:
        restore(str(tmp_path / "dump.sql"), make_database())
    assert "the role styled" in str(refused.value.hint)
    assert "GRANT CREATE ON DATABASE" in str(refused.value.hint)


def test_a_dump_of_the_whole_cluster_is_refused_with_what_to_do(
    make_database: Callable[..., str], tmp_path: Path
) -> None:
    program = postgresql_client_folder(16) / "pg_dumpall"
    with (tmp_path / "dump.sql").open("wb") as file:
        subprocess.run([program, "--schema-only", "-d", make_database()], check=True, stdout=file)
    with pytest.raises(RecoveryError, match="whole cluster") as refused:
        restore(str(tmp_path / "dump.sql"), make_database())
    assert "pg_dump" in str(refused.value.hint)


def test_a_partitioned_table_is_known_as_one_whatever_its_columns_are_called(tmp_path: Path) -> None:
    """Its rows are in its partitions: were it taken for an ordinary table, a check of the restore would miss it."""
    text = (
        b'CREATE TABLE public.a ("x;y" int, "a""" text)\nPARTITION BY LIST ("x;y", lower(\';\'\';\'), "a""");\n'
        b"CREATE TABLE public.b (v text DEFAULT ') PARTITION BY LIST (v)'::text);\n"
    )
    (tmp_path / "dump.sql").write_bytes(text)
    with open_dump(str(tmp_path / "dump.sql")) as opened:
        assert check(opened).facts.tables == {("public", "b"): 0}


INSERT = b"INSERT INTO public.t VALUES (%d, '%s');\n"


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize(
    ("bad", "state"),
    [(b"INSERT INTO public.t VALUES (1, 'twice');\n", "23505"), (b"INSERT INTO public.t VALUES ('x', 'y');\n", "22P02"),
     (b"INSERT INTO public.t VALUES (-1, 'a', 'b');\n", "42601")],
)  # fmt: skip
def test_an_insert_that_fails_among_thousands_is_named_by_its_line(
    make_database: Callable[..., str], tmp_path: Path, bad: bytes, state: str, jobs: int
) -> None:
    rows = [INSERT % (number, b"x" * 90) for number in range(9000)]
    rows.insert(7777, bad)
    (tmp_path / "dump.sql").write_bytes(b"CREATE TABLE public.t (id int PRIMARY KEY, v text);\n\n" + b"".join(rows))
    with pytest.raises(RecoveryError, match="line 7780 of the dump") as refused:
        restore(str(tmp_path / "dump.sql"), make_database(), jobs=jobs)
    assert state in str(refused.value.detail)


def test_inserts_that_wait_for_a_commit_fail_where_psql_would_have_failed(database: str, tmp_path: Path) -> None:
    text = (
        b"CREATE TABLE public.a (id int PRIMARY KEY, b int);\nCREATE TABLE public.b (id int PRIMARY KEY);\n"
        b"ALTER TABLE public.a ADD FOREIGN KEY (b) REFERENCES public.a DEFERRABLE INITIALLY DEFERRED;\n"
        b"INSERT INTO public.a VALUES (1, 2);\nINSERT INTO public.a VALUES (2, 1);\n"
    )
    (tmp_path / "dump.sql").write_bytes(text)
    with pytest.raises(RecoveryError, match="line 4 of the dump"):
        restore(str(tmp_path / "dump.sql"), database)


def test_inserts_within_the_dumps_own_transaction_stay_in_it(database: str, tmp_path: Path) -> None:
    text = (
        b"CREATE TABLE public.a (id int PRIMARY KEY, b int REFERENCES public.a DEFERRABLE INITIALLY DEFERRED);\n"
        b"BEGIN;\nINSERT INTO public.a VALUES (1, 2);\nINSERT INTO public.a VALUES (2, 1);\nCOMMIT;\n"
    )
    (tmp_path / "dump.sql").write_bytes(text)
    restore(str(tmp_path / "dump.sql"), database)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT xmin::text) FROM a").fetchone() == (2, 1)


def test_the_first_of_two_rows_in_conflict_is_the_one_that_stays(database: str, tmp_path: Path) -> None:
    rows = [b"INSERT INTO public.t VALUES (%d, %d) ON CONFLICT DO NOTHING;\n" % (n % 5000, n) for n in range(20_000)]
    (tmp_path / "dump.sql").write_bytes(b"CREATE TABLE public.t (id int PRIMARY KEY, v int);\n" + b"".join(rows))
    assert restore(str(tmp_path / "dump.sql"), database, jobs=3).row_counts == {}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*), max(v), bool_and(id = v) FROM t").fetchone() == (5000, 4999, True)


def test_a_row_of_100_mb_in_an_insert_takes_little_more_memory_than_itself(database: str, tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("NOT RUN: the peak of a process's own memory is read from /proc")
    with (tmp_path / "dump.sql").open("wb") as file:
        file.write(b"CREATE TABLE public.t (v bytea);\nINSERT INTO public.t VALUES ('\\x")
        for _ in range(100):
            file.write(b"5c" * 500_000)
        file.write(b"');\n")
    code = (
        "import re, sys; from recovery.restore import restore; restore(sys.argv[1], sys.argv[2], jobs=2);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dump.sql"), database], check=True, capture_output=True, text=True
    ).stdout
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT octet_length(v) FROM t").fetchone() == (50_000_000,)
    assert int(output) < (150 + 4 * 100) * 1024
