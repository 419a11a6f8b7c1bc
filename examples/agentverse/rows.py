"""The platform's rows: the same for the same seed, made in passing, as lines of PostgreSQL's COPY text format.

A table is generated on its own: what two tables must agree on (identities, counts, times) comes from `Platform`, which
derives it from the seed each time instead of remembering it. Memory therefore does not grow with the size.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from examples.agentverse import vocabulary as words
from examples.agentverse.vocabulary import EventPool, copy_array, copy_json, copy_text

# Bytes of COPY text that one project comes to, on average over seeds: what turns megabytes into projects.
BYTES_PER_PROJECT = 271_000

DEFAULT_UNTIL = datetime(2026, 1, 9, 2, tzinfo=UTC)
_HISTORY = timedelta(days=365)
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Project:
    """One project: where its personas, nodes and runs start in the platform's numbering, and how many there are."""

    index: int
    created_at: datetime
    first_persona: int
    personas: int
    first_node: int
    nodes: int
    first_run: int
    runs: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what its own row, its events and its report have to agree on. Times are aware, in UTC."""

    index: int
    id: str
    node: int
    personas: tuple[str, ...]
    status: str
    events: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Platform:
    """All that the seed, the number of projects and the time of the newest row determine."""

    seed: int
    projects: int
    until: datetime = DEFAULT_UNTIL

    @classmethod
    def of_size(cls, megabytes: float, *, seed: int, until: datetime = DEFAULT_UNTIL) -> Platform:
        """Return the platform whose plain SQL dump has about this many megabytes (10^6 bytes)."""
        return cls(seed=seed, projects=max(1, round(megabytes * 1_000_000 / BYTES_PER_PROJECT)), until=until)

    def rng(self, *scope: object) -> random.Random:
        """Return the source of chance of one table, project or run: independent of all others."""
        return random.Random("/".join(str(part) for part in (self.seed, *scope)))  # noqa: S311  # reproducible on purpose

    def uuid(self, kind: str, index: int) -> str:
        """Return the identity of the project, persona, run or report with this number (a version 4 UUID in form)."""
        text = hashlib.blake2b(f"{self.seed}/{kind}/{index}".encode(), digest_size=16).hexdigest()
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"

    def slug(self, project: int) -> str:
        """Return the slug of a project: readable, and unique by its number."""
        quality = words.QUALITIES[project % len(words.QUALITIES)]
        place = words.PLACES[(project // len(words.QUALITIES) + self.seed) % len(words.PLACES)]
        return f"{quality}-{place}-{project + 1}"

    def each_project(self) -> Iterator[Project]:
        """Yield the projects in order of their number."""
        rng = self.rng("shape")
        persona = run = 0
        node = 1
        for index in range(self.projects):
            personas, nodes, runs = 4 + rng.getrandbits(3), 24 + rng.getrandbits(6), 4 + rng.getrandbits(3)
            created = self.until - _HISTORY * (0.05 + 0.95 * rng.random())
            yield Project(index, created, persona, personas, node, nodes, run, runs)
            persona, node, run = persona + personas, node + nodes, run + runs

    def each_run(self, project: Project) -> Iterator[Run]:
        """Yield the runs of a project, the oldest first. The platform's last project has one running and one queued."""
        rng = self.rng("runs", project.index)
        age = self.until - project.created_at
        for nth in range(project.runs):
            index = project.first_run + nth
            # A run lasts at most two hours: the newest one of a project ends before `until`, each at its own time.
            queued = project.created_at + (age - timedelta(hours=3)) * ((nth + rng.random()) / project.runs)
            members = rng.sample(range(project.personas), 2 + rng.getrandbits(1))
            left = project.runs - nth if project.index == self.projects - 1 else 0
            status = {1: "queued", 2: "running"}.get(left) or rng.choices(
                ("succeeded", "failed", "cancelled"), (92, 5, 3)
            )[0]
            started = queued + timedelta(milliseconds=rng.randrange(200, 90_000))
            finished = started + timedelta(milliseconds=rng.randrange(20_000, 7_000_000))
            yield Run(
                index=index,
                id=self.uuid("run", index),
                node=project.first_node + rng.randrange(project.nodes),
                personas=tuple(self.uuid("persona", project.first_persona + member) for member in members),
                status=status,
                events=0 if status == "queued" else 30 + rng.randrange(61),
                queued_at=queued,
                started_at=None if status == "queued" else started,
                finished_at=None if status in {"queued", "running"} else finished,
            )


