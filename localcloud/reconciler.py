"""What makes one of moto's records real, and what every such part must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reconciler is told about the cloud it belongs to.

    `home` is the cloud's state folder (short, reachable by the unprivileged user); `instance_id` names this life of the
    cloud; `endpoint` is its http://127.0.0.1:PORT; `images` maps an image repository to a local command;
    `replication_delay` is how long, in seconds, a replica lags behind its source.
    """

    home: Path
    instance_id: str
    endpoint: str
    account: str
    images: dict[str, tuple[str, ...]]
    replication_delay: float


class Reconciler(Protocol):
    """One part of the cloud that acts behind moto's records: it hooks moto once and owns real processes or threads."""

    name: str

    def install(self) -> None:
        """Hook moto's backends. Called once, before the first request."""

    def reset(self) -> None:
        """Forget everything: stop what runs, delete its data, clear queues. Called before moto is reset."""

    def suspend(self, region: str) -> None:
        """Suspend every process of this region: it has gone dark."""

    def resume(self, region: str) -> None:
        """Let the processes of this region go on."""

    def stop(self) -> None:
        """Stop everything for good. Called once, on shutdown; must not raise for what is already gone."""

    def status(self) -> list[dict[str, str]]:
        """Return what runs, one row each: at least kind, name, region, state, address."""
