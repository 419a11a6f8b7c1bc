"""What every command starts from: the global options, settings, clients and the embedded cloud."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import typer

from recovery.clients import Clients
from recovery.console import Screen
from recovery.local import LocalCloud, use_local_cloud
from recovery.settings import load_settings

if TYPE_CHECKING:
    from recovery.settings import Settings


@dataclass
class Session:
    """The global options of one call, and what follows from them, found when first asked for."""

    local_wanted: bool
    yes: bool
    screen: Screen

    @cached_property
    def settings(self) -> Settings:
        """recovery.toml and the environment."""
        return load_settings()

    @cached_property
    def local(self) -> LocalCloud | None:
        """The embedded cloud, when --local was said; finding it points this process at it."""
        if not self.local_wanted:
            return None
        cloud = use_local_cloud()
        if cloud.started:
            self.screen.say("Started the embedded cloud; `localcloud stop` stops it.")
        return cloud

    @property
    def account(self) -> str:
        """The account that may be changed: the embedded cloud's own, else the one of recovery.toml."""
        return self.local.account if self.local else self.settings.platform.account

    @cached_property
    def dr(self) -> Clients:
        """Clients of the DR region."""
        _ = self.local
        return Clients(self.settings.platform.dr_region)


def session(context: typer.Context) -> Session:
    """Return the session of this call."""
    found = context.find_root().obj
    if not isinstance(found, Session):
        raise TypeError(found)
    return found