@dataclass(frozen=True)
class Table:
    """A table's name, the columns of its COPY, and what generates its lines."""

    name: str
    columns: tuple[str, ...]
    lines: Callable[[Platform], Iterator[str]]

    def chunks(self, platform: Platform) -> Iterator[tuple[bytes, int]]:
        """Yield the table's COPY text in pieces of about 256 KiB, each with its number of rows."""
        pending: list[str] = []
        size = 0
        for line in self.lines(platform):
            pending.append(line)
            size += len(line)
            if size >= _CHUNK_BYTES:
                yield "".join(pending).encode(), len(pending)
                pending.clear()
                size = 0
        if pending:
            yield "".join(pending).encode(), len(pending)


def _time(moment: datetime | None) -> str:
    return "\\N" if moment is None else moment.isoformat(" ")


def _projects(platform: Platform) -> Iterator[str]:
    rng = platform.rng("projects")
    for project in platform.each_project():
        slug = platform.slug(project.index)
        owner = f"{rng.choice(words.GIVEN_NAMES)}.{rng.choice(words.FAMILY_NAMES)}@example.org".lower()
        settings = {"locale": rng.choice(("en", "de", "ja")), "limits": {"runs": rng.randrange(10, 500)}, "beta": False}
        archived = project.created_at + timedelta(days=10) if rng.random() < 0.04 else None
        columns = (
            platform.uuid("project", project.index),
            slug,
            slug.rsplit("-", 1)[0].replace("-", " ").title(),
            copy_text(words.paragraph(rng, 2)),
            owner,
            rng.choice(words.PLANS),
            copy_array(sorted(rng.sample(words.TAGS, 1 + rng.getrandbits(1)))),
            copy_json(settings),
            "\\N" if rng.random() < 0.3 else f"{rng.randrange(5_000_00) / 100:.2f}",
            _time(project.created_at),
            _time(project.created_at + timedelta(hours=rng.randrange(1, 200))),
            _time(archived),
        )
        yield "\t".join(columns) + "\n"


def _personas(platform: Platform) -> Iterator[str]:
    rng = platform.rng("personas")
    for project in platform.each_project():
        owner = platform.uuid("project", project.index)
        for nth in range(project.personas):
            # The offset makes names of one project differ: fewer personas than given names are in each.
            given = words.GIVEN_NAMES[(project.index + nth) % len(words.GIVEN_NAMES)]
            traits = {
                "openness": round(rng.random(), 2),
                "patience": round(rng.random(), 2),
                "home": rng.choice(words.PLACES),
                "fears": rng.sample(words.PLACES, 2),
                "goals": [words.sentence(rng) for _ in range(2)],
            }
            columns = (
                platform.uuid("persona", project.first_persona + nth),
                owner,
                f"{given} {rng.choice(words.FAMILY_NAMES)}",
                rng.choice(words.ROLES),
                copy_text(words.paragraph(rng, 5)),
                copy_array(rng.sample(words.SKILLS, 1 + rng.getrandbits(2))),
                copy_json(traits),
                f"{rng.randrange(201) / 100:.2f}",
                _time(project.created_at + timedelta(minutes=nth + 1)),
            )
            yield "\t".join(columns) + "\n"


def _nodes(platform: Platform) -> Iterator[str]:
    rng = platform.rng("nodes")
    for project in platform.each_project():
        owner = platform.uuid("project", project.index)
        depths: list[int] = []
        for nth in range(project.nodes):
            parent = None if nth == 0 else int(rng.random() ** 0.5 * nth)
            depths.append(0 if parent is None else depths[parent] + 1)
            state = {
                "clock": nth * 600,
                "mood": rng.choice(words.MOODS),
                "place": rng.choice(words.PLACES),
                "inventory": {good: rng.randrange(400) for good in ("salt", "amber", "glass")},
                "open": [words.sentence(rng)],
            }
            columns = (
                str(project.first_node + nth),
                owner,
                "\\N" if parent is None else str(project.first_node + parent),
                str(depths[nth]),
                f"The {rng.choice(words.QUALITIES)} {rng.choice(words.PLACES)}",
                copy_json(state),
                _time(project.created_at + timedelta(minutes=20 * nth)),
            )
            yield "\t".join(columns) + "\n"


