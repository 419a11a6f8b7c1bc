"""What AWS refuses about a DB instance and moto does not: pure checks, each raising the error RDS answers with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from moto.rds.exceptions import InvalidParameterCombination, InvalidParameterValue, RDSClientError

from localcloud.postgres_installation import DEFAULT_MAJOR

_RESERVED_NAMES = frozenset({"admin", "rdsadmin", "rds_superuser", "rdsrepladmin", "public"})
_PASSWORD = re.compile(r'[^/"@ ]*')
_SHORTEST_PASSWORD = 8
_LONGEST_PASSWORD = 128

# Set by the cloud itself, or naming files and libraries that only RDS has.
_NOT_FROM_A_GROUP = frozenset(
    {
        "archive_command",
        "archive_library",
        "archive_mode",
        "config_file",
        "data_directory",
        "data_sync_retry",
        "external_pid_file",
        "fsync",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "local_preload_libraries",
        "log_destination",
        "log_directory",
        "log_filename",
        "logging_collector",
        "port",
        "session_preload_libraries",
        "shared_preload_libraries",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
    }
)


def major_version(engine: str, version: str | None) -> int:
    """Return the major version asked for. Raises what RDS answers for another engine or no version number."""
    if engine != "postgres":
        raise InvalidParameterValue(f"Invalid DB engine: {engine}. The embedded cloud runs postgres only.")
    if version is None:
        return DEFAULT_MAJOR
    found = re.fullmatch(r"(\d+)(\.\d+)*", str(version))
    if found is None:
        raise no_such_version(str(version))
    return int(found.group(1))


def no_such_version(version: str, reason: str = "") -> RDSClientError:
    """Return the error for a version RDS does not have; `reason` says what this machine lacks."""
    text = f"Cannot find version {version} for postgres"
    return InvalidParameterCombination(f"{text}: {reason}" if reason else text)


def check_master(arguments: Mapping[str, Any]) -> None:
    """Raise unless the master user and its password are such as RDS takes."""
    name = arguments.get("master_username")
    if not name:
        raise InvalidParameterValue("The parameter MasterUsername must be provided and must not be blank.")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name) or name.lower().startswith("pg_"):
        raise InvalidParameterValue(
            f"The parameter MasterUsername is not valid: {name}. It begins with a letter; letters, digits and _ follow."
        )
    if name.lower() in _RESERVED_NAMES:
        raise InvalidParameterValue(f"MasterUsername {name} cannot be used as it is a reserved word used by the engine")
    managed = arguments.get("manage_master_user_password")
    password = arguments.get("master_user_password")
    if managed and password is not None:
        raise InvalidParameterCombination(
            "You can't specify MasterUserPassword for an instance with ManageMasterUserPassword enabled."
        )
    if not managed:
        check_password(password)


def check_password(password: str | None) -> None:
    """Raise unless RDS would take this master password."""
    if not password:
        raise InvalidParameterValue("The parameter MasterUserPassword must be provided and must not be blank.")
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise InvalidParameterValue(
            "The parameter MasterUserPassword is not a valid password because it is "
            f"{'shorter' if len(password) < _SHORTEST_PASSWORD else 'longer'} than "
            f"{_SHORTEST_PASSWORD if len(password) < _SHORTEST_PASSWORD else _LONGEST_PASSWORD} characters."
        )
    if not password.isascii() or not password.isprintable() or not _PASSWORD.fullmatch(password):
        raise InvalidParameterValue(
            "The parameter MasterUserPassword is not a valid password. "
            "Only printable ASCII characters besides '/', '@', '\"', ' ' may be used."
        )


def check_database_name(name: str | None) -> None:
    """Raise unless RDS would take this name for the initial database."""
    if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise InvalidParameterValue(
            f"DBName must begin with a letter and contain only alphanumeric characters: {name} does not"
        )


def check_final_snapshot(*, skip: bool, identifier: str | None) -> None:
    """Raise unless exactly one of the two was said: leave a final snapshot, or skip it."""
    if not skip and not identifier:
        raise InvalidParameterCombination(
            "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
        )
    if skip and identifier:
        raise InvalidParameterCombination(
            "FinalDBSnapshotIdentifier cannot be specified when SkipFinalSnapshot is specified."
        )


def check_unused(kind: str, name: str, used: Iterable[str | None]) -> None:
    """Raise what RDS answers when a group is to be deleted that a DB instance still uses."""
    if name.lower() in {user.lower() for user in used if user}:
        code = "InvalidDBParameterGroupState" if "parameter" in kind else "InvalidDBSubnetGroupStateFault"
        raise RDSClientError(code, f"Cannot delete the {kind} '{name}' because at least one DB instance uses it.")


def known_parameters(group: Mapping[str, Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, str]:
    """Return the values of a parameter group that this PostgreSQL understands, by its own names.

    `known` maps parameter to context, as `postgres --describe-config` tells. Left out: what only RDS knows (rds.*),
    formulas over the instance class ({DBInstanceClassMemory/...}), and what the cloud sets itself.
    """
    values: dict[str, str] = {}
    for name, entry in group.items():
        value = entry.get("ParameterValue")
        if value is None or "{" in str(value) or known.get(name, "internal") == "internal":
            continue
        if name in _NOT_FROM_A_GROUP or name.startswith("ssl"):
            continue
        values[name] = str(value)
    return values
