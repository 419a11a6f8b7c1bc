"""What differs between a resource's state and what the program now declares, and which of it replaces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from localcloud.provider.equality import same
from localcloud.provider.kind import Kind
from localcloud.provider.placing import can_update
from localcloud.provider.state import DECLARED, FILLED, equal, user_inputs
from localcloud.provider.values import Values


@dataclass(frozen=True)
class Difference:
    """One property that differs. `how` is add, delete or update."""

    name: str
    how: str
    replaces: bool


def differences(kind: Kind, state: Values, inputs: Values, ignored: Collection[str] = ()) -> list[Difference]:
    """Return what differs. What the program never declared is AWS's own business and does not count."""
    old, new = user_inputs(state), user_inputs(inputs)
    found = [
        Difference(name, "update" if name in old else "add", not can_update(kind, name))
        for name in sorted(new)
        if name not in ignored and not equal(kind, name, new[name], old.get(name))
    ]
    declared = set(state.get(DECLARED, ()))
    found += [
        Difference(name, "delete", not can_update(kind, name))
        for name in sorted(declared - set(new) - set(kind.reads.split()))
        if name in old and name not in ignored and not (name in kind.defaults and same(old[name], kind.defaults[name]))
    ]
    # tags that somebody else put on a thing whose program declares none
    if kind.tagging and old.get("tags") and "tags" not in {*new, *declared, *ignored}:
        found.append(Difference("tags", "delete", replaces=False))
    return found


def delete_first(kind: Kind, state: Values, inputs: Values) -> bool:
    """Whether the old thing must go before the new one comes: two cannot bear the one name the program insists on."""
    if kind.deletes_first or kind.naming is None:
        return kind.deletes_first
    name = kind.naming.property
    return name not in inputs.get(FILLED, ()) and inputs.get(name) == state.get(name)
