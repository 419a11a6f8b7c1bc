"""Runs pg_dump in an exported snapshot and hands on what it writes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

from recovery.dumps import session
from recovery.dumps.pipes import pass_on, widen
from recovery.errors import EnvironmentLacksError, RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST_COMPLAINT = 2000

# Roles and tablespaces are read in seconds, thousands of them included; whatever takes longer waits for a lock.
_GLOBALS_SECONDS = 300.0


def version(major: int) -> str:
    """Return the version that pg_dump of this major version states, such as "16.14"."""
    program = session.client_programs(major) / "pg_dump"
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentLacksError(f"{program} does not run", detail=str(error)) from error
    return output.partition(")")[2].strip() or output.strip()


def run(
    dsn: str,
    major: int,
    snapshot: str,
    take: Callable[[bytes], None],
    *,
    encoding: str,
    lock_timeout_seconds: float,
    without_rows: Iterable[tuple[str, str]] = (),
) -> None:
    """Write the plain SQL of the database as the snapshot shows it to `take`, piece by piece, in this encoding.

    The rows of the tables `without_rows` (by schema and name) are left out.

    Raises RecoveryError with pg_dump's own words when it fails; whatever `take` raises ends pg_dump.
    """
    environment, connection_string = session.client_environment(dsn)
    arguments = [
        str(session.client_programs(major) / "pg_dump"),
        "--format=plain",
        "--no-password",
        f"--snapshot={snapshot}",
        # Otherwise role, database or PGCLIENTENCODING decide it, and with it the sums of the rows.
        f"--encoding={encoding}",
        f"--lock-wait-timeout={int(lock_timeout_seconds * 1000)}",
        *(f"--exclude-table-data={_pattern(schema)}.{_pattern(name)}" for schema, name in without_rows),
        f"--dbname={connection_string}",
    ]
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        ) as process:
            try:
                if process.stdout is not None:
                    widen(process.stdout)
                    pass_on(process.stdout.fileno(), take)
                code = process.wait()
            except BaseException:
                process.kill()
                raise
        if code != 0:
            raise RecoveryError("pg_dump failed", detail=f"exit code {code}: {_words(complaints)}")


def _pattern(name: str) -> str:
    """What stands for just this name: nothing between quotes has a meaning but a quote, which is doubled."""
    return '"' + name.replace('"', '""') + '"'


def globals_of(dsn: str, major: int, *, password_hashes: bool) -> bytes:
    """Return the SQL of roles and tablespaces.

    Raises RecoveryError with pg_dumpall's own words when it fails, and when it does not end.
    """
    environment, connection_string = session.client_environment(dsn)
    # pg_dumpall reads pg_authid, which only a superuser may, unless it leaves the passwords out.
    arguments = [str(session.client_programs(major) / "pg_dumpall"), "--globals-only", "--no-password"]
    if not password_hashes:
        arguments.append("--no-role-passwords")
    arguments.append(f"--dbname={connection_string}")
    if "PGDATABASE" in environment:
        arguments.append(f"--database={environment['PGDATABASE']}")
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            check=False,
            timeout=_GLOBALS_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RecoveryError(
            "pg_dumpall failed",
            detail=f"it did not end within {_GLOBALS_SECONDS:g} s",
            hint="look at pg_locks for a lock on pg_authid or another catalogue of roles",
        ) from error
    if done.returncode != 0:
        words = done.stderr[-_MOST_COMPLAINT:].decode("utf-8", "replace").strip()
        raise RecoveryError("pg_dumpall failed", detail=f"exit code {done.returncode}: {words}")
    return done.stdout


def _words(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(0, size - _MOST_COMPLAINT))
    return complaints.read().decode("utf-8", "replace").strip() or "it said nothing"
