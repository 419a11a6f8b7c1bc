"""Connections that see a database as pg_dump does, and the environment that points pg_dump at the same place.

Every session that reads for a backup or a check has the same settings, so that the same value has the same text
everywhere: whatever the role, the database or the server's configuration say.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql

from machine.programs import ProgramNotFoundError, postgresql_client_folder
from recovery.errors import EnvironmentLacksError, RecoveryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Sessions wait long for the server, and the server for them; a peer that is gone must still be noticed within minutes:
# by the client, as libpq's parameters, and by the server, as its settings, even while it runs a long query.
KEEPALIVES: Mapping[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
PEER_CHECKS: Mapping[str, str] = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "client_connection_check_interval": "5000",
}

# Keepalives are not sent while something sent waits to be acknowledged.  Only for sessions that send nothing but short
# queries: to one that sends rows, a server that is busy looks the same.
_UNACKNOWLEDGED = {"tcp_user_timeout": "90000"}

# A reader's transaction that is idle for so long belongs to a client that vanished, and its locks hold up every
# migration; a living client gives signs of life far more often.
ABANDONED_AFTER = "10min"

OLDEST_SERVER = 12
# The newest client programs that are looked for; a new release adds one a year.  A newer program reads older servers
# and archives, down to 9.2.
NEWEST_PROGRAMS = 23

# What decides how a value is written as text, plus what keeps a reader from being cut off or from hiding rows.
FIXED_SETTINGS: Mapping[str, str] = {
    "search_path": "",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "row_security": "off",  # a query that a policy would thin out fails instead
    "quote_all_identifiers": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": ABANDONED_AFTER,
    "synchronize_seqscans": "off",
    "default_transaction_isolation": "repeatable read",
    "jit": "off",  # compiling costs more than these queries gain from it
}

# Of these, what pg_dump leaves to role, database and server, so that the same rows make the same bytes.  lc_monetary is
# left to them here and there: money is read back by the setting that wrote it.
_SETTINGS_OF_PROGRAMS = ("bytea_output", "quote_all_identifiers", "standard_conforming_strings")

# A lock that is not granted within this time is held by somebody doing DDL.  A reader waits no longer behind it:
# whoever comes later would queue behind the reader, and a reader could wait for one who waits for the snapshot's locks.
LOCK_TIMEOUT_SECONDS = 30.0

_SESSION_NAME = "agentverse-recovery"


def connect(
    dsn: str, *, read_only: bool = True, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> psycopg.Connection[tuple[object, ...]]:
    """Open a session with the fixed settings, in autocommit mode.

    Raises EnvironmentLacksError when the server cannot be reached or lets nobody in, UsageError when the connection
    string is not one, RecoveryError when the server is older than 12.
    """
    try:
        given = {name: value for name, value in psycopg.conninfo.conninfo_to_dict(dsn).items() if value is not None}
        parameters: dict[str, Any] = {**KEEPALIVES, **_UNACKNOWLEDGED, **given}
        parameters |= {"application_name": _SESSION_NAME, "connect_timeout": 30}
        connection = psycopg.connect(psycopg.conninfo.make_conninfo(**parameters), autocommit=True)
    except psycopg.OperationalError as error:
        raise EnvironmentLacksError(
            "the database cannot be connected to",
            detail=f"{place_of(dsn)}: {str(error).strip()}",
            hint="check host, port, user and password, and that this machine is inside the database's network",
        ) from error
    except psycopg.ProgrammingError as error:
        raise UsageError("the connection string is not one that libpq reads", detail=str(error).strip()) from error
    try:
        _refuse_old(connection, dsn)
        for name, value in FIXED_SETTINGS.items():
            connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        milliseconds = str(int(lock_timeout_seconds * 1000))
        connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", (milliseconds,))
        # Sessions that others wait for are ended by it from 17 on.
        connection.execute(
            "SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s"
            " WHERE s.name = 'transaction_timeout'"
        )
        for name, value in PEER_CHECKS.items():
            # Newer than the server, or its machine cannot check that.
            with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        if read_only:
            connection.execute("SELECT pg_catalog.set_config('default_transaction_read_only', 'on', false)")
    except psycopg.OperationalError as error:
        connection.close()
        raise EnvironmentLacksError(
            "the database ended a new session", detail=f"{place_of(dsn)}: {str(error).strip()}"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_old(connection: psycopg.Connection[tuple[object, ...]], dsn: str) -> None:
    major = major_of(connection)
    if major < OLDEST_SERVER:
        raise RecoveryError(
            f"the server is PostgreSQL {major}; the oldest supported is {OLDEST_SERVER}", detail=place_of(dsn)
        )


def major_of(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return the server's major version."""
    return connection.info.server_version // 10000


