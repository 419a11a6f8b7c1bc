"""The provider that the engine speaks to: each request becomes a few plain values for a Lifecycle, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pulumi.provider.experimental import provider as sdk
from pulumi.provider.experimental.property_value import PropertyValue

from localcloud.provider import functions, tags
from localcloud.provider.calls import Cloud
from localcloud.provider.changes import delete_first, differences
from localcloud.provider.errors import HalfMadeError, ProviderError
from localcloud.provider.kind import Kind
from localcloud.provider.lifecycle import Lifecycle
from localcloud.provider.placing import problems
from localcloud.provider.settings import Settings, settings_from
from localcloud.provider.state import DECLARED, FILLED, user_inputs
from localcloud.provider.types import KINDS
from localcloud.provider.values import UNKNOWN, Values, bare_map, wrapped_map

_KINDS_OF_CHANGE = {
    ("add", False): sdk.PropertyDiffKind.ADD,
    ("add", True): sdk.PropertyDiffKind.ADD_REPLACE,
    ("delete", False): sdk.PropertyDiffKind.DELETE,
    ("delete", True): sdk.PropertyDiffKind.DELETE_REPLACE,
    ("update", False): sdk.PropertyDiffKind.UPDATE,
    ("update", True): sdk.PropertyDiffKind.UPDATE_REPLACE,
}


class HalfMadeResourceError(ProviderError):
    """As HalfMadeError, with the state in the engine's form."""

    def __init__(self, cause: HalfMadeError, where: str, state: dict[str, PropertyValue]) -> None:
        """`where` is the type and name of the resource."""
        super().__init__(f"{where}: {cause}")
        self.resource_id = cause.resource_id
        self.state = state


