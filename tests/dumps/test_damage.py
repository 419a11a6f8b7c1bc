"""A damaged dump is never restored as if it were whole, and what stands in the target stays there.

`check` is what a restore does first; with `check_first=False` the same reader finds the damage while it loads into the
side database.  Full sweeps of positions go through `check`; a sample of them, with a fixed seed, through a restore.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import itertools
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from machine.programs import postgresql_client_folder
from recovery.dumps.catalogue import list_local_backups, newest_sealed
from recovery.dumps.manifest import Manifest
from recovery.dumps.reader import check
from recovery.dumps.source import DumpSource, open_dump
from recovery.dumps.writer import take_backup
from recovery.errors import BadDumpError, EnvironmentLacksError, RecoveryError
from recovery.restore import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow  # many restores into real servers

RANDOM = random.Random(20260101)  # noqa: S311  # the same positions each time


class Bytes(DumpSource):
    """A dump in memory."""

    name = "test"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def stored(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), 65536):
            yield self._data[start : start + 65536]


def refused(data: bytes, manifest: Manifest | None = None) -> bool:
    try:
        check(Bytes(data), manifest)
    except BadDumpError:
        return True
    return False


def members_of(text: bytes, count: int) -> list[bytes]:
    size = len(text) // count + 1
    return [gzip.compress(text[start : start + size], mtime=0) for start in range(0, len(text), size)]


@pytest.fixture(scope="module")
def text(server16: Any) -> bytes:
    """A pg_dump of some 300 KB, of tables whose rows compress badly."""
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS for_damage")
        connection.execute("CREATE DATABASE for_damage")
    with psycopg.connect(server16.dsn("for_damage"), autocommit=True) as connection:
        for name in "abc":
            connection.execute(
                f"CREATE TABLE {name} AS SELECT i AS id, md5(i::text) || E'\\\\ \\n' AS v"
                " FROM generate_series(1, 1600) i"
            )
            connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (id)")
        connection.execute("SELECT lo_from_bytea(1, decode(repeat('00ff', 8000), 'hex'))")
    program = postgresql_client_folder(16) / "pg_dump"
    dump = subprocess.run([program, "-d", server16.dsn("for_damage")], check=True, capture_output=True).stdout
    with psycopg.connect(server16.dsn(), autocommit=True) as connection:
        connection.execute("DROP DATABASE for_damage")
    assert len(dump) > 200_000
    return dump


@pytest.fixture
def target(database: str) -> Iterator[str]:
    """A database with something in it that must be the same afterwards, and nothing beside it."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE precious AS SELECT g AS id FROM generate_series(1, 10) g")
        before = connection.execute("SELECT pg_relation_filepath('precious'), sum(id), max(xmin::text) FROM precious")
        expected = before.fetchone()
    yield database
    with psycopg.connect(database) as connection:
        after = connection.execute("SELECT pg_relation_filepath('precious'), sum(id), max(xmin::text) FROM precious")
        assert after.fetchone() == expected
        tables = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchall() == [("precious",)]
        assert connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone() == (0,)
    name = str(conninfo_to_dict(database)["dbname"])
    with psycopg.connect(make_conninfo(database, dbname="postgres")) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name])
        assert found.fetchall() == [(name,)]


def refused_by_restore(tmp_path: Path, target: str, data: bytes, **options: Any) -> RecoveryError:
    path = tmp_path / "dump"
    path.write_bytes(data)
    with pytest.raises(RecoveryError) as caught:
        restore(str(path), target, replace=True, **options)
    return caught.value


