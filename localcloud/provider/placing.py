"""Where each property of a kind goes: the member of a call's input, inside the kind's document or beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from botocore.model import Shape, StructureShape

from localcloud.provider.calls import input_shape
from localcloud.provider.errors import PlacementError
from localcloud.provider.kind import Kind
from localcloud.provider.matching import place, to_aws


class Place(NamedTuple):
    """A member of an input: its path (one name, or document and name) and its shape."""

    path: tuple[str, ...]
    shape: Shape


def find_place(kind: Kind, name: str, operation: str | None) -> Place | None:
    """Return the place of a property in an operation's input, or None."""
    if operation is None:
        return None
    shape = input_shape(kind.service, operation)
    if not isinstance(shape, StructureShape):
        return None
    wanted = kind.renames.get(name)
    member = wanted if wanted in shape.members else place(name, shape, kind.nouns)
    if member is not None:
        return Place((member,), shape.members[member])
    document = shape.members.get(kind.document) if kind.document else None
    if isinstance(document, StructureShape) and kind.document:
        member = place(kind.renames.get(name, name), document, kind.nouns)
        if member is not None:
            return Place((kind.document, member), document.members[member])
    return None


def parameters(
    kind: Kind, values: Mapping[str, Any], operation: str, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Return the parameters of an operation for these properties (those in `only`, if given), settings left out.

    Raises PlacementError for a property that has no place.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if kind.bookkept(name) or name.startswith("__") or (only is not None and name not in only):
            continue
        if kind.has_setting(name) and operation != kind.create:
            continue
        found = find_place(kind, name, operation)
        if found is None and kind.has_setting(name):
            continue
        if found is None:
            raise PlacementError(name, f"{operation} has no such parameter")
        target = result
        for step in found.path[:-1]:
            target = target.setdefault(step, {})
        target[found.path[-1]] = to_aws(value, found.shape, name)
    if kind.document and operation in {kind.create, kind.update}:
        result.setdefault(kind.document, {})
    return result


def problems(kind: Kind, values: Mapping[str, Any]) -> list[PlacementError]:
    """Return what is wrong with the inputs: properties that the table declares unsupported or cannot place."""
    found = []
    for name, value in values.items():
        if name.startswith("__") or kind.bookkept(name):
            continue
        if name in kind.unsupported:
            found.append(PlacementError(name, f"not served by the embedded provider: {kind.unsupported[name]}"))
            continue
        where = find_place(kind, name, kind.create) or find_place(kind, name, kind.update)
        if where is None and kind.has_setting(name):
            continue
        if where is None:
            reason = (
                f"the table of types cannot place it: {kind.create} has no such parameter and no exception is declared"
            )
            found.append(PlacementError(name, reason))
            continue
        try:
            to_aws(value, where.shape, name)
        except PlacementError as exc:
            found.append(exc)
    return found


def can_update(kind: Kind, name: str) -> bool:
    """Whether a change of this property leaves the thing in place. The rule: if the update call takes it, it does."""
    if name == "region" or name in kind.replaces:
        return False
    if kind.bookkept(name) or kind.has_setting(name):
        return True
    where = find_place(kind, name, kind.update)
    return where is not None and where.path != (kind.key,)
