"""One PostgreSQL server: its data, its process, and the few things done to it as its bootstrap superuser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from localcloud import processes
from localcloud.postgres_installation import BOOTSTRAP_USER, Installation
from localcloud.server_process import ServerProcess

_START_SECONDS = 60.0
_CONNECT_SECONDS = 10


class PostgresError(Exception):
    """Raised when a server does not start; the text ends with what its log said last."""


class PostgresServer(ServerProcess):
    """A server whose data lives below `folder` and which listens on one loopback address.

    `folder` must not exist yet; its parent must be open to the unprivileged user for passing through.
    """

    def __init__(self, *, home: Path, folder: Path, installation: Installation, address: str, port: int) -> None:
        super().__init__(home=home, folder=folder, address=address, port=port)
        self._installation = installation

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _socket_folder(self) -> Path:
        # Beside the data, never in it: a base backup would copy the socket's lock file.
        return self._folder / "s"

    def create(self, source: Path | None = None) -> None:
        """Lay down the data: a copy of `source`, which is another server's backup, or of the empty template."""
        user = self._installation.user
        self._folder.mkdir(mode=0o711)
        user.folder(self._socket_folder)
        # cp clones where the file system can, keeps owners, and is twice as fast as shutil where it cannot.
        subprocess.run(["/bin/cp", "-a", source or self._installation.template, self._data], check=True)

    def start(self, parameters: Mapping[str, str]) -> None:
        """Start the server with these settings and return once it answers. Raises PostgresError when it does not."""
        self.write_parameters(parameters)
        own = {
            "listen_addresses": self.address,
            "port": str(self.port),
            "unix_socket_directories": str(self._socket_folder),
            # The data ends with this process, so there is no crash that it would have to survive.
            "fsync": "off",
            "logging_collector": "off",
            "password_encryption": "scram-sha-256",
        }
        words = [word for name, value in own.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._running = processes.spawn(
                self._home,
                [self._installation.programs / "postgres", "-D", self._data, *words],
                kind="postgres",
                output=log,
                environment={"PATH": "/usr/bin:/bin"},
                user=self._installation.user,
                death_signal=signal.SIGQUIT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.execute(sql.SQL("SELECT 1"))
            except psycopg.OperationalError:
                if self.pid is None or time.monotonic() > deadline:
                    self.stop()
                    raise PostgresError(f"PostgreSQL did not start: {self._last_words()}") from None
                time.sleep(0.01)
            else:
                return

    def stop(self, *, clean: bool = False) -> None:
        """Stop the server: at once, or cleanly when its data is to be used again. Does nothing when it does not run."""
        self._end(signal.SIGINT if clean else signal.SIGQUIT)

    def write_parameters(self, parameters: Mapping[str, str]) -> None:
        """Write settings for the next start or reload."""
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in sorted(parameters.items())]
        path = self._data / "parameter_group.conf"
        path.write_text("".join(lines))
        path.chmod(0o600)
        self._installation.user.own(path)

    def reload(self, parameters: Mapping[str, str]) -> None:
        """Apply settings that need no restart."""
        self.write_parameters(parameters)
        self.execute(sql.SQL("SELECT pg_reload_conf()"))

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        """Run one statement as the bootstrap superuser. Raises psycopg.Error."""
        with self._connect() as connection:
            connection.execute(statement)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket_folder),
            port=self.port,
            user=BOOTSTRAP_USER,
            dbname="postgres",
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
        )

    def create_master(self, name: str, password: str) -> None:
        """Create the master user: what RDS gives it, which is much, but not superuser."""
        role = sql.Identifier(name)
        with self._connect() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                    role, sql.Literal(_scram(connection, name, password))
                )
            )
            connection.execute(sql.SQL("GRANT rds_superuser TO {} WITH ADMIN OPTION").format(role))
            for database in ("postgres", "template1"):
                connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), role))

    def set_password(self, name: str, password: str) -> None:
        """Give a role another password."""
        with self._connect() as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(_scram(connection, name, password))
                )
            )

    def create_database(self, name: str, owner: str) -> None:
        """Create a database."""
        self.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)))

    def backup(self, target: Path) -> None:
        """Copy the running server's data to `target`, consistent as of the end of the copy. Raises PostgresError."""
        user = self._installation.user
        user.folder(target)
        try:
            subprocess.run(
                [
                    os.fspath(self._installation.programs / "pg_basebackup"),
                    *("-h", os.fspath(self._socket_folder), "-p", str(self.port), "-U", BOOTSTRAP_USER),
                    *("-D", os.fspath(target), "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"),
                ],
                check=True,
                capture_output=True,
                text=True,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                **user.popen_options(),
            )
        except subprocess.CalledProcessError as exc:
            shutil.rmtree(target, ignore_errors=True)
            raise PostgresError(f"pg_basebackup failed: {exc.stderr.strip()[-500:]}") from exc


def _scram(connection: psycopg.Connection, name: str, password: str) -> str:
    """Return what the server stores of a password: the password itself must not get into a log of statements."""
    secret = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    return secret.decode()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''").replace("\n", " ")
