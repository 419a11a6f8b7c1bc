"""The names of the checks a verification climbs, in order: what recovery.toml may require and what `verify` runs."""

from __future__ import annotations

from typing import Literal, get_args

RungName = Literal[
    "server",
    "schema",
    "grants",
    "rows",
    "content",
    "sequences",
    "foreign-keys",
    "indexes",
    "collations",
    "samples",
    "freshness",
]

RUNG_NAMES: tuple[RungName, ...] = get_args(RungName)
