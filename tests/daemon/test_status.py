# SPDX-License-Identifier: Apache-2.0
"""``status``: what is on the volume, for people, programs and start-up scripts."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import keyferry.__main__ as keyferry
from agent.__main__ import main
from tests.daemon.agent_process import AgentProcess, eventually
from tests.daemon.conftest import new_key


@pytest.fixture
def published(agent: AgentProcess) -> AgentProcess:
    """Return an agent that published, and ended."""
    agent.start("once")
    assert agent.wait() == 0
    return agent


def status(agent: AgentProcess, *more: str) -> int:
    return main(["status", "--dir", str(agent.volume), *more])


def replace_by_a_file(volume: Path) -> None:
    volume.rmdir()
    volume.touch()


def break_contract(volume: Path) -> None:
    (volume / "..data").symlink_to("nowhere")


def test_for_people(published: AgentProcess, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(published) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{published.volume}: generation 1, published ")
    assert "\nmaster: file, " in told
    assert key not in told


def test_json(published: AgentProcess, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(published, "--json") == 0
    told = capsys.readouterr().out
    document = json.loads(told)
    assert document["generation"] == 1
    assert document["keys"]["master"]["versions"][0]["state"] == "active"
    assert key not in told


class TestReady:
    """One line of a start-up script: it says nothing, its exit code says it."""

    def test_ready(self, published: AgentProcess, capsys: pytest.CaptureFixture[str]) -> None:
        assert status(published, "--ready") == 0
        assert capsys.readouterr().out == ""

    def test_nothing_published(self, agent: AgentProcess, capsys: pytest.CaptureFixture[str]) -> None:
        assert status(agent, "--ready") == 3
        assert capsys.readouterr().out == ""

    def test_withdrawn(self, agent: AgentProcess) -> None:
        agent.configure(outage={"on_missing": "withdraw"})
        agent.start()
        agent.wait_ready()
        agent.key_file.unlink()
        agent.wait_for("key.withdrawn")
        assert status(agent, "--ready") == 3


@pytest.mark.parametrize(
    ("prepare", "code", "problem"),
    [
        pytest.param(Path.rmdir, 2, " does not exist: mount the volume ", id="no volume"),
        pytest.param(replace_by_a_file, 2, " is not a directory: mount the volume ", id="no directory"),
        pytest.param(break_contract, 1, " breaks the contract: ..data points to 'nowhere'", id="broken"),
    ],
)
def test_what_cannot_be_read(
    agent: AgentProcess,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    code: int,
    problem: str,
) -> None:
    """The app's side, ``python -m keyferry``, ends with the same code and says the same."""
    prepare(agent.volume)
    assert status(agent) == code
    ours = capsys.readouterr()
    assert problem in ours.err
    assert keyferry.main(["--dir", str(agent.volume)]) == code
    theirs = capsys.readouterr()
    assert (ours.out, ours.err) == ("", f"keyferry-agent: {theirs.err.removeprefix('keyferry: ')}")


def test_watch_tells_each_change(agent: AgentProcess) -> None:
    """Without a terminal: a line a change, until interrupted."""
    agent.start()
    agent.wait_ready()
    command = [sys.executable, "-m", "agent", "status", "--dir", str(agent.volume)]
    options = ["--watch", "--json", "--interval", "0.05"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            first = json.loads(watching.stdout.readline())
            rotated = new_key()
            agent.write_key(rotated)
            agent.wait_published(rotated)

            def look() -> bool:
                assert watching.stdout is not None
                return bool(json.loads(watching.stdout.readline())["generation"] > first["generation"])

            eventually(look)
        finally:
            watching.terminate()
