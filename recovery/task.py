"""What runs inside an environment's network, as a one-off task: restore, verify, ping.

    recovery task restore SOURCE [--manifest ADDRESS] --host H --port P --database D --secret-arn ARN --region R
    recovery task verify SOURCE [--manifest ADDRESS] … --samples JSON --required RUNG …
    recovery task ping --host H --port P --secret-arn ARN --region R

Arguments are addresses, never secrets: those are fetched here.  Every event is one line of JSON on standard output,
flushed at once: ``progress``, then ``result`` or ``error``; an event too long for a line of the log comes as ``part``
events whose texts make up its line.  The exit code decides.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import itertools
import json
import secrets
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.conninfo import make_conninfo
from pydantic import TypeAdapter, ValidationError

from recovery.dumps.manifest import LARGEST_MANIFEST, Manifest
from recovery.dumps.reader import check
from recovery.dumps.source import READ_BYTES, open_dump
from recovery.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    BadDumpError,
    CheckFailedError,
    EnvironmentLacksError,
    RecoveryError,
    RunInterruptedError,
    UsageError,
)
from recovery.redaction import remember_secret
from recovery.restore import restore
from recovery.verify import Checks, SampleQuery, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from recovery.dumps.facts import DumpFacts
    from recovery.progress import ProgressEvent

_PING_SECONDS = 10.0
# A log keeps every line for years; twice a second per task is more than anybody reads.
_PROGRESS_SECONDS = 1.0
# The log driver cuts a line at 262,118 bytes. So many characters stay below it, of four bytes each or escaped.
_PART_CHARACTERS = 60_000


def run(argv: list[str]) -> int:
    """Run one task and return its exit code; what happens is written to standard output as it happens."""
    output = _Output()
    try:
        arguments = _parser().parse_args(argv)
        with _terminable():
            data = _TASKS[arguments.task](arguments, output)
    except RecoveryError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        stopped = RunInterruptedError("the task was stopped")
        output.error(stopped)
        return stopped.exit_code
    except Exception as error:  # noqa: BLE001  # the log is all that anybody sees of a task: nothing may end it unsaid
        output.error(RecoveryError(f"the task failed unexpectedly: {type(error).__name__}", detail=str(error)))
        return EXIT_FAILED
    output.write({"event": "result", "kind": arguments.task, "data": data})
    return EXIT_FAILED if data.get("verdict") == "FAIL" else EXIT_DONE


class _Output:
    """The task's log: one JSON object per line, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage = ""
        self._last = 0.0

    def write(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str)
        lines = [line]
        if len(line) > _PART_CHARACTERS:
            texts = [line[start : start + _PART_CHARACTERS] for start in range(0, len(line), _PART_CHARACTERS)]
            lines = [
                json.dumps({"event": "part", "part": number, "of": len(texts), "text": text}, ensure_ascii=False)
                for number, text in enumerate(texts, start=1)
            ]
        with self._lock:
            sys.stdout.writelines(part + "\n" for part in lines)
            sys.stdout.flush()

    def progress(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.stage == self._stage and event.done != event.total and now - self._last < _PROGRESS_SECONDS:
            return
        self._stage, self._last = event.stage, now
        self.write({"event": "progress", **json.loads(event.to_json())})

    def error(self, error: RecoveryError) -> None:
        self.write(
            {
                "event": "error",
                "kind": type(error).__name__,
                "message": error.message,
                "detail": error.detail,
                "hint": error.hint,
                "code": error.exit_code,
            }
        )


# -- the tasks


def _restore(arguments: argparse.Namespace, output: _Output) -> dict[str, Any]:
    result = restore(
        arguments.source,
        _dsn(arguments),
        manifest=_manifest(arguments),
        replace=arguments.replace,
        progress=output.progress,
        region=arguments.region,
        jobs=arguments.jobs,
    )
    return result.model_dump(mode="json")


def _verify(arguments: argparse.Namespace, output: _Output) -> dict[str, Any]:
    samples = _samples(arguments.samples)
    dsn = _dsn(arguments)
    manifest = _manifest(arguments)
    verification = verify(
        dsn,
        manifest=manifest,
        facts=_facts(arguments) if manifest is None else None,
        samples=samples,
        required=set(arguments.required),
        options=Checks(install_checks=arguments.install_checks, newest_row=arguments.newest_row),
        progress=output.progress,
    )
    return verification.model_dump(mode="json")


def _ping(arguments: argparse.Namespace, output: _Output) -> dict[str, Any]:
    del output
    token = _secret(arguments)
    key, value = f"agentverse-dr:ping:{secrets.token_hex(8)}", secrets.token_hex(8)
    started = time.monotonic()
    try:
        with contextlib.closing(
            redis.Redis(
                host=arguments.host,
                port=arguments.port,
                password=token,
                ssl=arguments.tls or not _is_loopback(arguments.host),
                socket_timeout=_PING_SECONDS,
                socket_connect_timeout=_PING_SECONDS,
                decode_responses=True,
            )
        ) as cache:
            cache.ping()
            cache.set(key, value, ex=60)
            read = cache.get(key)
            cache.delete(key)
            version = cache.info("server").get("redis_version")
    except redis.AuthenticationError as error:
        raise CheckFailedError(
            "the cache does not take the token of its secret", detail=str(error), hint="compare the secret's versions"
        ) from error
    except (redis.RedisError, OSError) as error:
        raise EnvironmentLacksError(
            f"the cache at {arguments.host}:{arguments.port} does not answer",
            detail=str(error),
            hint="check the security groups between the task and the cache",
        ) from error
    if read != value:
        raise CheckFailedError("the cache does not give back what was written to it", detail=f"{read!r} for {value!r}")
    return {"host": arguments.host, "port": arguments.port, "version": version, "seconds": time.monotonic() - started}


_TASKS = {"restore": _restore, "verify": _verify, "ping": _ping}


# -- what they are given


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="recovery task", description="Runs inside an environment's network.")
    tasks = parser.add_subparsers(dest="task", required=True, parser_class=_Parser)
    for name in _TASKS:
        task = tasks.add_parser(name)
        if name != "ping":
            task.add_argument("source", nargs="?", help="the dump: s3://bucket/key or a file")
            task.add_argument("--dump", help="the same, as an option")
            task.add_argument("--manifest", help="its manifest: s3://bucket/key or a file")
            task.add_argument("--database", required=True)
            task.add_argument("--sslmode", help="as libpq's; off this machine nothing goes unencrypted by default")
        task.add_argument("--host", required=True)
        task.add_argument("--port", required=True, type=int)
        task.add_argument(
            "--secret-arn", "--secret", dest="secret", required=True, help="ARN of the secret to log in with"
        )
        task.add_argument("--region", required=True)
        if name == "restore":
            task.add_argument("--replace", action="store_true")
            task.add_argument("--jobs", type=int, help="indexes built at once")
        if name == "verify":
            task.add_argument("--samples", default="[]", help="sample queries: a JSON list")
            task.add_argument("--required", action="append", default=[], help="a rung that must have run")
            task.add_argument("--newest-row", help="a query for one moment that corroborates the recovery point")
            task.add_argument("--install-checks", action="store_true", help="install amcheck where it is missing")
        if name == "ping":
            task.add_argument("--tls", action="store_true", help="always on for any host that is not loopback")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an error event, like everything else."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"recovery task: {message}")

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:  # the signature of the base class has overloads
        arguments = super().parse_args(*args, **kwargs)
        if "source" in arguments:
            arguments.source = arguments.source or arguments.dump
            if not arguments.source:
                self.error("name the dump")
        return arguments


