"""Secrets never reach a journal, a report or a log: everything written passes through here.

It over-masks on purpose: a value under a name that looks like a secret is masked unless it is plainly an address of
one (an ARN or an identifier), and every URL or `password=` fragment inside a text loses its password.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping

MASK = "[redacted]"

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|private_?key|access_?key|authorization", re.IGNORECASE
)
_ADDRESS_NAME = re.compile(r"(arn|_id|Id|name|count|env|ok)$")
_IN_TEXT = (
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+@", re.IGNORECASE), rf"\1{MASK}@"),
    (
        re.compile(
            r"\b(password|passwd|pwd|passphrase|auth_token|PGPASSWORD)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s]+"), rf"\1{MASK}"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
)
_known: set[str] = set()
_known_lock = threading.Lock()


def remember_secret(value: str) -> None:
    """Mask this exact value wherever it turns up from now on; very short values are left, they would mask words."""
    if len(value) >= 6:
        with _known_lock:
            _known.add(value)


def redact_text(text: str) -> str:
    """Return the text without passwords in URLs, in `password=` fragments, and without every remembered secret."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    with _known_lock:
        known = sorted(_known, key=len, reverse=True)
    for secret in known:
        text = text.replace(secret, MASK)
    return text


def redact(value: object, name: str = "") -> object:
    """Return a copy of a JSON-like value in which nothing that looks like a secret is left."""
    if isinstance(value, Mapping):
        return {str(key): redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        if _SECRET_NAME.search(name) and not _ADDRESS_NAME.search(name) and not value.startswith("arn:"):
            return MASK if value else value
        return redact_text(value)
    return value


class RedactionFilter(logging.Filter):
    """Masks what a log record would print; installed once on the root handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's finished message; never drops a record."""
        record.msg = redact_text(record.getMessage())
        record.args = ()
        return True
