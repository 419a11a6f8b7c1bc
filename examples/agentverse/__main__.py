"""`python -m examples.agentverse`: the only place of the example that prints and exits."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import stamina.instrumentation
import typer

from examples.agentverse import blobs, database, production, rehearsal
from examples.agentverse.credentials import choose_dsn
from examples.agentverse.errors import ExampleError, WrongUsageError
from examples.agentverse.rows import DEFAULT_UNTIL, TABLES, Platform

app = typer.Typer(
    help="AgentVerse in small: its data of any size, and a little production of it on the embedded cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
production_app = typer.Typer(
    help="A little production on the embedded cloud; anything else is refused.", no_args_is_help=True
)
app.add_typer(production_app, name="production")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed makes the same bytes.")]
MegabytesOption = Annotated[float, typer.Option(min=0.01, help="Size of the data as plain SQL, in 10^6 bytes, about.")]
ObjectsOption = Annotated[int, typer.Option(min=1, help="Number of blobs.")]
TimeoutOption = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long replication may take.")]


def _say(text: str) -> None:
    typer.echo(text, err=True)


@app.command(
    epilog="Examples: seed --megabytes 200 · seed --secret ARN --host HOST --scale 10 · seed --to-stdout --megabytes 1"
)
def seed(
    *,
    dsn: Annotated[
        str | None, typer.Option(help="Database, without a password; AGENTVERSE_DATABASE_URL may have one.")
    ] = None,
    secret: Annotated[str | None, typer.Option(metavar="ARN", help="Secret with username and password.")] = None,
    host: Annotated[str | None, typer.Option(help="With --secret: the database's host.")] = None,
    port: Annotated[int, typer.Option(help="With --secret: its port.")] = 5432,
    database_name: Annotated[str, typer.Option("--database", help="With --secret: its name.")] = "agentverse",
    region: Annotated[str | None, typer.Option(help="With --secret: region of a secret that is no ARN.")] = None,
    megabytes: Annotated[
        float | None, typer.Option(min=0.01, help="Size as plain SQL, in 10^6 bytes, about. [default: 50]")
    ] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Or: number of projects, about 0.3 MB each.")] = None,
    seed_number: SeedOption = 7,
    until: Annotated[
        datetime | None, typer.Option(help="UTC time that no row is newer than. [default: 2026-01-09T02:00:00]")
    ] = None,
    to_stdout: Annotated[
        bool, typer.Option("--to-stdout", help="Write the COPY text of all tables to stdout, touch no database.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the schema and fill it: a database that is not empty is refused."""
    if megabytes is not None and scale is not None:
        raise WrongUsageError("--megabytes and --scale both say how much", hint="give one of them")
    newest = DEFAULT_UNTIL if until is None else until.replace(tzinfo=UTC)
    if scale is not None:
        platform = Platform(seed=seed_number, projects=scale, until=newest)
    else:
        platform = Platform.of_size(50 if megabytes is None else megabytes, seed=seed_number, until=newest)
    if to_stdout:
        for table in TABLES:
            for chunk, _ in table.chunks(platform):
                sys.stdout.buffer.write(chunk)
        return
    address = choose_dsn(dsn=dsn, secret=secret, host=host, port=port, database=database_name, region=region)
    with database.connect(address) as connection:
        result = database.seed(connection, platform, _say)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, **asdict(result)}))
    else:
        total = sum(result.rows.values())
        typer.echo(f"{total:,} rows, {result.copy_bytes / 1e6:,.1f} MB in {result.seconds:.1f} s")


@app.command("seed-blobs", epilog="Example: seed-blobs --bucket agentverse-primary --region us-east-1 --objects 500")
def seed_blobs(
    *,
    bucket: Annotated[str, typer.Option(help="Bucket of the application.")],
    region: Annotated[str | None, typer.Option(help="Its region; the environment's by default.")] = None,
    objects: ObjectsOption = 200,
    seed_number: SeedOption = 7,
    as_json: JsonOption = False,
) -> None:
    """Upload blobs under telemetry/, snapshots/ and exports/. What has the same key is written anew."""
    result = blobs.upload(blobs.client(region), bucket, seed=seed_number, objects=objects, say=_say)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, **asdict(result)}))
    else:
        typer.echo(f"{sum(result.objects.values()):,} blobs, {result.size / 1e6:,.1f} MB in {result.seconds:.1f} s")


@production_app.command(epilog='Example: eval "$(localcloud env)"; production up --megabytes 50')
def up(
    *,
    megabytes: MegabytesOption = 50,
    objects: ObjectsOption = 200,
    seed_number: SeedOption = 7,
    timeout: TimeoutOption = 300,
    as_json: JsonOption = False,
) -> None:
    """Bring the primary stack up, seed it, back it up, wait for its replicas. Again: only what is missing."""
    wishes = production.Wishes(megabytes=megabytes, objects=objects, seed=seed_number, timeout=timeout)
    result = production.up(wishes, _say)
    typer.echo(result.model_dump_json(indent=2) if as_json else "production is up, backed up and replicated")


@production_app.command()
def status(*, as_json: JsonOption = False) -> None:
    """Say what is there. Exit code 1 where something is missing."""
    result = production.status()
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for table, rows in result.rows.items():
            typer.echo(f"{table:<12} {rows:>12,} rows")
        for prefix, number in result.blobs.items():
            typer.echo(f"{prefix:<12} {number:>12,} blobs")
        typer.echo(f"{'backups':<12} {result.backups:>12,}")
        typer.echo("complete" if result.complete else f"missing: {', '.join(result.missing)}")
    if not result.complete:
        raise typer.Exit(1)


@production_app.command()
def down(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Destroy it, data and backups included.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be destroyed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Destroy the primary stack of the embedded cloud with all its data."""
    resources = production.down(_say, dry_run=dry_run, confirmed=yes)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "dry_run": dry_run, "resources": resources}, indent=2))
    else:
        for urn in resources if dry_run else ():
            typer.echo(urn)
        typer.echo(f"{len(resources)} resources {'would be ' if dry_run else ''}destroyed")


@app.command(epilog="Examples: drill · drill --megabytes 200 -- --blackout us-east-1")
def drill(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: given to `recovery drill quarterly` as they are.")
    ] = None,
    *,
    megabytes: MegabytesOption = 50,
    objects: ObjectsOption = 200,
    seed_number: SeedOption = 7,
    timeout: TimeoutOption = 300,
    home: Annotated[Path | None, typer.Option(help="Home of the embedded cloud; its own default otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the embedded cloud if it is to be started.")] = None,
) -> None:
    """Start the embedded cloud if need be, make a production in it, and run the quarterly drill; `make drill`."""
    wishes = production.Wishes(megabytes=megabytes, objects=objects, seed=seed_number, timeout=timeout)
    raise typer.Exit(rehearsal.drill(wishes, _say, home=home, port=port, arguments=arguments or []))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 environment, 130 interrupted."""
    # Typer ends a KeyboardInterrupt with 130; a SIGTERM tidies up and ends the same way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Waiting for replicas is no incident: not a log line for each look.
    stamina.instrumentation.set_on_retry_hooks([])
    try:
        app()
    except ExampleError as exc:
        _say(f"error: {exc.message}")
        for label, text in (("detail", exc.detail), ("hint", exc.hint)):
            if text:
                _say(f"{label}: {text}")
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