class Provider(sdk.Provider):
    """pulumi-resource-aws for the embedded cloud. Every failure is a ProviderError of one line."""

    def __init__(self) -> None:
        """The provider is of no use until `configure`."""
        self._settings: Settings | None = None

    def _configured(self) -> Settings:
        if self._settings is None:
            message = "the provider was asked to work before it was configured"
            raise ProviderError(message)
        return self._settings

    async def check_config(self, request: sdk.CheckRequest) -> sdk.CheckResponse:
        """Take every configuration: what it leads to is judged by `configure`."""
        return sdk.CheckResponse(inputs=request.new_inputs)

    async def diff_config(self, request: sdk.DiffRequest) -> sdk.DiffResponse:  # noqa: ARG002  # the SDK's signature
        """No change of configuration replaces anything: each resource carries its own region."""
        return sdk.DiffResponse()

    async def configure(self, request: sdk.ConfigureRequest) -> sdk.ConfigureResponse:
        """Take the configuration; refuse any endpoint that is not loopback."""
        arguments: Values = {name.rsplit(":", 1)[-1]: value for name, value in request.variables.items()}
        arguments.update(bare_map(request.args)[0])
        self._settings = settings_from(arguments)
        return sdk.ConfigureResponse(
            accept_secrets=True, supports_preview=True, accept_resources=True, accept_outputs=True
        )

    def _kind(self, token: str) -> Kind:
        # The SDK takes the type from the URN, where the types of all parents stand before it, separated by $.
        token = token.rsplit("$", 1)[-1]
        kind = KINDS.get(token)
        if kind is None:
            message = (
                f"type {token} is not served by the embedded provider: add it to localcloud/provider/types, or use the "
                "official pulumi-aws plugin"
            )
            raise ProviderError(message)
        return kind

    def _lifecycle(self, kind: Kind, values: Mapping[str, Any], timeout: float = 0) -> Lifecycle:
        settings = self._configured()
        cloud = Cloud(settings.clients, values.get("region") or settings.region, timeout)
        return Lifecycle(kind, cloud, settings.default_tags)

    async def check(self, request: sdk.CheckRequest) -> sdk.CheckResponse:
        """Fill in region, name and all tags; find what cannot be placed, before anything is made."""
        kind = self._kind(request.type)
        old, _ = bare_map(request.old_inputs)
        new, secret = bare_map(request.new_inputs)
        self._fill(kind, request, old, new)
        failures = [
            sdk.CheckFailure(problem.path, f"{request.type}: {problem}")
            for problem in await asyncio.to_thread(problems, kind, new)
        ]
        return sdk.CheckResponse(inputs=wrapped_map(new, secret | (kind.secrets & new.keys())), failures=failures)

    def _fill(self, kind: Kind, request: sdk.CheckRequest, old: Values, new: Values) -> None:
        settings = self._configured()
        if kind.regional:
            new.setdefault("region", settings.region)
        if kind.tagging:
            every = tags.merged(settings.default_tags, new.get("tags"))
            if every:
                new["tagsAll"] = every
        filled = [name for name in kind.initial if name not in new]
        new.update({name: kind.initial[name] for name in filled})
        naming = kind.naming
        if naming and naming.property not in new:
            wished = new.get(naming.prefix_property) if naming.prefix_property else None
            kept = old.get(naming.property) if naming.property in old.get(FILLED, ()) else None
            if wished != (old.get(naming.prefix_property) if naming.prefix_property else None):
                kept = None
            new[naming.property] = kept or naming.make(request.name, wished, request.random_seed)
            filled.append(naming.property)
        if filled:
            new[FILLED] = filled

    async def diff(self, request: sdk.DiffRequest) -> sdk.DiffResponse:
        """Compare the state with the inputs."""
        kind = self._kind(request.type)
        state, _ = bare_map(request.old_state)
        inputs, _ = bare_map(request.new_inputs)
        found = await asyncio.to_thread(differences, kind, state, inputs, request.ignore_changes)
        return sdk.DiffResponse(
            changes=bool(found),
            diffs=[change.name for change in found],
            replaces=[change.name for change in found if change.replaces],
            delete_before_replace=delete_first(kind, state, inputs),
            detailed_diff={
                change.name: sdk.PropertyDiff(_KINDS_OF_CHANGE[change.how, change.replaces], input_diff=False)
                for change in found
            },
        )

    async def create(self, request: sdk.CreateRequest) -> sdk.CreateResponse:
        """Make the resource; in a preview, say what is known of it without any call."""
        kind = self._kind(request.type)
        inputs, secret = bare_map(request.properties)
        secret |= kind.secrets
        if request.preview:
            unknown = dict.fromkeys([*kind.reads.split(), *(["tagsAll"] if kind.tagging else [])], UNKNOWN)
            return sdk.CreateResponse(None, wrapped_map({**unknown, **kind.defaults, **user_inputs(inputs)}, secret))
        lifecycle = self._lifecycle(kind, inputs, request.timeout)
        try:
            resource_id, state = await asyncio.to_thread(lifecycle.create, inputs)
        except HalfMadeError as exc:
            raise HalfMadeResourceError(exc, f"{request.type} {request.name}", wrapped_map(exc.state, secret)) from exc
        return sdk.CreateResponse(resource_id, wrapped_map(state, secret))

    async def read(self, request: sdk.ReadRequest) -> sdk.ReadResponse:
        """Look at the resource again (refresh), or for the first time (import)."""
        kind = self._kind(request.type)
        state, secret_state = bare_map(request.properties)
        inputs, secret = bare_map(request.inputs)
        secret = secret | secret_state | kind.secrets
        lifecycle = self._lifecycle(kind, state)
        if not inputs and DECLARED not in state:
            found = await asyncio.to_thread(lifecycle.imported, request.resource_id)
            if found is None:
                return sdk.ReadResponse("")
            return sdk.ReadResponse(request.resource_id, wrapped_map(found[1], secret), wrapped_map(found[0], secret))
        actual = await asyncio.to_thread(lifecycle.read, request.resource_id, inputs, state)
        if actual is None:
            return sdk.ReadResponse("")
        # Declared names that were imported stay undeclared.
        actual[DECLARED] = state.get(DECLARED, actual[DECLARED])
        seen = {name: actual.get(name) for name in user_inputs(inputs)}
        if FILLED in inputs:
            seen[FILLED] = inputs[FILLED]
        return sdk.ReadResponse(request.resource_id, wrapped_map(actual, secret), wrapped_map(seen, secret))

    async def update(self, request: sdk.UpdateRequest) -> sdk.UpdateResponse:
        """Change the resource in place; in a preview, only say what it will be."""
        kind = self._kind(request.type)
        state, _ = bare_map(request.olds)
        inputs, secret = bare_map(request.news)
        secret |= kind.secrets
        if request.preview:
            taken = set(state.get(DECLARED, ())) - set(inputs)
            kept = {name: value for name, value in state.items() if name not in taken}
            return sdk.UpdateResponse(wrapped_map({**kept, **user_inputs(inputs)}, secret))
        lifecycle = self._lifecycle(kind, inputs, request.timeout)
        result = await asyncio.to_thread(lifecycle.update, request.resource_id, state, inputs)
        return sdk.UpdateResponse(wrapped_map(result, secret))

    async def delete(self, request: sdk.DeleteRequest) -> None:
        """Delete the resource."""
        kind = self._kind(request.type)
        state, _ = bare_map(request.properties)
        lifecycle = self._lifecycle(kind, state, request.timeout)
        await asyncio.to_thread(lifecycle.delete, request.resource_id, state)

    async def invoke(self, request: sdk.InvokeRequest) -> sdk.InvokeResponse:
        """Answer a function."""
        function = functions.FUNCTIONS.get(request.tok)
        if function is None:
            served = ", ".join(functions.FUNCTIONS)
            message = f"function {request.tok} is not served by the embedded provider (it has {served})"
            raise ProviderError(message)
        arguments, _ = bare_map(request.args)
        settings = self._configured()
        cloud = Cloud(settings.clients, arguments.pop("region", None) or settings.region)
        result, secret = await asyncio.to_thread(function, cloud, arguments)
        return sdk.InvokeResponse(wrapped_map(result, secret))
