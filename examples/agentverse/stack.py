"""A stack of the repository's own Pulumi project, driven from a temporary copy of its project and stack files."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulumi import automation as auto
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from examples.agentverse.errors import EnvironmentLacksError, ExampleError

ROOT = Path(__file__).resolve().parents[2]
EventHandler = Callable[[auto.events.EngineEvent], None]


class PrimaryOutputs(BaseModel):
    """What the primary stack tells: the part of its outputs that a rehearsal's production needs."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)

    schema_version: int
    account: str
    region: str
    dr_region: str
    primary_bucket: str
    backups_bucket: str
    dr_backups_bucket: str
    evidence_bucket: str
    database_endpoint: str
    database_port: int
    database_name: str
    database_secret_arn: str


def set_line(text: str, pattern: str, value: str) -> str:
    """Replace the first line that matches `pattern` by the pattern's first group and `value`."""

    def replace(found: re.Match[str]) -> str:
        return found[1] + value

    return re.sub(rf"(?m)^{pattern}$", replace, text, count=1)


@contextmanager
def project_copy(stack: str, *, settings: Mapping[str, str] | None = None, source: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder with Pulumi.yaml and Pulumi.<stack>.yaml, which Pulumi may rewrite as it likes.

    `source` names the committed stack file to start from (the stack's own by default); `settings` are added to it.
    The copy's paths are absolute, so that it runs this repository's program with this repository's Python.
    """
    with tempfile.TemporaryDirectory(prefix="agentverse-") as name:
        folder = Path(name)
        text = (ROOT / "Pulumi.yaml").read_text(encoding="utf-8")
        for key, absolute in (("main", ROOT / "infra"), ("virtualenv", Path(sys.prefix))):
            text = set_line(text, rf"(\s*{key}: ).*", f'"{absolute}"')
        (folder / "Pulumi.yaml").write_text(text, encoding="utf-8")
        copy = folder / f"Pulumi.{stack}.yaml"
        shutil.copyfile(ROOT / f"Pulumi.{source or stack}.yaml", copy)
        text = copy.read_text(encoding="utf-8")
        for key, value in (settings or {}).items():
            text = re.sub(rf"(?m)^  {re.escape(key)}:.*\n", "", text)
            text = set_line(text, "(config:)", f'\n  {key}: "{value}"')
        copy.write_text(text, encoding="utf-8")
        yield folder


def select(stack: str, folder: Path) -> auto.Stack:
    """Return the stack of this name in the project copied to `folder`, made where it is not there yet.

    Raises EnvironmentLacksError where the Pulumi engine is missing or is no match for the SDK.
    """
    with _engine_errors("selecting", stack):
        options = auto.LocalWorkspaceOptions(pulumi_command=_engine())
        return auto.create_or_select_stack(stack_name=stack, work_dir=str(folder), opts=options)


def exists(stack: str, folder: Path) -> bool:
    """Tell whether the state knows this stack; makes nothing."""
    with _engine_errors("finding", stack):
        workspace = auto.LocalWorkspace(work_dir=str(folder), pulumi_command=_engine())
        return any(summary.name == stack for summary in workspace.list_stacks())


def _engine() -> auto.PulumiCommand:
    """Return the engine that set-up placed beside this Python, else the one on PATH."""
    return auto.PulumiCommand(root=sys.prefix if (Path(sys.prefix) / "bin" / "pulumi").exists() else None)


@contextmanager
def _engine_errors(doing: str, stack: str) -> Iterator[None]:
    try:
        yield
    except (OSError, auto.InvalidVersionError) as exc:
        raise EnvironmentLacksError(
            "the Pulumi engine cannot be used", detail=str(exc), hint="run: make setup"
        ) from exc
    except auto.CommandError as exc:
        raise _failed(doing, stack, exc) from exc


def up(stack: auto.Stack, say: Callable[[str], None], on_event: EventHandler | None = None) -> dict[str, int]:
    """Bring the stack up; return how many resources were made, changed or left as they were, by operation."""
    with _engine_errors("bringing up", stack.name):
        summary = stack.up(color="never", suppress_progress=True, on_event=_Watch(say, on_event)).summary
    return {str(operation): number for operation, number in (summary.resource_changes or {}).items()}


def destroy(stack: auto.Stack, say: Callable[[str], None]) -> None:
    """Destroy all resources of the stack and forget it."""
    with _engine_errors("destroying", stack.name):
        stack.destroy(color="never", suppress_progress=True, on_event=_Watch(say, None), remove=True)


def primary_outputs(stack: auto.Stack) -> PrimaryOutputs:
    """Return the outputs of the primary stack, checked. Raises ExampleError naming what is missing or wrong."""
    with _engine_errors("reading", stack.name):
        values: dict[str, Any] = {name: output.value for name, output in stack.outputs().items()}
    try:
        return PrimaryOutputs.model_validate(values)
    except ValidationError as exc:
        wrong = ", ".join(".".join(map(str, error["loc"])) for error in exc.errors())
        raise ExampleError(
            f"stack {stack.name} does not tell all that is needed",
            detail=f"missing or wrong outputs: {wrong}",
            hint="bring it up to the end: python -m examples.agentverse production up",
        ) from exc


def _failed(doing: str, stack: str, exc: auto.CommandError) -> ExampleError:
    lines = [line.strip() for line in str(exc).splitlines()]
    told = [line for line in lines if line.startswith("error:")] or [line for line in lines if line][-5:]
    return ExampleError(
        f"{doing} stack {stack} failed",
        detail="\n".join(dict.fromkeys(told)),
        hint="the engine's own words are above; what was made stays in the state, so doing it again goes on from there",
    )


class _Watch:
    """Turns engine events into one line every two seconds: how many resources are done, which are on their way."""

    def __init__(self, say: Callable[[str], None], also: EventHandler | None) -> None:
        self._say = say
        self._also = also
        self._open: dict[str, str] = {}
        self._done = 0
        self._said = time.monotonic()

    def __call__(self, event: auto.events.EngineEvent) -> None:
        """Take note of one event."""
        if self._also is not None:
            self._also(event)
        if event.resource_pre_event is not None:
            metadata = event.resource_pre_event.metadata
            if metadata.op is not auto.OpType.SAME:
                self._open[metadata.urn] = metadata.type.rsplit(":", 1)[-1]
        elif event.res_outputs_event is not None:
            self._done += 1
            self._open.pop(event.res_outputs_event.metadata.urn, None)
        now = time.monotonic()
        if now - self._said >= 2:
            self._said = now
            waiting = ", ".join(sorted(set(self._open.values()))) or "the program"
            self._say(f"{self._done} resources done · waiting for {waiting}")
