"""What a database is besides its rows: objects, extensions, roles, collations and its own state."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, cast

import psycopg

from recovery.dumps import objects_sql, session
from recovery.dumps.manifest import Collation, DatabaseState, Extension, Membership, Role, SchemaObject, Sizes
from recovery.dumps.session import LOCK_TIMEOUT_SECONDS
from recovery.dumps.snapshot import explained

_FIRST_WITH_DATABASE_COLLATIONS = 15
_FIRST_WITH_ICU_RULES = 16
_FIRST_WITH_DATABASE_LOCALE = 17
_FIRST_WITH_MEMBERSHIP_OPTIONS = 16

_EXTENSIONS = """
SELECT e.extname::pg_catalog.text, e.extversion, n.nspname::pg_catalog.text
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1
"""

_ROLES = """
SELECT r.rolname::pg_catalog.text,
       pg_catalog.array_remove(ARRAY[
         CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcanlogin THEN 'LOGIN' END,
         CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
         CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
         CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
         CASE WHEN r.rolconnlimit >= 0 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END,
         CASE WHEN r.rolvaliduntil IS NOT NULL THEN 'VALID UNTIL ' || r.rolvaliduntil END], NULL),
       ARRAY(SELECT c FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
              WHERE s.setrole = r.oid AND s.setdatabase = 0 ORDER BY c)
  FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1
"""

# Several roles may have granted the same membership, each with its own options; they add up.
_MEMBERSHIPS = """
SELECT member.rolname::pg_catalog.text, granted.rolname::pg_catalog.text, pg_catalog.bool_or(m.admin_option), {options}
  FROM pg_catalog.pg_auth_members m
  JOIN pg_catalog.pg_roles granted ON granted.oid = m.roleid
  JOIN pg_catalog.pg_roles member ON member.oid = m.member
 GROUP BY 1, 2 ORDER BY 1, 2
"""

# Collations that columns of this database name; the default one belongs to the database.
_COLLATIONS = """
SELECT n.nspname || '.' || c.collname, c.collprovider::pg_catalog.text,
       pg_catalog.pg_collation_actual_version(c.oid)
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
 WHERE c.collprovider <> 'd'
   AND c.oid IN (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0)
 ORDER BY 1
"""

_STALE = """
SELECT n.nspname || '.' || c.collname
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
 WHERE c.collprovider <> 'd' AND c.collversion <> pg_catalog.pg_collation_actual_version(c.oid)
   AND c.oid IN (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0)
 ORDER BY 1
"""

_STALE_DATABASE = """
SELECT FROM pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
   AND d.datcollversion <> pg_catalog.pg_database_collation_actual_version(d.oid)
"""

_DATABASE = """
SELECT d.datname::pg_catalog.text, pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text,
       pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text, d.datcollate::pg_catalog.text,
       d.datctype::pg_catalog.text, {provider}, {locale}, {version},
       CASE WHEN d.datacl IS NOT NULL
            THEN ARRAY(SELECT x::pg_catalog.text FROM pg_catalog.unnest(d.datacl) x ORDER BY 1) END,
       ARRAY(SELECT CASE WHEN s.setrole = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole) || ': ' END || c
               FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
              WHERE s.setdatabase = d.oid ORDER BY 1),
       d.datconnlimit, pg_catalog.shobj_description(d.oid, 'pg_database'), {rules}
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""

_DATABASE_COLUMNS = (
    "name",
    "owner",
    "encoding",
    "collate",
    "ctype",
    "provider",
    "locale",
    "collation_version",
    "privileges",
    "settings",
    "connection_limit",
    "comment",
    "icu_rules",
)

_SYSTEM_IDENTIFIER = """
SELECT CASE WHEN pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
            THEN (SELECT c.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() c) END
"""


# Without catalogues; a relation that is dropped meanwhile has no size.
_SIZES = """
SELECT COALESCE(sum(pg_catalog.pg_table_size(c.oid)), 0)::pg_catalog.int8,
       COALESCE(sum(pg_catalog.pg_indexes_size(c.oid)), 0)::pg_catalog.int8
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""


@dataclasses.dataclass(frozen=True)
class Description:
    """All of it, as the session's transaction sees it."""

    objects: tuple[SchemaObject, ...]
    extensions: tuple[Extension, ...]
    roles: tuple[Role, ...]
    collations: tuple[Collation, ...]
    database_state: DatabaseState
    sizes: Sizes | None
    system_identifier: str | None
    notes: tuple[str, ...] = ()


