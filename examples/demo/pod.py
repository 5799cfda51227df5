# SPDX-License-Identifier: Apache-2.0
"""One pod: an agent and an app, each a real process, around one volume.

Rules:

- Both are started as a person would start them. No key is in their arguments or their environment.
- They are signalled by process id, and in process groups of their own: Ctrl-C reaches the demo alone, which
  then stops them in order.
- What the app tells is put into ``inbox`` as (pod, message); the agent's log stays in a file.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from keyferry.reader import read_status
from keyferry.status import KeyStatus

Message = tuple[str, dict[str, Any]]

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 5.0


class Pod:
    """Starts, kills and stops what runs in one pod."""

    def __init__(self, name: str, home: Path, inbox: SimpleQueue[Message]) -> None:
        """Make the pod's directory in ``home``; nothing runs yet."""
        self.name = name
        self.volume = home / "volume"
        self._log = home / "agent.log"
        self._config = home / "agent.yaml"
        self._inbox = inbox
        self._agent: subprocess.Popen[bytes] | None = None
        self._app: subprocess.Popen[str] | None = None
        home.mkdir()
        self.volume.mkdir()

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write agent.yaml; JSON is YAML too."""
        self._config.write_text(json.dumps(settings, indent=1))

    def start_agent(self) -> int:
        """Start the agent and return its pid."""
        command = [sys.executable, "-m", "agent", "run", "-c", str(self._config)]
        with self._log.open("ab") as log:
            self._agent = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stderr=log, process_group=0
            )
        return self._agent.pid

    def kill_agent(self) -> None:
        """Kill the agent as the kernel's out-of-memory killer does."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None

    def refresh(self) -> subprocess.Popen[bytes]:
        """Start ``keyferry-agent refresh``, which sends SIGHUP and waits for the result."""
        command = [sys.executable, "-m", "agent", "refresh", "-d", str(self.volume)]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def start_app(self, records: Path) -> int:
        """Start the app on the volume and the common record store, and return its pid."""
        command = [sys.executable, "-m", "examples.demo.app", self.name, str(records)]
        self._app = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(KEYFERRY_DIR=str(self.volume)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        threading.Thread(target=self._listen, args=(self._app,), name=f"app-{self.name}", daemon=True).start()
        return self._app.pid

    @property
    def ended(self) -> str | None:
        """Which process ended by itself, ``None`` if all is well."""
        for name, process in (("agent", self._agent), ("app", self._app)):
            if process is not None and process.poll() is not None:
                return f"the {name} of pod {self.name} ended with exit code {process.returncode}"
        return None

    @property
    def status(self) -> KeyStatus | None:
        """What the running agent says of the key, ``None`` if it has said nothing yet."""
        status = read_status(str(self.volume))
        if status is None or self._agent is None or status.pid != self._agent.pid:
            return None
        return status.keys.get("master")

    @property
    def freshness(self) -> str:
        """How fresh the agent takes the key for."""
        status = self.status
        return "unknown" if status is None else status.freshness

    def log_tail(self) -> list[str]:
        """Return the agent's last lines."""
        return self._log.read_text().splitlines()[-5:] if self._log.exists() else []

    def stop(self) -> None:
        """Stop both, the app first, and collect them."""
        if self._app is not None and self._app.stdin is not None:
            self._app.stdin.close()
            collect(self._app)
        if self._agent is not None:
            self._agent.terminate()
            collect(self._agent)

    def _listen(self, app: subprocess.Popen[str]) -> None:
        for line in app.stdout or ():
            self._inbox.put((self.name, json.loads(line)))


def environment(**added: str) -> dict[str, str]:
    """Return this process's environment without what would configure an agent or an app."""
    foreign = ("KEYFERRY_", "VAULT_", "BAO_", "KMS_", "MASTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | added


def collect(process: subprocess.Popen[Any]) -> None:
    """Wait for the end of ``process``, which was asked to end, and kill it if it does not."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
