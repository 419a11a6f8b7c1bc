"""A provider whose engine is killed ends too, whatever it was doing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands in for the engine: starts the provider as the launcher does, passes its first line on, and never ends.
ENGINE = """
import subprocess, sys, time
provider = subprocess.Popen(["sh", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(provider.pid, provider.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("launcher", ["exec", "LOCALCLOUD_ENGINE_PID=$PPID exec"])
def test_a_provider_ends_with_a_killed_engine(launcher: str) -> None:
    command = f"{launcher} {sys.executable} -m localcloud.provider 127.0.0.1:1"
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE, command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as engine:
        assert engine.stdout is not None
        pid, port = engine.stdout.readline().split()
        provider = psutil.Process(int(pid))
        assert int(port) > 0
        assert provider.is_running()
        engine.kill()
        provider.wait(30)


def test_a_provider_whose_engine_was_gone_before_it_began_does_not_stay() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    done = subprocess.run(
        [sys.executable, "-m", "localcloud.provider", "127.0.0.1:1"],
        env={**os.environ, "LOCALCLOUD_ENGINE_PID": str(gone.pid)}, cwd=ROOT,
        stdout=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
