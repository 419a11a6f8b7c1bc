"""`pulumi up` of the dr stack against the sum of its resources' times, both taken from the engine's events.

The sum is what one resource after the other would take; what `up` takes longer than its longest chain is overhead.
"""

from __future__ import annotations

import secrets
import sys
import time
from datetime import UTC, datetime, timedelta

from pulumi.automation import events

from benchmarks.measure import cloud, figure, heading, ratio, say
from examples.agentverse import stack


class ResourceTimes:
    """Takes engine events and keeps, for each resource, the seconds from its first event to its outputs."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, event: events.EngineEvent) -> None:
        """Take note of one event. Components and the stack itself do nothing, so they do not count."""
        now = time.monotonic()
        if event.resource_pre_event is not None:
            metadata = event.resource_pre_event.metadata
            if "aws:" in metadata.type and metadata.op is not None and metadata.op.value == "create":
                self._begun[metadata.urn] = now
        elif event.res_outputs_event is not None:
            urn = event.res_outputs_event.metadata.urn
            if urn in self._begun:
                self.seconds[urn] = now - self._begun[urn]


def run(runs: int) -> None:
    """Bring primary up once, then dr up and down some times; print medians and the slowest resources."""
    heading("pulumi up of dr against the sum of its resources")
    whole: list[float] = []
    sums: list[float] = []
    again: list[float] = []
    down: list[float] = []
    times = ResourceTimes()
    with cloud():
        with stack.project_copy("primary") as folder:
            stack.up(stack.select("primary", folder), say)
        for _ in range(runs):
            drill = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            settings = {
                "agentverse-dr:drillId": drill,
                "agentverse-dr:mode": "drill",
                "agentverse-dr:expiresAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds"),
                "agentverse-dr:owner": "benchmark",
            }
            with stack.project_copy(f"dr-{drill}", source="dr", settings=settings) as folder:
                selected = stack.select(f"dr-{drill}", folder)
                times = ResourceTimes()
                begun = time.monotonic()
                stack.up(selected, say, times)
                whole.append(time.monotonic() - begun)
                sums.append(sum(times.seconds.values()))
                begun = time.monotonic()
                stack.up(selected, say)
                again.append(time.monotonic() - begun)
                begun = time.monotonic()
                stack.destroy(selected, say)
                down.append(time.monotonic() - begun)
    ours = figure("up", whole)
    total = figure(f"sum of its {len(times.seconds)} resources, one by one", sums)
    ratio("up / sum", ours, total)
    figure("up again, nothing to change", again)
    figure("destroy", down)
    for urn, seconds in sorted(times.seconds.items(), key=lambda item: -item[1])[:5]:
        figure("  " + urn.rsplit("$", 1)[-1].split("::")[0], [seconds], "among the slowest")


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
