"""A real PostgreSQL with a master user as RDS has one.

Connection strings are libpq's `key=value` form, over a unix socket.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from machine.programs import postgresql_server_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UNPRIVILEGED: dict[str, Any] = (
    {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
)  # PostgreSQL refuses to run as root


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Path]:
    """Return the socket folder of a server with the role `master`: no superuser, but CREATEDB and CREATEROLE."""
    programs = postgresql_server_folder(16)
    # Short, since it holds the socket, and where the unprivileged user can reach it.
    folder = Path(tempfile.mkdtemp(prefix="avx-", dir="/var/tmp"))
    if _UNPRIVILEGED:
        os.chown(folder, _UNPRIVILEGED["user"], _UNPRIVILEGED["group"])
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "-N",
    ]
    subprocess.run([*initdb, "--locale=C.UTF-8"], check=True, capture_output=True, cwd=folder, **_UNPRIVILEGED)
    settings = ["-clisten_addresses=", "-cfsync=off", "-clog_min_messages=fatal", "-ctimezone=UTC"]
    process = subprocess.Popen(
        [programs / "postgres", "-D", folder / "data", "-k", folder, *settings],
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **_UNPRIVILEGED,
    )
    try:
        admin = make_conninfo(host=str(folder), user="postgres", dbname="postgres")
        for attempt in itertools.count():
            try:
                with psycopg.connect(admin, autocommit=True) as connection:
                    connection.execute("CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD 'secret'")
                break
            except psycopg.OperationalError:
                if process.poll() is not None or attempt == 200:
                    raise
                time.sleep(0.05)
        yield folder
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture
def new_database(postgresql: Path) -> Callable[[], str]:
    """Return a function that makes an empty database of the master user's and returns its address."""
    numbers = itertools.count()

    def make() -> str:
        name = f"agentverse_{time.monotonic_ns()}_{next(numbers)}"
        with psycopg.connect(
            make_conninfo(host=str(postgresql), user="master", dbname="postgres"), autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return make_conninfo(host=str(postgresql), user="master", dbname=name)

    return make
