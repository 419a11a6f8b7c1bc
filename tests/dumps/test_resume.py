"""An interrupted restore is gone on with where it stopped, and gives what an undisturbed one gives; or it is refused.

Connections are cut at a message, before the server gets it or after it did what it says, and kills wait for what the
server shows of the restore: no moment depends on the speed of the machine.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery import cli
from recovery.errors import ConnectionLostError, RecoveryError, RefusedError
from recovery.loading import leftovers
from recovery.loading.side import drop_interrupted
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZOO = Path(__file__).parent / "zoo.sql"
RESTORE = "import sys; from recovery.restore import restore; restore(sys.argv[1], sys.argv[2], jobs=2)"
ROWS = 1000
DEADLINE_SECONDS = 60


def left_by(dsn: str) -> dict[str, dict[str, Any]]:
    """Name -> what its comment says of how far it came, of every side database of the target."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
        rows = connection.execute(
            "SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE starts_with(datname, %s)",
            [f"{name}_restoring_"],
        ).fetchall()
    return {str(row[0]): json.loads(row[1])["progress"] if row[1] else {} for row in rows}


def wait_until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def cut_restore(server16: Any, cutters: Callable[..., Any]) -> Callable[..., RecoveryError | None]:
    """cut_restore(dump, dsn, decide, **options): a restore that is cut where ``decide`` says, and how it failed."""

    def run(dump: str, dsn: str, decide: Callable[[bytes], str | None], **options: Any) -> RecoveryError | None:
        with cutters(server16, decide) as cutter:
            try:
                restore(dump, cutter.dsn(dsn), **{"jobs": 2, **options})
            except RecoveryError as error:
                assert cutter.is_cut, error  # noqa: PT017  # a cut that does no harm ends in success
                return error
        return None

    return run


def counting(number: int, moment: str) -> tuple[Callable[[bytes], str | None], list[bytes]]:
    """Cut at the query of this number; also the list that every query is added to."""
    seen: list[bytes] = []

    def decide(query: bytes) -> str | None:
        seen.append(query)
        return moment if len(seen) == number else None

    return decide, seen


# -- the zoo, cut everywhere


@pytest.fixture(scope="module")
def zoo(server16: Any, programs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Any]]]:
    """The zoo's dump as a file, and the content of the database that psql makes of it."""
    names = ["zoo_source", "zoo_psql"]
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}".encode())
    programs.psql(server16.dsn(names[0]), ZOO.read_bytes(), "-v", "ON_ERROR_STOP=1")
    dump = programs.pg_dump(server16.dsn(names[0]))
    path = tmp_path_factory.mktemp("zoo") / "zoo.sql"
    path.write_bytes(dump)
    programs.psql(server16.dsn(names[1]), dump)
    yield str(path), programs.content(server16.dsn(names[1]))
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_zoo_cut_at_any_query_and_resumed_is_what_psql_makes_of_it(
    zoo: tuple[str, list[Any]],
    programs: Any,
    make_database: Callable[..., str],
    cut_restore: Callable[..., RecoveryError | None],
    moment: str,
) -> None:
    dump, expected = zoo
    decide, queries = counting(0, moment)
    assert cut_restore(dump, make_database(), decide) is None
    first = next(number for number, query in enumerate(queries) if query.startswith(b"COPY "))
    kept = []
    for share in range(6):
        number = first + (len(queries) - first) * share // 6 + 1
        dsn = make_database()
        error = cut_restore(dump, dsn, counting(number, moment)[0])
        resumed = restore(dump, dsn, resume=True) if left_by(dsn) else None
        assert programs.content(dsn) == expected, (number, queries[number - 1], error)
        drop_interrupted(dsn)  # what the target was before, if it was cut after the swap
        assert left_by(dsn) == {}
        if resumed is not None and resumed.resumed_tables:
            assert isinstance(error, ConnectionLostError)
            assert "--resume" in str(error.hint)
            assert {note.kind for note in resumed.notes} <= {"warning", "expected", "resumed"}
            kept.append(resumed.resumed_tables)
    assert kept == sorted(kept)
    assert len(kept) >= 3


