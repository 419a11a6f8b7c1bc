"""Only the embedded cloud will do: prove that the environment points at one before anything is made or destroyed."""

from __future__ import annotations

import ipaddress
import json
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from examples.agentverse.errors import EnvironmentLacksError, RefusedError

_START = 'start one and point at it: localcloud start; eval "$(localcloud env)"'


def is_loopback(url: str) -> bool:
    """Tell whether a URL can only lead to this machine. A name counts when it is localhost or below it (RFC 6761)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def embedded_endpoint() -> str:
    """Return AWS_ENDPOINT_URL after making sure that an embedded cloud answers there.

    Raises RefusedError where it, or a service's own AWS_ENDPOINT_URL_..., leads anywhere but this machine;
    EnvironmentLacksError where nothing answers, or where Pulumi would keep its state elsewhere.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if not endpoint:
        raise RefusedError(
            "AWS_ENDPOINT_URL is not set, so this would reach real AWS",
            detail="this production is for rehearsals only",
            hint=_START,
        )
    for name, value in sorted(os.environ.items()):
        if name.startswith("AWS_ENDPOINT_URL") and value and not is_loopback(value):
            raise RefusedError(
                f"{name} is {value}, which is not this machine",
                detail="this production is for rehearsals only",
                hint=_START,
            )
    _expect_answer(endpoint)
    backend = os.environ.get("PULUMI_BACKEND_URL", "")
    if not backend.startswith("file://"):
        raise EnvironmentLacksError(
            "PULUMI_BACKEND_URL does not name a folder",
            detail=f"it is {backend!r}",
            hint='the embedded cloud keeps the state of its stacks itself: eval "$(localcloud env)"',
        )
    return endpoint


def _expect_answer(endpoint: str) -> None:
    # Proxies of the environment are for elsewhere: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{endpoint.rstrip('/')}/_localcloud/health"
    try:
        with opener.open(url, timeout=10) as answer:
            json.load(answer)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise EnvironmentLacksError(
            f"what answers at {endpoint} is no embedded cloud of ours", detail=f"{url}: status {exc.code}", hint=_START
        ) from exc
    except (OSError, ValueError) as exc:
        raise EnvironmentLacksError(f"no embedded cloud answers at {endpoint}", detail=str(exc), hint=_START) from exc
