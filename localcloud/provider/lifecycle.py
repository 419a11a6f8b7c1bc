"""What happens to a resource of any kind: made, read, changed, deleted, by the rules and the kind's exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from botocore.model import ListShape, StructureShape

from localcloud.provider import tags as tagging
from localcloud.provider.calls import Cloud, input_shape, output_shape
from localcloud.provider.errors import CallError, HalfMadeError, ProviderError
from localcloud.provider.kind import Change, Item, Kind
from localcloud.provider.matching import from_aws, place
from localcloud.provider.placing import find_place, parameters
from localcloud.provider.state import DECLARED, equal, user_inputs
from localcloud.provider.values import Values


class Lifecycle:
    """One kind in one region. All methods block; ids, inputs and states are the engine's, in plain values."""

    def __init__(self, kind: Kind, cloud: Cloud, default_tags: Mapping[str, str]) -> None:
        """`default_tags` are the provider's."""
        self._kind = kind
        self._cloud = cloud
        self._default_tags = dict(default_tags)

    def create(self, inputs: Values) -> tuple[str, Values]:
        """Make the thing and wait until it can be used. Returns (id, state).

        Raises HalfMadeError once the thing exists and something later fails, ProviderError before.
        """
        kind, cloud = self._kind, self._cloud
        values = user_inputs(inputs)
        given = parameters(kind, values, kind.create, self._creatable(values))
        if kind.fixed_create:
            given.update(kind.fixed_create(cloud, values))
        tags = values.get("tagsAll") or {}
        if tags and kind.tagging and kind.tagging.create:
            given.update(kind.tagging.create(tags))
        made = kind.creator(cloud, values, given) if kind.creator else cloud.call(kind.service, kind.create, **given)
        resource_id = kind.id(values, made)
        try:
            if kind.ready:
                kind.ready(cloud, resource_id, values)
            if tags and kind.tagging and kind.tagging.create is None:
                kind.tagging.add(cloud, resource_id, {**made, **values}, tags)
            change = Change(cloud=cloud, id=resource_id, new=values, old={})
            for setting in kind.settings:
                if any(name in values for name in setting.properties):
                    setting.apply(change)
            state = self._found(resource_id, values, values)
        except ProviderError as exc:
            raise HalfMadeError(exc, resource_id, {**values, DECLARED: sorted(values)}) from exc
        return resource_id, state

    def _creatable(self, values: Values) -> list[str]:
        return [name for name in values if find_place(self._kind, name, self._kind.create) is not None]

    def read(self, resource_id: str, inputs: Values, state: Values) -> Values | None:
        """Return the state as the cloud has it, shaped like the declared `inputs`; None when the thing is gone."""
        kind = self._kind
        declared = user_inputs(inputs)
        item = self._item(resource_id, {**state, **declared})
        if item is None or not kind.alive(item):
            return None
        result = dict(declared)
        self._read_members(item, declared, result)
        if kind.regional:
            result["region"] = self._cloud.region
        for name, value in kind.defaults.items():
            result.setdefault(name, value)
        if kind.outputs:
            result.update(kind.outputs(self._cloud, resource_id, item, {**state, **result, **declared}))
        if kind.tagging:
            actual = kind.tagging.read(self._cloud, resource_id, item, result)
            result["tags"], result["tagsAll"] = tagging.split(actual, declared.get("tags") or {}, self._default_tags)
        result = {name: value for name, value in result.items() if value is not None}
        result[DECLARED] = sorted(declared)
        return result

    def _item(self, resource_id: str, state: Values) -> Item | None:
        kind = self._kind
        if kind.find:
            return kind.find(self._cloud, resource_id, state)
        shape = input_shape(kind.service, kind.read)
        many = isinstance(shape, StructureShape) and isinstance(shape.members.get(kind.key), ListShape)
        key = kind.key_of(resource_id, state)
        answer: Any = self._cloud.look(kind.service, kind.read, **{kind.key: [key] if many else key})
        for part in filter(None, kind.at.split(".")):
            answer = (answer or {}).get(part.removesuffix("[]"))
            if part.endswith("[]"):
                answer = answer[0] if answer else None
        found: Item | None = answer
        return found

    def _read_members(self, item: Item, declared: Values, result: Values) -> None:
        kind = self._kind
        shape = output_shape(kind.service, kind.read, kind.at)
        if not isinstance(shape, StructureShape):
            return
        for name in {*declared, *kind.reads.split()} - {"tags", "tagsAll", "region"}:
            if name in kind.state_only or name in kind.secrets:
                continue
            member = kind.read_names.get(name) or kind.renames.get(name) or place(name, shape, kind.nouns)
            if member is None or member not in shape.members:
                continue
            value = item.get(member)
            if value is not None:
                result[name] = from_aws(value, shape.members[member], declared.get(name), name)
            elif name in kind.vanishing:
                result.pop(name, None)

    def imported(self, resource_id: str) -> tuple[Values, Values] | None:
        """Return (inputs, state) of a thing that the engine knows only by its id; None when there is none."""
        kind = self._kind
        known = kind.import_key(resource_id) if kind.import_key else {}
        wanted = Lifecycle(_reading_more(kind), self._cloud, self._default_tags)
        state = wanted.read(resource_id, known, known)
        if state is None:
            return None
        settable = {*known, *kind.imports.split(), "region" if kind.regional else "", "tags", "tagsAll"}
        inputs = {name: value for name, value in state.items() if name in settable and value not in (None, "", [], {})}
        # What an import found was not declared by any program: leaving it out later is not taking it away.
        return inputs, {**state, DECLARED: []}

    def update(self, resource_id: str, state: Values, inputs: Values) -> Values:
        """Make the thing what the inputs say, and return its new state. Raises ProviderError."""
        kind = self._kind
        old, new = user_inputs(state), user_inputs(inputs)
        # `state[DECLARED]` are the names that the program set before.
        taken = set(state.get(DECLARED, ())) - set(new)
        changed = {name for name in new if not equal(kind, name, new[name], old.get(name))} | taken
        change = Change(cloud=self._cloud, id=resource_id, new=new, old=old)
        if kind.updater:
            kind.updater(change, changed)
        elif kind.update:
            self._call_update(change, changed)
        for setting in kind.settings:
            if changed.intersection(setting.properties):
                setting.apply(change)
        if kind.tagging:
            before, after = old.get("tagsAll") or {}, new.get("tagsAll") or {}
            kind.tagging.update(self._cloud, resource_id, old, before, after)
        if kind.ready and changed:
            kind.ready(self._cloud, resource_id, new)
        return self._found(resource_id, new, old)

    def _found(self, resource_id: str, inputs: Values, state: Values) -> Values:
        result = self.read(resource_id, inputs, state)
        if result is None:
            message = f"{self._kind.read} does not find {resource_id}: run `pulumi refresh`, then `pulumi up`"
            raise ProviderError(message)
        return result

    def _call_update(self, change: Change, changed: set[str]) -> None:
        kind = self._kind
        operation = kind.update or ""
        if operation == kind.create:  # a put call takes everything, every time
            if any(find_place(kind, name, operation) for name in changed if not kind.bookkept(name)):
                given = parameters(kind, change.new, operation)
                self._cloud.call(kind.service, operation, **{**given, **kind.fixed_update})
            return
        given = {}
        for name in changed:
            where = None if kind.bookkept(name) or kind.has_setting(name) else find_place(kind, name, operation)
            if where is None:
                continue
            if name in change.new:
                given.update(parameters(kind, change.new, operation, {name}))
            elif name in kind.defaults:
                given[where.path[-1]] = kind.defaults[name]
            elif where.shape.type_name == "string":
                given[where.path[-1]] = ""
        if given:
            self._cloud.call(
                kind.service, operation, **{**given, kind.key: kind.key_of(change.id, change.old), **kind.fixed_update}
            )

    def delete(self, resource_id: str, state: Values) -> None:
        """Delete the thing and wait until it is gone. What is gone already is fine."""
        kind = self._kind
        try:
            if kind.deleter:
                kind.deleter(self._cloud, resource_id, state)
            elif kind.delete:
                given = kind.fixed_delete(state) if kind.fixed_delete else {}
                self._cloud.call(kind.service, kind.delete, **{kind.key: kind.key_of(resource_id, state), **given})
        except CallError as exc:
            if not exc.gone:
                raise


def _reading_more(kind: Kind) -> Kind:
    return replace(kind, reads=f"{kind.reads} {kind.imports}")
