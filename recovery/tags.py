"""The tags by which everything that a drill makes is known as that drill's."""

from __future__ import annotations

TAG_DRILL = "agentverse:drill-id"
TAG_MODE = "agentverse:mode"
