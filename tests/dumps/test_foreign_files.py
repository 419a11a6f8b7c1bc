"""Archives that lead to files other than their own: refused before pg_restore reads them into a table."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from machine.programs import ProgramNotFoundError, postgresql_client_folder
from recovery.dumps.reader import check
from recovery.dumps.source import open_dump
from recovery.errors import BadDumpError, RefusedError
from recovery.restore import restore

pytestmark = pytest.mark.slow  # archives of a real server

ORIGINAL = """
CREATE TABLE notes (line text);
INSERT INTO notes SELECT 'row ' || i FROM generate_series(1, 100) i;
SELECT lo_from_bytea(4711, 'large');
"""
SECRET = "what only this machine knows"


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        connection.execute(ORIGINAL.encode())
    return database


def dump(dsn: str, path: Path, *options: str, major: int = 16) -> Path:
    try:
        program = postgresql_client_folder(major) / "pg_dump"
    except ProgramNotFoundError as error:
        pytest.skip(str(error))
    subprocess.run([program, *options, "-f", path, "-d", dsn], check=True, capture_output=True)
    return path


def data_file(archive: Path) -> Path:
    """The file with the rows of the only table."""
    (found,) = [path for path in archive.glob("[0-9]*.dat*") if b"row 1\n" in gzip.decompress(path.read_bytes())]
    return found


def renamed(content: bytes, old: str, new: str) -> bytes:
    """A table of contents with another file's name in one of its entries."""

    def field(name: str) -> bytes:
        return b"\0" + len(name).to_bytes(4, "little") + name.encode()

    assert content.count(field(old)) == 1
    return content.replace(field(old), field(new))


def link_the_rows(archive: Path, secret: Path) -> None:
    rows = data_file(archive)
    rows.unlink()
    rows.symlink_to(secret)


def name_another_file(archive: Path, secret: Path) -> None:
    contents = archive / "toc.dat"
    old = data_file(archive).name.removesuffix(".gz")
    contents.write_bytes(renamed(contents.read_bytes(), old, os.path.relpath(secret, archive)))


def name_a_file_outside_as_large_object(archive: Path, secret: Path) -> None:
    (listed,) = archive.glob("blobs*.toc")
    listed.write_text(f"4711 {os.path.relpath(secret, archive)}\n")


def compress_the_list_of_large_objects(archive: Path, secret: Path) -> None:
    name_a_file_outside_as_large_object(archive, secret)
    (listed,) = archive.glob("blobs*.toc")
    listed.with_name(f"{listed.name}.gz").write_bytes(gzip.compress(listed.read_bytes()))
    listed.unlink()


def name_rows_as_a_list_of_large_objects(archive: Path, secret: Path) -> None:
    contents = archive / "toc.dat"
    (listed,) = archive.glob("blobs*.toc")
    contents.write_bytes(renamed(contents.read_bytes(), listed.name, "9999.dat"))
    (archive / "9999.dat").write_text(f"4711 {os.path.relpath(secret, archive)}\n")


def put_a_folder_into_it(archive: Path, secret: Path) -> None:
    del secret
    (archive / "inside").mkdir()


def put_a_pipe_into_it(archive: Path, secret: Path) -> None:
    del secret
    os.mkfifo(archive / "1.dat")


CHANGES = [
    link_the_rows,
    name_another_file,
    name_a_file_outside_as_large_object,
    compress_the_list_of_large_objects,
    name_rows_as_a_list_of_large_objects,
    put_a_folder_into_it,
    put_a_pipe_into_it,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_leads_to_other_files_is_refused(
    source: str, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    archive, secret = dump(source, tmp_path / "archive", "-Fd"), tmp_path / "secret"
    secret.write_text(f"{SECRET}\n\\.\n")
    change(archive, secret)
    with pytest.raises(BadDumpError, match="not pg_dump's"):
        open_dump(str(archive))


def test_without_the_refusal_a_file_of_this_machine_would_be_in_the_dump(source: str, tmp_path: Path) -> None:
    archive, secret = dump(source, tmp_path / "archive", "-Fd"), tmp_path / "secret"
    secret.write_text(f"{SECRET}\n\\.\n")
    name_another_file(archive, secret)
    program = postgresql_client_folder(16) / "pg_restore"
    done = subprocess.run([program, "--file=-", archive], check=True, capture_output=True, text=True)
    assert SECRET in done.stdout


@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize("options", [(), ("--compress=0",)])
def test_an_archive_of_any_version_is_let_through(
    source: str, make_database: Callable[..., str], tmp_path: Path, major: int, options: tuple[str, ...]
) -> None:
    archive = dump(source, tmp_path / "archive", "-Fd", *options, major=major)
    assert restore(str(archive), make_database()).rows == 100


def test_an_archive_of_pg_dump_15_is_let_through(make_database15: Callable[..., str], tmp_path: Path) -> None:
    source = make_database15()
    with psycopg.connect(source) as connection:
        connection.execute(ORIGINAL.encode())
    with open_dump(str(dump(source, tmp_path / "archive", "-Fd", major=15))) as archive:
        assert check(archive).facts.tables == {("public", "notes"): 100}


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda content: content + b"x", BadDumpError),
        (lambda content: content[:5] + b"\1\x63" + content[7:], RefusedError),
    ],
)
def test_a_table_of_contents_that_is_not_understood_is_refused(
    source: str, tmp_path: Path, damage: Callable[[bytes], bytes], error: type[Exception], monkeypatch: Any
) -> None:
    archive = dump(source, tmp_path / "archive", "-Fd")
    program = postgresql_client_folder(16) / "pg_restore"
    monkeypatch.setattr("recovery.dumps.archive.ArchiveSource._fitting_program", lambda _: program)
    contents = archive / "toc.dat"
    contents.write_bytes(damage(contents.read_bytes()))
    with pytest.raises(error):
        open_dump(str(archive))


@pytest.mark.parametrize("name", ["../secret", "folder/1.dat", ".."])
def test_a_tar_with_a_member_that_pg_dump_would_not_name_so_is_refused(source: str, tmp_path: Path, name: str) -> None:
    path = dump(source, tmp_path / "archive.tar", "-Ft")
    member = tarfile.TarInfo(name)
    with tarfile.open(path, "a:") as archive:
        archive.addfile(member, io.BytesIO())
    with pytest.raises(BadDumpError, match="not pg_dump's"):
        open_dump(str(path))


def test_a_tar_with_a_link_is_refused(source: str, tmp_path: Path) -> None:
    path = dump(source, tmp_path / "archive.tar", "-Ft")
    member = tarfile.TarInfo("9999.dat")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "a:") as archive:
        archive.addfile(member)
    with pytest.raises(BadDumpError, match="not pg_dump's"):
        open_dump(str(path))
