"""Plain Python values for the engine's property values.

The SDK's PropertyValue cannot carry computed values (marshalling them fails) nor integers. Here a value is what JSON
has; an unknown is the string `UNKNOWN`, as it arrives on the wire; secretness is kept per top-level property.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Final

from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime import rpc

UNKNOWN: Final[str] = rpc.UNKNOWN

Values = dict[str, Any]


def is_unknown(value: object) -> bool:
    """Whether the value, or anything in it, is not known before the resources it comes from exist."""
    if isinstance(value, str):
        return UNKNOWN in value
    if isinstance(value, Mapping):
        return any(is_unknown(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(is_unknown(part) for part in value)
    return False


def bare(value: PropertyValue) -> Any:
    """Return the value without secretness and dependencies; whole numbers are ints, nulls inside maps are left out."""
    inner = value.value
    if isinstance(inner, float):
        return int(inner) if inner.is_integer() else inner
    if inner is None or isinstance(inner, bool | str):
        return inner
    if isinstance(inner, Mapping):
        return {key: bare(part) for key, part in inner.items() if part.value is not None}
    if isinstance(inner, list | tuple):
        return [bare(part) for part in inner]
    message = f"a value of type {type(inner).__name__} (assets, archives, resources) has no place in these resources"
    raise TypeError(message)


def bare_map(values: Mapping[str, PropertyValue]) -> tuple[Values, frozenset[str]]:
    """Return the plain values and the names of those that hold a secret anywhere inside."""
    plain = {name: bare(value) for name, value in values.items() if value.value is not None}
    return plain, frozenset(name for name, value in values.items() if value.contains_secret())


def _text(value: bytes | dt.datetime | str) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return UNKNOWN if UNKNOWN in value else value


def wrapped(value: object, *, secret: bool = False) -> PropertyValue:
    """Return the engine's form of a plain value. Dates become RFC 3339 text, bytes base64."""
    if isinstance(value, bool) or value is None:
        return PropertyValue(value, is_secret=secret)
    if isinstance(value, int | float):
        return PropertyValue(float(value), is_secret=secret)
    if isinstance(value, bytes | dt.datetime | str):
        return PropertyValue(_text(value), is_secret=secret)
    if isinstance(value, Mapping):
        return PropertyValue({str(key): wrapped(part) for key, part in value.items()}, is_secret=secret)
    if isinstance(value, list | tuple):
        return PropertyValue([wrapped(part) for part in value], is_secret=secret)
    message = f"a {type(value).__name__} has no form that the engine understands"
    raise TypeError(message)


def wrapped_map(values: Mapping[str, Any], secrets: Collection[str] = ()) -> dict[str, PropertyValue]:
    """Return the engine's form of plain values; the names in `secrets` become secrets. Nulls are left out."""
    return {name: wrapped(value, secret=name in secrets) for name, value in values.items() if value is not None}
