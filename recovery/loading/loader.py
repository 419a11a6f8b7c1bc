"""Run a dump's statements and rows against the side database: at once where that is safe, else in the dump's order."""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from recovery.dumps.statements import CopyBlock, Inserts, table_name, text_literal
from recovery.loading.bookmark import Rows
from recovery.loading.broken_keys import FIRST_WITH_PARTITIONED, BrokenKeys
from recovery.loading.feed import Budget, Feed
from recovery.loading.forecast import Forecast
from recovery.loading.plan import (
    ALL_DATA,
    AUTHORIZATION,
    BESIDE,
    COPYING,
    DEFERRED,
    READING,
    Plan,
    Setting,
    Step,
    claim,
    concerns_statistics,
    keys_of,
    may_change_settings,
    plan,
)
from recovery.loading.pool import EXCLUSIVE, StoppedError, Work
from recovery.loading.questions import (
    ANY_ORDER,
    ELSEWHERE,
    IDENTIFIER_OF,
    INDEXES_UNDER_WAY,
    NUMBERED,
    PARTITIONS,
    PLAIN_TABLE,
    TOGETHER,
    VIEWS_READ,
)
from recovery.loading.watch import Watch
from recovery.progress import Progress, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from recovery.dumps.manifest import Manifest
    from recovery.dumps.reader import DumpReader
    from recovery.dumps.statements import Statement, TableName
    from recovery.loading.bookmark import Bookmark
    from recovery.loading.notes import Notes
    from recovery.loading.pool import Pool
    from recovery.loading.session import Session

_REPORT_SECONDS = 0.5
# Rows on their way to the server.  With the reader's own few pieces and Python itself this stays below 150 MB.
_BYTES_UNDER_WAY = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment: the monotonic clock's seconds and the CPU seconds this process had used by then."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls) -> Moment:
        """Return the present one."""
        return cls(time.monotonic(), time.process_time())


@dataclasses.dataclass(frozen=True)
class _Late:
    """A step that waits for the next barrier, of the statement with this ordinal: which of how many it is."""

    step: Step
    statement: Statement
    ordinal: int
    number: int
    of: int


