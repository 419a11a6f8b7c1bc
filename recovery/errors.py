"""Every failure this package raises on purpose, and the exit code each kind ends with.

An error speaks as PostgreSQL does: `message` is one line of fact, `detail` the evidence, `hint` what to do next.
Library code raises; only `recovery.cli` prints and exits.
"""

from __future__ import annotations

import re
from typing import ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_LACKING = 4
EXIT_INTERRUPTED = 130

# Everything that moves a terminal's cursor, colours it or sends it commands; line ends and tabs may stand.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return the text with control characters written as escapes: names in a dump may be made for a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class RecoveryError(Exception):
    """Raised when work cannot go on for a reason an operator can read.

    Attributes: `message` (one line), `detail` and `hint` (text or None), `exit_code` (of the kind of error).
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(printable(message))
        self.message = printable(message)
        self.detail = None if detail is None else printable(detail)
        self.hint = None if hint is None else printable(hint)

    def __str__(self) -> str:
        """Return message, detail and hint, one line each, as they belong in a log."""
        lines = [self.message]
        if self.detail:
            lines.append(f"detail: {self.detail}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class CheckFailedError(RecoveryError):
    """Raised when a check, a verification or a drill ran and came out wrong."""

    exit_code = EXIT_FAILED


class BadDumpError(RecoveryError):
    """Raised when a dump is truncated, corrupt, not what its manifest says, or not SQL."""

    exit_code = EXIT_FAILED


class UsageError(RecoveryError):
    """Raised when a command, an option or a value in recovery.toml is not one of those that exist."""

    exit_code = EXIT_USAGE


class RefusedError(RecoveryError):
    """Raised when going on would be unsafe: foreign account, target not empty, nobody there to confirm."""

    exit_code = EXIT_REFUSED


class EnvironmentLacksError(RecoveryError):
    """Raised when a tool, a credential or a service that the work needs is not there."""

    exit_code = EXIT_LACKING


class ConnectionLostError(EnvironmentLacksError):
    """Raised when a server is gone or lets nobody in: work that can be resumed leaves what it needs for that."""


class RunInterruptedError(RecoveryError):
    """Raised when the operator stopped the run."""

    exit_code = EXIT_INTERRUPTED