def _dsn(arguments: argparse.Namespace) -> str:
    try:
        secret = json.loads(_secret(arguments))
        user, password = str(secret["username"]), str(secret["password"])
    except (ValueError, KeyError, TypeError):
        raise EnvironmentLacksError(
            "the database's secret does not hold a username and a password", detail=arguments.secret
        ) from None
    remember_secret(password)
    return make_conninfo(
        host=arguments.host,
        port=arguments.port,
        dbname=arguments.database,
        user=user,
        password=password,
        sslmode=arguments.sslmode or ("prefer" if _is_loopback(arguments.host) else "require"),
    )


def _secret(arguments: argparse.Namespace) -> str:
    config = Config(connect_timeout=10, read_timeout=20, retries={"max_attempts": 4, "mode": "standard"})
    try:
        client = boto3.client("secretsmanager", region_name=arguments.region, config=config)
        value = str(client.get_secret_value(SecretId=arguments.secret)["SecretString"])
    except (ClientError, BotoCoreError, KeyError) as error:
        raise EnvironmentLacksError(
            f"the secret {arguments.secret} cannot be read",
            detail=str(error),
            hint="the task's role needs secretsmanager:GetSecretValue on it, the network a way to Secrets Manager",
        ) from error
    remember_secret(value)
    return value


def _manifest(arguments: argparse.Namespace) -> Manifest | None:
    if arguments.manifest is None:
        return None
    try:
        with open_dump(arguments.manifest, region=arguments.region) as stored:
            # One piece more than any manifest has is enough for from_bytes to refuse the rest unread.
            data = b"".join(itertools.islice(stored.stored(), LARGEST_MANIFEST // READ_BYTES + 1))
            return Manifest.from_bytes(data, origin=arguments.manifest)
    except BadDumpError as error:
        raise BadDumpError(
            f"the manifest cannot be used: {error.message}", detail=error.detail, hint=error.hint
        ) from error


def _facts(arguments: argparse.Namespace) -> DumpFacts:
    with open_dump(arguments.source, region=arguments.region) as dump:
        return check(dump, sums=True).facts


def _samples(text: str) -> list[SampleQuery]:
    """The sample queries as `verify_command` sends them."""
    try:
        return TypeAdapter(list[SampleQuery]).validate_json(text)
    except ValidationError as error:
        raise UsageError(
            "--samples is not a JSON list of {name, sql, expected, at_least}", detail=str(error)
        ) from error


def _is_loopback(host: str) -> bool:
    # Tokens and data in plain text are only ever sent to this machine.
    if host == "localhost" or host.startswith("/"):  # a folder is libpq's way of naming a socket of this machine
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an error that cleans up on its way, once: a second one must not stop the cleaning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RunInterruptedError("the task was stopped", detail="it received SIGTERM", hint="the target is as it was")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
