# SPDX-License-Identifier: Apache-2.0
"""A rotation reaches every worker of a real gunicorn that loaded the app before it forked them."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.adapter.test_processes import INHERITED
from tests.adapter.volume import Volume, version
from tests.daemon.agent_process import eventually
from tests.servers.process import DIES_WITH_PARENT, free_port

ROOT = Path(__file__).parents[2]
WORKERS = 3
PATIENCE_SECONDS = 45.0


class Gunicorn:
    """A server of ``prefork_app``; ``log`` is what it said."""

    def __init__(self, worker_class: str, volume: Path, log: Path) -> None:
        self.log = log
        self._address = f"127.0.0.1:{free_port()}"
        options = ["--workers", str(WORKERS), "--worker-class", worker_class, "--bind", self._address]
        app = ["--preload", "--no-control-socket", "tests.adapter.prefork_app:tell"]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [*DIES_WITH_PARENT, sys.executable, "-m", "gunicorn", *options, *app],
                cwd=ROOT,
                env=INHERITED | {"KEYFERRY_DIR": str(volume)},
                stdout=stream,
                stderr=stream,
            )

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(PATIENCE_SECONDS)

    def wait_for(self, **told: object) -> set[int]:
        """Wait until all workers tell this, and return their process ids."""
        with ThreadPoolExecutor(2 * WORKERS) as pool:

            def look() -> set[int]:
                answers = list(pool.map(lambda _: self._ask(), range(2 * WORKERS)))
                pids = {answer["pid"] for answer in answers if answer}
                alike = all(answer and told.items() <= answer.items() for answer in answers)
                return pids if alike and len(pids) == WORKERS else set()

            return eventually(look, within=PATIENCE_SECONDS, what=lambda: f"{told}; {self.log.read_text()}")

    def _ask(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://{self._address}", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            # Not there yet, or the worker that was to answer was killed.
            return None


@pytest.fixture(params=["sync", pytest.param("gthread", marks=pytest.mark.slow)])
def gunicorn(request: pytest.FixtureRequest, volume: Volume, tmp_path: Path) -> Iterator[Gunicorn]:
    server = Gunicorn(request.param, volume.path, tmp_path / "log")
    yield server
    server.stop()


@pytest.mark.timeout(180)
def test_every_worker_follows(gunicorn: Gunicorn, volume: Volume) -> None:
    """With callbacks that were registered before the fork, and one worker that is forked after a rotation."""
    one, two, three = (version(str(number)) for number in (1, 2, 3))
    volume.publish(one)
    workers = gunicorn.wait_for(uses="1", heard=[], opens="before the fork")
    volume.publish(one, two)
    assert gunicorn.wait_for(uses="2", heard=["2"], opens="before the fork") == workers
    killed = min(workers)
    os.kill(killed, signal.SIGKILL)
    assert killed not in gunicorn.wait_for(uses="2", opens="before the fork")
    volume.publish(one, two, three)
    gunicorn.wait_for(uses="3", heard=["2", "3"], opens="before the fork")
