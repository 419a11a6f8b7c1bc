"""A manifest survives the way to its file and back, and any change to it is seen."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.dumps.manifest import CopyBlock, Layout, Manifest, Sequence, Table
from recovery.errors import BadDumpError

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
counts = st.integers(0, 2**63)
moments = st.datetimes(timezones=st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=5, minutes=30))))
tables = st.builds(Table, schema_name=text, name=text, rows=counts, checksum=st.none() | text)
sequences = st.builds(
    Sequence, schema_name=text, name=text, value=st.integers(-(2**63), 2**63 - 1), is_called=st.booleans()
)
blocks = st.builds(
    CopyBlock,
    schema_name=text,
    name=text,
    columns=st.lists(text, max_size=3).map(tuple),
    offset=counts,
    length=counts,
    rows=counts,
)
layouts = st.builds(
    Layout,
    uncompressed_size=counts,
    members=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4).map(tuple),
    data_start=counts,
    data_end=counts,
    copy_blocks=st.lists(blocks, max_size=3).map(tuple),
)
manifests = st.builds(
    Manifest,
    schema_version=st.just(1),
    backup_id=st.just("db_full_20260101_020000"),
    filename=st.just("db_full_20260101_020000.sql.gz"),
    size=counts,
    sha256=st.just("0" * 64),
    snapshot_time=moments,
    finished_at=moments,
    server_version=text,
    pg_dump_version=text,
    tool_version=text,
    database=text,
    tables=st.lists(tables, max_size=4).map(tuple),
    sequences=st.lists(sequences, max_size=4).map(tuple),
    layout=st.none() | layouts,
)


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    sealed = manifest.seal()
    assert sealed.verify_digest()
    again = Manifest.from_bytes(sealed.to_bytes())
    assert again == sealed
    assert again.verify_digest()
    assert again.to_bytes() == sealed.to_bytes()


@given(manifests, st.data())
def test_any_changed_value_is_noticed(manifest: Manifest, data: st.DataObject) -> None:
    content = json.loads(manifest.seal().to_bytes())
    key = data.draw(st.sampled_from(sorted(set(content) - {"digest", "schema_version"})))
    content[key] = data.draw(st.integers() | text | st.none() | st.just([]) | st.just({}))
    changed = json.dumps(content).encode()
    if json.loads(changed) == json.loads(manifest.seal().to_bytes()):
        return
    with pytest.raises(BadDumpError, match="changed since it was sealed"):
        Manifest.from_bytes(changed)


@given(manifests)
def test_what_a_newer_version_adds_is_kept_and_counts(manifest: Manifest) -> None:
    extended = Manifest.model_validate({**manifest.model_dump(mode="json"), "novelty": {"x": [1]}}).seal()
    again = Manifest.from_bytes(extended.to_bytes())
    assert again.to_bytes() == extended.to_bytes()
    with pytest.raises(BadDumpError, match="changed since"):
        Manifest.from_bytes(extended.to_bytes().replace(b'"x":[1]', b'"x":[2]'))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a manifest"),
        (b'{"schema_version": 2}', "has schema version 2"),
        (b'{"schema_version": 1, "digest": ""}', "changed since"),
        (b'{"schema_version": 1, "digest": "", "x": "\\ud800"}', "is not a manifest"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(BadDumpError, match=message):
        Manifest.from_bytes(data)


def test_a_name_that_leads_out_of_its_folder_is_no_filename() -> None:
    for name in ("../x.sql.gz", "/etc/passwd", "a/b", ".hidden", "x\n"):
        with pytest.raises(ValueError, match="filename"):
            Manifest(
                schema_version=1,
                backup_id="db_full_20260101_020000",
                filename=name,
                size=0,
                sha256="0" * 64,
                snapshot_time=dt.datetime.now(dt.UTC),
                finished_at=dt.datetime.now(dt.UTC),
                server_version="16",
                pg_dump_version="16",
                tool_version="0",
                database="d",
                tables=(),
            )
