"""What is entered of a restore's progress when a session breaks in the middle of entering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from recovery.dumps.statements import Statement
from recovery.loading.bookmark import Bookmark, Rows
from recovery.loading.notes import Notes
from recovery.loading.pool import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = Statement(b"CREATE INDEX i ON public.t USING btree (v);", 1, None)


class _Connection:
    """Stands in for a connection, and remembers what it is sent."""

    class info:  # noqa: N801  # psycopg's name
        transaction_status = psycopg.pq.TransactionStatus.IDLE

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def execute(self, query: bytes) -> None:
        self.sent.append(query)


class _Session:
    """Stands in for a session; a broken one breaks at its COMMIT, of which nobody knows whether it was done."""

    def __init__(self, *, broken: bool = False) -> None:
        self.connection = _Connection()
        self._broken = broken

    def execute(self, statement: Statement) -> bool:
        self.connection.execute(statement.text)
        return True

    def copy(self, block: Any, pieces: Iterable[bytes]) -> int:
        del block
        return sum(piece.count(b"\n") for piece in pieces)

    def commit(self, statement: Statement, subject: str = "", *, also: bytes = b"") -> None:
        del statement, subject
        if self._broken:
            raise psycopg.OperationalError
        self.connection.execute(also + b"COMMIT")


class _Block:
    """Stands in for a COPY block of two rows."""

    table = "public.t"
    rows = 2
    statement = INDEX


def begun() -> Bookmark:
    bookmark = Bookmark("side", {}, Notes())
    bookmark.begin(_Session(), Rows(1, _Block()))  # type: ignore[arg-type]  # stand-ins
    return bookmark


def test_after_an_entry_that_failed_no_other_session_says_that_its_step_was_done() -> None:
    bookmark, other = begun(), _Session()
    with pytest.raises(psycopg.OperationalError):
        bookmark.step(_Session(broken=True), INDEX, INDEX, 7, number=0, of=1)  # type: ignore[arg-type]  # as above
    with pytest.raises(StoppedError):
        bookmark.step(other, INDEX, INDEX, 8, number=0, of=1)  # type: ignore[arg-type]  # as above
    assert other.connection.sent == [b"BEGIN", INDEX.text]


def test_after_one_share_of_a_tables_rows_that_failed_the_last_one_does_not_say_that_all_are_there() -> None:
    bookmark, other = begun(), _Session()
    rows = Rows(1, _Block(), sessions=2, whole=True)  # type: ignore[arg-type]  # as above
    with pytest.raises(psycopg.OperationalError):
        bookmark.copy(_Session(broken=True), rows, [b"1\n"])  # type: ignore[arg-type]  # as above
    with pytest.raises(StoppedError):
        bookmark.copy(other, rows, [b"2\n"])  # type: ignore[arg-type]  # as above
    assert other.connection.sent == [b"BEGIN"]


def test_rows_that_were_loaded_in_parts_are_taken_out_also_where_nothing_is_entered_any_more() -> None:
    earlier = {"done": "eJwDAAAAAAE=", "digest": "0", "split": [1]}
    bookmark, main = Bookmark("side", {}, Notes(), earlier=earlier), _Session()
    bookmark.close(main, "a statement that may not be run twice")  # type: ignore[arg-type]  # as above
    rows = Rows(1, _Block())  # type: ignore[arg-type]  # as above
    rows.block.table = _Table()  # type: ignore[assignment]  # as above
    bookmark.begin(main, rows)  # type: ignore[arg-type]  # as above
    assert any(query.startswith(b"TRUNCATE ONLY public.t;") for query in main.connection.sent)


@pytest.mark.parametrize(
    ("text", "resumable"),
    [
        (b"CREATE TABLE public.y AS SELECT 1;", True),
        (b"CREATE UNLOGGED TABLE public.u (v int, w int GENERATED ALWAYS AS ((v + 1)) STORED);", True),
        (b"CREATE TEMP TABLE x (v int);", False),
        (b"CREATE OR REPLACE TEMPORARY VIEW x AS SELECT 1;", False),
        (b"CREATE UNLOGGED TABLE public.u (v) AS\n  SELECT 1;", False),
        (b"CREATE UNLOGGED TABLE public.u AS (WITH x AS (SELECT 1) TABLE x);", False),
    ],
)
def test_what_is_gone_with_its_session_or_may_be_after_a_crash_ends_that_it_can_be_resumed(
    text: bytes, resumable: object
) -> None:
    bookmark = begun()
    bookmark.execute(_Everything(), Statement(text, 1), 5)  # type: ignore[arg-type]  # as above
    assert (bookmark.never is None) is resumable


class _Everything(_Session):
    """Takes an entry with its statement."""

    def execute(self, statement: Statement, *, also: bytes = b"") -> bool:
        self.connection.execute(statement.text + also)
        return True


class _Table:
    sql = b"public.t"
