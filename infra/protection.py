"""Protection by the engine: a stack of production is refused as a whole, not taken apart up to its first bucket."""

from __future__ import annotations

import pulumi


def protect_everything() -> None:
    """Make the engine refuse to delete or replace every resource declared from here on.

    With data alone protected, a mistaken `pulumi destroy` would delete roles and replication before it fails. To be
    called first in a program, within a stack.
    """

    def protect(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True))
        return pulumi.ResourceTransformationResult(args.props, opts)

    pulumi.runtime.register_stack_transformation(protect)
