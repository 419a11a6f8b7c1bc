"""Whatever schema hypothesis thinks of, with its rows, is restored as psql restores it.

Each example is a script of SQL: types, functions, tables of every kind, rows with their types' edge values,
constraints, indexes, views, triggers, policies, privileges, comments, under names that are hard to write.  A statement
that the server refuses is left out, so the script may try anything; that most of it is taken is part of the test.
GENERATED_SCHEMAS=300 tries as many, others each time; without it the examples are few and always the same.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.restore import restore
from recovery.verify import Outcome, verify

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow  # many restores into real servers

EXAMPLES = int(os.environ.get("GENERATED_SCHEMAS", "25"))
EDGES: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("edge_values.toml").read_text("utf-8"))
ROLES = ("generated_owner", '"generated ""reader"', "PUBLIC")
ODD_NAMES = EDGES.pop("odd names")
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ACTIONS = ("", " ON DELETE CASCADE", " ON UPDATE SET NULL", " ON DELETE SET DEFAULT ON UPDATE CASCADE", " MATCH FULL")
DEFERS = ("", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED")
# INSERTs with their columns: pg_dump's own without them do not fit a child table whose parent got a column later.
STYLES = ("", "", "", "--column-inserts", "--column-inserts --rows-per-insert=3 --on-conflict-do-nothing --clean",
          "--quote-all-identifiers --disable-triggers", "--load-via-partition-root --clean --if-exists")  # fmt: skip
BIG_VALUES = ("min(repeat(E'\\\\\\t\\n', 4000))", "string_agg(md5(g::text), E'\\n')")


def literal(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A type of column: how it is written and some expressions that give its values."""

    sql: str
    values: tuple[str, ...]


@dataclasses.dataclass
class Table:
    """A table that was asked for: its qualified name, its key column and all columns by identifier."""

    sql: str
    key: str
    columns: dict[str, Kind]
    partition_columns: tuple[str, ...] = ()
    target: bool = False  # has a key that foreign keys can refer to