def _runs(platform: Platform) -> Iterator[str]:
    rng = platform.rng("run rows")
    for project in platform.each_project():
        owner = platform.uuid("project", project.index)
        for run in platform.each_run(project):
            tokens = run.events * rng.randrange(200, 900)
            parameters = {"top_p": round(0.5 + rng.random() / 2, 2), "turns": run.events, "stop": ["\\n\\n", "END"]}
            columns = (
                run.id,
                owner,
                str(run.node),
                "{" + ",".join(run.personas) + "}",
                run.status,
                rng.choice(words.MODELS),
                str(rng.getrandbits(62)),
                copy_json(parameters),
                str(tokens),
                str(tokens // 5),
                f"{tokens * 3 / 1_000_000:.6f}",
                copy_text(rng.choice(words.ERRORS)) if run.status == "failed" else "\\N",
                _time(run.queued_at),
                _time(run.started_at),
                _time(run.finished_at),
            )
            yield "\t".join(columns) + "\n"


def _run_events(platform: Platform) -> Iterator[str]:
    fragments = EventPool.build(platform.seed).fragments
    bits = platform.rng("run events").getrandbits
    event = 0
    for project in platform.each_project():
        for run in platform.each_run(project):
            if run.started_at is None:
                continue
            end = run.finished_at or run.started_at + timedelta(minutes=30)
            between = (end - run.started_at) / (run.events + 1)
            # The system speaks too: an event of nobody has no actor.
            actors = (*run.personas, *run.personas, "\\N")
            at = run.started_at
            for sequence in range(1, run.events + 1):
                event += 1
                at += between
                chance = bits(96)
                kind, rest = fragments[chance & 4095]
                actor = actors[(chance >> 12 & 255) % len(actors)]
                yield (
                    f"{event}\t{run.id}\t{sequence}\t{actor}\t{kind}\t{chance >> 20 & 1023}\t{at.isoformat(' ')}\t"
                    f'{{"turn": {sequence}, "trace": "{chance >> 32:016x}", {rest}\n'
                )


def _reports(platform: Platform) -> Iterator[str]:
    rng = platform.rng("reports")
    report = 0
    for project in platform.each_project():
        for run in platform.each_run(project):
            if run.status != "succeeded" or run.finished_at is None or rng.random() < 0.5:
                continue
            title = f"What {rng.choice(words.ROLES)}s did at the {rng.choice(words.PLACES)}"
            sections = [f"## {heading}\n\n{words.paragraph(rng, 8)}" for heading in ("Course", "Findings", "Next")]
            body = f"# {title}\n\n" + "\n\n".join(sections) + "\n"
            columns = (
                platform.uuid("report", report),
                run.id,
                title,
                "markdown",
                copy_text(body),
                "\\\\x" + hashlib.sha256(body.encode()).hexdigest(),
                "{" + ",".join(f"{rng.randrange(1000) / 10}" for _ in range(4)) + "}",
                copy_json({"events": run.events, "verdict": rng.choice(words.MOODS)}),
                _time(run.finished_at + timedelta(minutes=2)),
            )
            report += 1
            yield "\t".join(columns) + "\n"


# In an order that a foreign key would allow.
TABLES = (
    Table(
        "projects",
        (
            "id", "slug", "name", "description", "owner_email", "plan", "tags", "settings", "monthly_budget",
            "created_at", "updated_at", "archived_at",
        ),
        _projects,
    ),
    Table(
        "personas",
        ("id", "project_id", "name", "role", "biography", "skills", "traits", "temperature", "created_at"),
        _personas,
    ),
    Table("nodes", ("id", "project_id", "parent_id", "depth", "title", "state", "created_at"), _nodes),
    Table(
        "runs",
        (
            "id", "project_id", "node_id", "persona_ids", "status", "model", "seed", "parameters", "tokens_in",
            "tokens_out", "cost_usd", "error", "queued_at", "started_at", "finished_at",
        ),
        _runs,
    ),
    Table("run_events", ("id", "run_id", "sequence", "actor_id", "kind", "tokens", "at", "payload"), _run_events),
    Table(
        "reports",
        ("id", "run_id", "title", "format", "body", "sha256", "scores", "summary", "generated_at"),
        _reports,
    ),
)  # fmt: skip
