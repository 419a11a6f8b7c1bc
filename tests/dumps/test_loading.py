"""Loading over several sessions: order kept where it matters, rows of any length, harmless failures and kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery.dumps.statements import Statement, TableName
from recovery.errors import EnvironmentLacksError, RecoveryError
from recovery.loading.feed import Budget, Feed
from recovery.loading.plan import BARRIER, BESIDE, DEFERRED, Setting, plan
from recovery.loading.pool import EXCLUSIVE, Pool, Work
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

if TYPE_CHECKING:
    from recovery.progress import ProgressEvent

pytestmark = pytest.mark.slow  # real servers or processes in every test


def write(tmp_path: Path, text: bytes) -> str:
    path = tmp_path / "dump.sql"
    path.write_bytes(text)
    return str(path)


def query(dsn: str, text: str) -> Any:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(text.encode()).fetchone()
        return row[0] if row is not None else None


def databases(dsn: str) -> list[Any]:
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}%"]).fetchall()
    return [row[0] for row in rows]


def test_one_big_table_is_split_over_the_sessions_and_every_row_arrives(tmp_path: Path, database: str) -> None:
    row = b"%d\t" + b"x" * 200 + b"\n"
    rows = b"".join(row % number for number in range(150_000))
    text = b"CREATE TABLE public.t (id int, v text);\nCOPY public.t (id, v) FROM stdin;\n" + rows + b"\\.\n"
    text += b"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);\n"
    seen: set[str] = set()

    def listen(event: ProgressEvent) -> None:
        seen.add(event.text)

    result = restore(write(tmp_path, text), database, jobs=3, progress=listen)
    assert result.rows == 150_000
    assert query(database, "SELECT count(DISTINCT id) FROM t") == 150_000
    assert query(database, "SELECT count(DISTINCT xmin::text) FROM t") > 1
    assert (
        query(database, "SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = 't'::regclass")
        == "t_pkey"
    )


@pytest.mark.slow
def test_rows_longer_than_any_piece_arrive_whole_between_short_ones(tmp_path: Path, database: str) -> None:
    with (tmp_path / "dump.sql").open("wb") as file:
        file.write(b"CREATE TABLE public.t (id int, v text);\nCOPY public.t (id, v) FROM stdin;\n")
        for number in range(60):
            length = 100_000_000 if number == 30 else 5_000_000 if number % 10 == 0 else 1000
            file.write(b"%d\t" % number)
            for _ in range(length // 1000):
                file.write(b"y" * 1000)
            file.write(b"\n")
        file.write(b"\\.\n")
    restore(str(tmp_path / "dump.sql"), database, jobs=3)
    assert query(
        database, "SELECT array_agg(id ORDER BY id) = (SELECT array_agg(g) FROM generate_series(0, 59) g) FROM t"
    )
    assert query(database, "SELECT length(v) FROM t WHERE id = 30") == 100_000_000
    assert query(database, "SELECT count(*) FROM t WHERE v ~ '[^y]'") == 0


@pytest.mark.slow
def test_the_clients_memory_stays_below_150_mb_whatever_the_dumps_size(tmp_path: Path, database: str) -> None:
    with (tmp_path / "dump.sql").open("wb") as file:
        file.write(b"CREATE UNLOGGED TABLE public.t (v text);\nCOPY public.t (v) FROM stdin;\n")
        for _ in range(400_000):
            file.write(b"z" * 999 + b"\n")
        file.write(b"\\.\n")
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("NOT RUN: the peak of a process's own memory is read from /proc")
    # Not getrusage: its peak counts what the process was before it became this program.
    code = (
        "import re, sys; from recovery.restore import restore; restore(sys.argv[1], sys.argv[2], jobs=4);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "dump.sql"), database], check=True, capture_output=True, text=True
    ).stdout
    assert int(output) < 150 * 1024


def test_a_refusal_in_one_session_stops_the_others_and_leaves_the_target_as_it_was(
    tmp_path: Path, database: str
) -> None:
    rows = b"".join(b"%d\t%s\n" % (number, b"x" * 300) for number in range(60_000))
    text = (
        b"CREATE TABLE public.t (id int, v text);\nCOPY public.t (id, v) FROM stdin;\n"
        + rows
        + b"no number\tx\n"
        + rows
    )
    with pytest.raises(RecoveryError, match=r"line 2 of the dump, rows of public\.t"):
        restore(write(tmp_path, text + b"\\.\n"), database, jobs=3)
    assert databases(database) == [conninfo_to_dict(database)["dbname"]]
    assert query(database, "SELECT to_regclass('public.t') IS NULL")


def test_a_duplicate_key_is_found_when_its_index_is_built_and_named(tmp_path: Path, database: str) -> None:
    text = b"CREATE TABLE public.t (id int NOT NULL);\nCOPY public.t (id) FROM stdin;\n1\n1\n\\.\n"
    text += b"ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);\n"
    with pytest.raises(RecoveryError, match="line 6 of the dump") as failed:
        restore(write(tmp_path, text), database)
    assert "23505" in str(failed.value.detail)


def test_rows_that_break_a_foreign_key_fail_the_restore(tmp_path: Path, database: str) -> None:
    text = (
        b"CREATE TABLE public.a (id int NOT NULL);\nCREATE TABLE public.b (a int);\n"
        b"COPY public.a (id) FROM stdin;\n1\n\\.\nCOPY public.b (a) FROM stdin;\n2\n\\.\n"
        b"ALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id);\n"
        b"ALTER TABLE ONLY public.b\n    ADD CONSTRAINT b_fk FOREIGN KEY (a) REFERENCES public.a(id);\n"
    )
    with pytest.raises(RecoveryError) as failed:
        restore(write(tmp_path, text), database)
    assert "23503" in str(failed.value.detail)


def test_rows_of_a_table_with_foreign_keys_or_checking_functions_keep_the_dumps_order(
    tmp_path: Path, database: str
) -> None:
    children = b"".join(b"%d\t%d\n" % (number, number - 1) for number in range(1, 2000))
    text = (
        b"CREATE TABLE public.tree (id int PRIMARY KEY, parent int REFERENCES public.tree);\n"
        b"COPY public.tree (id, parent) FROM stdin;\n0\t\\N\n" + children + b"\\.\n"
        b"CREATE FUNCTION public.known(i int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.tree t"
        b" WHERE t.id = i)';\nCREATE TABLE public.leaf (tree int CHECK (public.known(tree)));\n"
        b"COPY public.leaf (tree) FROM stdin;\n5\n\\.\n"
    )
    assert restore(write(tmp_path, text), database, jobs=3).rows == 2001


def test_a_backend_killed_while_loading_fails_the_restore_and_leaves_the_target_as_it_was(
    tmp_path: Path, database: str
) -> None:
    name = conninfo_to_dict(database)["dbname"]
    text = b"CREATE TABLE public.t (id int);\nCOPY public.t (id) FROM stdin;\n1\n\\.\nSELECT pg_catalog.pg_sleep(60);\n"

    def kill() -> None:
        with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
            deadline = time.monotonic() + 30
            kill_it = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname LIKE %s AND query LIKE '%%pg_sleep(60)%%' AND state = 'active'"
            )
            while time.monotonic() < deadline and not connection.execute(kill_it, [f"{name}_restoring%"]).fetchall():
                time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EnvironmentLacksError):
        restore(write(tmp_path, text), database)
    killer.join()
    assert databases(database) == [name]


def test_what_a_killed_restore_leaves_is_dropped_by_the_next_look(tmp_path: Path, database: str) -> None:
    source = write(tmp_path, b"CREATE TABLE public.t (id int);\nSELECT pg_catalog.pg_sleep(90);\n")
    code = "import sys; from recovery.restore import restore; restore(sys.argv[1], sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", code, source, database])
    deadline = time.monotonic() + 60
    while len(databases(database)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    assert drop_interrupted(database) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    while not (dropped := drop_interrupted(database)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "_restoring_" in dropped[0]
    assert databases(database) == [conninfo_to_dict(database)["dbname"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SET default_tablespace = '';", Setting("default_tablespace")),
        ("SELECT pg_catalog.set_config('search_path', '', false);", Setting("search_path")),
        ("SELECT pg_catalog.setval('public.s', 5, true);", BESIDE),
        ("COMMENT ON INDEX public.i IS 'x';", DEFERRED),
        ("ALTER INDEX public.i ATTACH PARTITION public.j;", DEFERRED),
        ("CREATE INDEX i ON t USING btree (a);", BARRIER),
        ("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c UNIQUE (a) USING INDEX TABLESPACE x;", BARRIER),
        ("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c PRIMARY KEY (a, b WITHOUT OVERLAPS);", BARRIER),
        ("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES public.u(a) NOT VALID;", BARRIER),
        (
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES public.u(a) NOT ENFORCED;",
            BARRIER,
        ),
        ("DO $$ BEGIN END $$;", BARRIER),
        ("REFRESH MATERIALIZED VIEW public.v;", BARRIER),
    ],
)
def test_only_what_is_known_by_its_whole_text_runs_out_of_turn(text: str, expected: Any) -> None:
    assert plan(Statement(text.encode(), 1), lambda _: True) == expected


def test_keys_become_an_index_and_a_constraint_only_on_ordinary_tables() -> None:
    key = Statement(
        b'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c UNIQUE (a, "B") DEFERRABLE INITIALLY DEFERRED;', 1
    )
    steps = plan(key, lambda table: table == TableName(b"public.t", "public", "t"))
    assert isinstance(steps, list)
    assert [step.statement.text for step in steps] == [
        b'CREATE UNIQUE INDEX c ON public.t USING btree (a, "B");',
        b"ALTER TABLE ONLY public.t ADD CONSTRAINT c UNIQUE USING INDEX c DEFERRABLE INITIALLY DEFERRED;",
    ]
    assert plan(key, lambda _: False) == BARRIER


def test_keys_of_partitioned_tables_are_checked_later_where_the_server_lets_them() -> None:
    t, part, u = (TableName(f"public.{name}".encode(), "public", name) for name in ("t", "t1", "u"))
    text = b"ALTER TABLE public.t\n    ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES public.u(a);"
    steps = plan(Statement(text, 1), lambda table: table == u, lambda table: [t, part] if table == t else [])
    assert isinstance(steps, list)
    assert [step.statement.text for step in steps] == [
        text[:-1] + b" NOT VALID;",
        b"ALTER TABLE public.t VALIDATE CONSTRAINT c;",
    ]
    assert steps[0].claims == dict.fromkeys(["table public.t", "table public.t1", "table public.u"], EXCLUSIVE)
    assert steps[1].claims.items() >= {("keys of table public.t", EXCLUSIVE), ("keys of table public.t1", EXCLUSIVE)}
    assert [(step.late, step.after_deferred) for step in steps] == [(False, True), (True, False)]
    assert plan(Statement(text, 1), lambda table: table == u) == BARRIER


class _Nobody:
    """A session that does nothing, for the order of work."""

    def adopt(self, settings: object) -> None:
        del settings

    def close(self) -> None:
        pass


def test_work_with_conflicting_claims_is_done_in_order_and_other_work_beside_it() -> None:
    done: list[str] = []
    together = threading.Barrier(2, timeout=20)

    def work(name: str, claims: dict[str, str], *, meet: bool = False) -> Work:
        def action(session: object) -> None:
            del session
            if meet:
                together.wait()
            done.append(name)

        return Work(name, claims, action, {})

    pool = Pool([_Nobody(), _Nobody(), _Nobody()])  # type: ignore[list-item]  # stands in for sessions
    try:
        pool.submit(work("copy 1", {"t": "copying"}, meet=True))
        pool.submit(work("copy 2", {"t": "copying"}, meet=True))  # both at once, or the barrier breaks
        pool.submit(work("index", {"t": "indexing"}))
        pool.submit(work("key", {"t": EXCLUSIVE, "u": EXCLUSIVE}))
        pool.submit(work("other", {"u": EXCLUSIVE}))
        pool.wait()
    finally:
        pool.close()
    assert set(done[:2]) == {"copy 1", "copy 2"}
    assert done[2:] == ["index", "key", "other"]


def test_no_more_work_of_the_servers_runs_at_once_than_is_said_and_rows_beside_it() -> None:
    building: list[str] = []
    most = [0]
    together = threading.Barrier(4, timeout=20)

    def build(name: str, *, meet: bool) -> Work:
        def action(session: object) -> None:
            del session
            building.append(name)
            most[0] = max(most[0], len(building))
            if meet:
                together.wait()
            building.remove(name)

        return Work(name, {name: "indexing"}, action, {})

    def meet(session: object) -> None:
        del session
        together.wait()

    pool = Pool([_Nobody() for _ in range(4)], busy=2)  # type: ignore[misc]  # stands in for sessions
    try:
        for number in range(6):
            pool.submit(build(f"index {number}", meet=number < 2))
        for number in range(2):  # with both builds that run, or the barrier breaks
            pool.submit(Work(f"rows {number}", {"t": "copying"}, meet, {}, waits_for_client=True))
        pool.wait()
    finally:
        pool.close()
    assert most == [2]


def test_a_feed_gives_every_piece_to_one_session_and_a_long_rows_pieces_to_the_same() -> None:
    feed = Feed(Budget(1000, lambda: False))
    shares: list[list[bytes]] = [[], []]
    threads = [threading.Thread(target=lambda share=share: share.extend(feed.pieces())) for share in shares]
    for thread in threads:
        thread.start()
    for number in range(50):
        feed.put(b"<%d" % number, ends_row=False)
        feed.put(b"-", ends_row=False)
        feed.put(b">", ends_row=True)
    feed.close()
    for thread in threads:
        thread.join(20)
    rows = [row for share in shares for row in b"".join(share).split(b">") if row]
    assert sorted(rows) == sorted(b"<%d-" % number for number in range(50))
