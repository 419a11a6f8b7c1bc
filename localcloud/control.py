"""The cloud's own doors beside AWS's: /_localcloud/health, status, reset, blackout/REGION and restore/REGION."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from localcloud.settings import SCHEMA_VERSION

_LOGGER = logging.getLogger(__name__)
_PREFIX = "/_localcloud/"
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Controlled(Protocol):
    """What the doors open onto."""

    @property
    def instance_id(self) -> str: ...

    def reset(self) -> None: ...

    def blackout(self, region: str) -> None: ...

    def restore(self, region: str) -> None: ...

    def status(self) -> dict[str, Any]: ...


class Control:
    """WSGI middleware that answers the cloud's own doors and passes everything else on."""

    def __init__(self, app: WsgiApplication, cloud: Controlled) -> None:
        self._app = app
        self._cloud = cloud

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if not path.startswith(_PREFIX):
            return self._app(environ, start_response)
        status, document = self._answer(environ, path.removeprefix(_PREFIX))
        body = json.dumps(document).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, environ: dict[str, Any], door: str) -> tuple[str, dict[str, Any]]:
        if "HTTP_ORIGIN" in environ:  # a page in a browser has no business here
            return "403 Forbidden", {"error": "requests from web pages are refused"}
        name, _, region = door.partition("/")
        method = environ.get("REQUEST_METHOD")
        expected = {"health": "GET", "status": "GET", "reset": "POST", "blackout": "POST", "restore": "POST"}.get(name)
        takes_region = name in {"blackout", "restore"}
        if expected is None or (region and not takes_region):
            return "404 Not Found", {"error": f"no such door: {door}"}
        if method != expected:
            return "405 Method Not Allowed", {"error": f"{door} takes {expected}"}
        if takes_region and not _REGION.fullmatch(region):
            return "400 Bad Request", {"error": f"{region!r} is not the name of a region, such as us-east-1"}
        try:
            return "200 OK", self._act(name, region)
        except Exception as exc:
            _LOGGER.exception("control door %s failed", door)
            return "500 Internal Server Error", {"error": f"{door}: {exc}"}

    def _act(self, name: str, region: str) -> dict[str, Any]:
        if name == "reset":
            self._cloud.reset()
        elif name == "blackout":
            self._cloud.blackout(region)
        elif name == "restore":
            self._cloud.restore(region)
        elif name == "status":
            return {"schema_version": SCHEMA_VERSION, **self._cloud.status()}
        return {"schema_version": SCHEMA_VERSION, "instance_id": self._cloud.instance_id}
