"""What this example raises: one line of fact, the evidence, what to do next; and the exit code each kind ends with."""

from __future__ import annotations


class ExampleError(Exception):
    """Raised when the example cannot do what it was asked to; the base of all that it raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class WrongUsageError(ExampleError):
    """Raised when the arguments do not say what is needed, or say it twice."""

    exit_code = 2


class RefusedError(ExampleError):
    """Raised when doing it would touch what must not be touched: a real account, a database that has data."""

    exit_code = 3


class EnvironmentLacksError(ExampleError):
    """Raised when a program, a service or a setting that is needed is not there."""

    exit_code = 4
