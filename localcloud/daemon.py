"""One cloud in one home: started, ended cleanly, and cleaned up after when it was killed."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
import os
import resource
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from localcloud.images import load_images
from localcloud.postgres_installation import prepare_default
from localcloud.processes import end_recorded, is_over, wait_until
from localcloud.provider.parent import ENGINE_PID
from localcloud.reconciler import Context
from localcloud.settings import (
    ACCOUNT,
    Home,
    Instance,
    LocalcloudError,
    Settings,
    recorded_instance,
    running_instance,
    same_process,
)
from machine.unprivileged import unprivileged_user

_LOGGER = logging.getLogger(__name__)
_START_SECONDS = 60.0  # a start takes under 3 s on a quiet machine
_STOP_SECONDS = 30.0
_LOCK_SECONDS = 10.0
_OPEN_FILES = 65536  # moto keeps one file open for each large object it stores


class AlreadyRunningError(Exception):
    """Raised where the home has a running cloud; it carries that cloud."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(f"already running at {instance.endpoint}")
        self.instance = instance


def start(settings: Settings) -> Instance:
    """Start a cloud in the background and return it once it answers.

    Raises AlreadyRunningError, or LocalcloudError with what the cloud said before it gave up.
    """
    home = Home(path=settings.home)
    home.prepare()
    _refuse_running(settings.home)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "localcloud", "start", "--foreground", *_arguments(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )

        def settled() -> bool:
            return process.poll() is not None or _instance_of(settings.home, process.pid) is not None

        try:
            in_time = wait_until(settled, seconds=_START_SECONDS)
        except BaseException:  # Ctrl-C while waiting: nobody would know of it
            process.terminate()
            process.wait(_STOP_SECONDS)
            raise
        instance = _instance_of(settings.home, process.pid)
        if instance is not None and process.poll() is None:
            return instance
        if not in_time:
            process.kill()
            process.wait()
        _refuse_running(settings.home)  # two starts at once: the other one won
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    message, _, detail = text.partition("\n")
    raise LocalcloudError(
        message.removeprefix("localcloud: ") or "the cloud ended before it answered",
        detail=detail.strip() or None if in_time else f"nothing answered within {_START_SECONDS:.0f} s",
        hint=None if text else f"its log is {home.log_file}",
        code=process.returncode if process.returncode in {2, 4} else 4,
    )


def _arguments(settings: Settings) -> list[str]:
    words = ["--home", str(settings.home), "--port", str(settings.port)]
    words += ["--replication-delay", str(settings.replication_delay)]
    if settings.images is not None:
        words += ["--images", str(settings.images.absolute())]
    return words


def _instance_of(home: Path, pid: int) -> Instance | None:
    instance = recorded_instance(home)
    return instance if instance is not None and instance.pid == pid else None


def _refuse_running(home: Path) -> None:
    instance = running_instance(home)
    if instance is not None:
        raise AlreadyRunningError(instance)


