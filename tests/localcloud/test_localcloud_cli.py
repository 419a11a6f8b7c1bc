"""The command line: starting, stopping, saying where it is, and cleaning up after whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg
import pytest

if TYPE_CHECKING:
    from conftest import RunningCloud

pytestmark = pytest.mark.slow

Starter = Callable[..., "RunningCloud"]


def localcloud(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localcloud", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def create_servers(cloud: RunningCloud) -> dict[str, Any]:
    """Bring up one database and one cache; return the database as described."""
    rds, elasticache = cloud.client("rds"), cloud.client("elasticache")
    rds.create_db_instance(
        DBInstanceIdentifier="one",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        MasterUsername="boss",
        MasterUserPassword="correct-horse",
        AllocatedStorage=20,
    )
    elasticache.create_replication_group(
        ReplicationGroupId="cache",
        ReplicationGroupDescription="a cache",
        CacheNodeType="cache.t4g.micro",
        Engine="redis",
    )
    fast = {"Delay": 0.05, "MaxAttempts": 1200}
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="one", WaiterConfig=fast)
    elasticache.get_waiter("replication_group_available").wait(ReplicationGroupId="cache", WaiterConfig=fast)
    database: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier="one")["DBInstances"][0]
    return database


def over(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.02)


def test_start_says_how_to_point_a_client_at_it_and_starting_again_says_it_runs(
    short_home: Callable[[], Path], start_cloud: Starter
) -> None:
    home = short_home()
    cloud = start_cloud(home)
    again = localcloud("start", "--port", "0", "--home", home)
    assert again.returncode == 0
    assert "is already running" in again.stdout
    assert f"AWS_ENDPOINT_URL={cloud.endpoint}" in again.stdout
    assert f'eval "$(localcloud env --home {home})"' in again.stdout
    assert localcloud("stop", "--home", home).stdout == "localcloud stopped\n"


def test_env_gives_a_shell_and_a_program_the_same_variables(cloud: RunningCloud) -> None:
    document = json.loads(cloud.run("env", "--json").stdout)
    assert document == cloud.document
    assert list(document) == ["schema_version", "instance_id", "endpoint", "account", "pid", "home", "env"]
    exported = subprocess.run(
        ["/bin/sh", "-c", f"{cloud.run('env').stdout}\nenv"], capture_output=True, text=True, check=True, env={}
    ).stdout.splitlines()
    assert {f"{name}={value}" for name, value in document["env"].items()} <= set(exported)
    assert Path(document["env"]["PULUMI_BACKEND_URL"].removeprefix("file://")).is_dir()


def test_the_provider_is_installed_where_pulumi_looks_for_it(cloud: RunningCloud) -> None:
    (script,) = Path(cloud.document["env"]["PULUMI_HOME"]).glob("plugins/resource-aws-v*/pulumi-resource-aws")
    assert os.access(script, os.X_OK)
    assert f"{sys.executable} -m localcloud.provider" in script.read_text()


def test_commands_that_need_a_running_cloud_exit_4_without_one(short_home: Callable[[], Path]) -> None:
    home = short_home()
    for command in (["env"], ["status"], ["reset"], ["blackout", "us-east-1"]):
        done = localcloud(*command, "--home", home)
        assert done.returncode == 4, command
        assert "no cloud is running" in done.stderr
    assert localcloud("stop", "--home", home).returncode == 0


def test_a_taken_port_is_refused_with_the_name_of_its_holder(short_home: Callable[[], Path]) -> None:
    home = short_home()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        done = localcloud("start", "--port", str(holder.getsockname()[1]), "--home", home)
    assert done.returncode == 4
    assert f"port {holder_port(done.stderr)} on 127.0.0.1 is taken" in done.stderr
    assert f"held by process {os.getpid()}" in done.stderr
    assert "--port" in done.stderr


def holder_port(text: str) -> str:
    return text.split()[2]


def test_wrong_usage_exits_2(short_home: Callable[[], Path], tmp_path: Path) -> None:
    home = short_home()
    table = tmp_path / "images.toml"
    table.write_text('[images]\n"app" = "not a list"\n')
    assert localcloud("start", "--port", "70000", "--home", home).returncode == 2
    assert localcloud("start", "--home", home / ("x" * 80)).returncode == 2
    done = localcloud("start", "--port", "0", "--home", home, "--images", table)
    assert done.returncode == 2
    assert "gives app no command" in done.stderr


def test_a_home_of_somebody_else_is_refused(short_home: Callable[[], Path]) -> None:
    home = short_home()
    home.symlink_to("/")
    done = localcloud("start", "--port", "0", "--home", home)
    assert done.returncode == 4
    assert "belongs to somebody else" in done.stderr
    home.unlink()


def test_sigterm_leaves_no_process_no_data_and_no_state(start_cloud: Starter) -> None:
    cloud = start_cloud()
    create_servers(cloud)
    started = cloud.processes()
    assert len(started) > 2
    os.kill(cloud.pid, signal.SIGTERM)
    daemon = psutil.Process(cloud.pid)
    wait_for(lambda: over(daemon))
    wait_for(lambda: all(over(process) for process in started))
    assert list((cloud.home / "run").iterdir()) == []
    assert list((cloud.home / "state").iterdir()) == []
    assert list((cloud.home / "processes").iterdir()) == []
    assert not (cloud.home / "instance.json").exists()


@pytest.fixture
def killed(start_cloud: Starter) -> tuple[RunningCloud, list[psutil.Process]]:
    """Return a cloud that was killed with servers running and suspended, as the worst case, and those servers."""
    cloud = start_cloud()
    create_servers(cloud)
    started = cloud.processes()
    for process in started:  # a suspended process does not hear the signal that its parent's death sends
        process.suspend()
    psutil.Process(cloud.pid).kill()
    wait_for(lambda: cloud.run("env").returncode == 4)
    return cloud, started


def test_the_start_after_a_kill_leaves_nothing_of_the_old_cloud(
    killed: tuple[RunningCloud, list[psutil.Process]], start_cloud: Starter
) -> None:
    cloud, started = killed
    state = Path(cloud.document["env"]["PULUMI_BACKEND_URL"].removeprefix("file://"))
    (state / "mark").touch()
    assert any(not over(process) for process in started)
    again = start_cloud(cloud.home)
    assert all(over(process) for process in started)
    assert not state.exists()
    assert [folder.name for folder in (cloud.home / "run").iterdir()] == [again.document["instance_id"]]
    assert again.client("rds").describe_db_instances()["DBInstances"] == []
    create_servers(again)


def test_the_stop_after_a_kill_cleans_up_too(killed: tuple[RunningCloud, list[psutil.Process]]) -> None:
    cloud, started = killed
    assert cloud.run("stop").returncode == 0
    assert all(over(process) for process in started)
    assert list((cloud.home / "run").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start cleans up")
def test_on_linux_the_servers_die_with_a_killed_cloud(start_cloud: Starter) -> None:
    cloud = start_cloud()
    create_servers(cloud)
    started = cloud.processes()
    psutil.Process(cloud.pid).kill()
    wait_for(lambda: all(over(process) for process in started))


def test_a_recorded_process_id_that_now_is_somebody_else_is_left_alone(short_home: Callable[[], Path]) -> None:
    home = short_home()
    assert localcloud("start", "--port", "0", "--home", home).returncode == 0
    assert localcloud("stop", "--home", home).returncode == 0
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        record = home / "processes" / f"{bystander.pid}.json"
        record.write_text(json.dumps({"pid": bystander.pid, "started": 1000.0, "kind": "postgres"}))
        assert localcloud("stop", "--home", home).returncode == 0
        assert not record.exists()
        assert bystander.poll() is None
        bystander.kill()


def test_nothing_listens_beyond_the_loopback_interface(start_cloud: Starter) -> None:
    cloud = start_cloud()
    create_servers(cloud)
    listening = [
        connection.laddr[0]
        for process in (psutil.Process(cloud.pid), *cloud.processes())
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 3
    assert all(address.startswith("127.") for address in listening), listening


def test_blackout_suspends_the_servers_of_a_region_and_restore_brings_them_back(start_cloud: Starter) -> None:
    cloud = start_cloud()
    database = create_servers(cloud)
    started = cloud.processes()
    assert cloud.run("blackout", "us-west-2").returncode == 0
    assert all(process.status() == psutil.STATUS_STOPPED for process in started)
    assert json.loads(cloud.run("status", "--json").stdout)["dark_regions"] == ["us-west-2"]
    assert cloud.run("restore", "us-west-2").returncode == 0
    with psycopg.connect(
        host=database["Endpoint"]["Address"],
        port=database["Endpoint"]["Port"],
        user="boss",
        password="correct-horse",
        dbname="postgres",
        connect_timeout=20,
    ) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert cloud.run("blackout", "nowhere").returncode == 2


def test_reset_forgets_everything_and_a_dark_region_does_not_hold_it_up(start_cloud: Starter) -> None:
    cloud = start_cloud()
    create_servers(cloud)
    started = cloud.processes()
    state = Path(cloud.document["env"]["PULUMI_BACKEND_URL"].removeprefix("file://"))
    (state / "mark").touch()
    cloud.run("blackout", "us-west-2")
    assert cloud.run("reset").returncode == 0
    assert all(over(process) for process in started)
    assert list(state.iterdir()) == []
    assert json.loads(cloud.run("status", "--json").stdout)["dark_regions"] == []
    assert cloud.client("rds").describe_db_instances()["DBInstances"] == []
    assert cloud.client("elasticache").describe_replication_groups()["ReplicationGroups"] == []
    create_servers(cloud)


def test_in_the_foreground_ctrl_c_stops_it_and_exits_130(short_home: Callable[[], Path]) -> None:
    home = short_home()
    with subprocess.Popen(
        [sys.executable, "-m", "localcloud", "start", "--foreground", "--port", "0", "--home", str(home), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "{\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert localcloud("env", "--home", home).returncode == 4


def test_status_shows_what_runs_and_that_redis_speaks_no_tls(start_cloud: Starter) -> None:
    cloud = start_cloud()
    create_servers(cloud)
    rows = {row["kind"]: row for row in cloud.rows()}
    assert rows["postgres"]["name"] == "one"
    assert rows["postgres"]["state"] == "running"
    assert rows["redis"]["tls"] == "no"
    shown = cloud.run("status").stdout
    assert "postgres" in shown
    assert rows["redis"]["address"] in shown


def test_the_control_doors_answer_what_they_know_and_refuse_the_rest(cloud: RunningCloud) -> None:
    def ask(method: str, door: str, **headers: str) -> tuple[int, dict[str, Any]]:
        answer = httpx.request(method, f"{cloud.endpoint}/_localcloud/{door}", headers=headers, trust_env=False)
        return answer.status_code, answer.json()

    assert ask("GET", "health") == (200, {"schema_version": 1, "instance_id": cloud.document["instance_id"]})
    assert ask("GET", "nothing")[0] == 404
    assert ask("GET", "reset")[0] == 405
    assert ask("POST", "blackout/everywhere")[0] == 400
    assert ask("POST", "reset", Origin="http://example.org")[0] == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user that reaches less than itself")
def test_a_home_that_the_servers_user_cannot_reach_is_refused_before_anything_starts(
    short_home: Callable[[], Path],
) -> None:
    home = short_home()
    home.parent.chmod(0o700)
    done = localcloud("start", "--port", "0", "--home", home)
    assert done.returncode == 4
    assert "out of reach of the user that servers run as" in done.stderr
