"""Cutting a dump's text: at the right places, whatever the pieces it arrives in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps.lexer import Lexer
from recovery.dumps.statements import CopyBlock, Inserts, PsqlCommand, Statement
from recovery.errors import BadDumpError

Flat = tuple[str, bytes, bytes]


def read(*pieces: bytes) -> list[Flat]:
    """Every item as (kind, text, data)."""
    found: list[Flat] = []
    for item in Lexer(iter(pieces)).items():
        if isinstance(item, CopyBlock):
            data = b"".join(item.pieces)
            assert item.rows == data.count(b"\n")
            found.append(("copy", item.statement.text, data))
        elif isinstance(item, PsqlCommand):
            found.append(("psql", f"{item.name} {item.argument}".encode(), b""))
        elif isinstance(item, Inserts):
            found += [("sql", insert.text, b"") for insert in item.each()]
        else:
            found.append(("sql", item.text, b""))
    return found


def statements(text: bytes) -> list[bytes]:
    return [flat[1] for flat in read(text)]


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT ';';",
        b"SELECT 'it''s; ';",
        rb"SELECT 'a\';",
        rb"SELECT E'a\'; b\\';",
        rb"SELECT e'a''\';b';",
        b"SELECT E'a\\''\n 'b\\';' ;",
        b'SELECT "a;b" FROM "c""d;";',
        b"SELECT $$;$$;",
        b"SELECT $a$ $b$ ; $$ $a$;",
        b"SELECT a$b$c FROM t$x;",
        b"SELECT $1 + $2;",
        b"SELECT 1 /* ; /* nested ; */ ' */;",
        b"SELECT 1 -- ; it's\n;",
        b"CREATE RULE r AS ON INSERT TO t DO (DELETE FROM t; DELETE FROM u;);",
        b"CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 2 END; END;",
        b"CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC DELETE FROM ending; END;",
        b"CREATE TABLE f (begin_at int, endpoint int);",
        b"SELECT 'COPY t FROM stdin;\n1\n\\.\n';",
        b"COMMENT ON TABLE t IS 'COPY public.t (id) FROM stdin;';",
        b"SELECT U&'d\\0061t;' ;",
        b"SELECT '\xc3\xa9;\xe2\x82\xac';",
    ],
)
def test_a_semicolon_ends_a_statement_only_where_psql_says_so(text: bytes) -> None:
    assert statements(text + b"\nSELECT 2;") == [text, b"SELECT 2;"]


def test_backslashes_escape_when_the_dump_turns_standard_strings_off() -> None:
    text = (
        b"SET standard_conforming_strings = off;\nSELECT 'a\\';';\nSET standard_conforming_strings = on;\nSELECT 'b\\';"
    )
    assert statements(text)[1] == b"SELECT 'a\\';';"
    assert statements(text)[3] == b"SELECT 'b\\';"


@pytest.mark.parametrize(
    ("text", "table", "columns"),
    [
        (b"COPY public.t (id, v) FROM stdin;", ("public", "t"), ("id", "v")),
        (b"COPY t FROM stdin;", ("", "t"), None),
        (b"copy T (A) from STDIN;", ("", "t"), ("a",)),
        (
            b'COPY "Odd ""schema"."from stdin;" ("select", "a)b", "c,d") FROM stdin;',
            ('Odd "schema', "from stdin;"),
            None,
        ),
        (b"COPY s.t () FROM stdin;", ("s", "t"), ()),
        ("COPY s.größe (ñ) FROM stdin;".encode(), ("s", "größe"), ("ñ",)),
    ],
)
def test_copy_blocks_are_known_by_odd_names_too(
    text: bytes, table: tuple[str, str], columns: tuple[str, ...] | None
) -> None:
    item = next(iter(Lexer(iter([text + b"\n1\n\\.\n"])).items()))
    assert isinstance(item, CopyBlock)
    assert (item.table.schema, item.table.name) == table
    if columns is not None or b"(" not in text:
        assert item.columns == columns
    assert b"".join(item.pieces) == b"1\n"


def test_labels_lines_and_origin_are_read_from_pg_dumps_comments() -> None:
    text = b"""--
