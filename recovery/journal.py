"""What happened, in order, for good: an append-only, hash-chained file of one canonical JSON object per line.

A line is `{v, seq, time, monotonic, drill, step, event, data, prev, hash}`; `hash` is the SHA-256 of the line's own
canonical JSON without `hash`, and `prev` the hash of the line before. Each event is on disk before `append` returns.
Everything else (progress, ledger, report) is derived from these events. One writer at a time, enforced by a file lock
that dies with its process: a free lock on an unfinished journal means that the run behind it is dead.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from filelock import FileLock, Timeout

from recovery.errors import CheckFailedError, EnvironmentLacksError, RecoveryError, RefusedError
from recovery.redaction import redact

if TYPE_CHECKING:
    from types import TracebackType

VERSION = 1
FIRST_PREV = "0" * 64
FILE_NAME = "journal.jsonl"
_FIELDS = frozenset({"v", "seq", "time", "monotonic", "drill", "step", "event", "data", "prev", "hash"})


def canonical_json(value: object) -> str:
    """Return the one way to write this value: sorted keys, no spaces, no NaN, UTF-8 kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a journal. `time` is aware UTC; `monotonic` is seconds, comparable within one process only."""

    v: int
    seq: int
    time: datetime
    monotonic: float
    drill: str
    step: str
    event: str
    data: Mapping[str, object]
    prev: str
    hash: str

    def body(self) -> dict[str, object]:
        """Return the line's fields without `hash`: what the hash is taken of."""
        return {
            "v": self.v,
            "seq": self.seq,
            "time": self.time.isoformat(),
            "monotonic": self.monotonic,
            "drill": self.drill,
            "step": self.step,
            "event": self.event,
            "data": self.data,
            "prev": self.prev,
        }

    def computed_hash(self) -> str:
        """Return the SHA-256 (hex) that this event must carry."""
        return hashlib.sha256(canonical_json(self.body()).encode()).hexdigest()

    def to_line(self) -> str:
        """Return the event as its journal line, without the line feed."""
        return canonical_json({**self.body(), "hash": self.hash})

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read one journal line. Raises ValueError when it is not one."""
        fields = json.loads(line)
        if not isinstance(fields, dict) or set(fields) != _FIELDS:
            raise ValueError("not a journal line")
        if not isinstance(fields["data"], dict):
            raise ValueError("data is not an object")  # noqa: TRY004  # one kind of error for one kind of problem
        fields["time"] = datetime.fromisoformat(str(fields["time"]))
        return cls(**fields)


class Mirror(Protocol):
    """Where a second copy of each event goes; it must neither block nor raise."""

    def put(self, event: Event) -> None:
        """Take an event for copying."""


def read_journal(path: Path) -> list[Event]:
    """Read every whole event of a journal, ignoring a torn last line.

    Raises EnvironmentLacksError when the file cannot be read, CheckFailedError when a line in the middle is broken.
    """
    events, _ = _read(path)
    return events


def _read(path: Path) -> tuple[list[Event], int]:
    """Return the events and how many bytes of the file they fill."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise EnvironmentLacksError(f"The journal {path} cannot be read.", detail=str(exc)) from exc
    events: list[Event] = []
    offset = 0
    while offset < len(content):
        end = content.find(b"\n", offset)
        torn = end < 0
        line = content[offset:] if torn else content[offset:end]
        try:
            event = Event.from_line(line.decode())
        except (ValueError, TypeError) as exc:
            if torn or end + 1 == len(content):
                return events, offset
            raise CheckFailedError(
                f"Line {len(events) + 1} of the journal {path} is not readable.",
                detail=str(exc),
                hint="It was changed or damaged after it was written; compare it with its copy in the evidence bucket.",
            ) from exc
        if torn:
            return events, offset
        events.append(event)
        offset = end + 1
    return events, offset


def verify_chain(events: Iterable[Event]) -> None:
    """Check sequence, links and hashes. Raises CheckFailedError naming the first event that does not fit."""
    prev, drill = FIRST_PREV, None
    for position, event in enumerate(events):
        problem = None
        drill = drill if drill is not None else event.drill
        if event.seq != position:
            problem = f"its number is {event.seq}, not {position}"
        elif event.drill != drill:
            problem = f"it belongs to {event.drill}, not {drill}"
        elif event.prev != prev:
            problem = "it does not follow the event before it"
        elif event.hash != event.computed_hash():
            problem = "its content is not what its hash says"
        if problem:
            raise CheckFailedError(
                f"The journal's chain breaks at event {position}.",
                detail=problem,
                hint="The journal was changed after it was written; its copy in the evidence bucket may be whole.",
            )
        prev = event.hash


