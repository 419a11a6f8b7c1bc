"""The command `localcloud`: the only place here that prints and exits."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from localcloud import daemon
from localcloud.settings import DEFAULT_PORT, Instance, LocalcloudError, Settings, default_home, running_instance

_CONTROL_SECONDS = 60.0
_WIDE = 400

app = typer.Typer(
    help="An embedded AWS for rehearsals and tests: one process on the loopback interface, with a real PostgreSQL "
    "behind RDS and a real Redis behind ElastiCache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        help="Folder the cloud lives in; one cloud in each.",
        show_default="agentverse-localcloud-UID below /var/tmp",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
RegionArgument = Annotated[str, typer.Argument(metavar="REGION", help="Such as us-east-1.")]


def _say(text: str) -> None:
    typer.echo(text)


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _exports(instance: Instance) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in instance.environment().items())


def _say_started(instance: Instance, home: Path, *, already: bool) -> None:
    own_home = "" if home == default_home() else f" --home {shlex.quote(str(home))}"
    _say(f"localcloud {'is already running' if already else 'started'} at {instance.endpoint} (process {instance.pid})")
    _say("")
    _say("Point any AWS client at it:")
    _say(f'  eval "$(localcloud env{own_home})"')
    _say("or just:")
    _say(f"  export AWS_ENDPOINT_URL={instance.endpoint} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test")
    _say("")
    _say(f"Stop it: localcloud stop{own_home}")


def _running(home: Path) -> Instance:
    instance = running_instance(home)
    if instance is None:
        raise LocalcloudError(f"no cloud is running in {home}", hint="start one: localcloud start")
    return instance


def _control(home: Path, method: str, door: str) -> dict[str, Any]:
    instance = _running(home)
    request = urllib.request.Request(f"{instance.endpoint}/_localcloud/{door}", method=method)  # noqa: S310  # always http
    # Proxies of the environment are for elsewhere: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_CONTROL_SECONDS) as response:
            document: dict[str, Any] = json.load(response)
            return document
    except urllib.error.HTTPError as exc:
        with exc:
            said = exc.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not the cloud's own answer: show it as it is
            said = json.loads(said)["error"]
        raise LocalcloudError(f"{door}: {said}", code=2 if exc.code == 400 else 4) from exc
    except (OSError, ValueError) as exc:
        raise LocalcloudError(
            f"the cloud at {instance.endpoint} does not answer",
            detail=str(exc),
            hint=f"look into {home / 'localcloud.log'}, or stop it: localcloud stop",
        ) from exc


@app.command(epilog="Examples: localcloud start · localcloud start --port 0 --home /var/tmp/my-cloud --json")
def start(
    *,
    home: HomeOption = default_home(),  # noqa: B008  # the same for the life of a process
    port: Annotated[
        int,
        typer.Option(
            envvar="AGENTVERSE_LOCALCLOUD_PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one."
        ),
    ] = DEFAULT_PORT,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in this terminal until Ctrl-C.")] = False,
    images: Annotated[
        Path | None, typer.Option(help="TOML table of the local commands that stand for container images.")
    ] = None,
    replication_delay: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long S3 replicas lag behind their sources.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Start the cloud and return once it answers. Already running: says so."""
    settings = Settings(home=home.absolute(), port=port, images=images, replication_delay=replication_delay)

    def tell(instance: Instance, *, already: bool = False) -> None:
        if as_json:
            _print_json(instance.document())
        else:
            _say_started(instance, settings.home, already=already)
        sys.stdout.flush()

    try:
        if foreground:
            raise typer.Exit(daemon.serve(settings, tell))
        tell(daemon.start(settings))
    except daemon.AlreadyRunningError as exc:
        tell(exc.instance, already=True)


@app.command(epilog="Example: localcloud stop")
def stop(*, home: HomeOption = default_home()) -> None:  # noqa: B008  # as above
    """Stop the cloud with everything in it, and remove what a killed one left."""
    home = home.absolute()
    _say("localcloud stopped" if daemon.stop(home) else f"no cloud was running in {home}; leftovers, if any, removed")


@app.command(epilog='Examples: eval "$(localcloud env)" · localcloud env --json')
def env(
    *,
    home: HomeOption = default_home(),  # noqa: B008  # as above
    as_json: JsonOption = False,
    shell: Annotated[bool, typer.Option("--shell", help="Print export lines (what it does anyway).")] = False,
) -> None:
    """Print the variables that point AWS clients and Pulumi at the cloud."""
    if as_json and shell:
        raise LocalcloudError("--json and --shell exclude each other", code=2)
    instance = _running(home.absolute())
    if as_json:
        _print_json(instance.document())
    else:
        _say(_exports(instance))


@app.command(epilog="Examples: localcloud status · localcloud status --json")
def status(*, home: HomeOption = default_home(), as_json: JsonOption = False) -> None:  # noqa: B008  # as above
    """Show what runs: databases, caches, tasks, copies under way, regions that are dark."""
    home = home.absolute()
    document = _control(home, "GET", "status")
    instance = _running(home)
    if as_json:
        _print_json({**document, "endpoint": instance.endpoint, "pid": instance.pid, "home": str(home)})
        return
    _say(f"localcloud at {instance.endpoint} (process {instance.pid}, instance {instance.instance_id}, home {home})")
    dark = document["dark_regions"]
    if dark:
        _say(f"dark: {', '.join(dark)}")
    rows = document["running"]
    if not rows:
        _say("nothing runs in it")
        return
    first = ("kind", "name", "region", "state", "address")
    columns = [*first, *sorted({key for row in rows for key in row} - set(first))]
    # The one command that draws: the others, of which a start is two, need not wait for these.
    from rich.console import Console  # noqa: PLC0415  # as said above
    from rich.table import Table  # noqa: PLC0415  # as said above

    table = Table()
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    console = Console()
    if not console.is_terminal:
        # In a file or a pipe addresses are read by programs: they must not be cut to a terminal's width.
        console.width = _WIDE
    console.print(table)


@app.command(epilog="Example: localcloud reset")
def reset(*, home: HomeOption = default_home()) -> None:  # noqa: B008  # as above
    """Forget everything in the cloud, as if it had just started; Pulumi state on it too."""
    _control(home.absolute(), "POST", "reset")
    _say("localcloud is empty")


@app.command(epilog="Example: localcloud blackout us-east-1")
def blackout(region: RegionArgument, *, home: HomeOption = default_home()) -> None:  # noqa: B008  # as above
    """Make a region go dark: connections are cut, its processes suspended."""
    _control(home.absolute(), "POST", f"blackout/{region}")
    _say(f"{region} is dark; bring it back: localcloud restore {region}")


@app.command(epilog="Example: localcloud restore us-east-1")
def restore(region: RegionArgument, *, home: HomeOption = default_home()) -> None:  # noqa: B008  # as above
    """Bring a dark region back."""
    _control(home.absolute(), "POST", f"restore/{region}")
    _say(f"{region} is back")


def main() -> None:
    """Run the command line; exit 0 done, 2 wrong usage, 4 something lacking, 130 interrupted."""
    try:
        app()
    except LocalcloudError as exc:
        typer.echo(f"localcloud: {exc}", err=True)
        sys.exit(exc.code)
    except KeyboardInterrupt:
        sys.exit(130)