@contextlib.contextmanager
def _holding(home: Home) -> Iterator[None]:
    """Hold the home: one cloud, and nobody who cleans up under it."""
    lock = FileLock(home.lock_file, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as exc:
        _refuse_running(home.path)
        raise LocalcloudError(
            f"another localcloud is busy in {home.path}",
            detail=f"it holds {home.lock_file} and did not let go within {_LOCK_SECONDS:.0f} s",
            hint="wait for it, or choose another home with --home",
        ) from exc
    try:
        yield
    finally:
        lock.release()


def stop(home_path: Path) -> bool:
    """Stop the cloud of this home, remove what it or a killed one left, and return whether one was running."""
    home = Home(path=home_path)
    if not home.path.is_dir():
        return False
    home.prepare()
    stopped = False
    while True:
        instance = running_instance(home_path)
        if instance is not None:
            stopped = True
            process = same_process(instance.pid, instance.started)
            if process is not None:
                _end(process, signal.SIGTERM)
        try:
            with _holding(home):
                clean_up(home)
        except AlreadyRunningError:
            continue  # it was still starting: now that it runs, it can be stopped
        return stopped


def _end(process: psutil.Process, number: signal.Signals) -> None:
    for last_resort in (number, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(last_resort)
        if wait_until(lambda: is_over(process), seconds=_STOP_SECONDS):
            return
    raise LocalcloudError(f"process {process.pid} does not end, not even when killed", hint="look at it with ps")


def clean_up(home: Home) -> None:
    """Remove what a cloud that was killed left in its home: processes, their data, its Pulumi state, its record."""
    ended = end_recorded(home.path)
    if ended:
        _LOGGER.warning("ended %d processes that a killed cloud had left", ended)
    for folder in (*home.run.iterdir(), *home.states.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
    for draft in home.path.glob(".instance-*"):
        draft.unlink(missing_ok=True)
    for template in home.cache.glob(".template-*"):
        shutil.rmtree(template, ignore_errors=True)
    home.instance_file.unlink(missing_ok=True)


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise LocalcloudError(
            f"port {port} on 127.0.0.1 is taken",
            detail=_holder(port) or str(exc),
            hint="stop that program, or choose another port with --port (0: any free one)",
        ) from exc
    listener.set_inheritable(False)
    return listener


def _holder(port: int) -> str | None:
    """Say which process listens on the port, where the system tells."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                return f"held by process {process.pid}: {' '.join(process.cmdline()) or process.name()}"
    return None


def _install_provider(home: Home) -> None:
    """Put the embedded provider where Pulumi looks for pulumi_aws's plugin: in this cloud's own PULUMI_HOME alone."""
    folder = home.pulumi / "plugins" / f"resource-aws-v{importlib.metadata.version('pulumi-aws')}"
    folder.mkdir(parents=True, exist_ok=True)
    package_root = Path(__file__).resolve().parent.parent
    script = folder / "pulumi-resource-aws"
    draft = folder / ".pulumi-resource-aws"
    draft.write_text(
        "#!/bin/sh\n"
        # The shell becomes the provider, so its parent is the engine, whose end the provider watches for.
        f"{ENGINE_PID}=$PPID PYTHONPATH={shlex.quote(str(package_root))}${{PYTHONPATH:+:$PYTHONPATH}} "
        f'exec {shlex.quote(sys.executable)} -m localcloud.provider "$@"\n'
    )
    draft.chmod(0o755)
    draft.replace(script)


def _own_environment(port: int, scratch: Path) -> None:
    """Make this process deaf to its caller's settings for AWS, moto and PostgreSQL; give large objects room on disk."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MOTO_", "PG", "PULUMI_")):
            del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_PORT": str(port),
    }
    tempfile.tempdir = str(scratch)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings, on_ready: Callable[[Instance], None]) -> int:
    """Be the cloud until SIGTERM (returns 0) or SIGINT (returns 130); `on_ready` hears once it answers.

    Raises AlreadyRunningError, or LocalcloudError for what keeps it from starting.
    """
    home = Home(path=settings.home)
    home.prepare()
    if not unprivileged_user().passes(home.run):
        raise LocalcloudError(
            f"the home {home.path} is out of reach of the user that servers run as",
            detail="PostgreSQL refuses to run as root, so it runs as nobody, who cannot pass every folder on the way",
            hint="choose another one with --home, such as one directly below /var/tmp",
        )
    images = load_images(settings.images)
    signals: list[int] = []
    woken = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        woken.set()

    with _holding(home):
        clean_up(home)
        listener = _bind(settings.port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        logging.basicConfig(
            filename=home.log_file,
            filemode="w",
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
        instance = Instance(
            instance_id=secrets.token_hex(4),
            endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}",
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            home=str(home.path),
        )
        run = home.run / instance.instance_id
        run.mkdir(mode=0o711)
        (run / "tmp").mkdir(mode=0o700)
        (home.states / instance.instance_id).mkdir(mode=0o700)
        _own_environment(listener.getsockname()[1], run / "tmp")
        _install_provider(home)
        context = Context(
            home=home.path,
            instance_id=instance.instance_id,
            endpoint=instance.endpoint,
            account=ACCOUNT,
            images=images,
            replication_delay=settings.replication_delay,
        )
        try:
            _serve_until(woken, instance, context, listener, on_ready)
        finally:
            listener.close()
            clean_up(home)
    return 130 if signals and signals[0] == signal.SIGINT else 0


def _serve_until(
    woken: threading.Event,
    instance: Instance,
    context: Context,
    listener: socket.socket,
    on_ready: Callable[[Instance], None],
) -> None:
    # initdb waits for its disk and its own processor while this one imports moto.
    template = threading.Thread(target=prepare_default, args=(context.home,), name="postgres-template", daemon=True)
    template.start()
    gc.disable()  # imports make nothing but what stays: collecting meanwhile costs a quarter of their time
    from localcloud.server import Cloud  # noqa: PLC0415  # slow: the other commands do without moto

    cloud = Cloud(context, listener)
    try:
        cloud.start()
        gc.freeze()
        gc.enable()
        instance.write()
        on_ready(instance)
        woken.wait()
    finally:
        Home(path=context.home).instance_file.unlink(missing_ok=True)
        cloud.stop()
        template.join(_STOP_SECONDS)  # its initdb writes into this home, which is left alone from here on
