"""The command line: help, one JSON document, exit codes, and a confirmation that is asked for."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery import cli

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What a command said and ended with."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Answer]


@pytest.fixture
def recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Run the command as `recovery` does up to the exit itself, with no cloud and no terminal."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PULUMI_", "AGENTVERSE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTVERSE_DRILLS", str(tmp_path / "drills"))
    monkeypatch.setenv("AGENTVERSE_CONFIG", str(REPOSITORY / "recovery.toml"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*arguments: str, **variables: str) -> Answer:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = cli._run(list(arguments))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.mark.parametrize(
    "command",
    [
        (), ("backup",), ("backups", "list"), ("backups", "show"), ("backups", "verify"),
        ("backups", "prune"), ("restore",), ("verify",),
        ("drill", "quarterly"), ("drills", "list"), ("drills", "show"), ("drills", "report"), ("doctor",),
        ("environment", "up"), ("environment", "status"), ("environment", "down"), ("environment", "reap"),
    ],
)  # fmt: skip
def test_every_command_has_help_with_an_example(command: tuple[str, ...], recovery: Command) -> None:
    answer = recovery(*command, "--help")
    assert answer.returncode == 0
    assert "Example:" in answer.stdout or not command
    assert "\x1b" not in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nonsense",), 2, "No such command"),
        (("restore",), 2, "Missing option"),
        (("drills", "show", "../../etc"), 2, "not a drill's id"),
        (("drills", "show", "latest"), 2, "There is no drill"),
        (("drill", "quarterly", "--dump", "/none.sql.gz"), 1, "There is no dump /none.sql.gz"),
        (("drill", "quarterly"), 3, "no terminal to ask on"),
        (("drill", "quarterly", "--blackout", "us-east-1"), 3, "nobody can darken us-east-1"),
        (("environment", "down", "20260109-020000-1a2b"), 3, "no terminal to ask on"),
        (("backup",), 4, "AGENTVERSE_DATABASE_URL is not set"),
        (("environment", "status"), 4, "PULUMI_BACKEND_URL is not set"),
    ],
)
def test_each_kind_of_failure_has_its_code_and_says_what_it_is(
    arguments: tuple[str, ...], code: int, said: str, recovery: Command
) -> None:
    plain = recovery(*arguments)
    assert plain.returncode == code, plain.stderr
    assert said in plain.stderr
    assert "Traceback" not in plain.stderr
    document = json.loads(recovery("--json", *arguments).stdout)
    assert (document["schema_version"], document["error"]["code"]) == (1, code)
    assert said in document["error"]["message"]


def test_a_bad_settings_file_is_a_usage_error_that_names_it(tmp_path: Path, recovery: Command) -> None:
    bad = tmp_path / "recovery.toml"
    bad.write_text("[objectives]\nrto_hours = -1\n")
    answer = recovery("drills", "list", AGENTVERSE_CONFIG=str(bad))
    assert answer.returncode == 2
    assert f"{bad}: objectives.rto_hours = -1" in answer.stderr


def test_an_empty_list_is_still_one_document(recovery: Command) -> None:
    answer = recovery("--json", "drills", "list")
    assert (answer.returncode, json.loads(answer.stdout)) == (0, {"schema_version": 1, "drills": []})


def test_a_dead_drill_is_listed_shown_and_reported_from_its_journal(tmp_path: Path, recovery: Command) -> None:
    drill = "20260109-020000-1a2b"
    script = (
        "import sys; from pathlib import Path; from recovery.journal import Journal; "
        f"j = Journal(Path(sys.argv[1]), '{drill}'); "
        "j.append('run-started', {'runbook': 'quarterly', 'title': 'Quarterly full DR test', 'steps': "
        "[{'name': 'restore', 'title': 'Restore', 'needs': [], 'where': 'task', 'phase': 'x', 'always': False}]})"
    )
    path = tmp_path / "drills" / drill / "journal.jsonl"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=REPOSITORY)
    listed = json.loads(recovery("--json", "drills", "list").stdout)
    assert [(item["id"], item["state"]) for item in listed["drills"]] == [(drill, "dead")]
    shown = json.loads(recovery("--json", "drills", "show").stdout)
    assert shown["verdict"] == "UNFINISHED"
    written = recovery("drills", "report", drill)
    assert written.returncode == 0
    assert Path(written.stdout.strip()).read_text().startswith("<!doctype html>")


def test_a_changed_journal_is_not_believed(tmp_path: Path, recovery: Command) -> None:
    drill = "20260109-020000-1a2b"
    script = (
        "import sys; from pathlib import Path; from recovery.journal import Journal; "
        f"j = Journal(Path(sys.argv[1]), '{drill}'); j.append('run-started', {{'rows': 1}}); j.append('x')"
    )
    path = tmp_path / "drills" / drill / "journal.jsonl"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=REPOSITORY)
    path.write_text(path.read_text().replace('"rows":1', '"rows":2'))
    answer = recovery("drills", "show", drill)
    assert answer.returncode == 1
    assert "chain breaks at event 0" in answer.stderr


def test_the_process_itself_ends_with_the_code_and_keeps_stdout_clean(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "recovery", "--json", "nonsense"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert answer.returncode == 2
    assert json.loads(answer.stdout)["error"]["code"] == 2
    assert "error: No such command" in answer.stderr


def test_one_damaged_journal_hides_no_other_drill(tmp_path: Path, recovery: Command) -> None:
    for drill, content in (("20260109-020000-1a2b", "nonsense\nnonsense\nnonsense\n"), ("20260110-020000-1a2b", "")):
        folder = tmp_path / "drills" / drill
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").write_text(content)
    listed = json.loads(recovery("--json", "drills", "list").stdout)["drills"]
    assert [(item["id"][:8], item["state"]) for item in listed] == [("20260110", "dead"), ("20260109", "damaged")]
    assert recovery("drills", "show", "20260109-020000-1a2b").returncode == 1
