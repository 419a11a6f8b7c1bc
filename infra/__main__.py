"""Entry of both stacks: settings -> the stack's program -> exports."""

from __future__ import annotations

import pulumi

from infra import dr, primary, settings

_PROGRAMS = {"primary": primary.declare, "dr": dr.declare}

_settings = settings.load()
for _key, _value in _PROGRAMS[_settings.program](_settings).items():
    pulumi.export(_key, _value)
