"""What can go wrong between the engine and the embedded cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ProviderError(Exception):
    """A refusal or failure told to the user as one line."""


class PlacementError(ProviderError):
    """A property has no place in the service's model and is declared nowhere: it must not be dropped in silence."""

    def __init__(self, path: str, reason: str) -> None:
        """`path` is the property as the user wrote it, such as `rules[0].filter.color`."""
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class CallError(ProviderError):
    """AWS refused a call. `code` is AWS's own error code."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        """Keep the parts apart: callers decide by `code`."""
        super().__init__(f"{operation}: {code}: {' '.join(message.split())}")
        self.operation = operation
        self.code = code

    @property
    def gone(self) -> bool:
        """Whether the code says that the thing does not exist."""
        return any(mark in self.code for mark in ("NotFound", "NoSuch", "Unknown")) or self.code in {
            "404",
            "InactiveCluster",
        }


class HalfMadeError(ProviderError):
    """The resource exists but making it ready failed: the engine must keep its id, or nobody ever deletes it."""

    def __init__(self, cause: ProviderError, resource_id: str, state: Mapping[str, Any]) -> None:
        """`state` is what goes into the engine's state under `resource_id`."""
        super().__init__(str(cause))
        self.resource_id = resource_id
        self.state = dict(state)
