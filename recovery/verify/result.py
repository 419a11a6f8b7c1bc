"""What a verification says: rungs, each with outcome, reason and evidence, and a verdict over them."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal

import pydantic


class Outcome(enum.StrEnum):
    """How a rung came out; NOT RUN proves nothing and hides nothing."""

    PASS = "PASS"  # noqa: S105  # an outcome, no password
    FAIL = "FAIL"
    NOT_RUN = "NOT RUN"


class SampleQuery(pydantic.BaseModel):
    """A query of the operator's and what it should return.

    `expected` is one value (for a query of one row and column) or a list of rows; `at_least` is a lower bound for one
    number.  Without either, the query only has to run.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    sql: str
    expected: Any = None
    at_least: float | None = None


class Rung(pydantic.BaseModel):
    """One check: `reason` is one line for people, `evidence` what it rests on."""

    model_config = pydantic.ConfigDict(frozen=True)

    name: str
    title: str
    outcome: Outcome
    reason: str
    evidence: dict[str, Any] = pydantic.Field(default_factory=dict)
    seconds: float = 0.0


class Verification(pydantic.BaseModel):
    """All rungs in order.  The verdict is PASS when none failed and every required one passed."""

    model_config = pydantic.ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    started_at: dt.datetime
    seconds: float
    database: str
    reference: str
    rungs: list[Rung]
    required: list[str]
    verdict: Literal["PASS", "FAIL"]
    recovery_point: dt.datetime | None = None

    def rung(self, name: str) -> Rung:
        """Return the rung of this name; raises KeyError when there is none."""
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise KeyError(name)


def verdict(rungs: list[Rung], required: set[str]) -> Literal["PASS", "FAIL"]:
    """PASS = no FAIL, and every required rung was run."""
    failed = any(rung.outcome is Outcome.FAIL for rung in rungs)
    missing = any(rung.name in required and rung.outcome is not Outcome.PASS for rung in rungs)
    return "FAIL" if failed or missing else "PASS"
