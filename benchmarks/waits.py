"""What the backends of a server wait for while a work runs: the causes of processors being idle."""

from __future__ import annotations

import collections
import time

import psycopg

from benchmarks.postgres import Server
from benchmarks.sampler import Sampler

# Often enough to see what phases of some seconds wait for, seldom enough to cost a hundredth of a core.
_SAMPLE_SECONDS = 0.2

RUNNING = "running"
_WAITS = f"""
SELECT coalesce(wait_event_type || ':' || wait_event, '{RUNNING}'), count(*) FROM pg_catalog.pg_stat_activity
 WHERE backend_type IN ('client backend', 'parallel worker') AND state = 'active' AND pid <> pg_catalog.pg_backend_pid()
 GROUP BY 1
"""  # the constant above is all that is filled in


class WaitTimeline(Sampler):
    """Samples in the background what active backends wait for; afterwards tells it of any span of time."""

    def __init__(self, server: Server) -> None:
        super().__init__(_SAMPLE_SECONDS)
        self._connection = psycopg.connect(server.dsn(), autocommit=True)
        self._samples: list[tuple[float, dict[str, int]]] = []

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._connection.close()

    def sample(self) -> None:
        rows = self._connection.execute(_WAITS.encode()).fetchall()
        self._samples.append((time.monotonic(), {str(name): int(count) for name, count in rows}))

    def between(self, start: float, end: float) -> collections.Counter[str]:
        """Return how many backends were seen running or waiting for what between two moments of the monotonic clock."""
        seen: collections.Counter[str] = collections.Counter()
        for moment, counts in self._samples:
            if start <= moment < end:
                seen.update(counts)
        return seen


def causes(seen: collections.Counter[str], *, most: int = 3) -> str:
    """Say what backends waited for most, each as a share of all the time of all of them."""
    total = seen.total()
    waits = [(name, count) for name, count in seen.most_common() if name != RUNNING]
    return ", ".join(f"{name} {count / total:.0%}" for name, count in waits[:most] if count >= total / 100)
