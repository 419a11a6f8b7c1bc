"""Where an embedded cloud lives, how it is told to behave, and the record it leaves of itself while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

DEFAULT_PORT = 4566  # where users of such clouds look for them
ACCOUNT = "123456789012"  # moto's own default account
SCHEMA_VERSION = 1

# A socket's path may be 103 bytes on macOS; what the cloud puts below its home needs up to 40 of them.
_LONGEST_HOME = 63

# Two readings of one process's start time may differ by a clock tick and by the clock being set.
_SAME_START_SECONDS = 2.0


class LocalcloudError(Exception):
    """What went wrong, what shows it, what to do: printed on three lines by the command line, which exits with `code`.

    Codes: 2 wrong usage, 4 something the machine lacks.
    """

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None, code: int = 4) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        lines = [self.message]
        if self.detail:
            lines.append(f"detail: {self.detail}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


def default_home() -> Path:
    """Return this user's home for embedded clouds: AGENTVERSE_LOCALCLOUD_HOME, else one of its own.

    The latter is short, and where an unprivileged user can reach it.
    """
    chosen = os.environ.get("AGENTVERSE_LOCALCLOUD_HOME")
    if chosen:
        return Path(chosen).absolute()
    return Path(f"/var/tmp/agentverse-localcloud-{os.getuid()}")  # noqa: S108  # owner and mode are checked when used


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a cloud is asked to run. `port` 0 asks for any free one; `replication_delay` is in seconds."""

    home: Path = field(default_factory=default_home)
    port: int = DEFAULT_PORT
    images: Path | None = None
    replication_delay: float = 0.0

    def __post_init__(self) -> None:
        if len(os.fsencode(self.home)) > _LONGEST_HOME:
            raise LocalcloudError(
                f"the home {self.home} is too long: sockets below it would pass the system's limit on their paths",
                detail=f"{len(os.fsencode(self.home))} bytes, at most {_LONGEST_HOME}",
                hint="choose a shorter one with --home, such as one directly below /var/tmp",
                code=2,
            )


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folders and files of a home, by name."""

    path: Path

    @property
    def instance_file(self) -> Path:
        return self.path / "instance.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def log_file(self) -> Path:
        return self.path / "localcloud.log"

    @property
    def pulumi(self) -> Path:
        return self.path / "pulumi-home"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def run(self) -> Path:
        """Data of running servers and tasks, one folder for each instance id."""
        return self.path / "run"

    @property
    def processes(self) -> Path:
        return self.path / "processes"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def prepare(self) -> None:
        """Make the home, closed to others but for passing through: servers of an unprivileged user live below it.

        Raises LocalcloudError where it belongs to somebody else, who could otherwise plant files in it.
        """
        try:
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
            found = self.path.lstat()
        except OSError as exc:
            raise LocalcloudError(
                f"cannot make the home {self.path}", detail=str(exc), hint="choose another one with --home"
            ) from exc
        if found.st_uid != os.getuid() or self.path.is_symlink():
            raise LocalcloudError(
                f"the home {self.path} belongs to somebody else",
                detail=f"its owner is user {found.st_uid}, this is user {os.getuid()}",
                hint="choose another one with --home",
            )
        for folder in (self.states, self.processes, self.pulumi):
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.run, self.cache):
            folder.mkdir(mode=0o711, exist_ok=True)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One life of a cloud, as instance.json records it while it is up. `started` is the process's start time."""

    instance_id: str
    endpoint: str
    pid: int
    started: float
    account: str = ACCOUNT
    home: str

    def alive(self) -> bool:
        """Tell whether the very process that wrote this record still runs."""
        return same_process(self.pid, self.started) is not None

    def document(self) -> dict[str, object]:
        """Return what `localcloud env --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "instance_id": self.instance_id,
            "endpoint": self.endpoint,
            "account": self.account,
            "pid": self.pid,
            "home": self.home,
            "env": self.environment(),
        }

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS client, and Pulumi, at this cloud."""
        home = Home(path=Path(self.home))
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PULUMI_HOME": str(home.pulumi),
            "PULUMI_BACKEND_URL": f"file://{home.states / self.instance_id}",
            "PULUMI_CONFIG_PASSPHRASE": "local",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }

    def write(self) -> None:
        """Write the record in one move, so that no reader sees half of it."""
        path = Home(path=Path(self.home)).instance_file
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".instance-", delete=False) as draft:
            json.dump(asdict(self), draft)
        Path(draft.name).replace(path)


def same_process(pid: int, started: float) -> psutil.Process | None:
    """Return the process that has this id and started then (epoch seconds), or None: ids are used again."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if (
            abs(process.create_time() - started) < _SAME_START_SECONDS
            and process.is_running()
            and process.status() != psutil.STATUS_ZOMBIE
        ):
            return process
    return None


def recorded_instance(home: Path) -> Instance | None:
    """Return what instance.json says, alive or not; None where there is none or it cannot be read."""
    try:
        return Instance(**json.loads(Home(path=home).instance_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running_instance(home: Path) -> Instance | None:
    """Return the cloud that runs in this home, or None."""
    instance = recorded_instance(home)
    return instance if instance is not None and instance.alive() else None