@pytest.mark.parametrize("form", ["plain", "one member", "many members"])
def test_a_dump_cut_at_any_kilobyte_is_refused(text: bytes, tmp_path: Path, target: str, form: str) -> None:
    data = {"plain": lambda: text, "one member": lambda: gzip.compress(text, mtime=0)}.get(
        form, lambda: b"".join(members_of(text, 20))
    )()
    ends = list(itertools.accumulate(map(len, members_of(text, 20))))[:-1] if form == "many members" else []
    positions = [*range(0, len(data), 1024), *ends, *range(len(data) - 8, len(data) - 1)]
    accepted = [position for position in positions if not refused(data[:position])]
    # A text that lacks nothing but its last comment's empty lines is whole.
    whole = [position for position in accepted if form == "plain" and not data[position:].strip()]
    assert accepted == whole
    for position in [0, len(data) // 2, *ends[10:11]]:
        refused_by_restore(tmp_path, target, data[:position])
        refused_by_restore(tmp_path, target, data[:position], check_first=False)


def test_a_flipped_byte_anywhere_in_a_compressed_dump_is_refused_or_changes_nothing(text: bytes) -> None:
    """A sample of 400 positions, and every byte of the first and last 40; the flips of one byte are all eight bits."""
    data = gzip.compress(text, mtime=0)
    positions = {*range(40), *range(len(data) - 40, len(data)), *RANDOM.sample(range(len(data)), 400)}
    unnoticed = []
    for position in sorted(positions):
        changed = bytearray(data)
        changed[position] ^= 1 << RANDOM.randrange(8)
        if not refused(bytes(changed)):
            unnoticed.append(bytes(changed))
    # Bits that say nothing of the content: time and system in the header, what fills the last byte of the data.
    assert all(gzip.decompress(changed) == text for changed in unnoticed)


@pytest.mark.slow
def test_every_single_byte_of_a_smaller_dump_flipped_is_refused_or_changes_nothing(text: bytes) -> None:
    start = text.index(b"\nCOPY public.b")
    small = text[: text.index(b"COPY public.a")] + text[start : start + 4000]
    small = small[: small.rindex(b"\n") + 1] + b"\\.\n\n--\n-- PostgreSQL database dump complete\n--\n"
    key = small[: small.index(b"\n", small.index(b"\\restrict"))].rpartition(b" ")[2]
    small += b"\n\\unrestrict " + key + b"\n"
    data = gzip.compress(small, mtime=0)
    assert not refused(data)
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[position] ^= mask
            assert refused(bytes(changed)) or gzip.decompress(changed) == small


def test_a_wrong_trailer_is_refused_while_loading_too(text: bytes, tmp_path: Path, target: str) -> None:
    data = gzip.compress(text, mtime=0)
    for first in (True, False):
        wrong = data[:-8] + bytes(4) + data[-4:]
        assert "CRC" in str(refused_by_restore(tmp_path, target, wrong, check_first=first))
        assert "length" in str(refused_by_restore(tmp_path, target, data[:-4] + bytes(4), check_first=first))


@pytest.mark.slow
def test_a_member_that_is_missing_doubled_or_in_another_place_is_refused_with_a_manifest(text: bytes) -> None:
    """Without one, a missing member is found where it tears a row or a statement, which no gzip reader can know."""
    members = members_of(text, 20)
    whole = b"".join(members)
    for number in range(20):
        without = b"".join(members[:number] + members[number + 1 :])
        doubled = b"".join([*members[: number + 1], *members[number:]])
        swapped = b"".join([*members[:number], *members[number + 1 :], members[number]])
        for data in {without, doubled, swapped} - {whole}:
            manifest = FakeManifest(len(whole), hashlib.sha256(whole).hexdigest())
            assert refused(data, manifest)  # type: ignore[arg-type]  # what the reader looks at


@dataclasses.dataclass
class FakeManifest:
    """The two facts of a manifest by which a reader knows its dump."""

    size: int
    sha256: str
    layout: None = None


def test_the_first_and_the_last_member_are_missed_without_a_manifest_too(text: bytes) -> None:
    members = members_of(text, 20)
    assert refused(b"".join(members[:-1]))
    assert refused(b"".join(members[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage", [b"x", b"\n-- hello\n", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(7), b"\0" * 600 + b"x"]
)
def test_bytes_after_the_last_member_are_refused(text: bytes, garbage: bytes) -> None:
    assert refused(gzip.compress(text) + garbage)
    assert not refused(gzip.compress(text) + b"\0" * 512)  # as tapes pad


def test_other_text_than_sql_after_a_whole_dump_is_refused(text: bytes, tmp_path: Path, target: str) -> None:
    for garbage in (b"\0", b"garbage\n", b"\xff\xfe", b"<html>503</html>\n", b"'"):
        assert refused(text + garbage)
    refused_by_restore(tmp_path, target, text + b"SELECT 1 FROM;\n", check_first=False)


@pytest.mark.parametrize("restricted", [True, False])
def test_two_dumps_one_after_the_other_are_both_whole_or_refused(text: bytes, *, restricted: bool) -> None:
    if not restricted:  # as pg_dump wrote before \restrict
        text = b"\n".join(line for line in text.split(b"\n") if not line.startswith((b"\\restrict", b"\\unrestrict")))
    assert not refused(text + text)
    second = text[: text.index(b"COPY public.c")]
    assert refused(text + second)
    assert refused(text + text[: text.index(b"ALTER TABLE ONLY public.c\n")])


def test_two_dumps_of_the_same_are_refused_by_the_server_and_nothing_is_changed(
    text: bytes, tmp_path: Path, target: str
) -> None:
    assert "already exists" in str(refused_by_restore(tmp_path, target, text + text))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["utf-16", "utf-16-le", "zeros inside", "zeros at the end", "base64", "html", "double gzip", "utf-8-sig"]
)
def test_a_dump_that_was_turned_into_something_else_is_refused(
    text: bytes, tmp_path: Path, target: str, how: str
) -> None:
    match how:
        case "utf-16" | "utf-16-le" | "utf-8-sig":
            data = text.decode().encode(how)
        case "zeros inside":
            middle = text.index(b"CREATE TABLE public.b") + 20
            data = text[:middle] + bytes(100) + text[middle:]
        case "zeros at the end":
            data = text[:-4096] + bytes(4096)
        case "base64":
            import base64  # noqa: PLC0415  # only here

            data = base64.encodebytes(text)
        case "html":
            data = b"<!DOCTYPE html><html><body>404</body></html>"
        case _:
            data = gzip.compress(gzip.compress(text))
    for first in (True, False):
        error = refused_by_restore(tmp_path, target, data, check_first=first)
        assert isinstance(error, BadDumpError)


def test_zeros_among_rows_are_refused_by_the_server_at_the_latest(text: bytes, tmp_path: Path, target: str) -> None:
    middle = text.index(b"COPY public.b") + 2000
    error = refused_by_restore(tmp_path, target, text[:middle] + bytes(100) + text[middle + 100 :])
    assert "public.b" in error.message


def test_a_dump_with_the_line_ends_of_windows_is_restored_as_psql_restores_it(
    text: bytes, tmp_path: Path, make_database: Callable[..., str]
) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(text.replace(b"\n", b"\r\n"))
    ours, theirs = make_database(), make_database()
    restore(str(path), ours, jobs=3)
    program = postgresql_client_folder(16) / "psql"
    subprocess.run([program, "-qX", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", theirs, "-f", path], check=True)
    digest = "SELECT md5(string_agg(id || v, ',' ORDER BY id)), count(*) FROM b"
    answers = []
    for dsn in (ours, theirs):
        with psycopg.connect(dsn) as connection:
            answers.append(connection.execute(digest.encode()).fetchone())
    assert answers[0] == answers[1]


def bomb(*parts: bytes | int) -> bytes:
    """A gzip member of texts and of numbers of megabytes of the letter before."""
    packer, out, last = zlib.compressobj(9, wbits=31), io.BytesIO(), b" "
    for part in parts:
        if isinstance(part, bytes):
            out.write(packer.compress(part))
            last = part[-1:]
        else:
            for _ in range(part):
                out.write(packer.compress(last * 1024 * 1024))
    out.write(packer.flush())
    return out.getvalue()


BOMBS = {
    "zeros": (b"\0", 600),
    "spaces": (b" ", 600),
    "a comment line": (b"-- x", 600),
    "a psql command": (b"\\restrict x", 600),
    "a block comment": (b"/* x", 600),
    "a string": (b"SELECT 'x", 600),
    "a name": (b'SELECT "x', 600),
    "words": (b"SELECT x", 600),
    "after a COPY": (b"COPY a (b) FROM stdin; ", 600),
    "one row": (b"COPY a (b) FROM stdin;\nx", 600),
    "rows": (b"COPY a (b) FROM stdin;\n\n", 600),
    "backslashes": (b"COPY a (b) FROM stdin;\n\\", 600),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    """1000:1, 600 MB and more: a single statement is kept whole, so its limit is the most that is ever in memory."""
    path = tmp_path / "dump.sql.gz"
    path.write_bytes(bomb(*BOMBS[name]))
    assert path.stat().st_size < 2_000_000
    code = (
        "import resource, sys\n"
        "from recovery.dumps.reader import check\nfrom recovery.dumps.source import open_dump\n"
        "from recovery.errors import BadDumpError\n"
        "from recovery.dumps import reader\nreader.ALWAYS_ALLOWED_TEXT = 2**40\n"  # what it holds must be enough
        "resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) * 2**20,) * 2)\n"
        "try:\n    check(open_dump(sys.argv[1]))\n"
        "except BadDumpError:\n    sys.exit(9)\n"
    )
    limit = 1000 if name in {"a string", "a name", "words"} else 600
    done = subprocess.run([sys.executable, "-c", code, path, str(limit)], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr[-2000:]


def test_a_bomb_of_members_that_hold_nothing_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "dump.sql.gz"
    path.write_bytes(gzip.compress(b"") * 50_000)
    with open_dump(str(path)) as dump, pytest.raises(BadDumpError):
        check(dump)


# -- manifests


@pytest.fixture
def pair(make_database: Callable[..., str], tmp_path: Path) -> tuple[Path, Manifest, Path, Manifest]:
    """Two sealed backups of different databases: (dump, manifest, other dump, other manifest)."""
    found: list[Any] = []
    for number in (1, 2):
        dsn = make_database()
        with psycopg.connect(dsn) as connection:
            connection.execute(f"CREATE TABLE t{number} AS SELECT g FROM generate_series(1, 50) g".encode())
        backup = take_backup(dsn, local_dir=tmp_path / "backups")
        found += [backup.path, backup.manifest]
    return tuple(found)


def test_a_dump_with_the_manifest_of_another_is_refused_before_anything_is_created(
    pair: tuple[Path, Manifest, Path, Manifest], target: str
) -> None:
    first, one, second, other = pair
    for dump, manifest in ((first, other), (second, one)):
        for check_first in (True, False):
            with pytest.raises(BadDumpError):
                restore(str(dump), target, manifest=manifest, replace=True, check_first=check_first)
    names = [
        first.name.removesuffix(".sql.gz") + ".manifest.json",
        second.name.removesuffix(".sql.gz") + ".manifest.json",
    ]
    contents = [(first.parent / name).read_bytes() for name in names]
    for name, content in zip(names, reversed(contents), strict=True):
        (first.parent / name).write_bytes(content)
    assert [backup.sealed for backup in list_local_backups(first.parent)] == [False, False]


def test_a_dump_of_the_same_size_but_other_content_is_refused_by_its_manifest(
    pair: tuple[Path, Manifest, Path, Manifest], target: str
) -> None:
    dump, manifest = pair[:2]
    text = gzip.decompress(dump.read_bytes())
    changed = gzip.compress(text.replace(b"\n50\n", b"\n51\n", 1))
    forged = manifest.model_copy(update={"size": len(changed)})
    dump.write_bytes(changed)
    for check_first in (True, False):
        with pytest.raises(BadDumpError, match="manifest"):
            restore(str(dump), target, manifest=forged, replace=True, check_first=check_first)


def test_a_manifest_with_any_byte_changed_is_refused_or_says_the_same(
    pair: tuple[Path, Manifest, Path, Manifest],
) -> None:
    manifest = pair[1]
    data = manifest.to_bytes()
    for position in [*range(60), *RANDOM.sample(range(len(data)), 500), *range(len(data) - 60, len(data))]:
        for mask in (1, 2, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= mask
            try:
                assert Manifest.from_bytes(bytes(changed)) == manifest  # spaces between tokens may change
            except BadDumpError:
                continue
    for length in [*range(0, len(data) - 1, 97), len(data) - 2]:
        with pytest.raises(BadDumpError):
            Manifest.from_bytes(data[:length])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"[]", b"null", b"{}", b"1e999", b'{"schema_version": 1}', b'{"schema_version": 2}', b"[" * 100_000,
     b'{"a":' * 100_000, b"NaN", b'{"schema_version": 1, "digest": "\\ud800"}', "{}".encode("utf-16")],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(BadDumpError):
        Manifest.from_bytes(data)


def test_a_dump_that_is_replaced_while_it_is_restored_is_noticed(text: bytes, tmp_path: Path, target: str) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(text)
    changed = False

    def replace(event: object) -> None:
        nonlocal changed
        del event
        if not changed:
            changed = True
            path.write_bytes(text.replace(b"md5", b"5dm") + b"\n")

    with pytest.raises((BadDumpError, EnvironmentLacksError)):
        restore(str(path), target, replace=True, progress=replace)


def test_the_newest_backup_is_passed_over_when_it_is_damaged(
    pair: tuple[Path, Manifest, Path, Manifest],
) -> None:
    first, _, second, _ = pair
    second.write_bytes(second.read_bytes()[:-1])
    assert newest_sealed(list_local_backups(first.parent)).path == first
