"""Something looked at again and again in the background while a work runs."""

from __future__ import annotations

import abc
import threading
from typing import Self


class Sampler(abc.ABC):
    """Takes a sample every so many seconds for the time of the block, and one more at its end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abc.abstractmethod
    def sample(self) -> None:
        """Take one."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while True:
            self.sample()
            if last:
                return
            last = self._ended.wait(self._seconds)
