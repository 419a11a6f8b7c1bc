"""What `make drill` does: a cloud, a little production in it, and the quarterly drill, which never knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from examples.agentverse import production
from examples.agentverse.errors import EnvironmentLacksError
from examples.agentverse.stack import ROOT

if TYPE_CHECKING:
    from types import FrameType

    from examples.agentverse.database import Say

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_LACKS = 4
# Endpoints of single services, profiles, tokens, another backend's state: anything of these two families could lead
# elsewhere than the variables that are given.
_OPERATORS_OWN = ("AWS_", "PULUMI_")


def drill(wishes: production.Wishes, say: Say, *, home: Path | None, port: int | None, arguments: Sequence[str]) -> int:
    """Run the quarterly drill against a production made for it; return the drill's own exit code.

    `arguments` go to `recovery drill quarterly` as they are. A cloud that ran already is used and left running.
    """
    with embedded_cloud(say, home=home, port=port) as variables, environment_of(variables):
        production.up(wishes, say)
        return _run([sys.executable, "-m", "recovery", "--local", "--yes", "drill", "quarterly", *arguments])


@contextmanager
def embedded_cloud(say: Say, *, home: Path | None = None, port: int | None = None) -> Iterator[dict[str, str]]:
    """Yield the variables that point at the embedded cloud of this home, which is started if need be.

    A cloud that did not run before is stopped at the end.

    Raises EnvironmentLacksError where it cannot be started.
    """
    where = [] if home is None else ["--home", str(home)]
    running = _localcloud("env", "--json", *where)
    started = running.returncode == _LACKS
    try:
        if started:
            begun = time.monotonic()
            result = _localcloud("start", *where, *([] if port is None else ["--port", str(port)]))
            if result.returncode:
                raise EnvironmentLacksError(
                    "the embedded cloud did not start",
                    detail=(result.stderr or result.stdout).strip(),
                    hint="another port may be free: --port 0",
                )
            say(f"{'cloud':<12} {time.monotonic() - begun:6.1f} s  started")
            running = _localcloud("env", "--json", *where)
        if running.returncode:
            raise EnvironmentLacksError("the embedded cloud does not tell where it is", detail=running.stderr.strip())
        document = json.loads(running.stdout)
        # Its folder too: that is how `recovery --local` finds this cloud and no other.
        yield {**document["env"], "AGENTVERSE_LOCALCLOUD_HOME": document["home"]}
    finally:
        if started:
            stopped = _localcloud("stop", *where, seconds=_STOP_SECONDS)
            if stopped.returncode:
                # Said, not raised: it must not hide what ended the rehearsal.
                say(f"the embedded cloud did not stop: {stopped.stderr.strip()}; stop it: localcloud stop")


@contextmanager
def environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables for the time of the block, for this process and what it starts.

    What else the operator has set for AWS and Pulumi is out of sight meanwhile: some of it would win over them.
    """
    hidden = [name for name in os.environ if name.startswith(_OPERATORS_OWN)]
    before = {name: os.environ.get(name) for name in (*variables, *hidden)}
    for name in hidden:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _localcloud(*arguments: str, seconds: float = _START_SECONDS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localcloud", *arguments]
    # A session of its own: Ctrl-C is for the drill, which still needs the cloud to tear down what it made.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as exc:
            process.kill()
            raise EnvironmentLacksError(
                f"localcloud {arguments[0]} has not ended after {seconds:.0f} s",
                hint="look into its log: its home has it",
            ) from exc
        except KeyboardInterrupt:
            # A cloud that is left half started could not be stopped: it takes a few seconds, a second Ctrl-C none.
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, said)


def _run(command: Sequence[str]) -> int:
    """Run a command to its end, whatever signals come meanwhile: it tears down what it made, so it must not be killed.

    Ctrl-C reaches it by itself, being of the same terminal; SIGTERM is handed on.
    """
    child: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _: FrameType | None) -> None:
        if child is not None and number == signal.SIGTERM:
            child.send_signal(number)

    # Functions, not SIG_IGN: that one the child would inherit.
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command, cwd=ROOT)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
