"""The table of types: what this provider serves, one module per service."""

from __future__ import annotations

from localcloud.provider.kind import Kind
from localcloud.provider.types import s3

KINDS: dict[str, Kind] = {kind.token: kind for module in (s3,) for kind in module.KINDS}
