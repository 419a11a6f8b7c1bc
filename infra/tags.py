"""Tags on everything that can carry them, put on by the engine and not by each component's memory.

`agentverse:stack` is on everything; what belongs to one DR environment carries its drill id, mode, expiry and owner,
by which teardown, sweep and reaper know what is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pulumi

from infra.settings import Settings

PREFIX: Final = "agentverse:"


def of(settings: Settings) -> dict[str, str]:
    """Return the tags of every resource of this stack."""
    tags = {"stack": settings.program, "environment": settings.environment}
    if settings.recovery is not None:
        tags |= {
            "drill-id": settings.recovery.drill_id,
            "mode": settings.recovery.mode,
            "expires-at": settings.recovery.expires_at,
            "owner": settings.recovery.owner,
        }
    return {PREFIX + key: value for key, value in tags.items()}


def tag_everything(tags: Mapping[str, str]) -> None:
    """Put `tags` on every resource declared from here on whose type has tags; a resource's own tags win.

    To be called first in a program, within a stack.
    """

    def add(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        # The SDK hands over every input a type knows, set or not: having the key is being taggable.
        if "tags" not in args.props:
            return None
        props: dict[str, Any] = {**args.props, "tags": _merged(tags, args.props["tags"])}
        return pulumi.ResourceTransformationResult(props, args.opts)

    pulumi.runtime.register_stack_transformation(add)


def _merged(tags: Mapping[str, str], own: Any) -> Any:
    if own is None:
        return dict(tags)
    if isinstance(own, Mapping):
        return {**tags, **own}
    return pulumi.Output.from_input(own).apply(lambda known: {**tags, **known})
