"""Reading a dump's bytes: every gzip member checked, every cut found, whatever the place they come from."""

from __future__ import annotations

import gzip
import io
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps import source
from recovery.dumps.members import inflate
from recovery.dumps.source import open_dump
from recovery.errors import BadDumpError, EnvironmentLacksError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pieces_of(data: bytes, size: int = 7) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def text_of(data: bytes, size: int = 4096) -> bytes:
    return b"".join(inflate(pieces_of(data, size), "test"))


MEMBERS = [b"SELECT 1;\n" * 50, b"", bytes(random.Random(2).randbytes(3000)).hex().encode()]  # noqa: S311  # test data
WHOLE = b"".join(gzip.compress(member) for member in MEMBERS)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.integers(1, 50), st.integers(1, 400))
def test_members_of_any_size_in_pieces_of_any_size_give_their_text(members: list[bytes], size: int, piece: int) -> None:
    data = b"".join(gzip.compress(member) for member in members)
    pieces = list(inflate(pieces_of(data, size), "test", piece))
    assert b"".join(pieces) == b"".join(members)
    assert max(map(len, pieces), default=0) <= piece


def test_every_cut_inside_a_member_is_found_at_every_single_byte() -> None:
    edges, end = set(), 0
    for member in MEMBERS:
        edges.add(end := end + len(gzip.compress(member)))
    for length in range(len(WHOLE)):
        if length in edges:
            continue  # a whole number of members: what it holds says that it is cut, see test_restore
        with pytest.raises(BadDumpError):
            text_of(WHOLE[:length])


def test_a_flipped_bit_never_changes_the_text_unnoticed() -> None:
    text = b"SELECT 'some text', 'that compresses a little, a little';\n" * 3
    member = gzip.compress(text, mtime=0)
    unnoticed = 0
    for position in range(1, len(member)):  # a first byte that is not gzip's means plain text, for the lexer to refuse
        for bit in range(8):
            broken = bytearray(member)
            broken[position] ^= 1 << bit
            try:
                assert text_of(bytes(broken)) == text
                unnoticed += 1
            except BadDumpError:
                continue
    # Time, level and operating system in the header, the text hint, and the padding behind the last deflate block.
    assert unnoticed <= 6 * 8 + 1 + 7


@pytest.mark.parametrize("garbage", [b"x", b"\0\0x", b"\x1f", b"\x1f\x8b", b"SELECT 1;\n"])
def test_bytes_after_the_last_member_are_refused(garbage: bytes) -> None:
    with pytest.raises(BadDumpError):
        text_of(WHOLE + garbage)


def test_padding_with_zeros_is_taken_as_gzip_takes_it() -> None:
    assert text_of(WHOLE + bytes(5000)) == b"".join(MEMBERS)


def test_header_fields_of_other_writers_are_understood() -> None:
    stream = io.BytesIO()
    with gzip.GzipFile("a name.sql", "wb", fileobj=stream, mtime=1) as file:
        file.write(b"SELECT 1;")
    assert text_of(stream.getvalue(), 1) == b"SELECT 1;"


def test_a_bomb_is_inflated_in_pieces_that_stay_small() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    assert max(len(piece) for piece in inflate(iter([bomb]), "bomb")) <= 4 * 1024 * 1024


def test_plain_text_passes_as_it_is() -> None:
    assert text_of(b"SELECT 1;\n", 2) == b"SELECT 1;\n"


def test_a_file_that_changes_between_two_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump.sql"
    path.write_bytes(b"SELECT 1;\n")
    with open_dump(str(path)) as dump:
        assert b"".join(dump.stored()) == b"SELECT 1;\n"
        path.write_bytes(b"SELECT 2, 3;\n")
        with pytest.raises(BadDumpError, match="changed"):
            list(dump.stored())


def test_a_pipe_is_kept_and_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[WHOLE])
    writer.start()
    with open_dump(str(path)) as dump:
        writer.join()
        assert b"".join(dump.stored()) == b"".join(dump.stored()) == WHOLE
        assert dump.size == len(WHOLE)


def test_a_small_stream_is_kept_and_a_larger_one_can_be_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHECK_FIRST_BYTES", 1000)
    for size, once in ((0, False), (1000, False), (1001, True), (5000, True)):
        data = bytes(range(250)) * 20
        with open_dump("-", stdin=io.BytesIO(data[:size])) as dump:
            assert (dump.once, dump.length) == (once, None if once else size)
            assert dump.head(700) == data[: min(size, 700)]
            assert b"".join(dump.stored()) == data[:size]
            assert dump.size == size
            if once:
                with pytest.raises(RefusedError, match="only once"):
                    next(iter(dump.stored()))
            else:
                assert b"".join(dump.stored()) == data[:size]


def test_what_has_come_through_a_pipe_is_handed_on_before_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHECK_FIRST_BYTES", 3)
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stream:
        os.write(theirs, b"first")
        chunks = open_dump("-", stdin=stream).stored()
        assert next(chunks) == b"first"
        os.write(theirs, b"second")
        assert next(chunks) == b"second"
        os.close(theirs)
        assert list(chunks) == []


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "s3://bucket/", "s3://bucket/folder/"])
def test_an_address_that_names_no_object_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError):
        open_dump(address)


def test_a_missing_bucket_is_no_dump_and_an_unreachable_s3_is_what_the_environment_lacks(
    fake_aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del fake_aws
    with pytest.raises(BadDumpError, match="there is no dump"):
        open_dump("s3://no-such-bucket-anywhere/x", region="us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(EnvironmentLacksError):
        open_dump("s3://bucket/x", region="us-east-1")


def test_an_object_is_read_in_many_ranges_and_a_replaced_one_is_noticed(s3: Any) -> None:
    s3.create_bucket(Bucket="unversioned-dumps")
    data = random.Random(3).randbytes(40_000_000)  # noqa: S311  # test data
    s3.put_object(Bucket="unversioned-dumps", Key="x", Body=data)
    with open_dump("s3://unversioned-dumps/x", s3=s3) as dump:
        assert b"".join(dump.stored()) == data
        s3.put_object(Bucket="unversioned-dumps", Key="x", Body=b"other")
        with pytest.raises(BadDumpError, match="replaced"):
            list(dump.stored())


def test_a_versioned_object_stays_the_one_that_was_opened(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"SELECT 1;")
    with open_dump(f"s3://{bucket}/x", s3=s3) as dump:
        s3.put_object(Bucket=bucket, Key="x", Body=b"SELECT 2;")
        assert b"".join(dump.stored()) == b"SELECT 1;"
