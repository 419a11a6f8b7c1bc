"""`--local`: finds or starts the embedded cloud and points this process at it. Nothing of it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from recovery.errors import EnvironmentLacksError

_NOT_RUNNING = 4


@dataclass(frozen=True, kw_only=True)
class LocalCloud:
    """The embedded cloud in use. `started` tells whether this process started it."""

    account: str
    endpoint: str
    instance_id: str
    started: bool


def use_local_cloud() -> LocalCloud:
    """Find the running embedded cloud or start one, and put its addresses and dummy credentials into os.environ.

    AGENTVERSE_LOCALCLOUD_HOME names the cloud's folder when it is not the default one.
    Raises EnvironmentLacksError with what it said when it cannot be started.
    """
    home = os.environ.get("AGENTVERSE_LOCALCLOUD_HOME")
    place = ["--home", home] if home else []
    started = False
    answer = _localcloud("env", "--json", *place)
    if answer.returncode == _NOT_RUNNING:
        begin = _localcloud("start", *place)
        if begin.returncode != 0:
            raise EnvironmentLacksError(
                "The embedded cloud could not be started.",
                detail=(begin.stderr or begin.stdout).strip()[-2000:],
                hint="`localcloud start --foreground` shows everything it says.",
            )
        started = True
        answer = _localcloud("env", "--json", *place)
    if answer.returncode != 0:
        raise EnvironmentLacksError(
            "The embedded cloud does not say where it is.", detail=(answer.stderr or answer.stdout).strip()[-2000:]
        )
    try:
        document = json.loads(answer.stdout)
        environment: Mapping[str, str] = document["env"]
        cloud = LocalCloud(
            account=str(document["account"]),
            endpoint=str(document["endpoint"]),
            instance_id=str(document["instance_id"]),
            started=started,
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise EnvironmentLacksError(
            "`localcloud env --json` gave something unreadable.", detail=answer.stdout[:500]
        ) from exc
    _forget_every_other_cloud()
    os.environ.update(environment)
    return cloud


def _forget_every_other_cloud() -> None:
    """Take out of this process's environment all that could lead a call, a credential or a state elsewhere.

    Endpoints of single services win over AWS_ENDPOINT_URL, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS turns it off, a profile
    wins over the dummy keys, a session token is sent along with them, PULUMI_ACCESS_TOKEN and the like belong to
    another backend: so none of either family stays, and no file of profiles is read.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "PULUMI_")):
            del os.environ[name]
    os.environ.update({"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull})
    # A proxy of the operator's is for elsewhere: the embedded cloud, its databases and its caches are loopback.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost", "::1"]))


def _localcloud(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", "localcloud", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            # The cloud outlives this command: an operator's Ctrl-C is for the command, not for the cloud.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise EnvironmentLacksError(f"`localcloud {arguments[0]}` did not answer within 120 s.") from exc


def set_blackout(endpoint: str, region: str, *, dark: bool) -> None:
    """Darken a region of the embedded cloud, or light it again. Raises EnvironmentLacksError when it does not obey."""
    door = "blackout" if dark else "restore"
    try:
        httpx.post(f"{endpoint}/_localcloud/{door}/{region}", timeout=30).raise_for_status()
    except httpx.HTTPError as exc:
        raise EnvironmentLacksError(
            f"The embedded cloud did not take `{door} {region}`.",
            detail=str(exc),
            hint=f"Do it by hand: localcloud {door} {region}",
        ) from exc
