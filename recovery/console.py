"""How things look: results on stdout, everything else on stderr, colour only on terminals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from recovery.errors import RefusedError
from recovery.redaction import redact, redact_text
from recovery.report.model import duration

if TYPE_CHECKING:
    from rich.status import Status

    from recovery.errors import RecoveryError
    from recovery.journal import Event
    from recovery.report.model import Report

SCHEMA_VERSION = 1
_TONES = {"PASS": "bold green", "FAIL": "bold red"}


class Screen:
    """The two streams of one command. With `as_json` exactly one document goes to stdout."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Look at the streams as they are now."""
        self.as_json = as_json
        self.out = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self.err = Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._documents = 0

    def document(self, value: Mapping[str, Any]) -> None:
        """Print the command's one JSON document."""
        self._documents += 1
        clean = redact({"schema_version": SCHEMA_VERSION, **value})
        sys.stdout.write(json.dumps(clean, indent=2, default=_plain, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, line: str, style: str = "") -> None:
        """Print a line of the result, unless a document is printed instead."""
        if not self.as_json:
            self.out.print(Text(redact_text(line), style=style))

    def say(self, line: str, style: str = "") -> None:
        """Print a line about what is going on."""
        self.err.print(Text(redact_text(line), style=style))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table of the result, unless a document is printed instead.

        Nothing is ever cut: on a terminal long cells fold, elsewhere a line is as long as its row.
        """
        if self.as_json:
            return
        cells = [[redact_text("" if cell is None else str(cell)) for cell in row] for row in rows]
        if not self.out.is_terminal:
            lines = [list(columns), *cells]
            widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
            for line in lines:
                text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                self.out.print(Text(text.rstrip()))
            return
        first, *others = columns
        table = Table(
            # What identifies a row stays in one piece as long as there is room for it.
            Column(first, no_wrap=True, overflow="fold"),
            *(Column(name, overflow="fold") for name in others),
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for row in cells:
            table.add_row(*map(Text, row))
        self.out.print(table, soft_wrap=False)

    def error(self, problem: RecoveryError) -> None:
        """Print message, detail and hint on stderr; with --json, the document too if none was printed yet."""
        self.say(f"error: {problem.message}", "bold red")
        if problem.detail:
            self.say(f"detail: {problem.detail}")
        if problem.hint:
            self.say(f"hint: {problem.hint}")
        if self.as_json and not self._documents:
            fields = {"message": problem.message, "detail": problem.detail, "hint": problem.hint}
            self.document({"error": {**fields, "code": problem.exit_code}})

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a person, unless --yes was said. Raises RefusedError when nobody is there or the answer is no."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise RefusedError(
                "This needs a confirmation and there is no terminal to ask on.",
                detail=question,
                hint="Say --yes before the command: recovery --yes ...",
            )
        self.err.print(Text(f"{question} [y/N] "), end="")
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise RefusedError("Not confirmed; nothing was changed.")


def _plain(value: object) -> str:
    """Return what JSON has no type for as text; moments as in every other document of ours."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


class RunDisplay:
    """Shows a run from its journal's events: a line per transition, and on a terminal what is going on right now."""

    def __init__(self, screen: Screen) -> None:
        """Begin with nothing shown."""
        self._screen = screen
        self._titles: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._doing: dict[str, str] = {}
        self._status: Status | None = None
        self._live = screen.err.is_terminal

    def __call__(self, event: Event) -> None:  # noqa: PLR0912  # one branch per kind of event
        """Take one event; called from the runner's threads one event at a time or nearly so."""
        match event.event:
            case "run-started":
                self._begin(event)
            case "step-started":
                self._begun[event.step] = event.monotonic
                self._doing[event.step] = ""
                if not self._live:
                    self._screen.say(f"  ... {self._title(event)}")
            case "step-progress":
                self._doing[event.step] = str(event.data.get("text", ""))
                if not self._live:
                    self._screen.say(f"      {event.step}: {event.data.get('text', '')}", "dim")
            case "step-done":
                evidence = event.data.get("evidence")
                said = evidence.get("summary", "") if isinstance(evidence, dict) else ""
                self._end(event, "ok ", "green", str(said))
            case "step-failed":
                self._end(event, "BAD", "bold red", str(event.data.get("message")))
                for key in ("detail", "hint"):
                    if event.data.get(key):
                        self._screen.say(f"      {key}: {event.data[key]}")
            case "step-skipped" | "step-not-run" | "step-interrupted":
                reason = event.data.get("reason") or event.data.get("message")
                self._end(event, "-- ", "yellow", str(reason))
            case "interrupted":
                then = "is torn down" if "teardown" in self._titles else "stays, as --keep asked"
                self._screen.say(
                    f"Stopping: what was begun is ended, then the environment {then}. Ctrl-C again stops at once; "
                    f"then finish with: {event.data.get('finish_command')}",
                    "bold yellow",
                )
            case "outage-over":
                self._screen.say(f"{event.data.get('region')} is back.")
            case "outage-not-ended":
                self._screen.say(f"{event.data.get('region')} is still dark: {event.data.get('message')}", "bold red")
            case _:
                return
        self._show()

    def _begin(self, event: Event) -> None:
        steps = event.data["steps"]
        self._titles = {step["name"]: step["title"] for step in steps} if isinstance(steps, list) else {}
        self._screen.say(f"{event.data['title']} {event.drill}", "bold")

    def _title(self, event: Event) -> str:
        return self._titles.get(event.step, event.step)

    def _end(self, event: Event, mark: str, style: str, said: str) -> None:
        self._doing.pop(event.step, None)
        took = f" ({duration(event.monotonic - self._begun[event.step])})" if event.step in self._begun else ""
        self._screen.say(f"  {mark} {self._title(event)}{took}{': ' if said else ''}{said}", style)

    def _show(self) -> None:
        """Keep the live line up to date."""
        if not self._live:
            return
        doing = [f"{step}{': ' if text else ''}{text}" for step, text in self._doing.items()]
        if not doing:
            self.close()
            return
        line = Text(redact_text("; ".join(doing))[: max(20, self._screen.err.width - 6)])
        if self._status is None:
            self._status = self._screen.err.status(line)
            self._status.start()
        else:
            self._status.update(line)

    def close(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def show_report(screen: Screen, report: Report, page: object) -> None:
    """Print a report for a person: verdict, objectives, checks, and where the page is."""
    screen.text(f"{report.verdict}  {report.title} {report.drill}", _TONES.get(report.verdict, "bold yellow"))
    for reason in report.verdict_reasons:
        screen.text(f"  {reason}")
    screen.text(f"RTO {duration(report.rto_seconds)} (objective {duration(report.rto_objective_seconds)})")
    unknown = f": {report.rpo_reason}" if report.rpo_reason else ""
    screen.text(f"RPO {duration(report.rpo_seconds)}{unknown} (objective {duration(report.rpo_objective_seconds)})")
    screen.table(
        ("outcome", "check", "evidence"), [(check.outcome, check.title, check.reason) for check in report.checks]
    )
    for note in report.notes:
        screen.text(f"note: {note}")
    screen.text(f"Report: {page}")