def is_being_written(path: Path) -> bool:
    """Tell whether a living process holds this journal open for writing."""
    lock_path = _lock_path(path)
    if not lock_path.exists():
        return False
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


class Journal:
    """The one writer of a journal file; safe to call from any thread."""

    def __init__(
        self,
        path: Path,
        drill: str,
        *,
        mirror: Mirror | None = None,
        listeners: Iterable[Callable[[Event], None]] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open or create the journal, cut a torn last line and check the chain.

        Raises RefusedError when another process writes it or it is another drill's, CheckFailedError when its chain is
        broken, EnvironmentLacksError when the folder cannot be written.
        """
        self.path = path
        self.drill = drill
        self._mirror = mirror
        self._listeners = list(listeners)
        self._now = now
        self._mutex = threading.Lock()
        self._broken = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not thread-local: the thread that opens a journal need not be the one that closes it.
            self._lock = FileLock(_lock_path(path), thread_local=False)
            self._lock.acquire(timeout=0)
        except Timeout as exc:
            raise RefusedError(
                f"The journal {path} is being written by another process.",
                hint="Wait for that run to end, or stop it; a run that died releases its journal by itself.",
            ) from exc
        except OSError as exc:
            raise EnvironmentLacksError(f"The journal {path} cannot be written.", detail=str(exc)) from exc
        try:
            self._file, self.events = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> tuple[int, list[Event]]:
        events: list[Event] = []
        if self.path.exists():
            events, good = _read(self.path)
            verify_chain(events)
            if events and events[0].drill != self.drill:
                raise RefusedError(f"The journal {self.path} belongs to {events[0].drill}, not to {self.drill}.")
            if good != self.path.stat().st_size:
                os.truncate(self.path, good)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        # The file's name must survive a power cut too, not only its content.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file, events

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on, after it is on disk; it must be quick."""
        with self._mutex:
            self._listeners.append(listener)

    def append(self, event: str, data: Mapping[str, object] | None = None, *, step: str = "") -> Event:
        """Write one event and return it once it is on disk. Secrets in `data` are masked first.

        Raises RecoveryError when the disk refuses; the journal then takes nothing more, since a gap would be a lie.
        """
        clean = json.loads(canonical_json(redact(_jsonable(dict(data or {})))))
        with self._mutex:
            if self._broken:
                raise RecoveryError(f"The journal {self.path} failed earlier and takes no more events.")
            previous = self.events[-1] if self.events else None
            fields: dict[str, object] = {
                "v": VERSION,
                "seq": previous.seq + 1 if previous else 0,
                "time": self._now(),
                "monotonic": round(time.monotonic(), 6),
                "drill": self.drill,
                "step": step,
                "event": event,
                "data": clean,
                "prev": previous.hash if previous else FIRST_PREV,
            }
            draft = Event(**fields, hash="")  # type: ignore[arg-type]  # one mapping, fields of several types
            written = Event(**fields, hash=draft.computed_hash())  # type: ignore[arg-type]  # as above
            self._write(f"{written.to_line()}\n".encode())
            self.events.append(written)
            listeners = tuple(self._listeners)
        if self._mirror is not None:
            self._mirror.put(written)
        for listener in listeners:
            listener(written)
        return written

    def _write(self, line: bytes) -> None:
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except BaseException as exc:
            self._broken = True
            if isinstance(exc, OSError):
                raise RecoveryError(f"The journal {self.path} cannot be written.", detail=str(exc)) from exc
            raise

    def verify(self) -> None:
        """Read the file again and check its whole chain. Raises CheckFailedError."""
        verify_chain(read_journal(self.path))

    def close(self) -> None:
        """Close the file and let go of the lock; calling it again does nothing."""
        with self._mutex:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._broken = True
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _jsonable(value: object) -> object:
    """Return the value in JSON's own types; times become ISO 8601, anything unknown its text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_jsonable(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
