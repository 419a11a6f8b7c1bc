"""The cloud: moto's control plane on one loopback port, with what makes its records real behind it."""

from __future__ import annotations

import importlib
import logging
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moto import backends
from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from localcloud import containers, ec2_corrections, elasticache, rds, replication, s3_corrections
from localcloud.control import Control
from localcloud.outage import Outage
from localcloud.settings import Home

if TYPE_CHECKING:
    from localcloud.reconciler import Context, Reconciler

_LOGGER = logging.getLogger(__name__)

# Answering these without a first-use pause is worth their import before the cloud says it is ready.
_SERVICES = ("s3", "ec2", "rds", "elasticache", "ecs", "iam", "secretsmanager", "kms", "logs", "sts", "ecr", "ssm")

_PARTS = (rds, elasticache, replication, s3_corrections, ec2_corrections, containers)


def _moto_application() -> Any:
    """Return moto's WSGI application with its services imported: the edge beyond which nothing is typed."""
    # moto lists its own package folder on every request, which took 44 % of the time of a small one.
    names = frozenset(backends.list_of_moto_modules())
    module: Any = backends
    module.list_of_moto_modules = lambda: names
    for service in _SERVICES:
        importlib.import_module(f"moto.{service}.responses")
    return DomainDispatcherApplication(create_backend_app)


class RequestHandler(MotoRequestHandler):
    """Speaks HTTP/1.0: on a kept connection, what is left of an aborted request would be read as the next one."""

    protocol_version = "HTTP/1.0"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: an access log of a rehearsal helps nobody."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # the name is werkzeug's
        _LOGGER.info("%s: %s", type, message % args if args else message)


class Cloud:
    """An embedded AWS that serves on a socket already bound."""

    def __init__(self, context: Context, listener: socket.socket) -> None:
        self._context = context
        self._listener = listener
        self._guard = threading.RLock()
        self._reconcilers: list[Reconciler] = []
        self._outage: Outage | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def instance_id(self) -> str:
        return self._context.instance_id

    def start(self) -> None:
        """Import moto, hook it, and answer."""
        application = _moto_application()
        self._reconcilers = [part.reconciler(self._context) for part in _PARTS]
        for reconciler in self._reconcilers:
            reconciler.install()
        self._outage = Outage(application)
        self._server = make_server(
            "127.0.0.1",
            self._listener.getsockname()[1],
            Control(self._outage, self),
            threaded=True,
            request_handler=RequestHandler,
            fd=self._listener.fileno(),
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer no more, and end everything that runs. What fails is logged, so that the rest is still ended."""
        if self._server is not None:
            self._server.shutdown()
        with self._guard:
            for reconciler in self._reconcilers:
                try:
                    reconciler.stop()
                except Exception:
                    _LOGGER.exception("%s did not stop cleanly", reconciler.name)

    def reset(self) -> None:
        """Forget everything, Pulumi's state of this cloud too, and light every region again."""
        with self._guard:
            for region in sorted(self._dark()):
                self.restore(region)
            for reconciler in self._reconcilers:
                reconciler.reset()
            BackendDict.reset()
            empty(Home(path=self._context.home).states / self.instance_id)

    def blackout(self, region: str) -> None:
        """Cut a region off: no answers, and its processes suspended."""
        with self._guard:
            if self._outage is not None:
                self._outage.blackout(region)
            for reconciler in self._reconcilers:
                reconciler.suspend(region)

    def restore(self, region: str) -> None:
        """Bring a region back."""
        with self._guard:
            for reconciler in self._reconcilers:
                reconciler.resume(region)
            if self._outage is not None:
                self._outage.restore(region)

    def status(self) -> dict[str, Any]:
        """Return the dark regions and what runs, one row each."""
        rows = [row for reconciler in self._reconcilers for row in reconciler.status()]
        return {"instance_id": self.instance_id, "dark_regions": sorted(self._dark()), "running": rows}

    def _dark(self) -> frozenset[str]:
        return frozenset(self._outage.dark) if self._outage is not None else frozenset()


def empty(folder: Path) -> None:
    """Remove what is in a folder and keep the folder."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
