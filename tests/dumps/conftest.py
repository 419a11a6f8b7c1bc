"""Real PostgreSQL servers and buckets on a loopback S3, for every test of dumps.

Fixtures hand out plain values (connection strings, clients, callables), so that a test file imports nothing from here;
a test takes one of the classes here as `Any`.
A connection string is of libpq's `key=value` form and goes over a unix socket, as the superuser `postgres` unless the
fixture's name says otherwise.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from machine.programs import ProgramNotFoundError, postgresql_client_folder, postgresql_server_folder
from recovery.dumps.lexer import Lexer
from recovery.dumps.statements import CopyBlock, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# PostgreSQL refuses to run as root; this is `nobody` on Linux, and any uid that is not 0 does.
UNPRIVILEGED = 65534

ENCODING = ("-E", "UTF8", "--locale=C.UTF-8")
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "max_connections": "60",
    "track_commit_timestamp": "on",
    "log_min_messages": "fatal",
}
# The roles that fixtures make once for a session.
KEPT_ROLES = {"postgres", "master", "rds_superuser"}
# For a server that is killed: what was committed is there when it starts again, as it is on a real one.
KILLABLE = {"listen_addresses": "", "fsync": "off", "log_min_messages": "panic"}


def _drop_privileges() -> dict[str, Any]:
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}


def _die_with_parent() -> None:
    """Ask Linux to end the server with the test session, however that ends (a timeout, a kill)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # 1 is PR_SET_PDEATHSIG


