"""Helper processes of a drill are found wherever they went, and no others."""

from __future__ import annotations

import os
import subprocess
import sys

from recovery.processes import MARK, end_marked


def test_only_the_marked_processes_of_this_drill_are_ended_even_in_sessions_of_their_own() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(sleep, env={**os.environ, MARK: "20260109-020000-1a2b"}, start_new_session=True)
    others = subprocess.Popen(sleep, env={**os.environ, MARK: "20260109-020000-ffff"})
    try:
        assert ours.pid in end_marked("20260109-020000-1a2b")
        ours.wait(10)
        assert others.poll() is None
    finally:
        others.kill()
        others.wait(10)
