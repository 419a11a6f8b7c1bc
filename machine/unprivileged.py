"""Run servers as a user without rights when this process is root: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOBODY = 65534  # the id every Unix gives to nobody


@dataclass(frozen=True, kw_only=True)
class UnprivilegedUser:
    """Whom to become: ids to change to, or None for both where this process is not root and stays who it is."""

    uid: int | None
    gid: int | None

    def popen_options(self) -> dict[str, Any]:
        """Return what to pass to subprocess.Popen for the process to be this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give this one file or folder to the user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def folder(self, path: Path, *, mode: int = 0o700) -> Path:
        """Make a folder that belongs to the user; return it."""
        path.mkdir(mode=mode)
        path.chmod(mode)
        self.own(path)
        return path

    def passes(self, folder: Path) -> bool:
        """Tell whether the user can pass through every folder down to and through this one, links followed."""
        return self._reaches(folder, at_the_end=0)

    def reaches(self, path: Path) -> bool:
        """Tell whether the user can pass through every folder down to `path`, links followed, and read it there."""
        return self._reaches(path, at_the_end=stat.S_IROTH)

    def _reaches(self, path: Path, at_the_end: int) -> bool:
        real = path.resolve()
        if self.uid is None:
            return os.access(real, os.R_OK if at_the_end else os.X_OK)
        for step in (real, *real.parents):
            found = step.stat()
            needed = at_the_end if step == real else 0
            if stat.S_ISDIR(found.st_mode):
                needed |= stat.S_IXOTH
            if found.st_uid == self.uid:
                needed <<= 6
            if found.st_mode & needed != needed:
                return False
        return True


def unprivileged_user() -> UnprivilegedUser:
    """Return nobody where this process is root, else the user it is."""
    if os.geteuid() == 0:
        return UnprivilegedUser(uid=_NOBODY, gid=_NOBODY)
    return UnprivilegedUser(uid=None, gid=None)


def copied_installation(folder: Path, copy: Path) -> Path:
    """Copy the installation around a folder of programs (its parent) to `copy`, once, readable by all.

    Return the folder of programs in the copy. A virtual environment in a home of mode 0700 is out of nobody's reach;
    PostgreSQL finds its libraries and share files relative to its programs, so the whole of it goes along, with the
    libraries that the tools which repair wheels put beside a package (Linux) or in it (macOS). `copy` must be below a
    folder that all can pass through, and is the caller's to name per version.
    """
    root = folder.parent
    package = root.parent
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Copied beside and moved: a copy that was cut short is never taken for a whole one.
        draft = Path(tempfile.mkdtemp(dir=copy.parent, prefix=f".{copy.name}-"))
        try:
            for part in (root, package.with_name(f"{package.name}.libs"), package / ".dylibs"):
                if part.is_dir():
                    shutil.copytree(part, draft / "copy" / part.relative_to(package.parent), symlinks=True)
            for path in (draft / "copy", *(draft / "copy").rglob("*")):
                if not path.is_symlink():
                    runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                    path.chmod(0o755 if runs else 0o644)
            (draft / "copy").rename(copy)
        finally:
            shutil.rmtree(draft)
    return copy / package.name / root.name / folder.name
