"""The state that a restored database is given: that of the target it replaces, or that of the source in a manifest.

A target that exists keeps what it is, unless told otherwise; one that does not is made as the source was.  What the
server does not have of the source's locale is put in place of it and noted: the rows are all there and found again,
since indexes and partitions are made by this server's rules; only the order of text is another one.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql

from recovery.errors import RefusedError, UsageError
from recovery.loading.state import DatabaseState, read_state, try_to_set

if TYPE_CHECKING:
    from recovery.dumps import manifest
    from recovery.loading.session import Connection

Whose = Literal["source", "target"]

# How a server says that it cannot make a database of such an encoding or locale.
NO_SUCH_LOCALE = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.SyntaxError,
    psycopg.errors.WrongObjectType,
)

# One grant as the server prints it, and the letters of what can be granted on a database.
_GRANT = re.compile(r'(?P<grantee>"(?:[^"]|"")*"|[^=]*)=(?P<letters>[A-Za-z*]*)/')
_PRIVILEGES = {"C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}
_LETTER = re.compile(r"([A-Za-z])(\*?)")
# A setting for all, or behind the name of the role it is for.
_SETTING = re.compile(r"(?:(?P<role>.*?): )??(?P<name>[A-Za-z_][A-Za-z0-9_.$]*)=(?P<value>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class GivenState:
    """What a restored database is given.

    ``choices`` are the states to create it with, the first that the server takes; none for the server's own defaults.
    ``owner`` is who shall own it in the end, None where it is right from the start.
    """

    choices: tuple[DatabaseState, ...] = ()
    owner: str | None = None

    @property
    def comment(self) -> str | None:
        """Its comment."""
        return self.choices[0].comment if self.choices else None

    def apply(self, admin: Connection, database: str) -> list[tuple[str, str | None]]:
        """Give ``database`` this state, within a transaction; return what the role may not set, and why."""
        if not self.choices:
            return []
        not_set = self.choices[0].apply(admin, database)
        if self.owner is not None and self.owner != self.choices[0].owner:
            # Last, for the role may do nothing more then; what the owner was granted goes along.
            statement = sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                sql.Identifier(database), sql.Identifier(self.owner)
            )
            if (refused := try_to_set(admin, statement)) is not None:
                not_set.append(refused)
        return not_set


def given_state(
    admin: Connection,
    target: DatabaseState | None,
    source: manifest.DatabaseState | None,
    whose: Whose | None,
    *,
    give_owner: bool = True,
) -> GivenState:
    """Say what the restored database is given; ``whose`` is that of the target where it exists, unless said.

    Without ``give_owner`` it is not given to the source's owner.

    Raises UsageError when the source's is asked for and nothing tells it.
    """
    if whose == "source" and source is None:
        raise UsageError(
            "the state of the source's database is not known, so it cannot be restored",
            hint="only a manifest tells it; leave out --database-state",
        )
    if source is None or whose == "target" or (whose is None and target is not None):
        return GivenState() if target is None else GivenState((target,))
    default = read_state(admin, "template0")
    owner: Any = admin.execute("SELECT current_user::pg_catalog.text").fetchone()
    wished = DatabaseState(
        name=source.name,
        owner=target.owner if target is not None else str(owner[0]),
        ours=True,
        encoding=source.encoding,
        collate=source.collate,
        ctype=source.ctype,
        provider=source.provider,
        locale=source.locale,
        rules=source.icu_rules,
        tablespace=target.tablespace if target is not None else "pg_default",
        connection_limit=source.connection_limit,
        is_template=False,
        comment=source.comment,
        grants=None,
        settings=_settings(source.settings),
    )
    wished = dataclasses.replace(wished, grants=_grants(source, wished.owner))
    choices = [wished]
    if default is not None:
        # ICU's and the server's own locales are the same everywhere; beside them the system's decide little.
        here = dataclasses.replace(wished, collate=default.collate, ctype=default.ctype)
        if source.provider != "c":
            choices.append(here)
        choices.append(dataclasses.replace(here, provider=default.provider, locale=default.locale, rules=default.rules))
    # Text of this encoding that no locale here is for.
    choices.append(dataclasses.replace(wished, provider="c", locale=None, rules=None, collate="C", ctype="C"))
    return GivenState(tuple(choices), source.owner if give_owner else None)


def refuse_other_locale(admin: Connection, side: str, target: str, given: GivenState) -> DatabaseState | None:
    """Return what the side database of an interrupted restore was made as.

    Raises RefusedError when it would be made otherwise now.
    """
    made, default = read_state(admin, side), read_state(admin, "template0")
    choices = given.choices or ((default,) if default is not None else ())
    if made is None or not choices:
        return None

    def clauses(state: DatabaseState) -> str:
        # The owner is looked at before; template0's is not the target's.
        alike = dataclasses.replace(state, owner=made.owner)
        return alike.create_clauses(admin.info.server_version).as_string(admin)

    one, others = clauses(made), [clauses(state) for state in choices]
    if one not in others:
        raise RefusedError(
            f"the interrupted restore into {target} cannot be resumed: the target is another database now",
            detail=f"what it left was made with {one}; now it would be made with {others[0]}",
            hint="restore again without --resume",
        )
    return made


def _grants(source: manifest.DatabaseState, owner: str) -> tuple[tuple[str | None, str, bool], ...] | None:
    """Read the source's grants; its owner's are those of whoever owns the restored one."""
    if source.privileges is None:
        return None
    grants: list[tuple[str | None, str, bool]] = []
    for text in source.privileges:
        found = _GRANT.match(text)
        if found is None:
            continue
        name = found["grantee"]
        grantee = name[1:-1].replace('""', '"') if name.startswith('"') else name
        grants += [
            (owner if grantee == source.owner else grantee or None, _PRIVILEGES[letter], bool(star))
            for letter, star in _LETTER.findall(found["letters"])
            if letter in _PRIVILEGES
        ]
    return tuple(grants)


def _settings(texts: tuple[str, ...]) -> tuple[tuple[str | None, str, str], ...]:
    found = (_SETTING.fullmatch(text) for text in texts)
    return tuple((match["role"], match["name"], match["value"]) for match in found if match is not None)
