"""Work shared out to several sessions that see one snapshot."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import threading
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import psycopg

from recovery.dumps import session
from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")


class Worker(Protocol):
    """A session to a database; `cancel` may be called by any thread."""

    def begin(self, snapshot: str) -> None:
        """Begin a read-only transaction that sees exactly what the exporting one sees."""

    def cancel(self) -> None:
        """Make what it does end soon, by an error."""

    def close(self) -> None:
        """End it."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class _StoppedError(RecoveryError):
    """Says that work was given up, and not why."""


# How soon a stop reaches a query that runs, and how soon it is tried again: one that was just about to begin is missed.
_WATCH_SECONDS = 0.5


class _Connected:
    def __init__(self, dsn: str) -> None:
        self.connection = session.connect(dsn)

    def begin(self, snapshot: str) -> None:
        session.import_snapshot(self.connection, snapshot)

    def cancel(self) -> None:
        # A server that does not answer ends the query by itself.
        with contextlib.suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=5)

    def close(self) -> None:
        self.connection.close()


def in_snapshot(
    dsn: str,
    snapshot: str,
    items: Sequence[Item],
    work: Callable[[psycopg.Connection[tuple[object, ...]], Item], None],
    *,
    jobs: int,
    stop: threading.Event,
) -> None:
    """Call `work` for every item, over `jobs` connections that import the snapshot; the first failure ends all.

    Setting `stop` cancels what runs; then it raises RecoveryError.
    """
    share_out(
        lambda: _Connected(dsn), snapshot, items, lambda each, item: work(each.connection, item), jobs=jobs, stop=stop
    )


def share_out(
    worker: Callable[[], AnyWorker],
    snapshot: str,
    items: Sequence[Item],
    work: Callable[[AnyWorker, Item], None],
    *,
    jobs: int,
    stop: threading.Event,
) -> None:
    """Do the same with sessions of any kind."""
    pending: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        pending.put(item)
    workers: list[AnyWorker] = []
    try:
        while len(workers) < max(1, min(jobs, len(items))):
            workers.append(worker())
    except BaseException:
        for each in workers:
            each.close()
        raise

    def drain(each: AnyWorker) -> None:
        try:
            each.begin(snapshot)
            while not stop.is_set():
                try:
                    item = pending.get_nowait()
                except queue.Empty:
                    return
                work(each, item)
            _say_stopped()
        except psycopg.errors.QueryCanceled:
            if stop.is_set():
                _say_stopped()
            stop.set()
            raise
        except BaseException:
            stop.set()
            raise

    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(workers, stop, over), name="snapshot-watcher")
    watcher.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(len(workers), thread_name_prefix="snapshot") as pool:
            futures = [pool.submit(drain, each) for each in workers]
            try:
                concurrent.futures.wait(futures)
            except BaseException:  # Ctrl-C or SIGTERM: the watcher cancels what the workers wait for
                stop.set()
                raise
    finally:
        over.set()
        watcher.join()
        for each in workers:
            each.close()
    failures = [error for error in (future.exception() for future in futures) if error is not None]
    if failures:
        # The first real cause, not the cancellations that followed it.
        raise min(failures, key=lambda error: isinstance(error, _StoppedError))


def _watch(workers: Sequence[Worker], stop: threading.Event, over: threading.Event) -> None:
    """Cancel whatever the workers do from when `stop` is set until all is over."""
    while not over.wait(_WATCH_SECONDS):
        if stop.is_set():
            for each in workers:
                each.cancel()


def _say_stopped() -> NoReturn:
    raise _StoppedError("the work was stopped before it was done")
