"""One backup at a time: a lock object beside the backups, or a lock file in the folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import botocore.exceptions
import filelock

from recovery.dumps import names
from recovery.dumps.upload import storage_error
from recovery.errors import EnvironmentLacksError, RecoveryError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

# A holder that has not renewed its lock for this long is dead: it renews four times as often.
LIFETIME = dt.timedelta(minutes=10)

# How often a write that met another request of our own, or a lock that vanished, is tried.
_ATTEMPTS = 3


_REPLACED = "somebody else replaced or removed it"


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A lock as it was found in the bucket."""

    body: bytes
    etag: str
    written: dt.datetime

    @property
    def holder(self) -> dict[str, Any]:
        """What its holder wrote, nothing where that cannot be read."""
        try:
            holder = json.loads(self.body)
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}


class BucketLock:
    """A lock as an object that only one writer can create (`If-None-Match: *`), renewed while it is held.

    A lock whose holder stopped renewing it is taken over, by replacing exactly the object that was seen
    (`If-Match`).  Raises RefusedError when somebody else holds it.
    """

    def __init__(self, s3: Any, bucket: str, prefix: str, *, lifetime: dt.timedelta = LIFETIME) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": prefix + names.LOCK}
        self._lifetime = lifetime
        self._token = secrets.token_hex(16)
        self._etag = ""
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, **self._where) from error
        self._thread = threading.Thread(target=self._keep, name="backup-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            seen = self._seen()
            if seen is not None and seen.holder.get("token") == self._token:
                self._s3.delete_object(**self._where)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as problem:
            # It expires by itself; a failure to give it back must not hide how the backup went.
            if error is not None:
                error.add_note(f"the lock {self._where['Key']} could not be removed: {problem}")

    def check(self) -> None:
        """Renew the lock now; raises RecoveryError when it was lost, so that no backup is sealed beside another's.

        Whether it was lost cannot be known from here otherwise: a suspended process sleeps past its own lock's end.
        """
        try:
            if self._lost is None and not self._renew():
                self._lost = _REPLACED
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise storage_error(error, **self._where) from error
        if self._lost is not None:
            raise RecoveryError(
                "the lock on backups was lost while the backup ran",
                detail=self._lost,
                hint="take the backup again; the previous one is still the latest",
            )

    def _body(self) -> bytes:
        now = dt.datetime.now(dt.UTC)
        holder = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed": now.isoformat(),
            "expires": (now + self._lifetime).isoformat(),
        }
        return json.dumps(holder).encode()

    def _put(self, **condition: str) -> bool:
        """Write the lock under a condition; tells whether it is ours now."""
        for _ in range(_ATTEMPTS):
            body = self._body()
            try:
                answer = self._s3.put_object(**self._where, Body=body, ContentType="application/json", **condition)
            except botocore.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (404, 409, 412):
                    raise
            else:
                self._etag = answer["ETag"]
                return True
            # botocore repeats a request whose answer was lost, and then its condition fails by what it wrote itself.
            seen = self._seen()
            if seen is None and "IfNoneMatch" in condition:
                continue
            if seen is None or seen.holder.get("token") != self._token:
                return False
            if seen.body == body:
                self._etag = seen.etag
                return True
            condition = {"IfMatch": seen.etag}
        return False

    def _renew(self) -> bool:
        with self._writing:
            return self._put(IfMatch=self._etag)

    def _seen(self) -> _Seen | None:
        """Read the lock that is there, None when there is none."""
        try:
            answer = self._s3.get_object(**self._where)
        except self._s3.exceptions.NoSuchKey:
            return None
        return _Seen(answer["Body"].read(), answer["ETag"], answer["LastModified"])

    def _acquire(self) -> None:
        if self._put(IfNoneMatch="*"):
            return
        held = "somebody who gave it back just now"
        if (seen := self._seen()) is not None:
            holder = seen.holder
            expires = _expiry(holder) or seen.written + self._lifetime
            if expires < dt.datetime.now(dt.UTC) and self._put(IfMatch=seen.etag):
                return
            held = f"process {holder.get('pid')} on {holder.get('host')}, until {expires.isoformat()} if it died"
        raise RefusedError(
            "another backup is running",
            detail=f"s3://{self._where['Bucket']}/{self._where['Key']} is held by {held}",
            hint="wait for it to end; a dead holder's lock is taken over when it expires",
        )

    def _keep(self) -> None:
        while not self._stop.wait(self._lifetime.total_seconds() / 4):
            try:
                if not self._renew():
                    self._lost = _REPLACED
                    return
                self._failed_since = None
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                now = dt.datetime.now(dt.UTC)
                self._failed_since = self._failed_since or now
                if now - self._failed_since > self._lifetime / 2:
                    self._lost = f"it could not be renewed: {error}"
                    return

    _failed_since: dt.datetime | None = None


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises RefusedError when another process does, EnvironmentLacksError without access."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f".{names.LOCK}", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise RefusedError(
            "another backup is running", detail=f"it writes to {folder}", hint="wait for it to end"
        ) from error
    except OSError as error:
        raise EnvironmentLacksError(
            f"backups cannot be written to {folder}", detail=str(error), hint="make the folder writable or name another"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _expiry(holder: dict[str, Any]) -> dt.datetime | None:
    try:
        expires = dt.datetime.fromisoformat(str(holder.get("expires")))
    except ValueError:
        return None
    return expires if expires.tzinfo is not None else None