-- PostgreSQL database dump
--

-- Dumped from database version 16.1
-- Dumped by pg_dump version 17.2
--
-- Name: t; Type: TABLE; Schema: s; Owner: me
--

CREATE TABLE s.t ();

ALTER TABLE s.t OWNER TO me;
--
-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: me
--

COPY s.t () FROM stdin;
\\.
-- PostgreSQL database dump complete
"""
    lexer = Lexer(iter([text]))
    made, owned, rows = lexer.items()
    assert isinstance(made, Statement)
    assert isinstance(owned, Statement)
    assert isinstance(rows, CopyBlock)
    assert (made.line, owned.line, rows.statement.line) == (11, 13, 18)
    assert str(made.label) == str(owned.label) == "TABLE s.t"
    assert rows.statement.label is not None
    assert rows.statement.label.type == "TABLE DATA"
    assert (lexer.is_pg_dump, lexer.complete, lexer.server_version, lexer.pg_dump_version) == (
        True,
        True,
        "16.1",
        "17.2",
    )


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 'a",
        b'SELECT "a',
        b"SELECT $$ ; $",
        b"SELECT (1;",
        b"SELECT 1 /* ;",
        b"/* a comment",
        b"SELECT 1",
        b"COPY t (a) FROM stdin;",
        b"COPY t (a) FROM stdin;\n",
        b"COPY t (a) FROM stdin;\n1\n2",
        b"COPY t (a) FROM stdin;\n1\n\\",
        b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
    ],
)
def test_a_text_that_ends_in_the_middle_is_cut_off(text: bytes) -> None:
    with pytest.raises(BadDumpError, match=r"line 1 of the dump: .*cut off"):
        read(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"SELECT 1 \\g x;", "psql command"),
        (b"SELECT 1$$a$$;", "dollar sign after a number"),
        (b"SELECT \0;", "zero byte"),
        (b"SET client_encoding = 'SJIS';", "SJIS"),
        (b"COPY t FROM stdin WITH (FORMAT csv);\n", "COPY"),
        (b"COPY t FROM stdin; SELECT 1;\n", "after the semicolon"),
        (b"COPY t FROM stdin;\n\\.x\n\\.\n", "not the end"),
        (b"COPY (SELECT 1) TO stdout;\n", "COPY"),
    ],
)
def test_what_cannot_be_cut_for_certain_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(BadDumpError, match=why):
        read(text)


def test_inserts_of_literals_into_one_table_come_together_and_each_knows_its_line() -> None:
    rows = [b"INSERT INTO s.t VALUES (%d, 'a;\n''b', NULL, -1.5);" % number for number in range(6000)]
    other = (
        b'INSERT INTO s."t t" (a, "B;") OVERRIDING SYSTEM VALUE VALUES\n'
        b"\t(1, '\\'),\n\t(2, DEFAULT)\n\tON CONFLICT DO NOTHING;"
    )
    computed = [b"INSERT INTO s.t VALUES (f(1));", b"INSERT INTO s.t SELECT 1;", b"INSERT INTO s.t VALUES (E'\\'');"]
    items = list(Lexer(iter([b"\n\n".join([*rows, other, *computed])])).items())
    runs = [item for item in items if isinstance(item, Inserts)]
    assert [insert.text for run in runs for insert in run.each()] == [*rows, other]
    assert [insert.line for run in runs[:-1] for insert in run.each()] == [1 + 3 * number for number in range(6000)]
    assert [run.table.name for run in runs] == ["t"] * (len(runs) - 1) + ["t t"]
    assert len(runs) < 10
    assert max(len(run.text) for run in runs) <= 256 * 1024
    assert [run.passes_over_conflicts for run in runs[-2:]] == [False, True]
    assert [item.text for item in items[len(runs) :] if isinstance(item, Statement)] == computed


def test_a_row_longer_than_any_piece_passes_through_in_pieces() -> None:
    row = b"x" * 30_000_000
    sizes: list[int] = []
    chunks = (row[start : start + 1_000_000] for start in range(0, len(row), 1_000_000))

    def text() -> object:
        yield b"COPY t FROM stdin;\nfirst\n"
        yield from chunks
        yield b"\nlast\n\\.\nSELECT 1;"

    for item in Lexer(text()).items():  # type: ignore[arg-type]  # a generator is an iterator of bytes
        if isinstance(item, CopyBlock):
            sizes = [len(piece) for piece in item.pieces]
            assert item.rows == 3
    assert sum(sizes) == len(row) + len(b"first\n\nlast\n")
    assert max(sizes) < 20_000_000


def test_a_statement_too_long_to_be_held_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.dumps.scan.MAX_STATEMENT_BYTES", 1_000_000)
    pieces = [b"INSERT INTO t VALUES ('", *[b"x" * 100_000] * 30, b"');\n"]
    with pytest.raises(BadDumpError, match="more than 1,000,000 bytes") as refused:
        read(*pieces)
    assert "COPY" in str(refused.value.hint)
    assert read(*pieces[:8], pieces[-1])[0][0] == "sql"


WORD = st.text("abcXYZ_é", min_size=1, max_size=5).map(str.encode)
ANYTHING = st.text("ab'\"$;()-/*\\\n\t :E", max_size=20).map(str.encode)
TOKEN = st.one_of(
    WORD,
    st.sampled_from([b"1", b",", b"=", b"::", b"- ", b"/ ", b"( 1 )", b"$1", b"E'\\\\'", b"E'\\''"]),
    ANYTHING.map(lambda text: b"'" + text.replace(b"'", b"''") + b"'"),
    ANYTHING.map(lambda text: b"E'" + text.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"),
    ANYTHING.map(lambda text: b'"' + (text.replace(b'"', b'""') or b"x") + b'"'),
    ANYTHING.map(lambda text: b"$tag$" + text + b"$tag$"),
    ANYTHING.map(lambda text: b"/*" + text.replace(b"*", b"").replace(b"/", b"") + b"*/"),
    ANYTHING.map(lambda text: b"--" + text.replace(b"\n", b"") + b"\n"),
)
SQL = st.lists(TOKEN, max_size=8).map(lambda tokens: ("sql", b"SELECT " + b" ".join([*tokens, b""]) + b";", b""))
ROW = st.text("ab;'\"$\t", max_size=9).map(str.encode).map(lambda row: row + b"\n")
COPY = st.tuples(WORD, st.lists(ROW, max_size=6)).map(
    lambda made: ("copy", b"COPY public." + made[0] + b" (a, b) FROM stdin;", b"".join(made[1]))
)
VALUE = st.one_of(
    st.sampled_from(
        [b"1", b"-1.5e+22", b"NULL", b"true", b"DEFAULT", b"B'101'", b"E'\\';'", b"f(';')", b"1 --;\n", b"'a'\n'b'"]
    ),
    ANYTHING.map(lambda text: b"'" + text.replace(b"'", b"''") + b"'"),
)
INSERT = st.tuples(st.sampled_from([b"t", b"tt", b'"a;b"']), st.lists(VALUE, min_size=1, max_size=4)).map(
    lambda made: ("sql", b"INSERT INTO public." + made[0] + b" VALUES (" + b", ".join(made[1]) + b");", b"")
)
BETWEEN = st.sampled_from([b"\n", b"\n\n--\n-- it's; a comment\n--\n\n", b" /* ' ; */\n", b"\n-- $$ \\ \n"])


def compose(items: list[tuple[Flat, bytes]]) -> bytes:
    return b"".join(
        between + item[1] + (b"\n" + item[2] + b"\\.\n" if item[0] == "copy" else b"") for item, between in items
    )


@given(
    st.lists(st.tuples(st.one_of(SQL, COPY, INSERT), BETWEEN), max_size=8), st.lists(st.integers(1, 40), max_size=60)
)
def test_any_composition_is_cut_into_what_it_was_made_of_whatever_the_pieces(
    items: list[tuple[Flat, bytes]], cuts: list[int]
) -> None:
    text = compose(items)
    expected = [item for item, _ in items]
    assert read(text) == expected
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(text[start : start + cut])
        start += cut
    assert read(*pieces, text[start:]) == expected
    assert read(*(text[at : at + 1] for at in range(len(text)))) == expected
