"""Lint, room walls and types, each said in one line when it is clean, in full when it is not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BINARIES = Path(sys.executable).parent

_ROOMS = ("infra", "recovery", "localcloud", "machine", "policy", "examples")

_GATES: dict[str, list[list[str]]] = {
    "lint": [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["lint-imports"],
    ],
    "types": [
        ["mypy", *(room for room in _ROOMS if (_ROOT / room).is_dir())],
        ["mypy", "tools/setup.py"],
        ["mypy", "tools/language_host.py"],
    ],
}


def main(names: list[str]) -> int:
    """Run the named gates; return 0 when all are clean, 1 otherwise, 2 for a name there is no gate for."""
    unknown = [name for name in names if name not in _GATES]
    if unknown or not names:
        print(f"usage: checks.py [{'|'.join(_GATES)}]...", file=sys.stderr)
        return 2
    failed = False
    for command in (command for name in names for command in _GATES[name]):
        started = time.monotonic()
        result = subprocess.run(
            [_BINARIES / command[0], *command[1:]], cwd=_ROOT, capture_output=True, text=True, check=False
        )
        verdict = "ok" if result.returncode == 0 else "FAILED"
        print(f"{verdict:6} {' '.join(command)} ({time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)
        if result.returncode:
            failed = True
            print(result.stdout + result.stderr, file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