@pytest.mark.slow
def test_a_resumed_restore_that_is_cut_again_and_again_is_resumed_again(
    zoo: tuple[str, list[Any]],
    programs: Any,
    make_database: Callable[..., str],
    cut_restore: Callable[..., RecoveryError | None],
) -> None:
    dump, expected = zoo
    dsn = make_database()
    seen: list[bytes] = []

    def every_twelfth_entry(query: bytes) -> str | None:
        if b"_restoring_" in query and b"COMMENT ON DATABASE" in query:
            seen.append(query)
            return ("before", "after")[len(seen) // 12 % 2] if len(seen) % 12 == 0 else None
        return None

    rounds = 0
    while cut_restore(dump, dsn, every_twelfth_entry, resume=rounds > 0) is not None:
        rounds += 1
        assert rounds < 50
    assert rounds > 5
    assert programs.content(dsn) == expected


# -- two tables and a wait, killed


@pytest.fixture
def wait_role(server16: Any) -> Iterator[str]:
    """A role; as long as it exists, the dump of :func:`waiting` does not come to its end."""
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE keeps_waiting")
        yield "keeps_waiting"
        connection.execute("DROP ROLE IF EXISTS keeps_waiting")


def rows_of(count: int = ROWS) -> bytes:
    return b"".join(b"%d\t%s\n" % (number, b"x" * 100) for number in range(count))


def waiting(role: str = "keeps_waiting", *, kind: bytes = b"TABLE") -> bytes:
    """A dump of the tables a and b with a statement between their rows that waits while a role exists."""
    create = b"CREATE %b public.%b (id int NOT NULL, v text);\n"
    copy = b"COPY public.%b (id, v) FROM stdin;\n%b\\.\n"
    return b"".join(
        [
            create % (kind, b"a"),
            create % (kind, b"b"),
            copy % (b"a", rows_of()),
            b"ALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id);\n",
            b"CREATE MATERIALIZED VIEW public.w AS SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles"
            b" WHERE rolname = '%b') THEN pg_catalog.pg_sleep(3600) END IS NULL AS waited;\n" % role.encode(),
            copy % (b"b", rows_of()),
            b"ALTER TABLE ONLY public.b\n    ADD CONSTRAINT b_pkey PRIMARY KEY (id);\n",
            b"ALTER TABLE ONLY public.b\n    ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES public.a(id);\n",
        ]
    )


def physical(dsn: str, database: str) -> Any:
    """Where table a's rows are and which transaction wrote them: another load of them has others."""
    with psycopg.connect(make_conninfo(dsn, dbname=database)) as connection:
        return connection.execute(
            "SELECT pg_relation_filenode('public.a'), min(xmin::text), max(xmin::text), count(*) FROM public.a"
        ).fetchone()


def assert_complete(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*), sum(id) FROM a JOIN b USING (id, v)").fetchone() == (
            ROWS,
            ROWS * (ROWS - 1) // 2,
        )
        constraints = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid IN ('a'::regclass, 'b'::regclass) ORDER BY conname"
        )
        assert [row[0] for row in constraints] == ["a_pkey", "b_pkey", "fk"]


