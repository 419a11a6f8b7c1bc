"""The provider's own configuration, from the engine's strings and the environment, checked for loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.provider.calls import Clients, require_loopback
from localcloud.provider.errors import ProviderError

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a configured provider knows: its region, its clients, the tags that everything gets."""

    region: str
    clients: Clients
    default_tags: dict[str, str] = field(default_factory=dict)


def _structured(value: Any) -> Any:
    """Return lists and maps as such: the engine hands them over as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except ValueError as exc:
            message = f"the provider's configuration is not valid JSON: {exc}"
            raise ProviderError(message) from exc
    return value


def _services(endpoints: Any) -> dict[str, str]:
    blocks = _structured(endpoints) or []
    found: dict[str, str] = {}
    for block in blocks if isinstance(blocks, list) else [blocks]:
        found.update({service: url for service, url in block.items() if url})
    return found


# Terraform's names for endpoints where botocore's differ.
_BOTOCORE_NAMES = {"cloudwatchlogs": "logs", "cloudwatchlog": "logs"}


def settings_from(arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of a provider. `arguments` are plain values, by Pulumi's names.

    Raises ProviderError when no endpoint is known or one of them is not loopback.
    """
    endpoints = {
        _BOTOCORE_NAMES.get(service, service): require_loopback(url, f"the provider's endpoint of {service!r}")
        for service, url in _services(arguments.get("endpoints")).items()
    }
    for name, url in environment.items():
        if name.startswith("AWS_ENDPOINT_URL_") and url:
            service = name.removeprefix("AWS_ENDPOINT_URL_").lower().replace("_", "")
            endpoints.setdefault(service, require_loopback(url, name))
    general = environment.get("AWS_ENDPOINT_URL") or None
    if general is not None:
        require_loopback(general, "AWS_ENDPOINT_URL")
    if general is None and not endpoints:
        message = (
            "no endpoint is configured, so calls would go to a real account, which this provider never does: start the "
            'embedded cloud and set its environment with `eval "$(localcloud env)"`, or use the official plugin.'
        )
        raise ProviderError(message)
    tags = _structured(arguments.get("defaultTags")) or {}
    region = arguments.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    return Settings(
        region=region or DEFAULT_REGION,
        clients=Clients(
            endpoint=general,
            endpoints=endpoints,
            access_key=arguments.get("accessKey") or environment.get("AWS_ACCESS_KEY_ID") or "test",
            secret_key=arguments.get("secretKey") or environment.get("AWS_SECRET_ACCESS_KEY") or "test",
        ),
        default_tags=dict(tags.get("tags") or {}),
    )
