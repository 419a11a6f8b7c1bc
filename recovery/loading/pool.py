"""Several sessions doing work at once, in an order that keeps every dependency of the dump's own order.

Each piece of work claims resources (tables, mostly), each in a mode.  Two claims on one resource go together when they
have the same mode and that mode is not EXCLUSIVE; otherwise the work submitted first is done first.  So any schedule
gives what the dump's own order would have given, as long as the claims are true.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recovery.dumps.statements import Statement
    from recovery.loading.session import Session

EXCLUSIVE = "exclusive"
# How often a waiting main thread looks whether it was told to stop.
WAIT_SECONDS = 0.2


class StoppedError(Exception):
    """Raised in a worker whose work is given up because something else failed; never seen by callers."""


@dataclasses.dataclass(eq=False)
class Work:
    """Something to do on any session that has taken over ``settings`` (setting name -> the dump's SET statement).

    Of what is ready the heaviest is begun first, so that no long work is left for one session at the end.  Work that
    ``waits_for_client`` between whiles, as the loading of rows does, leaves the server's processors to others then.
    """

    name: str
    claims: Mapping[str, str]
    action: Callable[[Session], None]
    settings: Mapping[str, Statement]
    weight: float = 0
    waits_for_client: bool = False
    blockers: set[Work] = dataclasses.field(default_factory=set)


class Pool:
    """Worker threads, one per session.

    No more than ``busy`` pieces of work that do not wait for this client run at once, by default as many as sessions.
    """

    def __init__(self, sessions: Sequence[Session], *, busy: int | None = None) -> None:
        self.size = len(sessions)
        self._most_busy = busy if busy is not None else self.size
        self._sessions = sessions
        self._changed = threading.Condition()
        self._open: dict[Work, None] = {}
        self._holders: dict[str, dict[Work, None]] = {}
        self._ready: list[Work] = []
        self._running: dict[Work, None] = {}
        self._failure: BaseException | None = None
        self._closing = False
        self._threads = [
            threading.Thread(target=self._serve, args=[session], name=f"restore-{number}", daemon=True)
            for number, session in enumerate(sessions)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_idle(self) -> bool:
        """Whether a session has nothing to do."""
        with self._changed:
            return len(self._running) + len(self._ready) < self.size

    @property
    def names(self) -> list[str]:
        """What is being done right now."""
        with self._changed:
            return [work.name for work in self._running]

    @property
    def left(self) -> int:
        """How much work is not done."""
        with self._changed:
            return len(self._open)

    @property
    def is_idle(self) -> bool:
        """Whether everything submitted is done."""
        with self._changed:
            return not self._open

    @property
    def awaits_client(self) -> bool:
        """Whether something that waits for this client is not done."""
        with self._changed:
            return any(work.waits_for_client for work in self._open)

    def submit(self, work: Work) -> None:
        """Do ``work`` once everything it conflicts with is done.  Raises what earlier work raised."""
        with self._changed:
            self.check()
            for resource, mode in work.claims.items():
                holders = self._holders.setdefault(resource, {})
                work.blockers.update(other for other in holders if mode == EXCLUSIVE or other.claims[resource] != mode)
                holders[work] = None
            self._open[work] = None
            if not work.blockers:
                self._ready.append(work)
                self._changed.notify_all()

    def wait(self, *, meanwhile: Callable[[], None] | None = None) -> None:
        """Wait until everything submitted is done, calling ``meanwhile`` now and then.  Raises what work raised."""
        while True:
            with self._changed:
                self.check()
                if not self._open:
                    return
                self._changed.wait(WAIT_SECONDS)
            if meanwhile is not None:
                meanwhile()

    def check(self) -> None:
        """Raise what any work raised."""
        if self._failure is not None:
            raise self._failure

    @property
    def stopping(self) -> bool:
        """Whether work in progress should give up."""
        return self._failure is not None or self._closing

    def close(self) -> None:
        """Stop: cancel what runs, end the threads and close the sessions."""
        with self._changed:
            self._closing = True
            busy = bool(self._open)
            self._changed.notify_all()
        if busy:
            for session in self._sessions:
                with contextlib.suppress(psycopg.Error):
                    session.connection.cancel_safe(timeout=5)
        for thread in self._threads:
            thread.join(timeout=30)
        for session in self._sessions:
            session.close()

    def _serve(self, session: Session) -> None:
        for work in self._next():
            try:
                session.adopt(work.settings)
                work.action(session)
            except StoppedError:
                return
            except BaseException as error:  # noqa: BLE001  # handed to the main thread, which raises it
                with self._changed:
                    if self._failure is None and not self._closing:
                        self._failure = error
                    self._changed.notify_all()
                return

    def _next(self) -> Iterator[Work]:
        while True:
            with self._changed:
                while (work := self._heaviest()) is None and not self.stopping:
                    self._changed.wait()
                if work is None or self.stopping:
                    return
                self._ready.remove(work)
                self._running[work] = None
            yield work
            with self._changed:
                self._finish(work)
                self._changed.notify_all()

    def _heaviest(self) -> Work | None:
        """The heaviest of what is ready and may begin now, the first of equals."""
        full = sum(not work.waits_for_client for work in self._running) >= self._most_busy
        startable = (work for work in self._ready if work.waits_for_client or not full)
        return max(startable, key=lambda work: work.weight, default=None)

    def _finish(self, work: Work) -> None:
        del self._running[work]
        del self._open[work]
        blocked: dict[Work, None] = {}
        for resource in work.claims:
            holders = self._holders[resource]
            del holders[work]
            if not holders:
                del self._holders[resource]
            blocked.update(holders)
        for other in blocked:
            if work in other.blockers:
                other.blockers.discard(work)
                if not other.blockers:
                    self._ready.append(other)