def begin_and_wait(dump: Path, dsn: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a restore of :func:`waiting`; returns when the key of a is there and the wait has begun."""
    process = subprocess.Popen([sys.executable, "-c", RESTORE, str(dump), dsn])

    def waits() -> bool:
        assert process.poll() is None
        with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname ~ '_restoring_' AND wait_event = 'PgSleep'"
            ).fetchone()
        return row == (1,)

    wait_until(waits)
    (name,) = left_by(dsn)
    return process, name


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_restore_is_resumed_without_loading_again_what_it_had_loaded(
    database: str, tmp_path: Path, wait_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_LOCK_SECONDS", 0.1)
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting(wait_role))
    process, name = begin_and_wait(dump, database)
    with pytest.raises(RefusedError, match="is running"):
        restore(str(dump), database, resume=True)
    kill(process)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 2200").fetchone() == (0,)
        connection.execute(f"DROP ROLE {wait_role}".encode())
    before = physical(database, name)
    result = restore(str(dump), database, resume=True)
    assert physical(database, str(conninfo_to_dict(database)["dbname"])) == before
    assert_complete(database)
    assert (result.tables, result.rows, result.resumed_tables, result.resumed_rows) == (2, 2 * ROWS, 1, ROWS)
    assert next(note.text for note in result.notes if note.kind == "resumed").startswith(f"{ROWS} rows in 1 tables")
    assert left_by(database) == {}


def test_the_command_says_what_it_would_go_on_with_and_goes_on(
    database: str, tmp_path: Path, wait_role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, dump = tmp_path / "recovery.toml", tmp_path / "dump.sql"
    settings.write_text('[platform]\naccount = "123456789012"\n')
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(settings))
    dump.write_bytes(waiting(wait_role))

    def command(*options: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli._run(["--json", "restore", str(dump), "--to", database, "--resume", *options])
        return code, json.loads(capsys.readouterr().out)

    code, refused = command("--dry-run")
    assert (code, "no interrupted restore" in refused["error"]["message"]) == (3, True)
    process, name = begin_and_wait(dump, database)
    kill(process)
    assert command("--drop-interrupted")[0] == 2
    code, planned = command("--dry-run")
    assert (code, planned["resumes"]) == (0, name)
    with psycopg.connect(database) as connection:
        connection.execute(f"DROP ROLE {wait_role}".encode())
    code, restored = command()
    assert (code, restored["rows"], restored["resumed_tables"], restored["resumed_rows"]) == (0, 2 * ROWS, 1, ROWS)
    assert_complete(database)


def test_a_restore_of_another_dump_does_not_go_on_with_this_one(database: str, tmp_path: Path, wait_role: str) -> None:
    dump, other = tmp_path / "dump.sql", tmp_path / "other.sql"
    dump.write_bytes(waiting(wait_role))
    other.write_bytes(waiting(wait_role))
    process, name = begin_and_wait(dump, database)
    kill(process)
    with pytest.raises(RefusedError, match="of another dump") as refused:
        restore(str(other), database, resume=True)
    assert "--drop-interrupted" in str(refused.value.hint)
    dump.touch()
    with pytest.raises(RefusedError, match="of another dump"):
        restore(str(dump), database, resume=True)
    assert list(left_by(database)) == [name]
    assert drop_interrupted(database) == [name]
    with pytest.raises(RefusedError, match="no interrupted restore"):
        restore(str(dump), database, resume=True)


def test_an_ordinary_restore_drops_what_could_have_been_resumed(database: str, tmp_path: Path, wait_role: str) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting(wait_role))
    process, name = begin_and_wait(dump, database)
    kill(process)
    with psycopg.connect(database) as connection:
        connection.execute(f"DROP ROLE {wait_role}".encode())
    result = restore(str(dump), database)
    assert [note.object for note in result.notes if note.kind == "left over"] == [name]
    assert result.resumed_tables == 0
    assert_complete(database)


def test_a_server_that_lets_nobody_in_costs_nothing_of_what_was_loaded(
    database: str, tmp_path: Path, wait_role: str
) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting(wait_role))
    process, name = begin_and_wait(dump, database)
    kill(process)
    with psycopg.connect(make_conninfo(database, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"DROP ROLE {wait_role}".encode())
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        with pytest.raises(ConnectionLostError, match="does not let us in"):
            restore(str(dump), database, resume=True)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert restore(str(dump), database, resume=True).resumed_tables == 1
    assert_complete(database)


def test_what_was_noted_of_statements_that_are_passed_over_is_noted_of_the_resumed_restore(
    database: str, tmp_path: Path, wait_role: str
) -> None:
    dump = tmp_path / "dump.sql"
    clean = b"DROP TABLE IF EXISTS public.a;\nDROP INDEX public.gone;\nCREATE SCHEMA public;\n"
    dump.write_bytes(clean + waiting(wait_role))
    process, _ = begin_and_wait(dump, database)
    kill(process)
    with psycopg.connect(database) as connection:
        connection.execute(f"DROP ROLE {wait_role}".encode())
    notes = restore(str(dump), database, resume=True).notes
    assert {"clean", "exists"} <= {note.kind for note in notes}
    assert_complete(database)


# -- a server that dies


@pytest.mark.slow
def test_a_restore_whose_server_crashed_is_resumed_unless_rows_of_unlogged_tables_went_with_it(
    own_server: Any, tmp_path: Path
) -> None:
    outcomes: list[int | str] = []
    for kind in (b"TABLE", b"UNLOGGED TABLE"):
        dump = tmp_path / f"{len(kind)}.sql"
        dump.write_bytes(waiting("dies", kind=kind))
        target = f"target{len(kind)}"
        with psycopg.connect(own_server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {target}".encode())
            connection.execute("CREATE ROLE dies")
        dsn = own_server.dsn(target)
        process, name = begin_and_wait(dump, dsn)
        # A commit that waits for the disk takes those before it along: what the test looks for has to survive.
        with psycopg.connect(own_server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS on_disk ()")
            connection.execute(f"CREATE ROLE written_down_{len(kind)}".encode())
        own_server.kill()
        assert process.wait(DEADLINE_SECONDS) != 0
        own_server.start()
        with psycopg.connect(own_server.dsn(), autocommit=True) as connection:
            connection.execute("DROP ROLE dies")
        assert left_by(dsn)[name]["tables"] == 1
        try:
            outcomes.append(restore(str(dump), dsn, resume=True).resumed_tables)
        except RecoveryError as error:
            assert "unlogged" in str(error.detail)  # noqa: PT017  # one of two outcomes
            outcomes.append("lost")
            restore(str(dump), dsn)
        assert_complete(dsn)
        assert left_by(dsn) == {}
    assert outcomes == [1, "lost"]


# -- one table's rows in several sessions


def wide(count: int) -> bytes:
    """Rows that take the server much longer than the reader."""
    document = json.dumps({f"key{number}": [number, str(number)] for number in range(60)}).encode()
    return b"".join(b"%d\t%b\n" % (number, document) for number in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("held", [b"", b"INSERT"])
def test_rows_that_some_sessions_had_committed_are_neither_lost_nor_doubled(
    make_database: Callable[..., str],
    cut_restore: Callable[..., RecoveryError | None],
    tmp_path: Path,
    held: bytes,
) -> None:
    count, dump = 12_000, tmp_path / "dump.sql"
    create = b"CREATE TABLE public.j (id bigint, v jsonb)"
    if held:  # rows from elsewhere, as an extension puts into its own tables
        create = b"CREATE TABLE public.j AS SELECT '-1'::bigint AS id, '{}'::jsonb AS v"
    dump.write_bytes(create + b";\nCOPY public.j (id, v) FROM stdin;\n" + wide(count) + b"\\.\n")
    splits = 0
    for attempt in range(5):
        dsn = make_database()

        def first_commit(query: bytes) -> str | None:
            return "after" if query == b"COMMIT" or (held and query.endswith(b"COMMIT")) else None

        if cut_restore(str(dump), dsn, first_commit, jobs=3) is None:
            assert attempt < 4, "one session was always as fast as the reader"
            continue
        (progress,) = left_by(dsn).values()
        assert progress["tables"] == (1 if held else 0)
        splits += len(progress["split"])
        restore(str(dump), dsn, resume=True, jobs=3)
        with psycopg.connect(dsn) as connection:
            total = connection.execute("SELECT count(*), count(DISTINCT id), min(id) FROM j").fetchone()
        assert total == ((count + 1, count + 1, -1) if held else (count, count, 0))
        break
    assert splits == (0 if held else 1)


# -- what is refused


NOT_TWICE = [
    b"INSERT INTO public.a (id, v) VALUES (-1, 'x');\n",
    b"UPDATE public.a SET v = v || 'x';\n",
    b"DO $$ BEGIN PERFORM 1; END $$;\n",
    b"SELECT pg_catalog.nextval('public.s');\n",
    b"CREATE UNIQUE INDEX CONCURRENTLY i ON public.a (id);\n",
    b"BEGIN;\nUPDATE public.a SET v = v || 'x';\nCOMMIT;\n",
    (
        b"CREATE TABLE public.p (id int) PARTITION BY LIST (id);\n"
        b"CREATE UNLOGGED TABLE public.p1 PARTITION OF public.p DEFAULT;\n"
        b"COPY public.p (id) FROM stdin;\n1\n\\.\n"
    ),
]


@pytest.mark.parametrize("statement", NOT_TWICE)
def test_a_restore_with_what_may_not_be_done_twice_is_refused_with_its_reason(
    database: str, tmp_path: Path, wait_role: str, statement: bytes
) -> None:
    dump = tmp_path / "dump.sql"
    text = b"CREATE SEQUENCE public.s;\n" + waiting(wait_role)
    dump.write_bytes(text.replace(b"CREATE MATERIALIZED", statement + b"CREATE MATERIALIZED"))
    process, name = begin_and_wait(dump, database)
    kill(process)
    with pytest.raises(RefusedError, match=r"cannot be resumed: (line \d+|rows) of ") as refused:
        restore(str(dump), database, resume=True)
    assert "--drop-interrupted" in str(refused.value.hint)
    assert drop_interrupted(database) == [name]


@pytest.mark.slow
def test_a_dump_of_insert_statements_is_not_resumed(  # noqa: PLR0917  # fixtures
    zoo: tuple[str, list[Any]],
    server16: Any,
    programs: Any,
    make_database: Callable[..., str],
    cut_restore: Callable[..., RecoveryError | None],
    tmp_path: Path,
) -> None:
    dump = tmp_path / "inserts.sql"
    dump.write_bytes(programs.pg_dump(server16.dsn("zoo_source"), "--inserts"))
    dsn = make_database()
    inserts = []

    def at_the_tenth(query: bytes) -> str | None:
        inserts.extend([query] if query.startswith(b"INSERT") else [])
        return "after" if len(inserts) == 10 else None

    assert cut_restore(str(dump), dsn, at_the_tenth) is not None
    with pytest.raises(RefusedError, match=r"INSERT|TABLE DATA"):
        restore(str(dump), dsn, resume=True)
    restore(str(dump), dsn)
    assert programs.content(dsn) == zoo[1]


def test_rows_that_only_their_commit_refuses_are_named_by_their_line(database: str, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(
        b"CREATE TABLE public.t (id int PRIMARY KEY, up int REFERENCES public.t DEFERRABLE INITIALLY DEFERRED);\n"
        b"COPY public.t (id, up) FROM stdin;\n1\t2\n\\.\n"
    )
    with pytest.raises(RecoveryError, match=r"line 2 of the dump, rows of public\.t: .*foreign key") as refused:
        restore(str(dump), database)
    assert "23503" in str(refused.value.detail)
    assert left_by(database) == {}


def test_standard_input_is_not_resumed(database: str, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting())
    with dump.open("rb") as stream, pytest.raises(RefusedError, match="read once"):
        restore("-", database, stdin=stream, resume=True)


def test_a_restore_that_had_not_come_to_rows_begins_anew(
    database: str, tmp_path: Path, cut_restore: Callable[..., RecoveryError | None]
) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting())
    error = cut_restore(str(dump), database, lambda query: "before" if query.startswith(b"COPY") else None)
    assert error is not None
    (name,) = left_by(database)
    result = restore(str(dump), database, resume=True)
    assert [note.object for note in result.notes if note.kind == "left over"] == [name]
    assert_complete(database)


def test_a_target_that_is_another_database_now_is_not_given_what_was_left_for_the_old_one(
    make_database: Callable[..., str], tmp_path: Path, wait_role: str
) -> None:
    dsn = make_database()
    dump = tmp_path / "dump.sql"
    dump.write_bytes(waiting(wait_role))
    process, _ = begin_and_wait(dump, dsn)
    kill(process)
    target = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {target}".encode())
        connection.execute(f"CREATE DATABASE {target} TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'".encode())
    with pytest.raises(RefusedError, match="another database now"):
        restore(str(dump), dsn, resume=True)
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {target}".encode())
        connection.execute(f"DROP ROLE {wait_role}".encode())
    assert restore(str(dump), dsn, resume=True).resumed_tables == 1  # a new one would be made as the first was
    assert_complete(dsn)
