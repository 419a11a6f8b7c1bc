"""When a restore will be done: from how fast its rows go in, and from how large the indexes are at the source.

Everything here is an estimate and is said to be one.  Rows are loaded at the pace measured so far; what comes after
them is taken to cost so much of the loading's own time as the constants below say.  They are measured, on the shapes of
the benchmark, where the end came within a fifth of what was foretold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.dumps.manifest import Sizes

# Seconds to build a byte of index for each second to load a byte of table, keys that are checked by query included;
# and seconds for all else (swap, statistics) for each second of loading.
_INDEX_BYTE = 3.0
_REST = 0.15

# Before that a pace says little: connections are being made, tables created.
_LEAST_SECONDS = 1.0


class Forecast:
    """How long a restore of a dump of ``stored`` bytes still takes; moments are the monotonic clock's seconds.

    Where ``stored`` is None nobody knows how much is to come, and nothing is said before all rows are loaded.
    ``sizes`` is what its manifest says of the source; without it nothing is known of what comes after the rows.
    """

    def __init__(self, stored: int | None, sizes: Sizes | None) -> None:
        self._stored = stored
        self._after = None if sizes is None or not sizes.tables else _INDEX_BYTE * sizes.indexes / sizes.tables + _REST
        self._began: float | None = None
        self._skipped = 0

    def rows_begin(self, now: float, done: int) -> None:
        """Say that rows are loaded from now on, ``done`` bytes of the dump being read; the first time counts.

        What a resumed restore reads before it has anything to load says nothing of its pace.
        """
        if self._began is None:
            self._began, self._skipped = now, done

    def say(self, now: float, done: int, ended: float | None = None) -> str:
        """Say how long it still takes, nothing when that cannot be known.

        ``ended`` is when the last of the rows was loaded, if it was.
        """
        if self._began is None:
            return ""
        loading = (ended if ended is not None else now) - self._began
        if loading < _LEAST_SECONDS or done <= self._skipped:
            return ""
        if ended is not None:
            reading = 0.0
        elif self._stored is not None:
            reading = loading * max(0, self._stored - done) / (done - self._skipped)
        else:
            return ""
        if self._after is None:
            return f"rows loaded in about {_span(reading)}, then indexes" if ended is None else ""
        left = (loading + reading) * (1 + self._after) - (now - self._began)
        return f"done in about {_span(left)}" if left > 0 else "takes longer than expected"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
