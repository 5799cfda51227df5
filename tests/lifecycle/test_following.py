# SPDX-License-Identifier: Apache-2.0
"""A rotation beside a running agent: ``rotate --wait`` and ``status --watch``, and both on a terminal."""

import contextlib
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.keyring_file import new_entry, new_keyring
from keyferry.material import Material
from tests.daemon.agent_process import AgentProcess, eventually

# The shortest delay that the bound allows with these.
STAGED: dict[str, Any] = {
    "refresh": {"interval": "100ms", "timeout": "50ms", "max_backoff": "50ms"},
    "rotation": {"activation_delay": "1500ms", "clock_skew": "0s"},
}


@pytest.fixture
def agent(home: Path) -> Iterator[AgentProcess]:
    """Return a running agent on a keyring file with one version."""
    with AgentProcess(home, **STAGED) as process:
        first = Material(secrets.token_urlsafe(32).encode())
        process.key_file.write_bytes(new_keyring("master", new_entry("1", time.time(), first)))
        section = process.file_key() | {"format": "keyring", "encoding": "base64url", "length": 32}
        process.configure(keys={"master": section})
        process.start()
        process.wait_ready()
        yield process


def rotate(agent: AgentProcess, *more: str) -> subprocess.CompletedProcess[str]:
    return agent.run("rotate", "-c", str(agent.config), "--wait", *more, within=30)


def active(agent: AgentProcess) -> str:
    status = agent.run("status", "-c", str(agent.config), "--json")
    versions = json.loads(status.stdout)["keys"]["master"]["versions"]
    return next(str(version["id"]) for version in versions if version["state"] == "active")


def newest(agent: AgentProcess) -> str:
    return str(json.loads(agent.key_file.read_bytes())["versions"][-1]["id"])


def test_it_ends_when_the_version_is_active(agent: AgentProcess) -> None:
    """Elsewhere than on a terminal each step is a line on standard error, and the result is on the other."""
    run = rotate(agent)
    assert run.returncode == 0
    second = newest(agent)
    *waiting, staged, done = run.stderr.splitlines()
    assert waiting in ([], [f"waiting for the agent to see version {second}"])
    assert staged.startswith(f"version {second} is on the volume, and active from 20")
    assert done == f"version {second} is active on {agent.volume}"
    assert run.stdout.startswith(f"key master (file): version {second}, sha256:")
    assert active(agent) == second


def test_at_once(agent: AgentProcess) -> None:
    run = rotate(agent, "--activate", "now", "--json")
    assert run.returncode == 0
    document = json.loads(run.stdout)
    assert (document["version"], document["active_here"]) == (newest(agent), True)
    assert "active from" not in run.stderr
    assert active(agent) == newest(agent)


def test_too_late(agent: AgentProcess) -> None:
    """Exit 3: the version is made, and not yet active."""
    agent.configure(rotation={"activation_delay": "1h"})
    agent.wait_for("config.reloaded")
    run = rotate(agent, "--timeout", "0.5", "--json")
    assert run.returncode == 3
    assert json.loads(run.stdout)["active_here"] is False
    assert run.stderr.endswith(
        f"keyferry-agent: version {newest(agent)} is not active on {agent.volume} in time\n"
    )
    assert active(agent) == "1"


def test_no_agent(agent: AgentProcess) -> None:
    agent.stop()
    run = rotate(agent, "--timeout", "0.2")
    assert run.returncode == 3
    assert f"waiting for the agent to see version {newest(agent)}\n" in run.stderr


def test_ctrl_c_ends_the_following_and_not_the_rotation(agent: AgentProcess) -> None:
    # Else it may end by itself before it is interrupted.
    agent.send(signal.SIGSTOP)
    command = [sys.executable, "-m", "agent", "rotate", "-c", str(agent.config), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as rotating:
        assert rotating.stderr is not None
        assert rotating.stderr.readline() == f"waiting for the agent to see version {newest(agent)}\n"
        rotating.send_signal(signal.SIGINT)
        told = rotating.communicate(timeout=30)[1]
    agent.send(signal.SIGCONT)
    assert rotating.returncode == 130
    assert told == f"keyferry-agent: version {newest(agent)} is made, and goes on by itself\n"
    eventually(lambda: active(agent) == newest(agent))


def test_no_volume(agent: AgentProcess) -> None:
    """What cannot be followed is not begun."""
    before = agent.key_file.read_bytes()
    run = rotate(agent, "--dir", str(agent.home / "nowhere"))
    assert run.returncode == 2
    assert run.stdout == ""
    assert str(agent.home / "nowhere") in run.stderr
    assert agent.key_file.read_bytes() == before


def test_on_a_terminal(agent: AgentProcess) -> None:
    """There one line is drawn again and again, with a bar."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "rotate", "-c", str(agent.config), "--wait"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the terminal's other end was closed
            break
        if not data:
            break
        drawn += data
    os.close(ours)
    assert process.wait(30) == 0
    pictures = drawn.decode().split("\r\x1b[K")
    assert pictures[-1] == f"version {newest(agent)} is active on {agent.volume}\r\n"
    bars = [picture for picture in pictures if picture.startswith("[")]
    assert len(bars) > 3
    assert all(bar.endswith(" s") and f"version {newest(agent)} is active in " in bar for bar in bars)
    assert bars[0].count("#") < bars[-1].count("#")


def watch(agent: AgentProcess, *more: str) -> list[str]:
    config = str(agent.config)
    return [sys.executable, "-m", "agent", "status", "-c", config, "--watch", "--interval", "0.05", *more]


def test_watch_shows_each_state(agent: AgentProcess) -> None:
    """Whoever watches sees the new version wait, serve, and the one before it step back."""
    with subprocess.Popen(watch(agent, "--json"), stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout is not None
            shown = [states(watching.stdout.readline())]
            assert rotate(agent).returncode == 0
            while shown[-1].get(newest(agent)) != "active":
                shown.append(states(watching.stdout.readline()))
        finally:
            watching.terminate()
    assert [now for now, before in zip(shown, [{}, *shown], strict=False) if now != before] == [
        {"1": "active"},
        {"1": "active", newest(agent): "pre-active"},
        {"1": "deactivated", newest(agent): "active"},
    ]


def states(line: str) -> dict[str, str]:
    return {version["id"]: version["state"] for version in json.loads(line)["keys"]["master"]["versions"]}


def test_watch_on_a_terminal(agent: AgentProcess) -> None:
    """There one picture is drawn in place until Ctrl-C."""
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(watch(agent), stdout=theirs, stderr=subprocess.PIPE) as watching,
    ):
        os.close(theirs)
        try:
            drawn = terminal.read(4096)
            assert agent.run("rotate", "-c", str(agent.config)).returncode == 0
            while b"deactivated" not in drawn:
                drawn += terminal.read(4096)
            watching.send_signal(signal.SIGINT)
            # Until the end, which a terminal tells as an error: nobody could write to one that is not read.
            with contextlib.suppress(OSError):
                while more := terminal.read(4096):
                    drawn += more
            _, told = watching.communicate()
        finally:
            watching.kill()
    assert drawn.startswith(b"\x1b[2J\x1b[H")
    assert b" pre-active " in drawn
    assert (watching.returncode, told) == (130, b"")