class Server:
    """One PostgreSQL server of the tests, over the data folder `data` in its folder."""

    def __init__(self, programs: Path, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self._command: list[str | Path] = [
            *(programs / "postgres", "-D", folder / "data", "-k", folder),
            *(f"-c{name}={value}" for name, value in settings.items()),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return make_conninfo(host=str(self.folder), port=5432, user=user, dbname=database)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # no thread runs then
                **_drop_privileges(),
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.dsn()).close()
                break
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        """Shut it down immediately: nothing is written down."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None


@contextlib.contextmanager
def _running_server(major: int, settings: dict[str, str]) -> Iterator[Server]:
    try:
        programs = postgresql_server_folder(major)
    except ProgramNotFoundError as error:
        pytest.skip(str(error))
    # A unix socket's path may have 107 characters at most, and a home folder may be closed to the unprivileged user.
    folder = Path(tempfile.mkdtemp(prefix=f"avt{major}-", dir="/var/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    server = Server(programs, folder, settings)
    try:
        with (folder / "log").open("wb") as log:
            subprocess.run(
                [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", *ENCODING, "-N"],
                check=True,
                stdout=log,
                stderr=log,
                cwd=folder,
                **_drop_privileges(),
            )
        try:
            server.start()
            yield server
        finally:
            server.kill()  # nothing here outlives the session
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_session_servers: list[Server] = []


@contextlib.contextmanager
def _session_server(major: int) -> Iterator[Server]:
    with _running_server(major, SETTINGS) as server:
        _session_servers.append(server)
        yield server
        _session_servers.remove(server)


@pytest.fixture(scope="session")
def server16() -> Iterator[Server]:
    with _session_server(16) as server:
        yield server


@pytest.fixture(scope="session")
def server18() -> Iterator[Server]:
    with _session_server(18) as server:
        yield server


@pytest.fixture(scope="session")
def server15() -> Iterator[Server]:
    """The distribution's 15, where there is one: the oldest server the machines here have."""
    with _session_server(15) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server on 16 of the test's own, to kill() and start() again; it has `folder` and dsn(database) as well."""
    with _running_server(16, KILLABLE) as server:
        yield server


class Programs:
    """What PostgreSQL's own programs make of a dump, and what they see in a database."""

    def psql(self, dsn: str, text: bytes, *options: str, major: int = 16) -> None:
        program = postgresql_client_folder(major) / "psql"
        subprocess.run([program, "-X", "-q", "-o", os.devnull, *options, "-d", dsn], input=text, check=True)

    def pg_dump(self, dsn: str, *options: str, major: int = 16) -> bytes:
        program = postgresql_client_folder(major) / "pg_dump"
        return subprocess.run([program, *options, "-d", dsn], check=True, stdout=subprocess.PIPE).stdout

    def content(self, dsn: str, major: int = 16) -> list[Any]:
        """The items of what pg_dump writes of a database, the rows of each COPY block sorted.

        Rows of one table may come in another order, because several sessions load it: each block is a multiset.
        """
        found: list[Any] = []
        for item in Lexer(iter([self.pg_dump(dsn, major=major)])).items():
            if isinstance(item, CopyBlock):
                found.append((item.statement.text, sorted(b"".join(item.pieces).split(b"\n"))))
            elif isinstance(item, Statement):
                found.append((item.label, item.text))
        return found

    def assert_same(self, ours: str, theirs: str, major: int = 16) -> None:
        """Both databases have the same content; the first item that differs is shown."""
        for one, other in itertools.zip_longest(self.content(ours, major), self.content(theirs, major)):
            assert one == other


@pytest.fixture(scope="session")
def programs() -> Programs:
    """psql(dsn, text, *options), pg_dump(dsn, *options), content(dsn), assert_same(dsn, dsn); each takes `major=`."""
    return Programs()


class Cutter:
    """Forwards connections to a server until all are cut: by cut(), or at a query that ``decide`` says so of.

    ``decide`` is given every query and answers "before" or "after" it, or None.
    """

    def __init__(self, server: Path, decide: Callable[[bytes], str | None]) -> None:
        self._server = server
        self._decide = decide
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self.is_cut = False
        self._threads[0].start()

    def dsn(self, dsn: str) -> str:
        """The same database through here."""
        port = self._listener.getsockname()[1]
        return make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self.is_cut:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._open += [client, server]
            silent = threading.Event()
            for pump in (
                threading.Thread(target=self._requests, args=(client, server, silent)),
                threading.Thread(target=self._answers, args=(server, client, silent)),
            ):
                self._threads.append(pump)
                pump.start()

    def _requests(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError), client.makefile("rb") as stream:
            kind = b""  # the first packet has no letter before its length
            while len(length := stream.read(4)) == 4:
                body = stream.read(int.from_bytes(length, "big") - 4)
                with self._lock:
                    moment = self._decide(body[:-1]) if kind == b"Q" and not self.is_cut else None
                if moment == "before":
                    self.cut()
                    return
                if moment == "after":
                    silent.set()
                server.sendall(kind + length + body)
                if not (kind := stream.read(1)):
                    break
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if silent.is_set():  # the server has done it, and nobody will know
                    self.cut()
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        with self._lock:
            self.is_cut = True
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()


@pytest.fixture(scope="session")
def cutters() -> Callable[..., contextlib.AbstractContextManager[Cutter]]:
    """cutters(server, decide=None) -> context of what has dsn(dsn), cut() and `is_cut`."""

    def never(query: bytes) -> str | None:
        del query
        return None

    def cutter(
        server: Server, decide: Callable[[bytes], str | None] = never
    ) -> contextlib.AbstractContextManager[Cutter]:
        return contextlib.closing(Cutter(server.folder / ".s.PGSQL.5432", decide))

    return cutter


@pytest.fixture(scope="module", autouse=True)
def _what_a_file_made_leaves_with_it() -> Iterator[None]:
    """Drop what databases and roles a file's tests left on the session's servers: the next may use the same names."""
    yield
    databases = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
    roles = "SELECT rolname FROM pg_roles WHERE NOT starts_with(rolname, 'pg_')"
    for server in _session_servers:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for (database,) in connection.execute(databases).fetchall():
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
            for role in {name for (name,) in connection.execute(roles)} - KEPT_ROLES:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@contextlib.contextmanager
def _databases(server: Server) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def make(owner: str = "postgres", **options: str) -> str:
        """Create an empty database; options are further clauses, such as TEMPLATE="template0"."""
        name = f"t{secrets.token_hex(6)}"
        clauses = [sql.SQL("{} {}").format(sql.SQL(key), sql.Literal(value)) for key, value in options.items()]
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} {}").format(
                    sql.Identifier(name), sql.Identifier(owner), sql.SQL(" ").join(clauses)
                )
            )
        made.append(name)
        return server.dsn(name)

    yield make
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        force = sql.SQL("WITH (FORCE)" if connection.info.server_version >= 130000 else "")
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} {}").format(sql.Identifier(name), force))


