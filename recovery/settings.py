"""recovery.toml and the environment, read once into frozen Settings; a bad value names file, key and expectation."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from recovery.errors import UsageError
from recovery.rungs import RungName

FILE_NAME = "recovery.toml"

# Sample queries are arguments of a task, of which ECS takes 8192 characters; the rest is for addresses. Said when the
# file is read, since a drill comes to its queries last.
_CHECKS_LIMIT = 6144

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^[^/].*/$")]
# It is an argument of a task as the sample queries are, beside them.
NewestRow = Annotated[str, StringConstraints(min_length=1, max_length=512, strip_whitespace=True)]
Account = Annotated[str, StringConstraints(pattern=r"^(\d{12})?$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objectives(_Table):
    """[objectives]: hours and days."""

    rto_hours: float = Field(default=4, gt=0)
    rpo_hours: float = Field(default=24, gt=0)
    retention_days: int = Field(default=30, gt=0)


class Platform(_Table):
    """[platform]: where the platform lives. `project` is absolute once read."""

    account: Account = ""
    # infra/settings.py takes the same and says why.
    environment: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,9}$")] = "prod"
    primary_region: Region = "us-east-1"
    dr_region: Region = "us-west-2"
    primary_bucket: Bucket = "agentverse-primary"
    backups_bucket: Bucket = "agentverse-backups"
    dr_backups_bucket: Bucket = "agentverse-backups-dr"
    evidence_bucket: Bucket = "agentverse-evidence-dr"
    project: Path = Path()
    replicated_prefixes: tuple[Prefix, ...] = ("telemetry/", "snapshots/")
    same_region_prefixes: tuple[Prefix, ...] = ("exports/",)


class Database(_Table):
    """[database]: `dsn_env` is the NAME of the variable with production's address."""

    dsn_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "AGENTVERSE_DATABASE_URL"
    local_dir: Path = Path("/var/backups/agentverse")


class Verify(_Table):
    """[verify]: names of the rungs without which a verdict is not PASS.

    `newest_row` is a query for one moment that corroborates the recovery point, such as the newest row's.
    """

    required: tuple[RungName, ...] = ()
    newest_row: NewestRow | None = None


class Check(_Table):
    """[[checks]]: one sample query; `expected` and `at_least` as `recovery.verify.SampleQuery` has them.

    `when` names a table: without that table in the dump the query is left out.
    """

    name: Text
    sql: Text
    expected: Any = None
    at_least: float | None = None
    when: str | None = None

    def sample(self) -> dict[str, Any]:
        """Return the query as the ladder of checks takes it."""
        return self.model_dump(exclude={"when"}, exclude_none=True)

    def applies_to(self, tables: Iterable[str]) -> bool:
        """Tell whether the query is about a database with these tables, named `schema.table`."""
        return self.when is None or any(self.when in {table, table.rpartition(".")[2]} for table in tables)


class DrillDefaults(_Table):
    """[drill]: lifetime in hours, who owns the environment, and the image of its tasks."""

    lifetime_hours: float = Field(default=8, gt=0, le=168)
    # A tag value: AWS takes no other characters.
    owner: Annotated[str, StringConstraints(pattern=r"^[\w .:/=+@-]{1,128}$")] = "platform-team"
    recovery_image: str = ""


class Contact(_Table):
    """[[contacts]]: whom to call."""

    role: Text
    name: Text
    address: Text


class Settings(_Table):
    """Everything an operator sets. `source` is the file it was read from, `drills` the folder drills are written to."""

    objectives: Objectives = Objectives()
    platform: Platform = Platform()
    database: Database = Database()
    verify: Verify = Verify()
    checks: tuple[Check, ...] = ()
    drill: DrillDefaults = DrillDefaults()
    contacts: tuple[Contact, ...] = ()
    source: Path
    drills: Path

    @field_validator("checks")
    @classmethod
    def _fit_into_a_task(cls, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        # Quoted twice, as they travel: a JSON text among the arguments, which are JSON themselves.
        length = len(json.dumps(json.dumps([check.sample() for check in checks], default=str)))
        if length > _CHECKS_LIMIT:
            raise ValueError(f"the queries take {length} characters of a task's arguments, at most {_CHECKS_LIMIT} fit")
        return checks


class Overrides(BaseSettings):
    """The environment's say, each as AGENTVERSE_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="AGENTVERSE_", frozen=True, extra="ignore")

    config: Path | None = None
    drills: Path = Path("drills")
    account: str | None = None
    owner: str | None = None


def load_settings(start: Path | None = None) -> Settings:
    """Read recovery.toml from AGENTVERSE_CONFIG, else from `start` (the current folder) or the nearest folder above.

    Raises UsageError naming the file, the key and what was expected.
    """
    overrides = Overrides()
    path = overrides.config or find_file(start or Path.cwd())
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(
            f"The settings {path} cannot be read.",
            detail=str(exc),
            hint="Set AGENTVERSE_CONFIG to the path of a recovery.toml, or run from the repository.",
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"The settings {path} are not TOML.", detail=str(exc)) from exc
    for reserved in ("source", "drills"):
        if reserved in document:
            raise UsageError(f"{path}: {reserved} is not a table of recovery.toml.")
    if overrides.account is not None:
        _table(document, "platform")["account"] = overrides.account
    if overrides.owner is not None:
        _table(document, "drill")["owner"] = overrides.owner
    try:
        settings = Settings.model_validate(
            {**document, "source": path.resolve(), "drills": overrides.drills.absolute()}
        )
    except ValidationError as exc:
        problems = [_problem(problem) for problem in exc.errors()]
        raise UsageError(
            f"{path}: {problems[0]}",
            detail="; ".join(problems[1:]) or None,
            hint="recovery.toml in the repository shows every key with its default.",
        ) from exc
    project = (settings.source.parent / settings.platform.project).resolve()
    return settings.model_copy(update={"platform": settings.platform.model_copy(update={"project": project})})


def find_file(start: Path) -> Path:
    """Return the recovery.toml of this folder or the nearest above it, else the one beside the installed packages."""
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return Path(__file__).resolve().parent.parent / FILE_NAME


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.setdefault(name, {})
    return table if isinstance(table, dict) else {}


def _problem(problem: Any) -> str:  # pydantic's ErrorDetails, whose ctx has any shape
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    if problem["type"] == "missing":
        return f"{key} is missing"
    expected = str(problem["msg"])
    if problem["type"] == "string_pattern_mismatch":
        expected = _PATTERNS.get(problem["loc"][-1], expected)
    return f"{key} = {problem['input']!r}: {expected[0].lower()}{expected[1:]}"


_PATTERNS = {
    "account": "expected an account number of 12 digits, or nothing",
    "environment": "expected up to 10 lower-case letters and digits, beginning with a letter",
    "primary_region": "expected a region such as us-east-1",
    "dr_region": "expected a region such as us-west-2",
    "dsn_env": "expected the name of an environment variable, not an address",
    "owner": "expected up to 128 characters that AWS takes in a tag value",
    **dict.fromkeys(
        ("primary_bucket", "backups_bucket", "dr_backups_bucket", "evidence_bucket"),
        "expected a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens",
    ),
}
