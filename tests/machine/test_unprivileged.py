"""A user without rights, what it reaches, and copies made for it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.programs import postgresql_server_folder
from machine.unprivileged import UnprivilegedUser, copied_installation, unprivileged_user

NOBODY = UnprivilegedUser(uid=65534, gid=65534)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that all can pass through, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_whoever_is_not_root_stays_who_it_is() -> None:
    assert (unprivileged_user().uid is None) == (os.geteuid() != 0)
    assert UnprivilegedUser(uid=None, gid=None).popen_options() == {}


def test_a_folder_closed_on_the_way_puts_what_is_below_it_out_of_reach(folder: Path) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    assert NOBODY.reaches(inner)
    (folder / "a").chmod(0o700)
    assert not NOBODY.reaches(inner)
    assert not NOBODY.passes(inner)


def test_one_can_pass_through_a_folder_that_one_cannot_list(folder: Path) -> None:
    (folder / "a").mkdir(mode=0o711)
    assert NOBODY.passes(folder / "a")
    assert not NOBODY.reaches(folder / "a")


def test_links_are_followed_to_where_the_thing_is(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "thing").touch()
    (folder / "link").symlink_to(folder / "closed" / "thing")
    assert not NOBODY.reaches(folder / "link")


def test_a_copied_postgresql_runs_as_the_unprivileged_user_and_is_copied_once(folder: Path) -> None:
    user = unprivileged_user()
    programs = copied_installation(postgresql_server_folder(16), folder / "copy")
    assert user.reaches(programs / "postgres")
    said = subprocess.run(
        [programs / "postgres", "--describe-config"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        **user.popen_options(),
    ).stdout
    assert "work_mem" in said
    mark = folder / "copy" / "mark"
    mark.touch()
    assert copied_installation(postgresql_server_folder(16), folder / "copy") == programs
    assert mark.exists()