@pytest.fixture(scope="session")
def make_databases_of() -> Callable[[int], contextlib.AbstractContextManager[Callable[..., str]]]:
    """make_databases_of(major) -> context of a server of that version, as make_database; skips where there is none."""

    @contextlib.contextmanager
    def databases(major: int) -> Iterator[Callable[..., str]]:
        with _running_server(major, SETTINGS) as server, _databases(server) as make:
            yield make

    return databases


@pytest.fixture
def make_database(server16: Server) -> Iterator[Callable[..., str]]:
    """make_database(owner="postgres", **clauses) -> DSN of a new empty database on 16, dropped after the test."""
    with _databases(server16) as make:
        yield make


@pytest.fixture
def make_database18(server18: Server) -> Iterator[Callable[..., str]]:
    """As make_database, on 18."""
    with _databases(server18) as make:
        yield make


@pytest.fixture
def make_database15(server15: Server) -> Iterator[Callable[..., str]]:
    """As make_database, on 15."""
    with _databases(server15) as make:
        yield make


@pytest.fixture
def database(make_database: Callable[..., str]) -> str:
    """An empty database on 16."""
    return make_database()


@pytest.fixture
def database18(make_database18: Callable[..., str]) -> str:
    """An empty database on 18."""
    return make_database18()


def _master(server: Server) -> str:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'master'").fetchone() is None:
            connection.execute("CREATE ROLE rds_superuser NOLOGIN CREATEROLE CREATEDB")
            connection.execute("CREATE ROLE master LOGIN CREATEROLE CREATEDB NOSUPERUSER NOBYPASSRLS")
            connection.execute("GRANT rds_superuser, pg_monitor, pg_signal_backend TO master WITH ADMIN OPTION")
    return "master"


@pytest.fixture(scope="session")
def master16(server16: Server) -> str:
    """The name of 16's master role as RDS makes one: CREATEROLE and CREATEDB, no superuser."""
    return _master(server16)


@pytest.fixture(scope="session")
def master18(server18: Server) -> str:
    """As master16, on 18."""
    return _master(server18)


@pytest.fixture
def master_database(make_database: Callable[..., str], master16: str) -> str:
    """An empty database on 16 owned by the RDS-like master role, with the connection string of that role."""
    return make_conninfo(make_database(owner=master16), user=master16)


@pytest.fixture
def master_database18(make_database18: Callable[..., str], master18: str) -> str:
    """As master_database, on 18."""
    return make_conninfo(make_database18(owner=master18), user=master18)


@pytest.fixture
def s3(fake_aws: str) -> Any:
    """A boto3 S3 client of us-east-1."""
    del fake_aws
    return boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def s3_west(fake_aws: str) -> Any:
    """A boto3 S3 client of us-west-2."""
    del fake_aws
    return boto3.client("s3", region_name="us-west-2")


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new versioned bucket in us-east-1."""
    name = f"backups-{secrets.token_hex(6)}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def bucket_west(s3_west: Any) -> str:
    """A new versioned bucket in us-west-2."""
    name = f"backups-dr-{secrets.token_hex(6)}"
    s3_west.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3_west.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name