class Loader:
    """Loads what a reader reads through a main session and a pool of others; counts as it goes.

    Every statement and block has an ordinal in the dump, by which the bookmark knows what need not be done again.
    """

    def __init__(
        self,
        reader: DumpReader,
        main: Session,
        pool: Pool,
        notes: Notes,
        bookmark: Bookmark,
        *,
        stored: int | None,
        manifest: Manifest | None,
        progress: Progress,
        analyze: bool = True,
    ) -> None:
        self._reader = reader
        self._main = main
        self._pool = pool
        self._notes = notes
        self._bookmark = bookmark
        self._stored = stored
        self._forecast = Forecast(stored, manifest.sizes if manifest is not None else None)
        self._exact = manifest is not None or notes.is_strict("rows")
        self._broken = BrokenKeys(manifest.foreign_keys if manifest is not None else ())
        self._progress = progress
        self._collects = analyze
        self._started = time.monotonic()
        self._reported = 0.0
        self._watch = Watch(self._report_alone, _REPORT_SECONDS)
        self._settings: Mapping[str, Statement] = {}
        self._deferred: list[tuple[Statement, int]] = []
        self._late: list[_Late] = []
        self._sizes: dict[str, int] = {}  # bytes of rows by claim
        self._filled: dict[str, TableName] = {}  # by claim, those without statistics so far
        self.analyzed: set[int] = set()  # object identifiers of the tables that have statistics
        self._serial = False  # after a statement that only the main session can follow
        self._alone = False  # between SET SESSION AUTHORIZATION or BEGIN and its end
        self._budget = Budget(_BYTES_UNDER_WAY, lambda: pool.stopping)
        self._counting = threading.Lock()
        self._tables: list[Rows] = []
        self._inserted: collections.Counter[bytes] = collections.Counter()
        self.bytes = 0
        self.rows_ended = Moment.now()

    @property
    def settings(self) -> Mapping[str, Statement]:
        """The settings the dump has made."""
        return self._settings

    @property
    def tables(self) -> int:
        """COPY blocks loaded, and tables filled by INSERTs that were run together."""
        return len(self._tables) + len(self._inserted)

    @property
    def rows(self) -> int:
        """Rows the server took of them."""
        return sum(table.taken for table in self._tables) + sum(self._inserted.values())

    def run(self) -> None:
        """Run everything.  Raises RecoveryError at the first thing the server refuses and no rule excuses.

        Raises BadDumpError when a resumed restore's dump is another one than that of the interrupted restore.
        """
        with self._watch:
            self._run()

    def _run(self) -> None:
        try:
            for item, ordinal in self._items():
                if isinstance(item, CopyBlock):
                    self._copy(Rows(ordinal, item, exact=self._exact))
                else:
                    self._run_or_pass(self._as_restored(item), ordinal)
                self._report()
            self._bookmark.prove()
            self._barrier()
        except StoppedError:
            self._pool.wait()  # raises what stopped the work, as soon as the session that met it has said so
            raise
        self._report(final=True)

    def _items(self) -> Iterator[tuple[Statement | CopyBlock, int]]:
        """Yield everything with its ordinal; INSERTs together only where they may be run together."""
        for item in self._reader.items():
            last = self._reader.statements
            if isinstance(item, Inserts) and (self._serial or self._bookmark.resumes or self._main.is_in_transaction):
                yield from zip(item.each(), range(last - len(item.rows_of_each) + 1, last + 1), strict=True)
            else:
                yield item, last

    # -- statements

    def _as_restored(self, statement: Statement) -> Statement:
        """Return what stands for a statement here; what is noted of that is noted of a resumed restore, too."""
        version = self._main.connection.info.server_version
        statement, text = self._broken.as_restored(statement, self._reader.codec, version, self._is_plain_table)
        if text is not None:
            self._notes.add("foreign key", statement.subject, text)
        return statement

    def _run_or_pass(self, statement: Statement, ordinal: int) -> None:
        if self._bookmark.passes_over(statement, ordinal):
            self._main.worded(statement)  # as above: of its wording
        else:
            self._statement(statement, ordinal)

    def _statement(self, statement: Statement, ordinal: int) -> None:
        if self._serial:
            with self._watch.over(statement.subject):
                self._main.execute(statement)
            return
        if isinstance(statement, Inserts):
            self._insert(statement)
            return
        how = plan(statement, self._is_plain_table, self._partitions, self._views_read)
        if not isinstance(how, Setting) and may_change_settings(statement):
            self._barrier()
            self._serial = True
            self._notes.add("serial", statement.subject, "it may change settings: one session loads all that follows")
            self._run_alone(statement, ordinal)
        else:
            self._planned(statement, how, ordinal)

    def _planned(self, statement: Statement, how: Plan, ordinal: int) -> None:
        if isinstance(how, Setting):
            if self._deferred or self._late:
                self._barrier()  # they were written under the settings so far
            if self._main.execute(statement):
                self._settings = {**self._settings, how.name: statement}
        elif self._alone:
            self._run_alone(statement, ordinal)
            self._alone = self._main.is_not_itself()
        elif isinstance(how, list):
            self._take_steps(how, statement, ordinal)
        elif how == BESIDE:
            self._main.execute(statement)  # not entered in the bookmark: it may be done as often as one likes
        elif how == DEFERRED and not self._pool.is_idle:
            self._deferred.append((statement, ordinal))
        else:
            self._barrier()
            self._run_alone(statement, ordinal)
            if how == AUTHORIZATION:
                self._alone = self._main.is_not_itself()

    def _take_steps(self, steps: list[Step], statement: Statement, ordinal: int) -> None:
        if self._deferred and any(step.after_deferred for step in steps):
            self._barrier()
        for number in range(self._bookmark.steps_done(ordinal), len(steps)):
            step = _Late(steps[number], statement, ordinal, number, len(steps))
            if step.step.late:
                self._late.append(step)
            else:
                self._submit(step)

    def _submit(self, one: _Late) -> None:
        step = one.step

        def action(session: Session) -> None:
            self._bookmark.step(session, step.statement, one.statement, one.ordinal, number=one.number, of=one.of)

        weight = self._sizes.get(next(iter(step.claims)), 0)
        self._pool.submit(Work(step.statement.subject, step.claims, action, self._settings, weight))

    def _barrier(self) -> None:
        late, self._late = self._late, []
        for step in late:
            self._submit(step)
        if late and self._collects and not any(concerns_statistics(statement) for statement, _ in self._deferred):
            self._analyze()
        if not self._pool.is_idle:
            self._pool.wait(meanwhile=self._report_indexes)
        self._pool.check()
        deferred, self._deferred = self._deferred, []
        for statement, ordinal in deferred:
            self._run_alone(statement, ordinal)

    def _analyze(self) -> None:
        """Collect statistics in sessions that have nothing to do while keys of one table are checked after another."""
        filled, self._filled = self._filled, {}
        for name, table in filled.items():
            # The largest first; the server does not let keys of a table be checked meanwhile.
            claims = {name: READING, keys_of(name): EXCLUSIVE}
            weight = -1 / (1 + self._sizes[name])
            self._pool.submit(Work(f"ANALYZE {table}", claims, self._analysis(table), self._settings, weight))

    def _analysis(self, table: TableName) -> Callable[[Session], None]:
        def action(session: Session) -> None:
            found = session.connection.execute(IDENTIFIER_OF % text_literal(table.sql)).fetchone()
            if found is not None:
                session.analyze(found[0], str(table))
                self.analyzed.add(found[0])

        return action

    def _run_alone(self, statement: Statement, ordinal: int) -> None:
        with self._watch.over(statement.subject):
            self._bookmark.execute(self._main, statement, ordinal)

    def _is_plain_table(self, table: TableName) -> bool:
        return self._ask(PLAIN_TABLE, table)

    def _partitions(self, table: TableName) -> list[TableName]:
        """What a key of a partitioned table locks, where the server lets it be checked later; nothing otherwise."""
        if self._main.connection.info.server_version < FIRST_WITH_PARTITIONED:
            return []
        name = text_literal(table.sql)
        found = self._main.connection.execute(PARTITIONS % (name, name)).fetchall()
        return [] if any(elsewhere for _, elsewhere in found) else [table_name(each) for each, _ in found]

    def _views_read(self, view: TableName) -> list[TableName] | None:
        """What a materialized view is made of, None where it is none or runs functions that somebody wrote."""
        found = self._main.connection.execute(VIEWS_READ % text_literal(view.sql)).fetchall()
        return [table_name(name) for name, _ in found] if found and not any(more for _, more in found) else None

    def _is_numbered(self, table: TableName, columns: int) -> bool:
        """Whether a sequence numbers rows that say so many of the table's columns."""
        return self._ask(NUMBERED.replace("{columns}", str(columns)), table)

    def _ask(self, query: str, table: TableName) -> bool:
        return self._main.is_true(query.encode() % text_literal(table.sql))

    # -- rows

    def _insert(self, inserts: Inserts) -> None:
        if self._deferred or self._late:
            self._barrier()  # a trigger or a foreign key may be among them
        self._bookmark.close(self._main, f"line {inserts.line} of the dump ({inserts.subject}) may not be run twice")
        table, size = inserts.table, len(inserts.text)
        self._inserted[table.sql] += 0 if inserts.passes_over_conflicts else sum(inserts.rows_of_each)
        self.bytes += size
        if (
            self._alone
            or not table.schema
            or inserts.passes_over_conflicts
            or self._is_numbered(table, 0)
            or not self._ask(ANY_ORDER, table)
        ):
            self._barrier()
            for statement in [inserts] if self._may_go_together(inserts) else inserts.each():
                self._main.execute(statement)
            self.rows_ended = Moment.now()
            return

        def action(session: Session) -> None:
            session.execute(inserts)
            self._budget.give_back(size)
            with self._counting:
                self.rows_ended = Moment.now()

        self._budget.take(size)
        self._sizes[claim(table)] = self._sizes.get(claim(table), 0) + size
        self._filled[claim(table)] = table
        claims = {claim(table): COPYING, ALL_DATA: COPYING}
        self._pool.submit(Work(f"rows of {table}", claims, action, self._settings, math.inf))

    def _may_go_together(self, inserts: Inserts) -> bool:
        try:
            return self._ask(TOGETHER, inserts.table)
        except psycopg.errors.InsufficientPrivilege:  # of the role the dump acts as: each says so itself, with its line
            return False

    def _copy(self, rows: Rows) -> None:
        block = rows.block
        self._tables.append(rows)
        if self._bookmark.has(rows.ordinal):
            self._pass_over(rows)
            return
        self._forecast.rows_begin(time.monotonic(), self._reader.stored_done)
        if self._deferred or self._late or not (self._bookmark.has_begun or self._pool.is_idle):
            self._barrier()  # a trigger or a foreign key may be among them, or work that is not entered
        in_order = self._serial or self._alone or not block.table.schema
        # Not asked where no answer matters: the role the dump acts as may not even name the table.
        matters = block.columns is not None and not (in_order and self._bookmark.never is not None)
        if matters and self._is_numbered(block.table, len(block.columns or ())):
            self._bookmark.close(self._main, f"a sequence gives rows of {block.table} their numbers")
            in_order = True
        if in_order or not self._ask(ANY_ORDER, block.table):
            self._barrier()
            if self._bookmark.never is None and self._ask(ELSEWHERE, block.table):
                why = f"rows of {block.table} may be on another server or in unlogged partitions"
                self._bookmark.close(self._main, why)
            self._bookmark.begin(self._main, rows)
            self._bookmark.copy(self._main, rows, self._counted(rows))
            self.rows_ended = Moment.now()
            return
        if claim(block.table) in self._sizes:
            self._barrier()  # rows of an earlier block; were this one to be loaded again, they would have to stay
        self._bookmark.begin(self._main, rows)
        self._bookmark.look(self._main, rows)
        feed = Feed(self._budget)
        consumers, before = 0, self.bytes
        try:
            for piece in block.pieces:
                self.bytes += len(piece)
                rows.seen(piece)
                feed.put(piece, ends_row=_ends_row(piece))
                # One session copies the table until there is more than it can take and another is free.
                if consumers == 0 or (
                    feed.backlog > 1
                    and consumers < self._pool.size
                    and self._pool.has_idle
                    and self._bookmark.may_split(self._main, rows)
                ):
                    consumers += 1
                    rows.sessions = consumers
                    self._pool.submit(self._consumer(rows, feed))
                self._report()
            rows.whole = True
        finally:
            feed.close()
        self._sizes[claim(block.table)] = self.bytes - before
        self._filled[claim(block.table)] = block.table
        if consumers == 0:  # an empty table: the statement itself is still tried
            self._pool.submit(self._consumer(rows, feed))

    def _consumer(self, rows: Rows, feed: Feed) -> Work:
        def action(session: Session) -> None:
            self._bookmark.copy(session, rows, feed.pieces())
            with self._counting:
                self.rows_ended = Moment.now()

        table = rows.block.table
        claims = {claim(table): COPYING, ALL_DATA: COPYING}
        # Rows before all else, and in the dump's order: the reader waits until there is room for the next.
        return Work(f"rows of {table}", claims, action, self._settings, math.inf, waits_for_client=True)

    def _counted(self, rows: Rows) -> Iterator[bytes]:
        for piece in rows.block.pieces:
            self.bytes += len(piece)
            rows.seen(piece)
            yield piece
            self._report()
        rows.whole = True

    def _pass_over(self, rows: Rows) -> None:
        """Read rows that the interrupted restore loaded, and check them like any others."""
        before = self.bytes
        for _ in self._counted(rows):
            pass
        self._sizes[claim(rows.block.table)] = self.bytes - before
        self._filled[claim(rows.block.table)] = rows.block.table
        self._bookmark.pass_over(self._main, rows)

    # -- progress

    def _report_indexes(self) -> None:
        """Report while only the server works: what it builds, and how far each build is."""
        if time.monotonic() - self._reported < _REPORT_SECONDS:
            return
        rows = self._main.connection.execute(INDEXES_UNDER_WAY).fetchall()
        self._report(
            builds=", ".join(f"index of {table}: {phase} {percent} %" for table, phase, percent in rows),
            ended=None if self._pool.awaits_client else self.rows_ended.seconds,
        )

    def _report_alone(self, subject: str) -> None:
        """Report while the main session is at work on one statement."""
        self._report(builds=f"now {subject}", ended=None if self._pool.awaits_client else self.rows_ended.seconds)

    def _report(self, *, final: bool = False, builds: str = "", ended: float | None = None) -> None:
        now = time.monotonic()
        if not final and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        done = self._reader.stored_done
        loading = max((ended if ended is not None else now) - self._started, 0.001)
        text = f"{self.tables} tables, {self.bytes / loading / 1e6:.0f} MB/s"
        if not final and (forecast := self._forecast.say(now, done, ended)):
            text += f", {forecast}"
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
