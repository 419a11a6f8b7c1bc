"""Names for what the program gave no name: the resource's own name and seven random digits, stable across previews."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

DIGITS = 7


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a type names itself: the property, the property with a wished-for beginning, AWS's limit in characters."""

    property: str = "name"
    prefix_property: str | None = "namePrefix"
    limit: int = 255
    lower: bool = False
    beginning: str = ""

    def make(self, resource: str, wished: str | None, seed: bytes) -> str:
        """Return a new name. `wished` is the value of the prefix property; `seed` is the engine's random seed."""
        digits = hashlib.sha256(seed + resource.encode()).hexdigest() if seed else secrets.token_hex(DIGITS)
        stem = wished if wished is not None else f"{self.beginning}{resource}-"
        name = stem[: self.limit - DIGITS] + digits[:DIGITS]
        return name.lower() if self.lower else name
