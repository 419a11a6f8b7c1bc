"""Loopback addresses for servers, so that each can have the port it was asked to have."""

from __future__ import annotations

import secrets
import socket
import sys
import threading

_TRIES = 200


def _free(address: str, port: int) -> int | None:
    """Return the port if a server could listen there (for port 0: one that is free), else None."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


class Addresses:
    """Gives out loopback addresses, each to one server at a time.

    Linux answers on all of 127.0.0.0/8: every server gets an address of its own there and keeps the asked port. Other
    systems have 127.0.0.1 alone: there the port is any free one, as it is where the asked port is taken everywhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: set[tuple[str, int]] = set()

    def take(self, port: int) -> tuple[str, int]:
        """Return an address and port to listen on. Raises OSError when nothing at all is free."""
        with self._lock:
            if sys.platform == "linux":
                for _ in range(_TRIES):
                    # Drawn, not counted: other clouds on this machine draw from the same addresses.
                    address = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
                    if (address, port) not in self._given and _free(address, port) is not None:
                        self._given.add((address, port))
                        return address, port
            for _ in range(_TRIES):
                found = _free("127.0.0.1", 0)
                if found is not None and ("127.0.0.1", found) not in self._given:
                    self._given.add(("127.0.0.1", found))
                    return "127.0.0.1", found
        raise OSError(f"no free port on the loopback interface, neither {port} nor any other")

    def give_back(self, address: str, port: int) -> None:
        """Let another server have it."""
        with self._lock:
            self._given.discard((address, port))
