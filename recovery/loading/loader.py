"""Run a dump's statements and rows against the side database, in the order that keeps their meaning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from recovery.dumps.statements import CopyBlock
from recovery.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.dumps.reader import DumpReader
    from recovery.loading.notes import Notes
    from recovery.loading.session import Session

_REPORT_SECONDS = 0.5


class Loader:
    """Loads what a reader reads; counts as it goes."""

    def __init__(self, reader: DumpReader, session: Session, notes: Notes, *, stored: int, progress: Progress) -> None:
        self._reader = reader
        self._session = session
        self._notes = notes
        self._stored = stored
        self._progress = progress
        self._reported = 0.0
        self.tables = 0
        self.rows = 0
        self.bytes = 0

    def run(self) -> None:
        """Run everything.  Raises RecoveryError at the first thing the server refuses and no rule excuses."""
        for item in self._reader.items():
            if isinstance(item, CopyBlock):
                taken = self._session.copy(item, self._counted(item))
                if taken != item.rows:
                    self._notes.add("rows", str(item.table), f"the dump has {item.rows} rows, the server took {taken}")
                self.tables += 1
                self.rows += taken
            else:
                self._session.execute(item)
            self._report(item.statement.subject if isinstance(item, CopyBlock) else item.subject)
        self._report("", final=True)

    def _counted(self, block: CopyBlock) -> Iterator[bytes]:
        for piece in block.pieces:
            self.bytes += len(piece)
            yield piece
            self._report(str(block.table))

    def _report(self, text: str, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._progress(ProgressEvent("load", self._reader.stored_done, self._stored, "bytes", text))
