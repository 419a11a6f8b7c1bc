"""What an operator gives as the address of a database: checked before anything is done with it."""

from __future__ import annotations

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from recovery.errors import UsageError
from recovery.redaction import remember_secret


def database_of(dsn: str, origin: str) -> str:
    """Return `name on host:port` of a DSN, for people; its password is masked everywhere from now on.

    `origin` is the option or variable it came from. Raises UsageError when it is no connection string; the text of it
    is not repeated, since it may hold a password.
    """
    parts = _parts(dsn, origin)
    if parts.get("password"):
        remember_secret(dsn)
        remember_secret(str(parts["password"]))
    host = parts.get("host") or parts.get("hostaddr") or "this machine"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{parts.get('dbname') or parts.get('user') or 'the default database'} on {host}{port}"


def refuse_password(dsn: str, option: str) -> None:
    """Raise UsageError when a DSN from the command line holds a password."""
    if _parts(dsn, option).get("password"):
        raise UsageError(
            f"{option} holds a password, and every process of this machine can read another one's arguments.",
            hint="Leave it out and set PGPASSWORD, or use a password file (~/.pgpass).",
        )


def _parts(dsn: str, origin: str) -> dict[str, object]:
    try:
        return dict(conninfo_to_dict(dsn))
    except ProgrammingError:
        raise UsageError(
            f"{origin} is not the address of a database.", hint="It looks like postgresql://user@host:5432/database."
        ) from None
