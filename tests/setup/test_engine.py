"""Which Pulumi command line set-up takes, and what it says when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))

import console
import engine


def program(folder: Path, name: str, answer: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with nothing on PATH but a shell, an empty cache, and no way to the vendor's servers."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.setenv("AGENTVERSE_DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine, "_INSTALLER", "http://127.0.0.1:9/install.sh")
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    (tmp_path / "path").mkdir()
    return tmp_path


def test_a_newer_three_on_path_with_its_language_host_is_taken(machine: Path) -> None:
    real = program(machine / "path", "pulumi", "v3.300.1")
    program(machine / "path", "pulumi-language-python", "")
    said = engine.provide(machine / "venv" / "bin")
    assert (machine / "venv" / "bin" / "pulumi").resolve() == real
    assert "on PATH" in said
    assert not (machine / "venv" / "bin" / "pulumi-language-python").exists()


@pytest.mark.parametrize("answer", ["v3.258.0", "v4.0.0", "nonsense"])
def test_one_on_path_of_another_version_is_passed_over_for_the_cached_one(machine: Path, answer: str) -> None:
    program(machine / "path", "pulumi", answer)
    program(machine / "path", "pulumi-language-python", "")
    program(machine / "cache" / f"pulumi-{engine.VERSION}" / "bin", "pulumi", f"v{engine.VERSION}")
    assert "cached" in engine.provide(machine / "venv" / "bin")
    assert engine.version_of(machine / "venv" / "bin" / "pulumi") == (3, 259, 0)


def test_one_on_path_without_a_language_host_is_passed_over(machine: Path) -> None:
    program(machine / "path", "pulumi", "v3.300.1")
    program(machine / "cache" / f"pulumi-{engine.VERSION}" / "bin", "pulumi", f"v{engine.VERSION}")
    assert "cached" in engine.provide(machine / "venv" / "bin")


def test_an_engine_without_a_host_of_its_own_gets_the_projects(machine: Path) -> None:
    program(machine / "cache" / f"pulumi-{engine.VERSION}" / "bin", "pulumi", f"v{engine.VERSION}")
    engine.provide(machine / "venv" / "bin")
    host = machine / "venv" / "bin" / "pulumi-language-python"
    assert "language_host.py" in host.read_text(encoding="utf-8")
    assert os.access(host, os.X_OK)


def test_a_machine_that_offers_nothing_is_told_what_was_tried_and_what_to_install(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_package(*_arguments: object, **_options: object) -> None:
        raise console.SetupError("the package index cannot be reached")

    monkeypatch.setattr(engine, "run", no_package)
    with pytest.raises(console.SetupError) as refusal:
        engine.provide(machine / "venv" / "bin")
    for word in ("on PATH", "cached", "official installer", "built with Go", "install Pulumi, or Go 1.26.6"):
        assert word in str(refusal.value)


def test_a_command_that_fails_shows_its_last_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(console.SetupError, match=r"(?s)exit code 3.*the reason"):
        console.run("a long job", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    assert "a long job" in capfd.readouterr().err


def test_set_up_that_has_nothing_to_do_says_nothing(root: Path) -> None:
    stamp = root / ".venv" / ".set-up"
    if not stamp.exists():
        pytest.skip("NOT RUN: this environment was not made by `make setup`")
    again = subprocess.run(
        ["/usr/bin/env", "make", "-s", "setup"], cwd=root, capture_output=True, text=True, check=True
    )
    assert again.stdout == ""
