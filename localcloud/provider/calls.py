"""The calls to the embedded cloud: which endpoint, clients kept per service and region, one-line errors, waits."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from localcloud.provider.errors import CallError, ProviderError

if TYPE_CHECKING:
    from botocore.model import ServiceModel

# The embedded cloud answers in milliseconds: AWS's own 15 to 30 s between looks would only be waiting.
LOOK_EVERY_SECONDS = 0.25


def require_loopback(url: str, source: str) -> str:
    """Return the URL if its host is this machine's loopback; raise ProviderError otherwise.

    `source` says where the URL comes from. Only literal loopback addresses and the name localhost (and names below it,
    which RFC 6761 ties to loopback) are taken: anything else could lead to a real account.
    """
    host = urlsplit(url).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    if not loopback:
        message = (
            f"{source} is {url!r}, which is not a loopback address: this provider serves the embedded cloud only "
            "and never a real account. Point it at http://127.0.0.1:PORT (see `localcloud env`), or use the official "
            "pulumi-aws plugin."
        )
        raise ProviderError(message)
    return url


@cache
def service_model(service: str) -> ServiceModel:
    """Return botocore's model of a service, read once."""
    import botocore.session  # noqa: PLC0415  # the imports cost more than all else at start: only when needed

    return botocore.session.get_session().get_service_model(service)


def _at(shape: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        shape = shape.members[part.removesuffix("[]")]
        if part.endswith("[]"):
            shape = shape.member
    return shape


def input_shape(service: str, operation: str, path: str = "") -> Any:
    """Return the shape of an operation's input, or what is at `path` in it (see `output_shape`)."""
    return _at(service_model(service).operation_model(operation).input_shape, path)


def output_shape(service: str, operation: str, path: str = "") -> Any:
    """Return the shape at `path` (members separated by dots, `[]` for a list's element) of an operation's output."""
    return _at(service_model(service).operation_model(operation).output_shape, path)


class Clients:
    """boto3 clients of one provider configuration, made when first needed and kept. Safe to use from many threads."""

    def __init__(self, *, endpoint: str | None, endpoints: Mapping[str, str], access_key: str, secret_key: str) -> None:
        """`endpoints` are by service; `endpoint` serves all others. Credentials are never looked up in profiles."""
        self._endpoint = endpoint
        self._endpoints = dict(endpoints)
        self._access_key = access_key
        self._secret_key = secret_key
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._session: Any = None

    def get(self, service: str, region: str) -> Any:
        """Return the client of a service in a region. Raises ProviderError when no endpoint is known for it."""
        key = (service, region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._make(service, region)
            return self._clients[key]

    def _make(self, service: str, region: str) -> Any:
        import boto3  # noqa: PLC0415  # half of a provider's start-up, and a preview needs none of it
        from botocore.config import Config  # noqa: PLC0415

        endpoint = self._endpoints.get(service, self._endpoint)
        if endpoint is None:
            message = f"no endpoint is configured for {service!r}: set AWS_ENDPOINT_URL or the provider's `endpoints`"
            raise ProviderError(message)
        if self._session is None:
            os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
            self._session = boto3.session.Session(self._access_key, self._secret_key)
        config = Config(
            connect_timeout=5,
            read_timeout=300,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=32,
            s3={"addressing_style": "path"},
        )
        return self._session.client(service, region_name=region, endpoint_url=endpoint, config=config)


@contextlib.contextmanager
def _told(operation: str) -> Iterator[None]:
    """Turn what botocore raises into a CallError."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        raise CallError(operation, str(error.get("Code", "Unknown")), str(error.get("Message", exc))) from exc
    except (BotoCoreError, ResponseParserError) as exc:
        raise CallError(operation, type(exc).__name__, str(exc)) from exc


class Cloud:
    """The embedded cloud as one resource sees it: its region and the time it may take."""

    def __init__(self, clients: Clients, region: str, timeout: float = 0) -> None:
        """`timeout` is in seconds; 0 means twenty minutes."""
        self._clients = clients
        self.region = region
        self._timeout = timeout or 1200.0

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation by AWS's name for it, leaving out what is None. Raises CallError."""
        from botocore import xform_name  # noqa: PLC0415

        client = self._clients.get(service, self.region)
        given = {name: value for name, value in parameters.items() if value is not None}
        with _told(operation):
            answer: dict[str, Any] = getattr(client, xform_name(operation))(**given)
            return answer

    def look(self, service: str, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """Call a reading operation; None when AWS says that the thing does not exist."""
        try:
            return self.call(service, operation, **parameters)
        except CallError as exc:
            if exc.gone:
                return None
            raise

    def pages(self, service: str, operation: str, result: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the items named `result` of all pages of a listing operation. Raises CallError."""
        from botocore import xform_name  # noqa: PLC0415

        client = self._clients.get(service, self.region)
        with _told(operation):
            paginator = client.get_paginator(xform_name(operation))
            return [item for page in paginator.paginate(**parameters) for item in page.get(result) or []]

    def wait(self, service: str, waiter: str, **parameters: Any) -> None:
        """Wait with one of boto3's waiters, looking often. Raises CallError when the state is never reached."""
        client = self._clients.get(service, self.region)
        looks = max(1, int(self._timeout / LOOK_EVERY_SECONDS))
        with _told(f"wait for {waiter}"):
            client.get_waiter(waiter).wait(
                WaiterConfig={"Delay": LOOK_EVERY_SECONDS, "MaxAttempts": looks}, **parameters
            )

    def retry(self, codes: set[str], service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation again for as long as AWS answers with one of `codes`, which pass with time."""
        deadline = time.monotonic() + min(self._timeout, 60)
        while True:
            try:
                return self.call(service, operation, **parameters)
            except CallError as exc:
                if exc.code not in codes or time.monotonic() > deadline:
                    raise
            time.sleep(LOOK_EVERY_SECONDS)
