"""The watcher of pg_dump's output sees the same whatever pieces it is fed in."""

from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps.copyscan import CopyScanner
from recovery.dumps.gzip_writer import GzipWriter
from recovery.errors import BadDumpError

# Text that hides COPY, semicolons and quotes in every way SQL has.
TEXT = b'''--
-- PostgreSQL database dump
--

\\restrict abc;'"$$

-- Dumped by pg_dump version 16.14

SELECT pg_catalog.set_config('search_path', '', false);
COMMENT ON TABLE a IS 'it''s;
COPY public.fake (a) FROM stdin;
1
\\.
';
COMMENT ON TABLE a IS E'it\\'s;\\\\';
CREATE FUNCTION f() AS $_$ ' "
COPY public.fake (a) FROM stdin;
$$ ; $other$ $_$;
/* COPY public.fake (a) FROM stdin; /* ; */ ' */
CREATE TABLE "we;ird""'$$" (a$b$ int, b int DEFAULT $1);
COPY public.t (a, "b ""x"", y") FROM stdin;
1\t\\N
it's; "x" $$ -- /*\t\\\\.
\\\\.
\\.


COPY "S.x"."T ""q"" (z)" ("from") FROM stdin;
\\.


COPY public.none  FROM stdin;

\\.

SELECT pg_catalog.setval('public.s', 7, true);
SELECT pg_catalog.setval('"S.x"."it''s ""q"""', -3, false);
ALTER TABLE t ADD PRIMARY KEY (a);
\\unrestrict abc
'''

ROWS = [("public", "t", 3, ("a", 'b "x", y')), ("S.x", 'T "q" (z)', 0, ("from",)), ("public", "none", 1, ())]


def scan(pieces: list[bytes]) -> CopyScanner:
    scanner = CopyScanner()
    for piece in pieces:
        scanner.feed(piece)
    scanner.finish()
    return scanner


@given(st.lists(st.integers(0, len(TEXT)), max_size=40).map(sorted))
def test_blocks_and_sequences_are_found_whatever_the_pieces(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(TEXT)]
    scanner = scan([TEXT[a:b] for a, b in itertools.pairwise(bounds)])
    assert [(b.schema, b.name, b.rows, b.columns) for b in scanner.blocks] == ROWS
    assert [TEXT[b.offset : b.offset + b.length + 3][-3:] for b in scanner.blocks] == [b"\\.\n"] * 3
    assert [(s.schema, s.name, s.value, s.is_called) for s in scanner.sequences] == [
        ("public", "s", 7, True),
        ("S.x", 'it\'s "q"', -3, False),
    ]
    assert scanner.pg_dump_version == "16.14"
    assert scanner.data_start == TEXT.index(b"COPY public.t ")
    assert scanner.data_end == TEXT.index(b"ALTER TABLE t") - 1


def test_it_is_the_same_byte_by_byte() -> None:
    scanner = scan([TEXT[i : i + 1] for i in range(len(TEXT))])
    assert [(b.schema, b.name, b.rows, b.columns) for b in scanner.blocks] == ROWS


@pytest.mark.parametrize("end", [b"COPY public.t (a) FROM stdin;\n1\n", b"SELECT 'x", b"SELECT $$x", b"/* x"])
def test_a_dump_that_ends_inside_something_is_refused(end: bytes) -> None:
    with pytest.raises(BadDumpError, match="ends in the middle"):
        scan([end])


@given(st.lists(st.binary(max_size=3000) | st.text("ab\n", max_size=3000).map(str.encode), max_size=20))
def test_members_put_together_are_what_was_written(pieces: list[bytes]) -> None:
    out: list[bytes] = []
    with GzipWriter(out.append, member_bytes=1024) as writer:
        for piece in pieces:
            writer.write(piece)
        writer.finish()
    whole = b"".join(out)
    assert gzip.decompress(whole) == b"".join(pieces)
    assert sum(size for size, _ in writer.members) == len(whole)
    assert sum(length for _, length in writer.members) == sum(map(len, pieces))


def test_a_member_begins_where_a_row_does() -> None:
    out: list[bytes] = []
    with GzipWriter(out.append, member_bytes=1000) as writer:
        writer.write(b"".join(b"%d\tx\n" % i for i in range(3000)))
        writer.finish()
    assert len(out) > 10
    assert all(gzip.decompress(member).endswith(b"\n") for member in out)
