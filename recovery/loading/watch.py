"""Says what is being done while the thread that would say it waits for the server."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# However often it is to be told, a thread that waits less does nothing else.
_LEAST_SECONDS = 0.05


class Watch:
    """Calls ``tell`` with what is under way every so many ``seconds`` that it takes, from a thread of its own."""

    def __init__(self, tell: Callable[[str], None], seconds: float) -> None:
        self._tell = tell
        self._seconds = max(seconds, _LEAST_SECONDS)
        self._under_way: tuple[str, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="restore-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    @contextlib.contextmanager
    def over(self, subject: str) -> Iterator[None]:
        """Say ``subject`` while the block runs, if that takes long."""
        self._under_way = (subject, time.monotonic())
        try:
            yield
        finally:
            self._under_way = None

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            under_way = self._under_way
            if under_way is not None and time.monotonic() - under_way[1] >= self._seconds:
                self._tell(under_way[0])
