"""Takes away what is left of one drill, whoever asks: its own last step, or a reaper after it has died."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recovery.errors import CheckFailedError
from recovery.procedures import points
from recovery.sweep import Sweeper

if TYPE_CHECKING:
    from recovery.clients import Clients
    from recovery.environment import Environment
    from recovery.runbook import Evidence
    from recovery.settings import Settings


def sweep_drill(
    clients: Clients, settings: Settings, drill_id: str, environment: Environment, note: Callable[[str], None]
) -> Evidence:
    """Remove what is left of a drill, its uploaded dump included, and forget its stack once nothing is.

    Raises CheckFailedError naming what could not be removed.
    """
    found, left = Sweeper(clients, drill_id, settings.platform.environment).sweep(note)
    removed = points.remove_given(clients, settings.platform.dr_backups_bucket, drill_id)
    if left:
        raise CheckFailedError(
            f"{len(left)} things of drill {drill_id} are left.",
            detail="; ".join(item.describe() for item in left),
            hint=f"Try again later with: recovery environment down {drill_id}",
        )
    environment.forget()
    return {
        "summary": "nothing is left" + (f" ({len(found)} leftovers removed)" if found else ""),
        "found": [item.describe() for item in found],
        "left": [],
        "dump_versions_removed": removed,
    }
