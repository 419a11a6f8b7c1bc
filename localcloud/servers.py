"""The servers behind one AWS service's records: which there are, at what addresses, and which regions are dark."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from localcloud.addresses import Addresses
from localcloud.layers import Layers
from localcloud.reconciler import Context
from localcloud.server_process import ServerProcess
from localcloud.settings import Home

Key = tuple[str, str, str]  # account, region, identifier in lower case

_Server = TypeVar("_Server", bound=ServerProcess)


@dataclass(eq=False, kw_only=True)
class Record(Generic[_Server]):
    """One resource's server. `ready` is set when bringing it up has ended, well or not."""

    server: _Server
    ready: threading.Event = field(default_factory=threading.Event)
    answers: bool = False


_Record = TypeVar("_Record", bound=Record[Any])


class Servers(ABC, Generic[_Record]):
    """What a reconciler whose resources are servers does alike for all of them.

    `kind` is what status calls one; `bring_up_seconds` is the longest that is waited for one being brought up.
    """

    kind: str
    bring_up_seconds: float

    def __init__(self, context: Context) -> None:
        self._layers = Layers()
        self._home = Home(path=context.home)
        self._data = self._home.run / context.instance_id
        self._addresses = Addresses()
        self._guard = threading.RLock()
        self._records: dict[Key, _Record] = {}
        self._dark: set[str] = set()

    def reset(self) -> None:
        """Stop every server and delete its data."""
        with self._guard:
            for key in list(self._records):
                self._remove(key)

    def suspend(self, region: str) -> None:
        """Suspend every server of this region: it has gone dark."""
        self._dark.add(region)
        for server in self._servers(region):
            server.suspend()

    def resume(self, region: str) -> None:
        """Let the servers of this region go on."""
        self._dark.discard(region)
        for server in self._servers(region):
            server.resume()

    def stop(self) -> None:
        """Stop everything for good and leave moto as it was."""
        self.reset()
        self._layers.undo()

    def status(self) -> list[dict[str, str]]:
        """Return one row for each server."""
        with self._guard:
            return [
                {
                    "kind": self.kind,
                    "name": name,
                    "region": region,
                    "state": self._state(record),
                    "address": f"{record.server.address}:{record.server.port}",
                    **self._details(record),
                }
                for (_, region, name), record in sorted(self._records.items(), key=lambda item: item[0])
            ]

    @abstractmethod
    def _state(self, record: _Record) -> str:
        """Return the word for how the server is."""

    @abstractmethod
    def _details(self, record: _Record) -> dict[str, str]:
        """Return what else there is to say of a server of this kind."""

    def _servers(self, region: str) -> list[ServerProcess]:
        with self._guard:
            return [record.server for key, record in self._records.items() if key[1] == region]

    def _remove(self, key: Key) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            record.ready.wait(self.bring_up_seconds)
            record.server.delete()
            self._addresses.give_back(record.server.address, record.server.port)
