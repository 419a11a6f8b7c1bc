"""Placeholder signature while this part is being written."""

from __future__ import annotations

from localcloud.reconciler import Context, Reconciler


class _Nothing:
    name = "replication"

    def __init__(self, context: Context) -> None:
        self.context = context

    def install(self) -> None:
        return

    def reset(self) -> None:
        return

    def suspend(self, region: str) -> None:
        return

    def resume(self, region: str) -> None:
        return

    def stop(self) -> None:
        return

    def status(self) -> list[dict[str, str]]:
        return []


def reconciler(context: Context) -> Reconciler:
    """Return this part of the cloud."""
    return _Nothing(context)
