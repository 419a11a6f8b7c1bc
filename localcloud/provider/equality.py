"""When two values mean the same to AWS though they are written differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def same(left: Any, right: Any) -> bool:
    """Whether two plain values mean the same.

    Numbers and booleans equal their text, JSON documents are compared as documents (policies: lists as sets, one item
    as the list of it), lists as sets, and an absent key equals a null.
    """
    return bool(_canonical(left) == _canonical(right))


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, Mapping):
        return {key: _canonical(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return sorted((_canonical(part) for part in value), key=_order)
    if isinstance(value, str):
        document = parsed(value)
        return value if document is None else ("document", canonical_document(document))
    return value


def _order(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def parsed(text: str) -> Any:
    """Return the JSON document (object or list) that the text is, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def canonical_document(document: Any) -> Any:
    """Return one of the many equal forms of a policy document: IAM takes lists as sets, one item as a list."""
    if isinstance(document, Mapping):
        return {key: canonical_document(part) for key, part in document.items() if part is not None}
    if isinstance(document, list):
        items = sorted((canonical_document(part) for part in document), key=_order)
        return items[0] if len(items) == 1 else items
    if isinstance(document, bool | int | float):
        return _canonical(document)
    return document
