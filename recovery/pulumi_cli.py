"""Where the Pulumi CLI is: apart from what drives it, which takes half a second to import where only this is asked."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from recovery.errors import EnvironmentLacksError


def find_pulumi() -> Path:
    """Return the Pulumi CLI: the one set up beside this Python, else the one on PATH.

    Raises EnvironmentLacksError when there is none.
    """
    beside = Path(sys.executable).parent / "pulumi"
    if beside.is_file() and os.access(beside, os.X_OK):
        return beside
    found = shutil.which("pulumi")
    if found is None:
        raise EnvironmentLacksError(
            "The Pulumi CLI is not on this machine.",
            detail=f"Looked beside {sys.executable} and on PATH.",
            hint="Run `make setup`.",
        )
    return Path(found)
