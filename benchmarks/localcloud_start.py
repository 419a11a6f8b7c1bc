"""From `localcloud start` to the first SQL answer of a database made through CreateDBInstance; aim: under 3 s.

The peer is the plain server that the cloud's control plane comes from, up to its first answer: it has no database.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.measure import figure, heading, ratio, short_folder
from examples.agentverse.rehearsal import environment_of
from examples.agentverse.stack import ROOT

_GIVE_UP_SECONDS = 60.0


def _localcloud(*arguments: str) -> str:
    command = [sys.executable, "-m", "localcloud", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _first_row(home: Path) -> tuple[float, float]:
    """Return the seconds from the start to the cloud's answer and to the database's."""
    begun = time.monotonic()
    environment = json.loads(_localcloud("start", "--port", "0", "--home", str(home), "--json"))["env"]
    ready = time.monotonic() - begun
    try:
        with environment_of(environment):
            rds = boto3.client("rds")
            rds.create_db_instance(
                DBInstanceIdentifier="bench",
                DBInstanceClass="db.t4g.micro",
                Engine="postgres",
                EngineVersion="16.4",
                AllocatedStorage=20,
                DBName="agentverse",
                MasterUsername="master",
                MasterUserPassword="not-a-secret",  # of a server that lives for a second
            )
            while time.monotonic() - begun < _GIVE_UP_SECONDS:
                instance = rds.describe_db_instances(DBInstanceIdentifier="bench")["DBInstances"][0]
                if instance["DBInstanceStatus"] == "available":
                    break
                time.sleep(0.02)
            endpoint = instance["Endpoint"]
            dsn = make_conninfo(
                host=endpoint["Address"],
                port=endpoint["Port"],
                dbname="agentverse",
                user="master",
                password="not-a-secret",  # noqa: S106  # as above
            )
            with psycopg.connect(dsn) as connection:
                connection.execute("SELECT 1").fetchone()
        return ready, time.monotonic() - begun
    finally:
        _localcloud("stop", "--home", str(home))


def _plain_server(folder: Path) -> float:
    """Return the seconds from starting moto's own server to its first answer."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    begun = time.monotonic()
    with (folder / "peer.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            for _ in itertools.takewhile(lambda _: time.monotonic() - begun < _GIVE_UP_SECONDS, itertools.count()):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/moto-api/data.json", trust_env=False).raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.02)
            return time.monotonic() - begun
        finally:
            process.terminate()
            process.wait(30)


def run(runs: int) -> None:
    """Measure and print; the first start in a new home, which makes what later ones find, is printed apart."""
    heading("Start of localcloud to the first SQL answer")
    with short_folder() as folder:
        home = folder / "c"
        _, first = _first_row(home)
        ours: list[tuple[float, float]] = []
        peer: list[float] = []
        for _ in range(runs):
            ours.append(_first_row(home))
            peer.append(_plain_server(folder))
    figure("first start ever in a home", [first])
    ready = figure("start to the cloud's first answer", [row[0] for row in ours])
    figure("start to SELECT 1", [row[1] for row in ours], "aim: under 3 s")
    other = figure("peer: moto.server to its first answer", peer)
    ratio("localcloud's first answer / peer's", ready, other)


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
