"""Acts on a disaster: backs up, restores, verifies, drills, and writes down what happened.

The runbook's own classes (BackupService, BackupConfig, BackupResult, BackupType, BackupStatus) are importable from
here; they are loaded when first asked for, so that a command that needs none of them starts as fast as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recovery.service_api import BackupConfig, BackupResult, BackupService, BackupStatus, BackupType

__all__ = ["BackupConfig", "BackupResult", "BackupService", "BackupStatus", "BackupType"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Only whoever uses the runbook's classes pays for the libraries behind them.
    from recovery import service_api  # noqa: PLC0415

    return getattr(service_api, name)
