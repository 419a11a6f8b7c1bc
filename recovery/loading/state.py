"""What belongs to a database itself and stands in no dump of it: owner, locale, settings, privileges, comment."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from recovery.loading.session import Connection

_FIRST_WITH_PROVIDERS = 150000

# Settings whose value is a list of names that is already quoted (GUC_LIST_QUOTE in guc_tables.c).
_LISTS_OF_NAMES = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_LIST_PART = re.compile(r'"((?:[^"]|"")*)"|([^",\s]+)')

# What read_state's first query returns behind the oid, by the names of DatabaseState.
_COLUMNS = (
    "owner",
    "ours",
    "encoding",
    "collate",
    "ctype",
    "provider",
    "locale",
    "rules",
    "tablespace",
    "connection_limit",
    "is_template",
    "comment",
)


@dataclasses.dataclass(frozen=True)
class DatabaseState:
    """A database's own state.  ``ours`` says whether our role may act as the owner.

    ``grants`` are (grantee or None for PUBLIC, privilege, with grant option), None for the built-in default.
    ``settings`` are (role or None for all, name, value).
    """

    name: str
    owner: str
    ours: bool
    encoding: str
    collate: str | None
    ctype: str | None
    provider: str
    locale: str | None
    rules: str | None
    tablespace: str
    connection_limit: int
    is_template: bool
    comment: str | None
    grants: tuple[tuple[str | None, str, bool], ...] | None
    settings: tuple[tuple[str | None, str, str], ...]

    @property
    def sorting(self) -> str:
        """Encoding and locale, for people."""
        provider = {"i": "ICU ", "b": "builtin "}.get(self.provider, "")
        return f"{self.encoding}, {provider}{self.locale or self.collate}"

    def create_clauses(self, server_version: int) -> sql.Composed:
        """The clauses of CREATE DATABASE that make another one like it."""
        clauses: list[sql.Composable] = [
            sql.SQL("TEMPLATE template0 OWNER {} ENCODING {}").format(
                sql.Identifier(self.owner), sql.Literal(self.encoding)
            )
        ]
        if self.provider == "i":
            clauses.append(sql.SQL("LOCALE_PROVIDER icu ICU_LOCALE {}").format(sql.Literal(self.locale)))
            if self.rules:
                clauses.append(sql.SQL("ICU_RULES {}").format(sql.Literal(self.rules)))
        elif self.provider == "b":
            clauses.append(sql.SQL("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(sql.Literal(self.locale)))
        elif server_version >= _FIRST_WITH_PROVIDERS:
            clauses.append(sql.SQL("LOCALE_PROVIDER libc"))  # template0's may be another one
        clauses.append(sql.SQL("LC_COLLATE {} LC_CTYPE {}").format(sql.Literal(self.collate), sql.Literal(self.ctype)))
        if self.tablespace != "pg_default":
            clauses.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(self.tablespace)))
        return sql.SQL(" ").join(clauses)

    def let_create(self, admin: Connection, database: str) -> None:
        """Let those create in ``database`` who may in this one: a dump may act as them (SET SESSION AUTHORIZATION)."""
        for grantee, privilege, _ in self.grants or ():
            if privilege == "CREATE":
                # Whoever may not grant, or to whom, is told so when all of the state is applied.
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject):
                    admin.execute(
                        sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                            sql.Identifier(database), sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
                        )
                    )

    def apply(self, admin: Connection, database: str) -> list[tuple[str, str | None]]:
        """Give ``database`` this state, within a transaction; return what the role may not set, and why."""
        name = sql.Identifier(database)
        statements: list[sql.Composed] = []
        if self.grants is not None:
            statements.append(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC, {}").format(name, sql.Identifier(self.owner))
            )
            for grantee, privilege, grantable in self.grants:
                statements.append(
                    sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                        sql.SQL(privilege),
                        name,
                        sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
                        sql.SQL(" WITH GRANT OPTION" if grantable else ""),
                    )
                )
        for role, setting, value in self.settings:
            start = (
                sql.SQL("ALTER DATABASE {}").format(name)
                if role is None
                else sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), name)
            )
            statements.append(
                sql.SQL("{} SET {} = {}").format(start, _setting_name(setting), _setting_value(setting, value))
            )
        if self.connection_limit != -1:
            limit = sql.SQL(str(self.connection_limit))
            statements.append(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, limit))
        if self.is_template:
            statements.append(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(name))
        return [refused for statement in statements if (refused := try_to_set(admin, statement)) is not None]


def try_to_set(admin: Connection, statement: sql.Composed) -> tuple[str, str | None] | None:
    """Run a statement within a transaction that goes on without it; return it and why, where the role may not."""
    try:
        with admin.transaction():
            admin.execute(statement)
    except psycopg.Error as error:
        if error.sqlstate is None:  # the connection is lost
            raise
        return statement.as_string(admin), error.diag.message_primary
    return None


def read_state(admin: Connection, database: str) -> DatabaseState | None:
    """Read a database's state through a connection to any database of its server; None when it does not exist."""
    version = admin.info.server_version
    provider = "d.datlocprovider::text" if version >= 150000 else "'c'"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "NULL"
    rules = "d.daticurules" if version >= 160000 else "NULL"
    # Since 16 a membership may be without SET or INHERIT; acting as the owner takes both.
    ours = "pg_catalog.pg_has_role(d.datdba, 'USAGE')"
    if version >= 160000:
        ours += " AND pg_catalog.pg_has_role(d.datdba, 'SET')"
    row: Any = admin.execute(
        "SELECT d.oid, pg_catalog.pg_get_userbyid(d.datdba), "  # noqa: S608  # only the columns of this server's version
        f"{ours}, pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {provider}, {locale}, {rules}, "
        "t.spcname, d.datconnlimit, d.datistemplate, pg_catalog.shobj_description(d.oid, 'pg_database') "
        "FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = %s",
        [database],
    ).fetchone()
    if row is None:
        return None
    oid = row[0]
    columns = dict(zip(_COLUMNS, row[1:], strict=True))
    has_grants = admin.execute("SELECT datacl IS NOT NULL FROM pg_catalog.pg_database WHERE oid = %s", [oid]).fetchone()
    grants: Any = admin.execute(
        "SELECT r.rolname, a.privilege_type, a.is_grantable FROM pg_catalog.pg_database d, "
        "LATERAL pg_catalog.aclexplode(d.datacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee "
        "WHERE d.oid = %s AND (a.grantee = 0 OR r.oid IS NOT NULL)",
        [oid],
    ).fetchall()
    settings: Any = admin.execute(
        "SELECT r.rolname, pg_catalog.split_part(s, '=', 1), pg_catalog.substr(s, pg_catalog.strpos(s, '=') + 1) "
        "FROM pg_catalog.pg_db_role_setting d LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.setrole, "
        "pg_catalog.unnest(d.setconfig) WITH ORDINALITY AS u(s, n) WHERE d.setdatabase = %s "
        "ORDER BY 1 NULLS FIRST, u.n",
        [oid],
    ).fetchall()
    return DatabaseState(
        name=database, **columns, grants=tuple(grants) if has_grants == (True,) else None, settings=tuple(settings)
    )


def _setting_name(setting: str) -> sql.Composable:
    return sql.SQL(".").join([sql.Identifier(part) for part in setting.split(".")])


def _setting_value(setting: str, value: str) -> sql.Composable:
    if setting not in _LISTS_OF_NAMES:
        return sql.Literal(value)
    names = [quoted.replace('""', '"') if quoted or not plain else plain for quoted, plain in _LIST_PART.findall(value)]
    return sql.SQL(", ").join([sql.Literal(name) for name in names]) if names else sql.SQL("''")
