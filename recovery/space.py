"""Whether a restore fits on the server's disk: estimated before anything is created, and NOT KNOWN where it is not.

SQL does not tell how much of a disk is free.  It is known for a server on this machine, whose data folder can be
looked at, and for an RDS instance, which CloudWatch measures; how much an instance has in all, RDS tells.
"""

from __future__ import annotations

import contextlib
import dataclasses
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """A server's disk: bytes free and in all, None where not known, and where that comes from."""

    free: int | None
    total: int | None
    basis: str


class Space(pydantic.BaseModel):
    """Bytes needed, free and in all, None where not known; `needed_basis` and `free_basis` say where each comes from,
    or why it is not known.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    needed: int | None
    needed_basis: str
    free: int | None
    free_basis: str
    total: int | None = None
    verdict: Literal["ENOUGH", "TOO LITTLE", "NOT KNOWN"]

    @property
    def line(self) -> str:
        """All of it in one line for people."""
        needed = f"about {_size(self.needed)} needed" if self.needed is not None else "need NOT KNOWN"
        free = f"{_size(self.free)} free" if self.free is not None else "free space NOT KNOWN"
        return f"disk: {self.verdict}: {needed} ({self.needed_basis}); {free} ({self.free_basis})"


def look_at_space(
    dsn: str,
    manifest: Manifest | None,
    *,
    text_size: int | None = None,
    clients: Callable[[str], Clients] = Clients,
) -> Space:
    """Estimate what a restore into the DSN's database needs and find out what its server has free.

    ``text_size`` is that of the dump's text where no manifest tells it, None where nothing does.

    The database that is replaced is dropped last, so its own size does not count as free.  Raises
    EnvironmentLacksError when the server does not let us in; what AWS does not tell is NOT KNOWN.
    """
    with contextlib.closing(connect(dsn, database=admin_database(target_name(dsn)))) as connection:
        host = connection.info.host
        rds = _RDS_HOST.match(host.lower())
        disk = rds_disk(clients(rds.group(2)), rds.group(1)) if rds else _local_disk(connection, host, target_name(dsn))
    return compare_space(manifest.layout.uncompressed_size if manifest and manifest.layout else text_size, disk)


def compare_space(text_size: int | None, disk: Disk) -> Space:
    """Compare what a dump of so many bytes of text needs, an estimate, with what a disk has.

    What is in all less than the need is too little even where nobody knows how much of it is free.
    """
    needed, needed_basis = needed_for(text_size)
    most = disk.total if disk.free is None else disk.free
    verdict: Literal["ENOUGH", "TOO LITTLE", "NOT KNOWN"] = "NOT KNOWN"
    if needed is not None and most is not None and most < needed:
        verdict = "TOO LITTLE"
    elif needed is not None and disk.free is not None:
        verdict = "ENOUGH"
    return Space(
        needed=needed,
        needed_basis=needed_basis,
        free=disk.free,
        free_basis=disk.basis,
        total=disk.total,
        verdict=verdict,
    )


def refuse_too_little(
    space: Space,
    *,
    hint: str = "Make room or a larger disk. The need is an estimate: --ignore-space goes on in spite of it, and a "
    "restore that runs out of disk leaves the target as it was.",
) -> None:
    """Raise EnvironmentLacksError when there is less than the estimate."""
    if space.verdict == "TOO LITTLE":
        raise EnvironmentLacksError(
            "The server's disk is likely too small for this restore; nothing was changed.",
            detail=space.line,
            hint=hint,
        )


def needed_for(text_size: int | None) -> tuple[int | None, str]:
    """Return the bytes a restored database will take, as an estimate, and what that rests on."""
    if text_size is None:
        return None, "no manifest tells how large the dump is uncompressed"
    basis = f"an estimate: {DATABASE_PER_TEXT} times the dump's {_size(text_size)} of text"
    return int(text_size * DATABASE_PER_TEXT), basis


def rds_disk(clients: Clients, identifier: str) -> Disk:
    """Return what RDS says an instance has in all and what CloudWatch last measured as free of it."""
    now = dt.datetime.now(dt.UTC)
    try:
        found = clients("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    except AwsError as exc:
        return Disk(free=None, total=None, basis=f"AWS does not tell: {exc}")
    allocated = found[0].get("AllocatedStorage")
    total = allocated * _GIB if allocated else None
    most = found[0].get("MaxAllocatedStorage")
    said = f"{identifier} has {allocated} GiB in all" if allocated else f"RDS does not tell the size of {identifier}"
    if most:
        # RDS enlarges a disk once in six hours and by little: not what a restore can wait for.
        said += f", and may grow by itself up to {most} GiB, more slowly than a restore fills it"
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
            basis = f"CloudWatch, {newest['Timestamp']:%H:%M} UTC; {said}"
            return Disk(free=int(newest["Minimum"]), total=total, basis=basis)
    except AwsError as exc:
        return Disk(free=None, total=total, basis=f"CloudWatch does not tell: {exc}; {said}")
    return Disk(free=None, total=total, basis=f"CloudWatch has no measurement yet; {said}")


def _local_disk(connection: psycopg.Connection[Any], host: str, target: str) -> Disk:
    free, basis = _local_free(connection, host, target)
    return Disk(free=free, total=None, basis=basis)


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
