"""The helper processes of a drill (Pulumi and its plugins), known by a mark in their environment.

Plugins run in process groups of their own and may outlive a killed engine, so neither a pid nor a group finds them.
"""

from __future__ import annotations

from contextlib import suppress

import psutil

MARK = "AGENTVERSE_DRILL_PROCESS"


def end_marked(drill_id: str) -> list[int]:
    """Kill every process of this user that carries the drill's mark; return their pids, once they are gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == drill_id:
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=10)
    return [process.pid for process in found]
