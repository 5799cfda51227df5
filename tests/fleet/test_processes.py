# SPDX-License-Identifier: Apache-2.0
"""The promise of rotation with real processes: agents, apps, one OpenBao, one store of records."""

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from examples.demo.app import create_store
from tests.daemon.agent_process import AgentProcess, eventually
from tests.servers.openbao import OpenBao

ROOT = Path(__file__).parents[2]
PODS = 6
ROTATIONS = 50
# These are followed until every app writes with the new version. The others come as soon as every volume has
# the last one, so that several are on their way at once.
FOLLOWED = range(0, ROTATIONS, 5)
KILLED = range(2, ROTATIONS, 4)
# Of those that are followed: then an app starts anew beside a dead agent, and uses the new version in time.
RESTARTED = range(0, ROTATIONS, 10)
PATIENCE_SECONDS = 60.0

REFRESH = {"interval": "600ms", "timeout": "600ms", "max_backoff": "500ms"}
# The bound is 4.1 s; the rest is for a machine that does not keep up.
STAGED = {"activation_delay": "6s", "clock_skew": "0s"}
AT_ONCE = {"activation_delay": "0s", "clock_skew": "0s"}
SECRET = "app/master"


class Pods:
    """Agents and apps, each pair on a volume of its own; one role may read one secret."""

    def __init__(self, stage: ExitStack, home: Path, rotation: Mapping[str, str]) -> None:
        self._stage = stage
        self.records = home / "records.sqlite"
        create_store(self.records)
        self._store = stage.enter_context(closing(sqlite3.connect(self.records, timeout=10)))
        self.bao = stage.enter_context(OpenBao(home / "bao"))
        self.bao.mount_kv("secret")
        kv = self.bao.root.secrets.kv.v2
        # Twice what is written: the store itself keeps 10.
        kv.configure(max_versions=2 * ROTATIONS, mount_point="secret")
        self.bao.policy("app", f"secret/data/{SECRET}", f"secret/metadata/{SECRET}")
        self.version = 0
        self.rotate()
        self.agents = [self._agent(home / f"pod-{number}", rotation) for number in range(PODS)]
        self._apps: list[subprocess.Popen[str]] = []
        self._names = [f"app-{number}" for number in range(PODS)]

    def _agent(self, home: Path, rotation: Mapping[str, str]) -> AgentProcess:
        home.mkdir()
        token_file = home / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.bao.token("app", no_default_policy=True))
        key = {
            "encoding": "base64url",
            "length": 32,
            "provider": "vault",
            "address": self.bao.address,
            "ca_file": str(self.bao.ca_file),
            "path": f"secret/{SECRET}",
            "auth": {"method": "token", "token_file": str(token_file)},
        }
        settings = {"keys": {"master": key}, "refresh": REFRESH, "rotation": rotation, "log": {}}
        return self._stage.enter_context(AgentProcess(home, **settings))

    def start(self) -> None:
        for agent in self.agents:
            agent.start()
        for agent in self.agents:
            self._wait(agent, agent.published)
        self._apps = [self._app(number) for number in range(PODS)]

    def _app(self, number: int) -> subprocess.Popen[str]:
        app = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.app", self._names[number], str(self.records)],
            cwd=ROOT,
            env=os.environ | {"KEYFERRY_DIR": str(self.agents[number].volume)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stage.enter_context(app)
        self._stage.callback(app.kill)
        return app

    def restart_app(self, number: int) -> dict[str, Any]:
        """Let another app take one's place under a name of its own; return what the first one tells."""
        _, told = self._apps[number].communicate("stop\n", PATIENCE_SECONDS)[0].splitlines()
        self._names[number] += "-again"
        self._apps[number] = self._app(number)
        return dict(json.loads(told))

    def rotate(self) -> None:
        self.bao.write("secret", SECRET, key=secrets.token_urlsafe(32))
        self.version += 1

    def wait_published(self, agents: Sequence[AgentProcess]) -> None:
        for agent in agents:
            self._wait(agent, partial(self._is_published, agent))

    def wait_used(self, pods: Sequence[int]) -> None:
        """Wait until these apps have written with the newest version."""
        wanted = {self._names[number] for number in pods}
        eventually(lambda: wanted <= self.writers(self.version), within=PATIENCE_SECONDS)

    def writers(self, version: int) -> set[str]:
        """Return the apps that wrote with ``version``."""
        rows = self._store.execute("SELECT DISTINCT name FROM record WHERE version = ?", (str(version),))
        return {name.rpartition("-")[0] for (name,) in rows}

    def finish(self) -> list[dict[str, Any]]:
        """Let all apps stop writing, then all open the rest; return what each tells."""
        for app in self._apps:
            assert app.stdin is not None
            app.stdin.write("stop\n")
            app.stdin.flush()
        for app in self._apps:
            assert app.stdout is not None
            assert app.stdout.readline() == "stop\n"
        return [json.loads(app.communicate(timeout=PATIENCE_SECONDS)[0]) for app in self._apps]

    def count(self) -> int:
        counted: int = self._store.execute("SELECT count(*) FROM record").fetchone()[0]
        return counted

    def _wait(self, agent: AgentProcess, look: Callable[[], object]) -> None:
        """Wait for what an agent does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not look():
            assert time.monotonic() < deadline, "\n".join(agent.lines[-20:])
            time.sleep(0.01)

    def _is_published(self, agent: AgentProcess) -> bool:
        generation = agent.published()
        assert generation is not None
        return generation.keys["master"].versions[-1].id == str(self.version)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory in memory, since a volume on a disk is refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyferry-test-") as directory:
        yield Path(directory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_app_opens_every_record_across_50_rotations(home: Path) -> None:
    """Six pods, killed agents and new apps among them, and not one record that an app cannot open."""
    with ExitStack() as stage:
        pods = Pods(stage, home, STAGED)
        pods.start()
        pods.wait_used(range(PODS))
        ended = []
        for number in range(ROTATIONS):
            pods.rotate()
            if number in KILLED:
                agent = pods.agents[number % PODS]
                agent.stop(signal.SIGKILL)
                agent.start()
            pods.wait_published(pods.agents)
            dead = None
            if number in RESTARTED:
                pod = RESTARTED.index(number) % PODS
                dead = pods.agents[pod]
                dead.stop(signal.SIGKILL)
                ended.append(pods.restart_app(pod))
            if number in FOLLOWED:
                pods.wait_used(range(PODS))
            if dead:
                dead.start()
        pods.wait_used(range(PODS))
        told = pods.finish()
        records = pods.count()

    everything = {"decrypted": records, "failures": 0, "failure": None}
    assert [tell["all_again"] for tell in told] == [{"encrypted": 0, **everything}] * PODS
    assert [tell["fresh"] | everything for tell in told] == [tell["fresh"] for tell in told]
    assert [tell[when]["failure"] for tell in ended for when in ("fresh", "all_again")] == [None] * 2 * len(
        RESTARTED
    )
    assert sum(tell["fresh"]["encrypted"] for tell in (*told, *ended)) == records


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_a_delay_a_replica_that_asks_later_fails(home: Path) -> None:
    """The control: one agent asks once an hour, as another deployment might."""
    with ExitStack() as stage:
        pods = Pods(stage, home, AT_ONCE)
        *quick, slow = pods.agents
        slow.configure(refresh={"interval": "1h"})
        pods.start()
        pods.wait_used(range(PODS))
        pods.rotate()
        pods.wait_published(quick)
        pods.wait_used(range(PODS - 1))
        told = pods.finish()
        written = pods.count()

    # Of the quick ones too, whoever was a moment later than another.
    fresh = told[-1]["fresh"]
    assert 0 < fresh["failures"] < written
    assert "of version 2: " in fresh["failure"]
