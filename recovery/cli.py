"""The `recovery` command: the only place that prints, prompts and exits, and where errors become exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from recovery import errors
from recovery.clients import AwsError, aws_problem
from recovery.commands import backup, doctor, drill, environment, restoring
from recovery.commands.shared import Session
from recovery.console import Screen
from recovery.redaction import RedactionFilter

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(
    name="recovery",
    help="AgentVerse's disaster recovery runbook, made executable.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 a check or drill failed, 2 usage, 3 refused for safety, 4 something the environment "
    "lacks, 130 interrupted.",
)
app.add_typer(drill.drill, name="drill")
app.add_typer(drill.drills, name="drills")
app.add_typer(environment.environment, name="environment")
app.add_typer(backup.backups, name="backups")
app.command("backup")(backup.take)
app.command("restore")(restoring.restore_dump)
app.command("verify")(backup.verify_database)
app.command("doctor")(doctor.doctor)


@app.callback()
def _options(
    context: typer.Context,
    local: Annotated[bool, typer.Option("--local", help="Use the embedded cloud, starting it if need be.")] = False,  # noqa: FBT002  # an option
    json: Annotated[  # noqa: FBT002  # an option
        bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer yes where a person would be asked.")] = False,  # noqa: FBT002  # an option
) -> None:
    """AgentVerse's disaster recovery runbook, made executable."""
    # The screen of the whole call, given by `_run`: it alone knows whether the one document was printed already.
    screen = context.obj if isinstance(context.obj, Screen) else Screen(as_json=json)
    context.obj = Session(local_wanted=local, yes=yes, screen=screen)


# Typer carries a click of its own and exports only one of its usage errors; what they have in common is its parent.
_UsageProblem = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    argv = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=os.environ.get("AGENTVERSE_LOG", "WARNING").upper(), stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactionFilter())
    if "AGENTVERSE_LOG" not in os.environ:
        # That something is tried once more is progress, which commands tell in their own words.
        logging.getLogger("stamina").setLevel(logging.ERROR)
    # CI stops a job with SIGTERM: it deserves the same teardown as a person's Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _run(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # Whoever read our output has had enough, which is no failure of ours to tell anybody about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = errors.EXIT_FAILED
    if code == errors.EXIT_INTERRUPTED:
        # Threads of an abandoned run may hang in a call; the interpreter must not wait for them.
        os._exit(code)
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(argv: list[str]) -> int:
    if argv[:1] == ["task"]:
        # What runs inside the network speaks JSON lines and knows none of the options above.
        from recovery import task  # noqa: PLC0415  # its libraries would slow every other command down

        return task.run(argv[1:])
    screen = Screen(as_json="--json" in argv)
    try:
        result = app(args=argv, prog_name="recovery", standalone_mode=False, obj=screen)
    except errors.RecoveryError as exc:
        screen.error(exc)
        return exc.exit_code
    except AwsError as exc:
        problem = aws_problem("An AWS call failed.", exc)
        screen.error(problem)
        return problem.exit_code
    except _UsageProblem as exc:
        screen.error(errors.UsageError(exc.format_message(), hint="recovery --help shows what there is."))
        return errors.EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        screen.error(errors.RunInterruptedError("Interrupted."))
        return errors.EXIT_INTERRUPTED
    return result if isinstance(result, int) else errors.EXIT_DONE
