# SPDX-License-Identifier: Apache-2.0
"""Whoever changes the volume finds it mended within a second; whoever reads it in peace is not disturbed."""

import signal
import stat
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyferry.document import DocumentError
from keyferry.layout import parse
from tests.daemon.agent_process import AgentProcess, eventually

MODE = 0o440


def _unlink(volume: Path) -> None:
    (volume / "master").unlink()


def _chmod(volume: Path) -> None:
    (volume / "master").chmod(0o666)


def _modify(volume: Path) -> None:
    (volume / "master").write_text("x")


def _modify_keyring(volume: Path) -> None:
    (volume / "keyring.json").write_text("{}")


def _other_generation(volume: Path) -> None:
    (volume / "..gen-other").mkdir()
    (volume / "new").symlink_to("..gen-other")
    (volume / "new").rename(volume / "..data")


def _directory_for_data(volume: Path) -> None:
    (volume / "..data").unlink()
    (volume / "..data").mkdir()
    (volume / "..data" / "master").write_text("planted")


def _file_for_link(volume: Path) -> None:
    (volume / "master").unlink()
    (volume / "master").write_text("planted")


def _more_in_generation(volume: Path) -> None:
    (volume / "..data" / "planted").write_text("planted")


def _unlock(volume: Path) -> None:
    (volume / "..lock").unlink()


TAMPERINGS = [
    _unlink,
    _chmod,
    _modify,
    _modify_keyring,
    _other_generation,
    _directory_for_data,
    _file_for_link,
    _more_in_generation,
    _unlock,
]


@pytest.fixture
def running(agent: AgentProcess) -> AgentProcess:
    agent.configure(refresh={"interval": "1h"})
    agent.start()
    agent.settle()
    return agent


def whole(agent: AgentProcess, key: str) -> bool:
    """Tell whether the volume is as it should be."""
    try:
        generation = agent.volume / (agent.volume / "..data").readlink()
        files = {path.name: path for path in generation.iterdir()}
        links = {name: str((agent.volume / name).readlink()) for name in ("master", "keyring.json")}
        generation_document = parse((agent.volume / "keyring.json").read_bytes())
    except (OSError, DocumentError):
        return False
    return (
        agent.plain() == key
        and list(generation_document.keys) == ["master"]
        and set(files) == {"master", "keyring.json"}
        and links == {"master": "..data/master", "keyring.json": "..data/keyring.json"}
        and all(stat.S_IMODE(path.stat().st_mode) == MODE for path in files.values())
    )


def repairs(agent: AgentProcess) -> int:
    return len(agent.told("volume.repaired")) + len(agent.told("volume.foreign"))


def mending_seconds(agent: AgentProcess, key: str, tamper: Callable[[Path], None]) -> float:
    """Tamper with the volume and return how long it took until that was told and mended."""
    before = repairs(agent)
    began = time.monotonic()
    tamper(agent.volume)
    eventually(lambda: repairs(agent) > before and whole(agent, key), what=tamper.__name__)
    return time.monotonic() - began


def test_repaired_within_a_second(running: AgentProcess, key: str) -> None:
    """One after the other, on one volume: each is noticed without a timer, and none ends the agent."""
    assert whole(running, key)
    delays = [mending_seconds(running, key, tamper) for tamper in TAMPERINGS]
    # Not each of them: the machine may be busy with something else for a moment.
    assert statistics.median(delays) < 1, delays
    assert running.told("volume.repaired", audit=True, name="master")
    assert running.told("volume.foreign", audit=True)
    assert running.request("/livez").status == 200


def test_a_lock_that_was_removed_is_taken_anew(running: AgentProcess) -> None:
    """Others find the agent again, and a second one is refused again."""
    _unlock(running.volume)
    running.wait_for("volume.repaired", name="..lock")
    assert running.run("refresh", "--dir", str(running.volume)).returncode == 0
    second = running.run("once", "-c", str(running.config))
    assert second.returncode == 2
    assert f"another keyferry-agent (pid {running.pid}) already publishes on" in second.stderr


def test_a_lock_that_another_agent_took_ends_this_one(running: AgentProcess) -> None:
    """Two writers would fight for the volume. What the other one publishes stays."""
    running.send(signal.SIGSTOP)
    _unlock(running.volume)
    with AgentProcess(running.home, **running.settings) as other:
        other.start()
        other.wait_ready()
        running.send(signal.SIGCONT)
        assert running.wait() == 2
        assert (
            f"another keyferry-agent (pid {other.pid}) already publishes on {running.volume}"
            in running.lines[-1]
        )
        other.settle()


@pytest.mark.parametrize("mode", [0o700, 0o755], ids=oct)
def test_directory_mode(running: AgentProcess, key: str, mode: int) -> None:
    generation = running.volume / (running.volume / "..data").readlink()
    before = stat.S_IMODE(generation.stat().st_mode)
    generation.chmod(mode)
    eventually(
        lambda: (
            stat.S_IMODE((running.volume / (running.volume / "..data").readlink()).stat().st_mode) == before
        ),
        what="mode",
    )
    assert whole(running, key)


def test_nothing_changed_means_nothing_published(agent: AgentProcess) -> None:
    """Refreshes that bring nothing new touch the heartbeat only: no swap, no event, no reload of the app."""
    agent.start()
    agent.settle()
    before = agent.tree()
    root = agent.volume.stat()
    written = agent.status().written_at
    agent.wait_for("refresh.succeeded", outcome="unchanged", count=6)
    assert agent.tree() == before
    assert agent.volume.stat().st_mtime_ns == root.st_mtime_ns
    assert len(agent.told("generation.published")) == 1
    assert agent.status().written_at > written
