"""What this provider keeps in the engine's state beside the properties themselves, and when two values are equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.provider.equality import same
from localcloud.provider.kind import Kind
from localcloud.provider.values import Values, is_unknown

# In the state: the names of the properties that the program set. One that is missing later was taken away.
DECLARED = "__declared"
# In the inputs: the names that this provider filled in, such as an autonamed `name`.
FILLED = "__defaults"


def user_inputs(values: Mapping[str, Any]) -> Values:
    """Return the properties without this provider's own bookkeeping."""
    return {name: value for name, value in values.items() if not name.startswith("__")}


def equal(kind: Kind, name: str, new: Any, old: Any) -> bool:
    """Whether a property's new value means what its old one does."""
    if is_unknown(new):
        return False
    if old is None:
        return new is None or new is False or new in ("", [], {})
    comparator = kind.comparators.get(name)
    return comparator(new, old) if comparator else same(new, old)
