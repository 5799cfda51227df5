# SPDX-License-Identifier: Apache-2.0
"""The agent as a real process on a volume in memory.

    with AgentProcess(directory) as agent:
        agent.write_key(secrets.token_urlsafe(32))
        agent.start()
        agent.wait_ready()

Rules:

- ``directory`` is in memory (/dev/shm); volume, configuration and sources lie in it.
- Nothing sleeps for a fixed time: ``eventually`` looks again and again until its deadline.
- Every line on standard error is kept as it came; ``events`` are those that are JSON.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from keyferry.layout import Generation, parse
from keyferry.status import Status, parse_status

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
# So many times faster than the defaults that a test sees several refreshes; a delay of 0 has no bound.
QUICK: Mapping[str, Any] = {
    "refresh": {"interval": "300ms", "timeout": "250ms", "max_backoff": "300ms"},
    "rotation": {"activation_delay": "0s"},
    "http": {"listen": "127.0.0.1:0"},
    "log": {"level": "debug"},
}


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: str
    headers: Mapping[str, str]


def eventually(
    look: Callable[[], T], *, within: float = PATIENCE_SECONDS, what: str | Callable[[], str] = ""
) -> T:
    """Return what ``look`` returns as soon as that is true; fail after ``within`` seconds.

    ``what`` says what is waited for; one that is called is called after the wait.
    """
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            missed = what() if callable(what) else what or look
            message = f"not within {within:g} s: {missed}"
            raise AssertionError(message)
        time.sleep(0.01)


class AgentProcess:
    """One volume and the agents that run on it, one after the other."""

    def __init__(self, home: Path, **sections: Any) -> None:
        """Keep where everything goes, and the settings that differ from ``QUICK`` and one raw file."""
        self.home = home
        self.volume = home / "volume"
        self.config = home / "config" / "agent.yaml"
        self.key_file = home / "source" / "key"
        for directory in (self.volume, self.config.parent, self.key_file.parent):
            directory.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {
            **QUICK,
            "volume": {"path": str(self.volume)},
            "keys": {"master": self.file_key()},
        }
        self.lines: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.configure(**sections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self.wait()

    def file_key(self, name: str = "key") -> dict[str, Any]:
        """Return the settings of a key in the raw file ``name`` of the source directory."""
        return {"provider": "file", "path": str(self.key_file.with_name(name)), "mounted": False}

    def configure(self, **sections: Any) -> None:
        """Write agent.yaml with these sections changed, as an editor does: by a rename."""
        self.settings |= sections
        self.write_config(json.dumps(self.settings))

    def write_config(self, text: str) -> None:
        """Write agent.yaml."""
        _replace(self.config, text.encode())

    def write_key(self, material: str, name: str = "key") -> None:
        """Write a source file."""
        _replace(self.key_file.with_name(name), material.encode())

    # The process

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process is not None
        return self._process.pid

    def start(
        self,
        command: str = "run",
        *,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the agent; ``before`` is a command line that starts the rest of its line."""
        self.lines = []
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "agent", command, "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(environment),
        )
        self._reader = threading.Thread(target=self._read, args=(self._process, self.lines), daemon=True)
        self._reader.start()

    def run(self, *arguments: str, within: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run another command of the agent to its end."""
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            capture_output=True,
            text=True,
            timeout=within,
            env=_environment(None),
            check=False,
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the agent."""
        os.kill(self.pid, number)

    def wait(self, within: float = PATIENCE_SECONDS) -> int:
        """Wait for the agent's end and return its exit code."""
        if self._process is None or self._reader is None:
            return 0
        code = self._process.wait(within)
        self._reader.join(within)
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the agent by a signal and return its exit code."""
        self.send(number)
        return self.wait()

    @staticmethod
    def _read(process: subprocess.Popen[bytes], lines: list[str]) -> None:
        assert process.stderr is not None
        # One by one: others look while the agent still writes.
        for line in process.stderr:
            lines += [line.decode().rstrip("\n")]

    # What it tells

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines so far that are events."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def told(self, name: str, /, **fields: object) -> list[dict[str, Any]]:
        """Return the events of that name with these fields so far."""
        wanted = {"event": name, **fields}.items()
        return [event for event in self.events if wanted <= _hashable(event).items()]

    def wait_for(self, name: str, /, *, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for the ``count``-th event of that name with these fields."""

        def look() -> list[dict[str, Any]]:
            found = self.told(name, **fields)
            return found[count - 1 :]

        return eventually(look, what=lambda: f"{name} {fields} in\n{self._log()}")[0]

    def _log(self) -> str:
        return "\n".join(self.lines)

    @property
    def port(self) -> int:
        """The port on which HTTP is served."""
        address: str = self.wait_for("http.listening")["address"]
        return int(address.rpartition(":")[2])

    def request(
        self, path: str, *, method: str = "GET", host: str = "127.0.0.1", body: str | None = None
    ) -> Reply:
        """Ask the agent over HTTP."""
        connection = http.client.HTTPConnection(host, self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return Reply(response.status, response.read().decode(), dict(response.getheaders()))
        finally:
            connection.close()

    def settle(self) -> None:
        """Wait until start-up is over and the volume was looked at again since."""
        self.wait_ready()
        written = self.status().written_at
        self.send(signal.SIGHUP)
        self.wait_for("refresh.succeeded", outcome="unchanged")
        eventually(lambda: self.status().written_at > written)

    def wait_ready(self) -> None:
        """Wait until every key can be read."""
        eventually(lambda: self.request("/readyz").status == 200, what=lambda: f"ready:\n{self._log()}")

    # What is on the volume

    def published(self) -> Generation | None:
        """Return the generation on the volume."""
        try:
            return parse((self.volume / "keyring.json").read_bytes())
        except FileNotFoundError:
            return None

    def wait_published(self, material: str, name: str = "master") -> None:
        """Wait until the plain file of a key holds ``material``."""
        eventually(lambda: self.plain(name) == material, what=lambda: f"{name} published:\n{self._log()}")

    def plain(self, name: str = "master") -> str | None:
        """Return what the plain file of a key holds."""
        try:
            return (self.volume / name).read_text()
        except FileNotFoundError:
            return None

    def status(self) -> Status:
        """Return the heartbeat."""
        return parse_status((self.volume / "..status" / "status.json").read_bytes())

    def tree(self) -> dict[str, object]:
        """Return what is on the volume but for heartbeat and lock: names, modes, inodes, links and bytes."""
        found: dict[str, object] = {}
        for path in sorted(self.volume.rglob("*")):
            name = str(path.relative_to(self.volume))
            if name.startswith(("..status", "..lock")):
                continue
            info = path.lstat()
            state = (info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_mtime_ns)
            if path.is_symlink():
                found[name] = (*state, str(path.readlink()))
            else:
                found[name] = (*state, path.read_bytes() if path.is_file() else b"")
        return found


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYFERRY_", "VAULT_"))}
    return kept | dict(more or {})


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.rename(path)


def _hashable(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if not isinstance(value, (list, dict))}
