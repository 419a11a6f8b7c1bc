"""The ladder of checks that proves a database to be the one that was backed up."""

from __future__ import annotations

from recovery.rungs import RUNG_NAMES
from recovery.verify.ladder import Checks, verify
from recovery.verify.result import Outcome, Rung, SampleQuery, Verification

__all__ = ["RUNG_NAMES", "Checks", "Outcome", "Rung", "SampleQuery", "Verification", "verify"]
