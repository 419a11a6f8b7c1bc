"""`pulumi-language-python` over the Pulumi SDK's own language server, for machines without the official distribution.

The engine starts it, reads a port from its first line and speaks LanguageRuntime to it. Running a program is the SDK's
`LanguageServer`, which `pulumi.automation` uses for inline programs; this module adds what a program in a folder and a
policy pack need: where to run, which plugins the installed packages ask for, and running a plugin as a process.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import IO, Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

# gRPC's default of 4 MiB is less than a stack's outputs may be; the engine itself uses 400 MiB.
_LARGEST_MESSAGE = 400 * 1024 * 1024

# The engine cancels with SIGINT and kills what has not stopped; half a second is ample for an idle server.
_STOP_GRACE_SECONDS = 0.5


class ProgramHost(LanguageServer):
    """Run the Python program of one folder, and the Python plugins the engine asks for."""

    def __init__(self) -> None:
        super().__init__(self._run_program)
        self._target = Path()

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802  # the protocol's names
        """Answer the engine's greeting; nothing in it concerns this host."""
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        """Return this host's version: that of the SDK it stands on."""
        return plugin_pb2.PluginInfo(version=importlib.metadata.version("pulumi"))

    def GetRequiredPackages(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        """Return the plugin of each installed Pulumi package, as its own pulumi-plugin.json declares it."""
        packages = []
        for manifest in sorted(_plugin_manifests()):
            declared = json.loads(manifest.read_text(encoding="utf-8"))
            if declared.get("resource"):
                packages.append(
                    plugin_pb2.PackageDependency(
                        name=declared["name"],
                        kind="resource",
                        version=f"v{declared['version'].removeprefix('v')}",
                        server=declared.get("server", ""),
                    )
                )
        return language_pb2.GetRequiredPackagesResponse(packages=packages)

    def GetProgramDependencies(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        """Return the distributions installed beside this host."""
        found = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=name, version=found[name]) for name in sorted(found)]
        )

    def InstallDependencies(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ARG002, N802
        """Say where dependencies come from: the project's own set-up installs them, with hashes."""
        yield language_pb2.InstallDependenciesResponse(stdout=b"dependencies are installed by `make setup`\n")

    def RuntimeOptionsPrompts(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        """Ask nothing."""
        return language_pb2.RuntimeOptionsResponse()

    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Run the program of `request.info` once, in its own folder, as the official host does."""
        folder = Path(request.info.program_directory or request.pwd)
        entry_point = request.info.entry_point or "."
        self._target = (folder / entry_point).resolve()
        here = self._target if self._target.is_dir() else self._target.parent
        os.chdir(here)
        # What `python FOLDER` does: the program's own modules come first.
        sys.path.insert(0, str(here))
        return super().Run(request, context)  # type: ignore[no-untyped-call]  # the SDK leaves its server untyped

    def _run_program(self) -> None:
        runpy.run_path(str(self._target), run_name="__main__")

    def RunPlugin(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """Run a plugin (a policy pack) as a process, streaming its output, then its exit code."""
        process = subprocess.Popen(
            [sys.executable, "-u", request.info.program_directory or request.program, *request.args],
            cwd=request.pwd or None,
            env={**os.environ, **dict(item.split("=", 1) for item in request.env)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        context.add_callback(process.terminate)  # the engine hangs up when it needs the plugin no more
        pieces: queue.Queue[tuple[str, bytes]] = queue.Queue()

        def pump(name: str, stream: IO[bytes]) -> None:
            while piece := os.read(stream.fileno(), 65536):
                pieces.put((name, piece))
            pieces.put((name, b""))

        assert process.stdout is not None  # noqa: S101  # both were asked for as pipes
        assert process.stderr is not None  # noqa: S101
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            threading.Thread(target=pump, args=(name, stream), daemon=True).start()
        open_streams = 2
        while open_streams:
            name, piece = pieces.get()
            if not piece:
                open_streams -= 1
                continue
            if name == "stdout":
                yield language_pb2.RunPluginResponse(stdout=piece)
            else:
                yield language_pb2.RunPluginResponse(stderr=piece)
        yield language_pb2.RunPluginResponse(exitcode=process.wait())


def _plugin_manifests() -> Iterator[Path]:
    for entry in map(Path, sys.path):
        if entry.is_dir():
            yield from entry.glob("pulumi_*/pulumi-plugin.json")


def main() -> None:
    """Serve on a free loopback port, say which, and go quietly when told to."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=16),
        options=[
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ],
    )
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(ProgramHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stopped.wait()
    server.stop(_STOP_GRACE_SECONDS).wait()
    # A program's threads (boto3, gRPC) may still wait for an answer that nobody needs; leave without them.
    os._exit(0)


if __name__ == "__main__":
    main()