def describe(
    connection: psycopg.Connection[tuple[object, ...]], *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> Description:
    """Read everything there is to say about the database besides its rows.

    Raises RefusedError when the role may not read something, EnvironmentLacksError when the server goes away,
    RecoveryError when anything else keeps it from being read.
    """
    with explained("the database could not be described", lock_timeout_seconds=lock_timeout_seconds):
        return _describe(connection)


def _describe(connection: psycopg.Connection[tuple[object, ...]]) -> Description:
    return Description(
        objects=read_objects(connection),
        extensions=read_extensions(connection),
        roles=read_roles(connection),
        collations=read_collations(connection),
        database_state=read_database(connection),
        sizes=read_sizes(connection),
        system_identifier=_rows(connection, _SYSTEM_IDENTIFIER)[0][0],
    )


def read_objects(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[SchemaObject, ...]:
    """Return every object of the database but extensions and their members, with the fingerprint of its definition."""
    return tuple(
        SchemaObject(
            kind=kind,
            identity=identity,
            fingerprint=hashlib.sha256((definition or "").encode()).hexdigest()[:32],
            owner=owner,
            privileges=tuple(privileges) if privileges is not None else None,
        )
        for kind, identity, definition, owner, privileges in _rows(
            connection, objects_sql.objects(session.major_of(connection))
        )
    )


def read_roles(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[Role, ...]:
    """Return the cluster's roles but the server's own, with their memberships and role-wide settings."""
    modern = session.major_of(connection) >= _FIRST_WITH_MEMBERSHIP_OPTIONS
    options = "pg_catalog.bool_or(m.inherit_option), pg_catalog.bool_or(m.set_option)" if modern else "NULL, NULL"
    memberships: dict[str, list[Membership]] = {}
    for member, role, admin, inherit, set_role in _rows(connection, _MEMBERSHIPS.format(options=options)):
        memberships.setdefault(member, []).append(
            Membership(role=role, admin=admin, inherit=inherit, set_role=set_role)
        )
    return tuple(
        Role(
            name=name,
            attributes=tuple(attributes),
            member_of=tuple(membership.role for membership in memberships.get(name, ())),
            memberships=tuple(memberships.get(name, ())),
            settings=tuple(settings),
        )
        for name, attributes, settings in _rows(connection, _ROLES)
    )


def read_extensions(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[Extension, ...]:
    """Return the installed extensions."""
    return tuple(Extension(name=n, version=v, schema_name=s) for n, v, s in _rows(connection, _EXTENSIONS))


def read_collations(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[Collation, ...]:
    """Return the collations that columns name, with the versions their providers have on this server."""
    return tuple(Collation(name=n, provider=p, version=v) for n, p, v in _rows(connection, _COLLATIONS))


def read_database(connection: psycopg.Connection[tuple[object, ...]]) -> DatabaseState:
    """Return the state of the database itself."""
    major = session.major_of(connection)
    modern = major >= _FIRST_WITH_DATABASE_COLLATIONS
    locale = "d.datlocale" if major >= _FIRST_WITH_DATABASE_LOCALE else "d.daticulocale" if modern else "NULL"
    query = _DATABASE.format(
        provider="d.datlocprovider::pg_catalog.text" if modern else "'c'",
        locale=f"{locale}::pg_catalog.text",
        rules="d.daticurules::pg_catalog.text" if major >= _FIRST_WITH_ICU_RULES else "NULL::pg_catalog.text",
        version="pg_catalog.pg_database_collation_actual_version(d.oid)" if modern else "NULL::pg_catalog.text",
    )
    row = _rows(connection, query)[0]
    return DatabaseState.model_validate(dict(zip(_DATABASE_COLUMNS, row, strict=True)))


def read_sizes(connection: psycopg.Connection[tuple[object, ...]]) -> Sizes | None:
    """Return how much tables and indexes take on the server's disk, None while one of them is locked.

    To ask waits for the lock, and a restore's forecast, all that the sizes are for, is no reason to fail a backup.
    """
    try:
        with connection.transaction():
            tables, indexes = _rows(connection, _SIZES)[0]
    except psycopg.errors.LockNotAvailable:
        return None
    return Sizes(tables=tables, indexes=indexes)


def _rows(connection: psycopg.Connection[tuple[object, ...]], query: str) -> list[tuple[Any, ...]]:
    return cast("list[tuple[Any, ...]]", connection.execute(query.encode()).fetchall())


def stale_collations(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Name the collations whose recorded version is not the one the server's library has now."""
    found = [str(name) for (name,) in _rows(connection, _STALE)]
    if session.major_of(connection) >= _FIRST_WITH_DATABASE_COLLATIONS and _rows(connection, _STALE_DATABASE):
        found.insert(0, "the database's default")
    return found
