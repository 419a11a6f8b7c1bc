"""Which statements of a dump may fail or be left out, why, and what is noted about it.

Everything that is not listed here must succeed.  A rule names the statements it is for, the SQLSTATEs it accepts and
the note; the statement is always tried first, so a role that may do more loses nothing.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from recovery.dumps.statements import IDENTIFIER, QUALIFIED, Statement, unquote
from recovery.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg

_UNDEFINED_OBJECT = "42704"
_NO_PRIVILEGE = "42501"
_INVALID_VALUE = "22023"
_UNDEFINED_FUNCTION = "42883"
_INVALID_GRANT = "0LP01"
_DUPLICATE_SCHEMA = "42P06"
# What a DROP or ALTER ... DROP of pg_dump --clean meets in an empty database.
_UNDEFINED = frozenset({"42P01", "42703", _UNDEFINED_OBJECT, _UNDEFINED_FUNCTION, "3F000", "2BP01"})


@dataclasses.dataclass(frozen=True)
class Rule:
    """Statements that match ``pattern`` may fail with one of ``sqlstates``: noted as ``kind`` with ``text``."""

    kind: str
    pattern: re.Pattern[bytes]
    sqlstates: frozenset[str]
    text: str
    unlabelled: bool = False  # only before pg_dump's first label


def _pattern(text: bytes) -> re.Pattern[bytes]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


RULES = (
    Rule(
        "owner",
        _pattern(rb"ALTER\s.*\sOWNER\s+TO\s+" + IDENTIFIER + rb"\s*;\Z"),
        frozenset({_UNDEFINED_OBJECT, _NO_PRIVILEGE}),
        "the restoring role owns it instead",
    ),
    Rule(
        "owner",
        _pattern(rb"SET\s+SESSION\s+AUTHORIZATION\s"),
        frozenset({_UNDEFINED_OBJECT, _NO_PRIVILEGE, _INVALID_VALUE}),
        "the restoring role owns what follows instead",
    ),
    Rule(
        "privileges",
        _pattern(rb"(?:GRANT|REVOKE|ALTER\s+DEFAULT\s+PRIVILEGES)\s"),
        frozenset({_UNDEFINED_OBJECT, _NO_PRIVILEGE, _INVALID_GRANT}),
        "not granted or revoked",
    ),
    Rule(
        "setting",
        _pattern(rb"SET\s+(?!(?:LOCAL\s|SESSION\s+AUTHORIZATION|ROLE\s|client_encoding|standard_conforming_strings))"),
        frozenset({_UNDEFINED_OBJECT, _NO_PRIVILEGE, _INVALID_VALUE}),
        "the server does not take this setting",
    ),
    Rule(
        "comment",
        _pattern(rb"COMMENT\s+ON\s+(?:EXTENSION|SCHEMA\s+public\s)"),
        frozenset({_NO_PRIVILEGE}),
        "the comment belongs to an object of the server's own",
    ),
    Rule(
        "not restored",
        _pattern(rb"CREATE\s+(?:PUBLICATION|EVENT\s+TRIGGER|SUBSCRIPTION)\s"),
        frozenset({_NO_PRIVILEGE}),
        "the server lets only a superuser create it",
    ),
    Rule(
        "not restored",
        _pattern(rb"SELECT\s+(?:\*\s+FROM\s+)?pg_catalog\.pg_restore_(?:relation|attribute|extended)_stats\s*\("),
        frozenset({_UNDEFINED_FUNCTION, _NO_PRIVILEGE}),
        "the server does not take statistics from a dump; ANALYZE makes new ones",
    ),
    Rule("exists", _pattern(rb"CREATE\s+SCHEMA\s+public\s*;"), frozenset({_DUPLICATE_SCHEMA}), "it is there already"),
    Rule(
        "clean",
        _pattern(rb"(?:DROP\s|ALTER\s.*\sDROP\s|SELECT\s+pg_catalog\.lo_unlink\()"),
        _UNDEFINED,
        "nothing to drop in a new database",
        unlabelled=True,
    ),
    # What pg_dump --clean writes to part views that depend on each other before it drops them.
    Rule(
        "clean",
        _pattern(rb"CREATE\s+OR\s+REPLACE\s+VIEW\s.*\sAS\s+SELECT\s+NULL::"),
        _UNDEFINED,
        "nothing to drop in a new database",
        unlabelled=True,
    ),
)

# What --strict may name: the rules' kinds, and what else a restore may do otherwise than the source was.
STRICT_KINDS = tuple(dict.fromkeys([*(rule.kind for rule in RULES), "collation", "database", "rows"]))
# Nothing is lost by these, and most dumps need them.
LOSSLESS_KINDS = frozenset({"exists", "clean"})


def strict_kinds(names: Collection[str]) -> frozenset[str]:
    """Return the kinds that --strict's words name; "all" is those by which something is lost.

    Raises UsageError for a word that is none.
    """
    known = {kind.replace(" ", "-"): {kind} for kind in STRICT_KINDS} | {"all": set(STRICT_KINDS) - LOSSLESS_KINDS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--strict {unknown[0]} is no kind of note", hint=f"the kinds are {', '.join(known)}")
    return frozenset().union(*(known[name] for name in names))


_OF_THE_DATABASE = _pattern(
    rb"(?:(?:CREATE|ALTER|DROP)\s+DATABASE\s|COMMENT\s+ON\s+DATABASE\s|SECURITY\s+LABEL\s.*\sON\s+DATABASE\s"
    rb"|(?:GRANT|REVOKE)\s[^;'$]*\sON\s+DATABASE\s)"
)
_LOSABLE = _pattern(
    rb"(?:CREATE|ALTER|DROP|COMMENT\s+ON)\s+(PUBLICATION|EVENT\s+TRIGGER|SUBSCRIPTION)\s+(?:IF\s+EXISTS\s+)?("
    + IDENTIFIER
    + rb")"
)


# Statements that do not go without the roles they name: a policy for other roles, or none, would show other rows.
_NAMES_ROLES = _pattern(rb"(?:CREATE|ALTER)\s+(?:POLICY|USER\s+MAPPING|SCHEMA)\s")
_MISSING_ROLE = re.compile(r'role (".+") does not exist')
_UNDEFINED_TABLE = "42P01"
_UNDEFINED_SCHEMA = "3F000"
_FOREIGN_KEY_BROKEN = "23503"
_WITH_DATA = _pattern(rb"(?:COPY|INSERT|ALTER\s+TABLE|SELECT\s+pg_catalog\.setval|CREATE\s+(?:UNIQUE\s+)?INDEX)\b")

_FOREIGN_KEY = _pattern(rb"ALTER\s+TABLE\s.*\s(?:FOREIGN\s+KEY|VALIDATE\s+CONSTRAINT)\s")


def hint(statement: Statement, error: psycopg.Error, user: str, *, acting: bool = False) -> str | None:
    """Return what to do about a failure that no rule excuses, None where only the server may know.

    ``user`` is the role the statement ran as, ``acting`` whether the dump chose it.
    """
    state = error.sqlstate
    missing = _MISSING_ROLE.search(error.diag.message_primary or "")
    if missing is not None and _NAMES_ROLES.match(statement.text):
        return (
            f"the server has no role {missing.group(1)}: create it, or run the globals that `recovery backup` wrote"
            " beside the dump, `psql -X -f BACKUP.globals.sql`, as a role that may create roles; then restore again"
        )
    if state == _NO_PRIVILEGE and acting:
        return (
            f"the dump does this as the role {user}, which may not: grant it what it needs on the target (`GRANT CREATE"
            " ON DATABASE` there is carried over), or dump without --use-set-session-authorization"
        )
    if state == _NO_PRIVILEGE:
        return (
            f"the role {user} may not do this: restore as a role that may, or drop the object at the source, or leave"
            " it out of the dump"
        )
    if state in {_UNDEFINED_TABLE, _UNDEFINED_SCHEMA} and _WITH_DATA.match(statement.text):
        return (
            "a dump of the data or of one section alone needs what comes before it: put the pieces together in order,"
            " as in `cat pre-data.sql data.sql post-data.sql`, and restore that"
        )
    if state == _FOREIGN_KEY_BROKEN and _FOREIGN_KEY.match(statement.text):
        return (
            "rows of the source break this key. With the manifest that lies beside a backup it is restored NOT VALID;"
            " without one, or on a partitioned table before PostgreSQL 18: take this line out of the dump and restore"
            " that, or mend the rows at the source and back up again"
        )
    return None


@dataclasses.dataclass(frozen=True)
class Wording:
    """What servers before ``first`` do not know: ``part`` of statements that match is left out, noted as ``kind``.

    The group "part" may be a list of words at commas, of which only ``word`` is left out; where it was the only one, so
    is the whole statement.
    """

    first: int
    pattern: re.Pattern[bytes]
    kind: str
    text: str
    word: bytes | None = None

    def apply(self, text: bytes) -> bytes | None:
        """Return what is left of a statement, None when nothing is; the statement itself when it does not match."""
        found = self.pattern.match(text)
        if found is None:
            return text
        left = b"" if self.word is None else b",".join(w for w in found["part"].split(b",") if w != self.word)
        if self.word is not None and not left:
            return None
        return text[: found.start("part")] + left + text[found.end("part") :]


# As pg_dump writes them, whatever server it reads: nothing else does, and what another hand wrote is tried as it is.
WORDINGS = (
    # A GRANT that names this privilege among others is refused as a whole.
    Wording(
        170000,
        re.compile(
            rb"(?:ALTER DEFAULT PRIVILEGES .*?)?(?:GRANT|REVOKE) (?:GRANT OPTION FOR )?"
            rb"(?P<part>[A-Z,]*\bMAINTAIN\b[A-Z,]*) ON ",
            re.DOTALL,
        ),
        "privileges",
        "the server does not know the privilege MAINTAIN",
        word=b"MAINTAIN",
    ),
    # Said of a sequence that is not as its table is: those of unlogged tables were all logged before 15.
    Wording(
        150000,
        re.compile(
            rb"ALTER TABLE (?:ONLY )?" + QUALIFIED + rb" ALTER COLUMN " + IDENTIFIER + rb" ADD GENERATED "
            rb"(?:ALWAYS|BY DEFAULT) AS IDENTITY \(\n    SEQUENCE NAME "
            + QUALIFIED
            + rb"(?P<part>\n    (?:UN)?LOGGED)\n"
        ),
        "setting",
        "the sequences of this server are all logged",
    ),
    Wording(
        140000,
        re.compile(
            rb"CREATE TYPE " + QUALIFIED + rb" AS RANGE \(\n    subtype = [^\n]*"
            rb"(?P<part>,\n    multirange_type_name = " + QUALIFIED + rb")(?=[,\n])"
        ),
        "not restored",
        "the server has no types of multiranges",
    ),
)


class Rulebook:
    """The rules as they apply to one restore; remembers what was not restored, since later statements refer to it.

    Without ``owner`` or ``privileges`` nothing of those is tried.
    """

    def __init__(self, *, owner: bool = True, privileges: bool = True) -> None:
        left_out = {"owner": not owner, "privileges": not privileges}
        self._unwanted = tuple(rule for rule in RULES if left_out.get(rule.kind))
        self._lost: set[tuple[bytes, str]] = set()

    def worded_for(self, statement: Statement, server_version: int) -> tuple[Statement | None, Wording | None]:
        """Return the statement as this server can take it, None when nothing of it is left; and why it is another."""
        for wording in WORDINGS:
            if server_version < wording.first:
                text = wording.apply(statement.text)
                if text is None:
                    return None, wording
                if text is not statement.text:
                    return dataclasses.replace(statement, text=text), wording
        return statement, None

    def left_out(self, statement: Statement) -> tuple[str, str] | None:
        """Return (kind, text) of the note on a statement that is not even tried, None for all others."""
        if _OF_THE_DATABASE.match(statement.text):
            text = (
                "it concerns the dumped database itself, whose owner, settings and privileges --database-state decides"
            )
            return "database", text
        for rule in self._unwanted:
            if rule.pattern.match(statement.text):
                return rule.kind, f"left out, as --no-{rule.kind} says"
        return None

    def excuse(self, statement: Statement, error: psycopg.Error) -> tuple[str, str] | None:
        """Return (kind, text) of the note when this failure is one that a rule accepts, else None."""
        state = error.sqlstate or ""
        losable = _losable(statement)
        if losable in self._lost and state == _UNDEFINED_OBJECT:
            return "not restored", "what it belongs to was not restored"
        for rule in RULES:
            if state in rule.sqlstates and rule.pattern.match(statement.text):
                if rule.unlabelled and statement.label is not None:
                    continue
                if rule.kind == "not restored" and losable is not None:
                    self._lost.add(losable)
                return rule.kind, f"{rule.text} ({error.diag.message_primary})"
        return None


def _losable(statement: Statement) -> tuple[bytes, str] | None:
    found = _LOSABLE.match(statement.text)
    if found is None:
        return None
    return b" ".join(found.group(1).upper().split()), unquote(found.group(2))
