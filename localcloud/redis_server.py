"""One Redis server: in memory only, with its token on no command line and in no file."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from localcloud import processes
from localcloud.server_process import ServerProcess
from machine.programs import redis_server
from machine.unprivileged import UnprivilegedUser, copied_installation, unprivileged_user

_START_SECONDS = 30.0


class RedisError(Exception):
    """Raised when a server does not start; the text ends with what it said last."""


def _program(cache: Path, user: UnprivilegedUser) -> Path:
    found = redis_server().resolve()
    if user.reaches(found):
        return found
    # The folder of programs is what has to be copied along: the build is self-contained.
    return copied_installation(found.parent, cache / "redis") / found.name


class RedisServer(ServerProcess):
    """A server that keeps its log below `folder`, which must not exist yet, and listens on one loopback address."""

    def __init__(self, *, home: Path, cache: Path, folder: Path, address: str, port: int) -> None:
        super().__init__(home=home, folder=folder, address=address, port=port)
        self._cache = cache

    def start(self, token: str | None) -> None:
        """Start the server and return once it listens.

        Raises RedisError when it does not, machine.programs.ProgramNotFoundError where the machine has no Redis.
        """
        user = unprivileged_user()
        program = _program(self._cache, user)
        user.folder(self._folder)
        settings = {
            "bind": self.address,
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "protected-mode": "yes",
        }
        if token:
            settings["requirepass"] = token
        text = "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())
        with self._log.open("ab") as log:
            self._running = processes.spawn(
                self._home,
                [program, "-"],
                kind="redis",
                output=log,
                stdin=subprocess.PIPE,
                environment={"PATH": "/usr/bin:/bin"},
                cwd=self._folder,
                user=user,
            )
        pipe = self._running.process.stdin
        if pipe is not None:
            with pipe:
                pipe.write(text.encode())
        listening = processes.wait_until(lambda: self.pid is None or self._listens(), seconds=_START_SECONDS)
        if not listening or self.pid is None:
            said = self._last_words()
            self.delete()
            raise RedisError(f"Redis did not start: {said}")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex((self.address, self.port)) == 0

    def set_tokens(self, current: str | None, new: str | None, *, keep: bool) -> None:
        """Make `new` a token of the default user, beside the one there is if `keep`; None takes the need for one away.

        `current` is one that the server takes now. Raises RedisError with the server's answer.
        """
        change = ["ACL", "SETUSER", "default"]
        if new is None:
            change += ["resetpass", "nopass"]
        else:
            change += [*(() if keep else ("resetpass",)), f">{new}"]
        with socket.create_connection((self.address, self.port), timeout=_START_SECONDS) as connection:
            answers = connection.makefile("rb")
            for command in ([["AUTH", current]] if current else []) + [change]:
                connection.sendall(_encoded(command))
                answer = answers.readline()
                if not answer.startswith(b"+OK"):
                    raise RedisError(f"Redis refused {command[0]}: {answer.decode(errors='replace').strip()}")


def _encoded(command: list[str]) -> bytes:
    words = [word.encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
