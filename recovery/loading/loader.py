"""Run a dump's statements and rows against the side database: at once where that is safe, else in the dump's order."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from typing import TYPE_CHECKING

from recovery.dumps.statements import CopyBlock
from recovery.loading.feed import Budget, Feed
from recovery.loading.plan import (
    ALL_DATA,
    AUTHORIZATION,
    BESIDE,
    COPYING,
    DEFERRED,
    Plan,
    Setting,
    Step,
    claim,
    may_change_settings,
    plan,
)
from recovery.loading.pool import StoppedError, Work
from recovery.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recovery.dumps.reader import DumpReader
    from recovery.dumps.statements import Statement, TableName
    from recovery.loading.notes import Notes
    from recovery.loading.pool import Pool
    from recovery.loading.session import Session

_REPORT_SECONDS = 0.5
# Rows on their way to the server.  With the reader's own few pieces and Python itself this stays below 150 MB.
_BYTES_UNDER_WAY = 16 * 1024 * 1024

# Whether rows may arrive in any order and beside other tables': an ordinary table without triggers (foreign keys are
# triggers) or rules, of which no constraint, default, generated column or index runs a function that somebody wrote:
# it may look at other tables.  Such a function may also stand in the expressions that rows are partitioned by, and in
# a domain's constraint, however deep the domain is inside the column's type.
_ANY_ORDER = """
SELECT c.relkind = 'r' AND NOT c.relhastriggers AND NOT c.relhasrules AND NOT c.relrowsecurity AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend d
   WHERE d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) AND d.refobjid >= 16384
   AND ((d.classid = 'pg_catalog.pg_constraint'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid))
     OR (d.classid = 'pg_catalog.pg_attrdef'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid))
     OR (d.classid = 'pg_catalog.pg_class'::regclass
         AND (d.objid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = c.oid)
              OR c.relispartition AND d.objid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid))))
     OR (d.classid = 'pg_catalog.pg_constraint'::regclass
         AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE contypid <> 0)
         AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.atttypid >= 16384))))
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
_PLAIN_TABLE = "SELECT relkind = 'r' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)"

# A role sees the progress of its own sessions.  The index itself has no name for others before it is committed.
_INDEXES_UNDER_WAY = b"""
SELECT relid::regclass::text, phase, COALESCE(100 * blocks_done / NULLIF(blocks_total, 0),
       100 * tuples_done / NULLIF(tuples_total, 0), 0)
  FROM pg_catalog.pg_stat_progress_create_index WHERE datname = pg_catalog.current_database()
"""


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment: the monotonic clock's seconds and the CPU seconds this process had used by then."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> Moment:
        """Return the present one."""
        return cls(time.monotonic(), time.process_time())


@dataclasses.dataclass
class _Table:
    """Rows of one COPY block: what the dump has, what the server took."""

    name: str
    taken: int = 0
    block: CopyBlock | None = None


