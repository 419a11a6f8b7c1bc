"""Whether a restore fits on the server's disk: estimated before anything is created, and NOT KNOWN where it is not.

SQL does not tell how much of a disk is free.  It is known for a server on this machine, whose data folder can be
looked at, and for an RDS instance, which CloudWatch measures.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pydantic

from recovery.clients import AwsError, Clients
from recovery.errors import EnvironmentLacksError
from recovery.loading.session import connect
from recovery.loading.side import admin_database, target_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from recovery.dumps.manifest import Manifest

# Heap and indexes of an ordinary database against the text of its dump; measured between 0.7 (long texts, which the
# server compresses) and 2.5 (many indexes on narrow rows).  An estimate, and said to be one.
DATABASE_PER_TEXT = 1.5

_RDS_HOST = re.compile(r"([a-z][a-z0-9-]*)\.[a-z0-9]+\.([a-z]{2}(?:-[a-z]+)+-\d)\.rds\.amazonaws\.com(?:\.cn)?\Z")
_MEASURED_WITHIN = dt.timedelta(minutes=15)
_GIB = 1024**3

# The folder that a new database's files go to: that of the target's tablespace, else the server's own.
_FOLDER = """
SELECT COALESCE(NULLIF((SELECT pg_catalog.pg_tablespace_location(d.dattablespace)
                          FROM pg_catalog.pg_database d WHERE d.datname = %s), ''),
                pg_catalog.current_setting('data_directory', true))
"""
_STARTED = "SELECT EXTRACT(epoch FROM modification)::bigint FROM pg_catalog.pg_stat_file('postmaster.pid')"


class Space(pydantic.BaseModel):
    """Bytes needed and free, None where not known; `needed_basis` and `free_basis` say where each comes from, or why
    it is not known.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    needed: int | None
    needed_basis: str
    free: int | None
    free_basis: str
    verdict: Literal["ENOUGH", "TOO LITTLE", "NOT KNOWN"]

    @property
    def line(self) -> str:
        """All of it in one line for people."""
        needed = f"about {_size(self.needed)} needed" if self.needed is not None else "need NOT KNOWN"
        free = f"{_size(self.free)} free" if self.free is not None else "free space NOT KNOWN"
        return f"disk: {self.verdict}: {needed} ({self.needed_basis}); {free} ({self.free_basis})"


def look_at_space(dsn: str, manifest: Manifest | None, *, clients: Callable[[str], Clients] = Clients) -> Space:
    """Estimate what a restore into the DSN's database needs and find out what its server has free.

    The database that is replaced is dropped last, so its own size does not count as free.  Raises
    EnvironmentLacksError when the server does not let us in; what AWS does not tell is NOT KNOWN.
    """
    needed, needed_basis = needed_for(manifest)
    with contextlib.closing(connect(dsn, database=admin_database(target_name(dsn)))) as connection:
        host = connection.info.host
        rds = _RDS_HOST.match(host.lower())
        free, free_basis = (
            rds_free(clients(rds.group(2)), rds.group(1)) if rds else _local_free(connection, host, target_name(dsn))
        )
    verdict: Literal["ENOUGH", "TOO LITTLE", "NOT KNOWN"] = "NOT KNOWN"
    if needed is not None and free is not None:
        verdict = "ENOUGH" if free >= needed else "TOO LITTLE"
    return Space(needed=needed, needed_basis=needed_basis, free=free, free_basis=free_basis, verdict=verdict)


def refuse_too_little(space: Space) -> None:
    """Raise EnvironmentLacksError when there is less than the estimate."""
    if space.verdict == "TOO LITTLE":
        raise EnvironmentLacksError(
            "The server's disk is likely too small for this restore; nothing was changed.",
            detail=space.line,
            hint="Make room or a larger disk. The need is an estimate: --ignore-space goes on in spite of it, and a "
            "restore that runs out of disk leaves the target as it was.",
        )


def needed_for(manifest: Manifest | None) -> tuple[int | None, str]:
    """Return the bytes a restored database will take, as an estimate, and what that rests on."""
    if manifest is None or manifest.layout is None:
        return None, "no manifest tells how large the dump is uncompressed"
    text = manifest.layout.uncompressed_size
    return int(text * DATABASE_PER_TEXT), f"an estimate: {DATABASE_PER_TEXT} times the dump's {_size(text)} of text"


def rds_free(clients: Clients, identifier: str) -> tuple[int | None, str]:
    """Return what CloudWatch last measured as free on an RDS instance, or None and what is known instead."""
    now = dt.datetime.now(dt.UTC)
    try:
        measured = clients("cloudwatch").get_metric_statistics(
            Namespace="AWS/RDS",
            MetricName="FreeStorageSpace",
            Dimensions=[{"Name": "DBInstanceIdentifier", "Value": identifier}],
            StartTime=now - _MEASURED_WITHIN,
            EndTime=now,
            Period=60,
            Statistics=["Minimum"],
        )["Datapoints"]
        if measured:
            newest = max(measured, key=lambda point: point["Timestamp"])
            return int(newest["Minimum"]), f"CloudWatch, {newest['Timestamp']:%H:%M} UTC"
        found = clients("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    except AwsError as exc:
        return None, f"AWS does not tell: {exc}"
    allocated = found[0].get("AllocatedStorage", 0)
    most = found[0].get("MaxAllocatedStorage")
    grows = f", growing by itself up to {most} GiB" if most else ""
    return None, f"CloudWatch has no measurement yet; {identifier} has {allocated} GiB in all{grows}"


def _local_free(connection: psycopg.Connection[Any], host: str, target: str) -> tuple[int | None, str]:
    socket = host.startswith("/")
    if not socket and not _is_loopback(host):
        return None, f"SQL does not tell it, and {host} is not this machine"
    try:
        row = connection.execute(_FOLDER, [target]).fetchone()
        folder = Path(row[0]) if row and row[0] else None
        if folder is None:
            return None, "the role may not see where the server keeps its data"
        # A loopback port may be a tunnel or a container: the start of the server that answers must be this one's.
        if not socket and not _is_the_same(connection, folder):
            return None, f"what answers on {host} is not shown to be a server of this machine"
        return shutil.disk_usage(folder).free, f"of the disk that holds {folder}"
    except psycopg.errors.InsufficientPrivilege:
        return None, "the role may not see where the server keeps its data"
    except OSError as error:
        return None, f"the server's folder cannot be looked at: {error.strerror}"


def _is_the_same(connection: psycopg.Connection[Any], folder: Path) -> bool:
    row = connection.execute(_STARTED).fetchone()
    data = connection.execute("SELECT pg_catalog.current_setting('data_directory')").fetchone()
    base = Path(data[0]) if data else folder
    return row is not None and int(row[0]) == int((base / "postmaster.pid").stat().st_mtime)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 1024**2:.1f} MiB"
