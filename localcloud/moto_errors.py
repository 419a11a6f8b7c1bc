"""The two families of errors moto's backends raise, as one."""

from __future__ import annotations

from moto.core.exceptions import ServiceException
from werkzeug.exceptions import HTTPException

MOTO_ERRORS = (ServiceException, HTTPException)


def describe(error: BaseException) -> str:
    """Return "Code: message", as AWS's agents quote an error of another service."""
    code = getattr(error, "error_type", None) or getattr(error, "code", None) or type(error).__name__
    return f"{code}: {getattr(error, 'message', None) or error}"