def import_snapshot(connection: psycopg.Connection[tuple[object, ...]], snapshot: str) -> None:
    """Begin a read-only transaction that sees exactly what the exporting one sees."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


def client_programs(major: int) -> Path:
    """Return the folder of pg_dump of this major version, else of the next newer one, which reads such a server too.

    Raises EnvironmentLacksError where there is none.
    """
    missing: ProgramNotFoundError | None = None
    for candidate in range(major, NEWEST_PROGRAMS + 1):
        try:
            return postgresql_client_folder(candidate)
        except ProgramNotFoundError as error:
            missing = missing or error
    raise EnvironmentLacksError(
        f"this machine has no pg_dump of PostgreSQL {major} or newer",
        detail=str(missing) if missing is not None else f"{NEWEST_PROGRAMS} is the newest that was looked for",
        hint=f"install postgresql-client-{major}, or put its programs on PATH",
    ) from missing


def client_environment(dsn: str) -> tuple[dict[str, str], str]:
    """Return (environment, connection string) for a client program of this DSN.

    The password and everything else that libpq reads from the environment goes there, never into an argument that
    other users of the machine can see; the string holds the rest, none of it secret.  Raises UsageError when a secret
    has no environment variable to go to.
    """
    try:
        options = pq.Conninfo.parse(dsn.encode())
    except psycopg.OperationalError as error:
        raise UsageError("the connection string is not one that libpq reads", detail=str(error).strip()) from error
    environment = {key: value for key, value in os.environ.items() if key not in ("PGOPTIONS", "PGAPPNAME")}
    rest: dict[str, str] = {}
    for option in options:
        if option.val is None:
            continue
        keyword, value = option.keyword.decode(), option.val.decode()
        if option.envvar is not None:
            environment[option.envvar.decode()] = value
        elif keyword == "sslpassword":
            raise UsageError(
                "a connection string for a backup cannot hold sslpassword",
                hint="use a client key without a passphrase, readable by this user alone",
            )
        else:
            rest[keyword] = value
    settings = {name: FIXED_SETTINGS[name] for name in _SETTINGS_OF_PROGRAMS}
    # A server that does not know client_connection_check_interval refuses a session that begins with it.
    settings |= {name: value for name, value in PEER_CHECKS.items() if name.startswith("tcp_")}
    options_given = [environment["PGOPTIONS"]] if "PGOPTIONS" in environment else []
    environment["PGOPTIONS"] = " ".join([*options_given, *(f"-c {name}={value}" for name, value in settings.items())])
    environment["PGTZ"] = FIXED_SETTINGS["TimeZone"]
    environment["PGAPPNAME"] = _SESSION_NAME
    environment["PGCONNECT_TIMEOUT"] = environment.get("PGCONNECT_TIMEOUT", "30")
    return environment, psycopg.conninfo.make_conninfo("", **{**KEEPALIVES, **_UNACKNOWLEDGED, **rest})


def place_of(dsn: str) -> str:
    """Name host, port and database of a connection string, and nothing secret."""
    try:
        options = {o.keyword.decode(): o.val.decode() for o in pq.Conninfo.parse(dsn.encode()) if o.val is not None}
    except psycopg.OperationalError:
        return "an unreadable connection string"
    host = options.get("host") or options.get("hostaddr") or os.environ.get("PGHOST") or "the local socket"
    port = options.get("port") or os.environ.get("PGPORT") or "5432"
    database = options.get("dbname") or os.environ.get("PGDATABASE") or options.get("user") or "?"
    return f"{host} port {port} database {database}"