class Loader:
    """Loads what a reader reads through a main session and a pool of others; counts as it goes."""

    def __init__(
        self, reader: DumpReader, main: Session, pool: Pool, notes: Notes, *, stored: int, progress: Progress
    ) -> None:
        self._reader = reader
        self._main = main
        self._pool = pool
        self._notes = notes
        self._stored = stored
        self._progress = progress
        self._started = time.monotonic()
        self._reported = 0.0
        self._settings: Mapping[str, Statement] = {}
        self._deferred: list[Statement] = []
        self._late: list[Step] = []
        self._sizes: dict[str, int] = {}  # bytes of rows by claim
        self._serial = False  # after a statement that only the main session can follow
        self._alone = False  # between SET SESSION AUTHORIZATION or BEGIN and its end
        self._budget = Budget(_BYTES_UNDER_WAY, lambda: pool.stopping)
        self._counting = threading.Lock()
        self._tables: list[_Table] = []
        self.bytes = 0
        self.rows_ended = Moment.now()

    @property
    def settings(self) -> Mapping[str, Statement]:
        """The settings the dump has made."""
        return self._settings

    @property
    def tables(self) -> int:
        """COPY blocks loaded."""
        return len(self._tables)

    @property
    def rows(self) -> int:
        """Rows the server took."""
        return sum(table.taken for table in self._tables)

    def run(self) -> None:
        """Run everything.  Raises RecoveryError at the first thing the server refuses and no rule excuses."""
        try:
            for item in self._reader.items():
                if isinstance(item, CopyBlock):
                    self._copy(item)
                else:
                    self._statement(item)
                self._report()
            self._barrier()
        except StoppedError:
            self._pool.check()  # raises what stopped the work
            raise
        for table in self._tables:
            if table.block is not None and table.block.rows != table.taken:
                text = f"the dump has {table.block.rows} rows, the server took {table.taken}"
                self._notes.add("rows", table.name, text)
        self._report(final=True)

    # -- statements

    def _statement(self, statement: Statement) -> None:
        if self._serial:
            self._main.execute(statement)
            return
        how = plan(statement, self._is_plain_table)
        if not isinstance(how, Setting) and may_change_settings(statement):
            self._barrier()
            self._serial = True
            self._notes.add("serial", statement.subject, "it may change settings: one session loads all that follows")
            self._main.execute(statement)
        else:
            self._planned(statement, how)

    def _planned(self, statement: Statement, how: Plan) -> None:
        if isinstance(how, Setting):
            if self._deferred or self._late:
                self._barrier()  # they were written under the settings so far
            if self._main.execute(statement):
                self._settings = {**self._settings, how.name: statement}
        elif self._alone:
            self._main.execute(statement)
            self._alone = self._main.is_not_itself()
        elif isinstance(how, list):
            for step in how:
                if step.late:
                    self._late.append(step)
                else:
                    self._submit(step)
        elif how == BESIDE:
            self._main.execute(statement)
        elif how == DEFERRED and not self._pool.is_idle:
            self._deferred.append(statement)
        else:
            self._barrier()
            self._main.execute(statement)
            if how == AUTHORIZATION:
                self._alone = self._main.is_not_itself()

    def _submit(self, step: Step) -> None:
        statement = step.statement

        def action(session: Session) -> None:
            session.execute(statement)

        weight = self._sizes.get(next(iter(step.claims)), 0)
        self._pool.submit(Work(statement.subject, step.claims, action, self._settings, weight))

    def _barrier(self) -> None:
        late, self._late = self._late, []
        for step in late:
            self._submit(step)
        if not self._pool.is_idle:
            self._pool.wait(meanwhile=self._report_indexes)
        self._pool.check()
        deferred, self._deferred = self._deferred, []
        for statement in deferred:
            self._main.execute(statement)

    def _is_plain_table(self, table: TableName) -> bool:
        return self._ask(_PLAIN_TABLE, table)

    def _ask(self, query: str, table: TableName) -> bool:
        # As bytes, as the dump has it: a name may be of no encoding that Python has.
        name = table.sql.replace(b"\\", b"\\\\").replace(b"'", b"''")
        row = self._main.connection.execute(query.replace("%s", "E'%s'").encode() % name).fetchone()
        return row == (True,)

    # -- rows

    def _copy(self, block: CopyBlock) -> None:
        table = _Table(str(block.table), block=block)
        self._tables.append(table)
        if self._deferred or self._late:
            self._barrier()  # a trigger or a foreign key may be among them
        if self._serial or self._alone or not block.table.schema or not self._ask(_ANY_ORDER, block.table):
            self._barrier()
            table.taken = self._main.copy(block, self._counted(block))
            self.rows_ended = Moment.now()
            return
        feed = Feed(self._budget)
        consumers, before = 0, self.bytes
        try:
            for piece in block.pieces:
                self.bytes += len(piece)
                feed.put(piece, ends_row=_ends_row(piece))
                # One session copies the table until there is more than it can take and another is free.
                if consumers == 0 or (feed.backlog > 1 and consumers < self._pool.size and self._pool.has_idle):
                    self._pool.submit(self._consumer(block, table, feed))
                    consumers += 1
                self._report()
        finally:
            feed.close()
        self._sizes[claim(block.table)] = self.bytes - before
        if consumers == 0:  # an empty table: the statement itself is still tried
            self._pool.submit(self._consumer(block, table, feed))

    def _consumer(self, block: CopyBlock, table: _Table, feed: Feed) -> Work:
        def action(session: Session) -> None:
            taken = session.copy(block, feed.pieces())
            with self._counting:
                table.taken += taken
                self.rows_ended = Moment.now()

        claims = {claim(block.table): COPYING, ALL_DATA: COPYING}
        # Rows before all else, and in the dump's order: the reader waits until there is room for the next.
        return Work(f"rows of {block.table}", claims, action, self._settings, math.inf)

    def _counted(self, block: CopyBlock) -> Iterator[bytes]:
        for piece in block.pieces:
            self.bytes += len(piece)
            yield piece
            self._report()

    # -- progress

    def _report_indexes(self) -> None:
        """Report while only the server works: what it builds, and how far each build is."""
        if time.monotonic() - self._reported < _REPORT_SECONDS:
            return
        rows = self._main.connection.execute(_INDEXES_UNDER_WAY).fetchall()
        self._report(builds=", ".join(f"index of {table}: {phase} {percent} %" for table, phase, percent in rows))

    def _report(self, *, final: bool = False, builds: str = "") -> None:
        now = time.monotonic()
        if not final and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        done = self._reader.stored_done
        seconds = max(now - self._started, 0.001)
        text = f"{self.tables} tables, {self.bytes / seconds / 1e6:.0f} MB/s"
        if 0 < done < self._stored and seconds > 1:
            text += f", {seconds * (self._stored - done) / done:.0f} s of reading left"
        if builds:
            text += f"; {builds}"
        elif names := self._pool.names:
            text += f"; now {', '.join(names[:4])}"
        self._progress(ProgressEvent("load", done, self._stored, "bytes", text))


def _ends_row(piece: bytes) -> bool:
    r"""Whether a piece ends with a row: with a newline that no backslash escapes."""
    if not piece.endswith(b"\n"):
        return False
    tail = piece[-65:-1]
    return (len(tail) - len(tail.rstrip(b"\\"))) % 2 == 0
