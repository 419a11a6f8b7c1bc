"""What people see: nothing cut, nothing coloured off a terminal, one document with --json."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from recovery.console import Screen
from recovery.errors import CheckFailedError

WORDS = "every one of these words is evidence and none of them may be lost however narrow the terminal is"
ROWS = [("PASS", "content", WORDS), ("NOT RUN", "indexes", "not asked")]


def _table(capsys: pytest.CaptureFixture[str]) -> str:
    Screen().table(("outcome", "check", "evidence"), ROWS)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_long_evidence_wraps_on_a_terminal_of_any_width(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    said = re.sub(r"\x1b\[[0-9;]*m", "", _table(capsys))
    assert "…" not in said
    assert all(len(line) <= int(columns) for line in said.splitlines())
    # Narrower than its words, a column breaks them; no letter is lost even then.
    kept = said if int(columns) > 20 else "".join(said.split())
    assert all(word[0] in kept for word in WORDS.split())
    assert int(columns) <= 20 or all(word in kept for word in WORDS.split())


def test_off_a_terminal_every_row_is_one_line_without_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    assert _table(capsys).splitlines() == [
        "outcome  check    evidence",
        f"PASS     content  {WORDS}",
        "NOT RUN  indexes  not asked",
    ]


def test_no_second_document_follows_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=True)
    screen.document({"at": datetime(2026, 1, 9, 2, 0, tzinfo=UTC)})
    screen.error(CheckFailedError("it came out wrong"))
    said = capsys.readouterr()
    assert json.loads(said.out) == {"schema_version": 1, "at": "2026-01-09T02:00:00+00:00"}
    assert "it came out wrong" in said.err
