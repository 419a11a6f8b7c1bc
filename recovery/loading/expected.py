"""Warnings that a server gives for a dump with nothing wrong in it: noted apart, with what follows from each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

# (SQLSTATE, the message in English or whatever the server's lc_messages makes of it, what it means here).  A message in
# another language is noted as any warning.
_EXPECTED = (
    (
        "55000",
        re.compile(r"wal_level"),
        "the publication is there; it publishes once the server runs with wal_level = logical",
    ),
    (
        "01007",
        re.compile(r""),
        "the restoring role holds no such privilege to give: a grant to or by the owner that the role is not",
    ),
    ("01006", re.compile(r""), "there was no such privilege of the restoring role's to take back"),
    (
        "01000",
        re.compile(r"subscription was created, but is not connected|subscriptions? .*not connected"),
        "the subscription is there and disabled, as pg_dump leaves it: two databases must not consume one slot",
    ),
)


def meaning(diagnostic: psycopg.errors.Diagnostic) -> str | None:
    """Return what an expected warning means, None for any other."""
    message = diagnostic.message_primary or ""
    for state, pattern, text in _EXPECTED:
        if diagnostic.sqlstate == state and pattern.search(message):
            return text
    return None
