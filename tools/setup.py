"""Set up everything the project needs on a fresh machine: `.venv` from the lock file, the project, the Pulumi engine.

Runs on the standard library alone. Warm, it compares one digest and is done. Exit codes: 0 done, 4 something the
machine lacks, 130 interrupted.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import engine
from console import SetupError, run, say

_ROOT = Path(__file__).resolve().parent.parent
_VENV = _ROOT / ".venv"
_STAMP = _VENV / ".set-up"
_OLDEST_PYTHON = (3, 11)

# What decides whether an earlier set-up still holds. Only these: code of the rooms is found where it lies.
_INPUTS = ("requirements.lock", "pyproject.toml", "tools/setup.py", "tools/engine.py", "tools/pulumi/go.sum")


def digest() -> str:
    """Return the digest of everything set-up depends on, this folder and Python included."""
    total = hashlib.sha256(f"{_ROOT}\n{sys.version}\n".encode())
    for name in _INPUTS:
        total.update((_ROOT / name).read_bytes())
    return total.hexdigest()


def is_warm(wanted: str) -> bool:
    """Whether an earlier set-up of the same inputs is complete and still there."""
    binaries = _VENV / "bin"
    return (
        _STAMP.exists()
        and _STAMP.read_text(encoding="utf-8") == wanted
        and all((binaries / name).exists() for name in ("python", "pulumi", "recovery", "localcloud"))
    )


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let two `make` in one clone wait for each other instead of installing over each other."""
    with (_ROOT / ".setup.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _virtual_environment() -> None:
    """Make `.venv` and install exactly what requirements.lock names, each file checked against its hash."""
    binaries = _VENV / "bin"
    if not (binaries / "python").exists() or not (binaries / "uv").exists():
        shutil.rmtree(_VENV, ignore_errors=True)
        run("making .venv", [sys.executable, "-m", "venv", _VENV])
        # uv itself comes from the same lock file, by pip, with its hash.
        pinned = re.search(r"^uv==.*?(?=^\S|\Z)", (_ROOT / "requirements.lock").read_text(), re.MULTILINE | re.DOTALL)
        if pinned is None:
            raise SetupError("requirements.lock does not pin uv; run `make lock`")
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as only_uv:
            only_uv.write(pinned.group(0))
            only_uv.flush()
            run(
                "installing uv",
                [binaries / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", only_uv.name],
            )
    run(
        "installing the packages of requirements.lock",
        [
            binaries / "uv", "pip", "sync", "--quiet", "--require-hashes", "--python", binaries / "python",
            _ROOT / "requirements.lock",
        ],
    )  # fmt: skip
    run(
        "installing the project itself",
        [
            binaries / "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
            "--python", binaries / "python", "--editable", _ROOT,
        ],
    )  # fmt: skip


def main() -> int:
    """Set up, or find that it is done; say what happens; return the exit code."""
    if sys.version_info < _OLDEST_PYTHON:
        say(f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed; run `make PYTHON=python3.12 ...`")
        return 4
    try:
        wanted = digest()
        with _one_at_a_time():
            if is_warm(wanted):
                return 0
            _STAMP.unlink(missing_ok=True)
            _virtual_environment()
            say(engine.provide(_VENV / "bin"))
            _STAMP.write_text(wanted, encoding="utf-8")
    except SetupError as error:
        say(str(error))
        return 4
    except (OSError, subprocess.SubprocessError) as error:
        say(f"set-up failed: {error}")
        return 4
    except KeyboardInterrupt:
        say("interrupted; run make again to go on")
        return 130
    say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