class Script:
    """Draws one script; ``statements`` is what came out."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.statements: list[str] = []
        self.count = 0
        self.kinds = [Kind(sql, tuple(f"{literal(v)}::{sql}" for v in values)) for sql, values in EDGES.items()]
        self.functions: list[str] = []
        self.tables: list[Table] = []
        self.views: list[str] = []

    # -- drawing

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) < percent

    def pick(self, options: Any) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def some(self, options: Any, most: int) -> list[Any]:
        chosen = [self.pick(options) for _ in range(self.draw(st.integers(1, most)))] if options else []
        return list(dict.fromkeys(chosen))

    def name(self) -> str:
        """An identifier that nothing else of the script has."""
        self.count += 1
        number = str(self.count)
        match self.draw(st.integers(0, 4)):
            case 0:
                text = self.pick(ODD_NAMES)
            case 1:
                text = self.draw(TEXTS)
            case 2:
                text = self.pick("xé表🐘") * 63
            case _:
                text = "n"
        text = str(text).encode()[: 63 - len(number)].decode("utf-8", "ignore") + number
        return '"' + text.replace('"', '""') + '"'

    def qualified(self) -> str:
        return f"{self.pick(self.schemas)}.{self.name()}"

    def say(self, statement: str) -> None:
        self.statements.append(statement)

    def perhaps(self, percent: int, statement: str) -> None:
        if self.chance(percent):
            self.say(statement)

    def value(self, kind: Kind) -> str:
        if kind.values == ("DEFAULT",) or self.chance(8):
            return "DEFAULT"
        if self.chance(12):
            return "NULL"
        if kind.sql in {"text", "varchar(7)", "name"} and self.chance(50):
            return f"{literal(self.draw(TEXTS))}::{kind.sql}"
        if kind.sql == "bytea" and self.chance(50):
            return f"'\\x{self.draw(st.binary(max_size=12)).hex()}'::bytea"
        return str(self.pick(kind.values))

    # -- objects

    def write(self) -> list[str]:
        self.schemas = ["public", *(self.name() for _ in range(self.draw(st.integers(1, 2))))]
        for schema in self.schemas[1:]:
            self.say(f"CREATE SCHEMA {schema} AUTHORIZATION {self.pick(('postgres', 'generated_owner'))}")
        some = ((self.add_type, 1, 5), (self.add_function, 1, 3), (self.add_sequence, 0, 2), (self.add_table, 2, 5))
        for add, least, most in some:
            for _ in range(self.draw(st.integers(least, most))):
                add()
        for table in self.tables:
            self.add_rows(table)
        for table in self.tables:
            self.add_constraints(table)
            self.add_indexes(table)
        self.add_foreign_keys()
        for _ in range(self.draw(st.integers(0, 4))):
            self.add_view()
        for table in self.tables:
            self.add_programs(table)
        self.add_rest()
        return self.statements

    def add_type(self) -> None:
        name, base = self.qualified(), self.pick(self.kinds)
        match self.pick(("domain", "enum", "composite", "range")):
            case "domain":
                rest = self.pick(("", " NOT NULL", f" DEFAULT {base.values[0]}", " CHECK (VALUE IS NOT NULL OR true)"))
                self.say(f"CREATE DOMAIN {name} AS {base.sql}{rest}")
                self.kinds.append(Kind(name, base.values))
            case "enum":
                labels = [f"l{number}{self.pick(ODD_NAMES)}" for number in range(3)]
                self.say(f"CREATE TYPE {name} AS ENUM ({', '.join(literal(label) for label in labels)})")
                self.kinds.append(Kind(name, tuple(f"{literal(label)}::{name}" for label in labels)))
            case "composite":
                other = self.pick(self.kinds)
                self.say(f"CREATE TYPE {name} AS ({self.name()} {base.sql}, {self.name()} {other.sql})")
                rows = [f"ROW({self.value(base)}, {self.value(other)})::{name}" for _ in range(3)]
                self.kinds.append(Kind(name, tuple(rows)))
            case _:
                subtype = self.pick(("text", "double precision", "time"))
                base = next(kind for kind in self.kinds if kind.sql == subtype)
                self.say(
                    f"CREATE TYPE {name} AS RANGE (subtype = {base.sql}, multirange_type_name = {self.qualified()})"
                )
                self.kinds.append(Kind(name, (f"{name}({base.values[0]}, NULL)", f"{name}(NULL, NULL, '()')")))

    def add_function(self) -> None:
        name = self.qualified()
        body = self.pick(
            (
                "LANGUAGE sql IMMUTABLE AS $_$ SELECT $1 % 7; -- ; $_$",
                "LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE WHEN i > 0 THEN i ELSE -i END",
                "LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT CASE WHEN i > 0 THEN i ELSE 0 END; END",
                "LANGUAGE plpgsql IMMUTABLE STRICT COST 7 AS 'BEGIN /* ''; */ RETURN i; END'",
            )
        )
        self.say(f"CREATE FUNCTION {name}(i int) RETURNS int {body}")
        self.functions.append(name)

    def add_sequence(self) -> None:
        name = self.qualified()
        options = self.pick(("AS smallint CYCLE", "INCREMENT -3 MAXVALUE 5 MINVALUE -100", "CACHE 20 START 7", ""))
        self.say(f"CREATE {self.pick(('', 'UNLOGGED '))}SEQUENCE {name} {options}")
        self.say(f"SELECT setval({literal(name)}, 5, {self.pick(('true', 'false'))})")

    def column(self, key: str) -> tuple[str, Kind, str]:
        """A column's identifier, its kind and its definition behind the type."""
        name, kind = self.name(), self.pick(self.kinds)
        if self.chance(20):
            kind = Kind(f"{kind.sql}[]", tuple(f"ARRAY[{v}, NULL]::{kind.sql}[]" for v in kind.values[:3]))
        integer, computed = Kind("integer", ("1",)), Kind("integer", ("DEFAULT",))
        match self.draw(st.integers(0, 9)):
            case 0:
                function = self.pick(self.functions)
                expression = self.pick((f"{key} * 2", f"{function}({key})", f"length({key}::text)"))
                return name, computed, f"GENERATED ALWAYS AS ({expression}) STORED"
            case 1:
                options = self.pick(("", "(START 5 INCREMENT 3)", "(MINVALUE -10 START -10 CACHE 3 CYCLE)"))
                return name, computed, f"GENERATED {self.pick(('ALWAYS', 'BY DEFAULT'))} AS IDENTITY {options}"
            case 2:
                return name, kind, f"DEFAULT {self.pick(kind.values)}"
            case 3:
                return name, integer, f"DEFAULT {self.pick(self.functions)}(3) NOT NULL"
            case 4 if kind.sql == "text":
                return name, kind, f'COLLATE "{self.pick(("C", "POSIX", "ucs_basic"))}"'
            case _:
                return name, kind, self.pick(("", "", "", "NOT NULL", "NULL"))

    def add_table(self) -> None:
        name, key, part = self.qualified(), self.name(), self.name()
        kinds = {kind.sql: kind for kind in self.kinds}
        columns = {key: kinds["integer"], part: kinds["text"]}
        definitions = [f"{key} integer NOT NULL", f"{part} text"]
        for _ in range(self.draw(st.integers(0, 6))):
            column, kind, rest = self.column(key)
            columns[column] = kind
            definitions.append(f"{column} {kind.sql} {rest}")
        if self.chance(25):
            checked = self.pick(
                (f"{key} > -100", f"{self.pick(self.functions)}({key}) IS NOT NULL", f"{part} <> '\\.;'")
            )
            definitions.append(f"CONSTRAINT {self.name()} CHECK ({checked}){self.pick(('', ' NO INHERIT'))}")
        body = f"({', '.join(definitions)})"
        table = Table(name, key, columns)
        match self.draw(st.integers(0, 6)):
            case 0:
                self.add_partitioned(table, body, part)
            case 1 if parents := [other for other in self.tables if not other.partition_columns]:
                parent = self.pick(parents)
                self.say(f"CREATE TABLE {name} ({self.name()} date) INHERITS ({parent.sql})")
                table = Table(name, parent.key, parent.columns)
            case 2:
                self.say(f"CREATE UNLOGGED TABLE {name} {body}")
            case _:
                options = self.pick(("", "", " WITH (fillfactor=70, autovacuum_enabled=off)"))
                self.say(f"CREATE TABLE {name} {body}{options}")
                if self.chance(20):
                    self.say(f"ALTER TABLE {name} ADD COLUMN {self.name()} int DEFAULT 1, DROP COLUMN {part}")
                    del columns[part]
        self.tables.append(table)

    def add_partitioned(self, table: Table, body: str, part: str) -> None:
        how = self.pick(("RANGE", "LIST", "HASH"))
        by = part if how == "LIST" else table.key
        table.partition_columns = (by,)
        self.say(f"CREATE TABLE {table.sql} {body} PARTITION BY {how} ({by})")
        bounds = {
            "RANGE": ("FOR VALUES FROM (MINVALUE) TO (3)", "FOR VALUES FROM (3) TO (2147483647)", "DEFAULT"),
            "LIST": ("FOR VALUES IN ('a', NULL)", "FOR VALUES IN (E'\\\\.', 'it''s')", "DEFAULT"),
            "HASH": tuple(f"FOR VALUES WITH (MODULUS 3, REMAINDER {number})" for number in range(3)),
        }[how]
        for number, bound in enumerate(bounds):
            piece = self.qualified()
            if number == 0 and self.chance(50):
                other = table.key if by == part else part
                nested = self.pick(("LIST", "HASH"))
                table.partition_columns = (by, other)
                self.say(f"CREATE TABLE {piece} PARTITION OF {table.sql} {bound} PARTITION BY {nested} ({other})")
                within = "DEFAULT" if nested == "LIST" else "FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
                self.say(f"CREATE TABLE {self.qualified()} PARTITION OF {piece} {within}")
            elif self.chance(30):  # with columns in another place than its parent's
                self.say(f"CREATE TABLE {piece} (dropped int, LIKE {table.sql} INCLUDING ALL)")
                self.say(f"ALTER TABLE {piece} DROP COLUMN dropped")
                self.say(f"ALTER TABLE {table.sql} ATTACH PARTITION {piece} {bound}")
            else:
                self.say(f"CREATE TABLE {piece} PARTITION OF {table.sql} {bound}")

    def add_rows(self, table: Table) -> None:
        for number in range(self.draw(st.integers(0, 6))):
            values = {column: self.value(kind) for column, kind in table.columns.items()}
            values[table.key] = str(number)
            into = f"INSERT INTO {table.sql} ({', '.join(values)})"
            self.say(f"{into} OVERRIDING SYSTEM VALUE VALUES ({', '.join(values.values())})")
        self.perhaps(10, f"INSERT INTO {table.sql} ({table.key}) SELECT g FROM generate_series(100, 3000) g")
        texts = [column for column, kind in table.columns.items() if kind.sql == "text"]
        if texts and self.chance(10):
            source = f"(SELECT {self.pick(BIG_VALUES)} FROM generate_series(1, 3000) g)"
            self.say(f"INSERT INTO {table.sql} ({table.key}, {texts[0]}) VALUES (50, left({source}, 60000))")

    def add_constraints(self, table: Table) -> None:
        alter = f"ALTER TABLE {table.sql} ADD CONSTRAINT {self.name()}"
        keys = ", ".join(dict.fromkeys((table.key, *table.partition_columns)))
        if self.chance(60):
            self.say(f"DELETE FROM {table.sql} WHERE {table.key} IN (SELECT {table.key} FROM {table.sql} GROUP BY 1"
                     " HAVING count(*) > 1)")  # fmt: skip
            kind = self.pick(("PRIMARY KEY", "PRIMARY KEY", "UNIQUE", "UNIQUE NULLS NOT DISTINCT"))
            defer = self.pick(DEFERS)
            self.say(f"{alter} {kind} ({keys}){self.pick(('', '', ' WITH (fillfactor=60)'))}{defer}")
            table.target = keys == table.key and not defer
        if self.chance(25):
            columns = self.some(list(table.columns), 3)
            include = f" INCLUDE ({self.pick(list(table.columns))})" if self.chance(30) else ""
            alter = f"ALTER TABLE {table.sql} ADD CONSTRAINT {self.name()}"
            self.say(f"{alter} UNIQUE ({', '.join(dict.fromkeys([*columns, table.key]))}){include}")
        self.perhaps(20, f"ALTER TABLE {table.sql} ADD CONSTRAINT {self.name()} CHECK ({table.key} > 2) NOT VALID")
        if self.chance(15):
            ranges = [column for column, kind in table.columns.items() if kind.sql.endswith("range")]
            for column in ranges[:1]:
                alter = f"ALTER TABLE {table.sql} ADD CONSTRAINT {self.name()}"
                self.say(f"{alter} EXCLUDE USING gist ({column} WITH -|-) WHERE ({table.key} > 1){self.pick(DEFERS)}")

    def add_indexes(self, table: Table) -> None:
        columns = list(table.columns)
        for _ in range(self.draw(st.integers(0, 3))):
            name, column = self.name(), self.pick(columns)
            what = self.pick(
                (
                    f"({column})",
                    f"({column} DESC NULLS LAST, {table.key})",
                    f"USING hash ({column})",
                    f"USING gin ({column})",
                    f"USING gist ({column})",
                    f"USING brin ({column}) WITH (pages_per_range=7)",
                    f"USING spgist ({column})",
                    f"({self.pick(self.functions)}({table.key}), (({table.key} + 1)))",
                    f'((({column})::text) COLLATE "C" text_pattern_ops)',
                    f"({table.key}) INCLUDE ({column}) WHERE {column} IS NOT NULL",
                    f"({column}) WITH (fillfactor=55, deduplicate_items=off) WHERE {table.key} > 1",
                )
            )
            unique = "UNIQUE " if what.startswith("(") and self.chance(20) else ""
            self.say(f"CREATE {unique}INDEX {name} ON {table.sql} {what}")
            self.perhaps(20, f"COMMENT ON INDEX {table.sql.rpartition('.')[0]}.{name} IS {literal(self.draw(TEXTS))}")
        self.perhaps(15, f"CREATE STATISTICS {self.qualified()} ON {', '.join(columns[:2])} FROM {table.sql}")
        self.perhaps(15, f"ALTER TABLE {table.sql} ALTER {self.pick(columns)} SET STATISTICS 33")
        self.perhaps(15, f"ALTER TABLE {table.sql} ALTER {self.pick(columns)} SET STORAGE EXTERNAL")

    def add_foreign_keys(self) -> None:
        targets = [table for table in self.tables if table.target]
        for _ in range(self.draw(st.integers(0, 4)) if targets else 0):
            table, other, column = self.pick(self.tables), self.pick(targets), self.name()
            self.say(f"ALTER TABLE {table.sql} ADD COLUMN {column} int")
            self.say(
                f"UPDATE {table.sql} SET {column} = (SELECT max({other.key}) FROM {other.sql}) WHERE {table.key} > 1"
            )
            key = f"FOREIGN KEY ({column}) REFERENCES {other.sql} ({other.key})"
            tail = f"{self.pick(ACTIONS)}{self.pick(DEFERS)}{self.pick(('', '', ' NOT VALID'))}"
            self.say(f"ALTER TABLE {table.sql} ADD CONSTRAINT {self.name()} {key}{tail}")

    def add_view(self) -> None:
        name, table = self.qualified(), self.pick(self.tables)
        source = self.pick(self.views) if self.views and self.chance(50) else table.sql
        query = self.pick(
            (
                f"SELECT * FROM {source}",
                f"SELECT count(*) AS {self.name()}, ';--''\\' AS {self.name()} FROM {source}",
                f"SELECT a.*, 1 AS {self.name()} FROM {source} a LEFT JOIN {table.sql} b ON b.{table.key} > 1",
                # All columns by a primary key: the view belongs to the key.
                f"SELECT * FROM {table.sql}{f' GROUP BY {table.key}' if table.target else ''}",
                f"SELECT {self.pick(self.functions)}({table.key}) AS {table.key} FROM {table.sql} ORDER BY 1",
            )
        )
        if self.chance(40):
            self.say(f"CREATE MATERIALIZED VIEW {name} AS {query}{self.pick(('', '', ' WITH NO DATA'))}")
            self.say(f"CREATE INDEX {self.name()} ON {name} (({name.rpartition('.')[2]} IS NULL))")
            self.say(f"CREATE UNIQUE INDEX {self.name()} ON {name} ({table.key})")
        else:
            self.say(f"CREATE VIEW {name}{self.pick(('', ' WITH (security_barrier)'))} AS {query}")
            self.perhaps(20, f"CREATE RULE {self.name()} AS ON DELETE TO {name} DO INSTEAD (SELECT 1; NOTIFY x, ';')")
        self.views.append(name)

    def add_programs(self, table: Table) -> None:
        if self.chance(30):
            function = self.qualified()
            body = self.pick(("$$BEGIN RETURN NEW; END$$", "$_$BEGIN -- $$;\n RETURN NULL; END $_$"))
            self.say(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {body}")
            trigger, row = self.name(), f"OLD.{table.key} <> NEW.{table.key}"
            when = self.pick(
                (
                    f"TRIGGER {trigger} BEFORE UPDATE OF {table.key} ON {table.sql} FOR EACH ROW WHEN ({row})",
                    f"TRIGGER {trigger} AFTER DELETE OR TRUNCATE ON {table.sql} FOR EACH STATEMENT",
                    f"CONSTRAINT TRIGGER {trigger} AFTER UPDATE ON {table.sql} DEFERRABLE FOR EACH ROW",
                    f"TRIGGER {trigger} AFTER UPDATE ON {table.sql} REFERENCING OLD TABLE AS o FOR EACH STATEMENT",
                )
            )
            self.say(f"CREATE {when} EXECUTE FUNCTION {function}({literal(self.draw(TEXTS))})")
            state = self.pick(("ENABLE", "DISABLE", "ENABLE ALWAYS", "ENABLE REPLICA"))
            self.say(f"ALTER TABLE {table.sql} {state} TRIGGER {trigger}")
        if self.chance(20):
            self.say(f"ALTER TABLE {table.sql} {self.pick(('ENABLE', 'FORCE'))} ROW LEVEL SECURITY")
            policy = f"CREATE POLICY {self.name()} ON {table.sql} AS {self.pick(('PERMISSIVE', 'RESTRICTIVE'))}"
            self.say(
                f"{policy} TO {', '.join(self.some(ROLES, 2))} USING ({self.pick(self.functions)}({table.key}) > 0)"
            )

    def add_rest(self) -> None:
        for table in self.tables:
            columns = list(table.columns)
            if self.chance(30):
                self.say(f"COMMENT ON TABLE {table.sql} IS {literal(self.pick(ODD_NAMES) + self.draw(TEXTS))}")
                self.say(f"COMMENT ON COLUMN {table.sql}.{self.pick(columns)} IS {literal(self.pick(ODD_NAMES))}")
            self.perhaps(30, f"ALTER TABLE {table.sql} OWNER TO generated_owner")
            if self.chance(30):
                rights = self.pick(("ALL", "SELECT, INSERT", f"UPDATE ({self.pick(columns)})"))
                option = self.pick(("", " WITH GRANT OPTION"))
                self.say(f"GRANT {rights} ON {table.sql} TO {self.pick(ROLES)}{option}")
            self.perhaps(10, f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL")
        for schema in self.schemas[1:]:
            self.say(f"GRANT USAGE ON SCHEMA {schema} TO {self.pick(ROLES)}")
            defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {ROLES[0]} IN SCHEMA {schema}"
            self.say(f"{defaults} GRANT SELECT ON TABLES TO {self.pick(ROLES)}")
        self.say(f"REVOKE EXECUTE ON FUNCTION {self.pick(self.functions)} FROM PUBLIC")
        self.perhaps(20, f"CREATE PUBLICATION {self.name()} FOR TABLE {self.pick(self.tables).sql}")
        self.perhaps(20, f"SELECT lo_from_bytea(0, {literal(self.draw(TEXTS))}::text::bytea)")
        for view in self.views:
            self.perhaps(20, f"COMMENT ON VIEW {view} IS 'COPY x FROM stdin;'")


@st.composite
def scripts(draw: st.DrawFn) -> list[str]:
    return Script(draw).write()


def execute(dsn: str, statements: list[str]) -> list[tuple[str, str]]:
    """Run every statement; return those the server refused, each with its reason."""
    refused = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                refused.append((statement, str(error.diag.message_primary)))
    return refused


@pytest.fixture
def make(make_database: Callable[..., str]) -> Callable[..., str]:
    """As make_database, on a server that has the roles of the scripts."""
    with psycopg.connect(make_conninfo(make_database(), dbname="postgres"), autocommit=True) as connection:
        for role in ROLES[:2]:
            if connection.execute("SELECT FROM pg_roles WHERE quote_ident(rolname) = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role}".encode())
    return make_database


@settings(
    max_examples=EXAMPLES,
    derandomize="GENERATED_SCHEMAS" not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # an example takes seconds: the script itself is shown instead of a smaller one
    suppress_health_check=list(HealthCheck),
)
@given(
    script=scripts(), how=st.tuples(st.sampled_from(STYLES), st.integers(1, 3), st.sampled_from([False, False, True]))
)
def test_any_schema_with_its_rows_is_restored_as_psql_restores_it(  # noqa: PLR0917  # fixtures
    make: Callable[..., str],
    programs: Any,
    master16: str,
    tmp_path: Path,
    script: list[str],
    how: tuple[str, int, bool],
) -> None:
    style, jobs, as_master = how
    user = master16 if as_master else "postgres"
    source, ours, theirs = make(), make(owner=user), make(owner=user)
    refused = execute(source, script)
    note("\n".join(f"{statement};" for statement in script))
    assert len(refused) < len(script) * 2 / 3, refused
    (tmp_path / "dump.sql").write_bytes(dump := programs.pg_dump(source, *style.split()))
    result = restore(str(tmp_path / "dump.sql"), make_conninfo(ours, user=user), jobs=jobs)
    programs.psql(make_conninfo(theirs, user=user), dump)
    programs.assert_same(ours, theirs)
    expected = {"warning", "expected", "clean", "exists", *(("owner", "privileges", "comment") if as_master else ())}
    assert {entry.kind for entry in result.notes} <= expected, result.notes
    with open_dump(str(tmp_path / "dump.sql")) as opened:
        facts = check(opened).facts
    failed = [rung for rung in verify(ours, facts=facts).rungs if rung.outcome is Outcome.FAIL]
    assert not failed
