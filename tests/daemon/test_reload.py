# SPDX-License-Identifier: Apache-2.0
"""A change of agent.yaml while the agent runs: applied, or refused as a whole."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.agent_process import AgentProcess, eventually
from tests.daemon.conftest import new_key


@pytest.fixture
def running(agent: AgentProcess) -> AgentProcess:
    """Return an agent that has published, and whose timer is no help."""
    agent.configure(refresh={"interval": "1h"})
    agent.start()
    agent.settle()
    return agent


def test_added_and_removed_key(running: AgentProcess, key: str) -> None:
    second = new_key()
    running.write_key(second, "second")
    running.configure(keys={"master": running.file_key(), "second": running.file_key("second")})
    running.wait_published(second, "second")
    assert running.plain() == key

    running.configure(keys={"second": running.file_key("second")})
    running.wait_for("key.removed", key="master", audit=True)
    assert running.plain() is None
    assert running.plain("second") == second
    eventually(lambda: list(running.status().keys) == ["second"])


def test_an_added_key_that_cannot_be_had_takes_no_pod_out_of_service(running: AgentProcess) -> None:
    """A pod that starts with it waits: there a rollout stops."""
    running.configure(keys={"master": running.file_key(), "second": running.file_key("second")})
    running.wait_for("refresh.failed", key="second", outcome="missing")
    eventually(lambda: "second: never (file " in running.request("/readyz").body)
    assert running.request("/readyz").status == 200
    running.write_key(new_key(), "second")
    eventually(lambda: running.request("/readyz").body == "ok\n")

    running.key_file.with_name("second").unlink()
    running.stop()
    for name in ("..data", "second"):
        (running.volume / name).unlink()
    running.start()
    eventually(lambda: "second: file " in running.request("/readyz").body)
    assert running.request("/readyz").status == 503


def test_a_renamed_key_counts_at_once(running: AgentProcess) -> None:
    """It takes from the app what it had."""
    running.configure(keys={"main": running.file_key("nowhere")})
    running.wait_for("refresh.failed", key="main", outcome="missing")
    eventually(lambda: "main: file " in running.request("/readyz").body)
    assert running.request("/readyz").status == 503


def test_log_level(running: AgentProcess) -> None:
    """Below the level nothing is told, but for what an auditor wants to know."""
    running.configure(log={"level": "error"})
    running.wait_for("config.reloaded", audit=True)
    count = len(running.events)
    rotated = new_key()
    running.write_key(rotated)
    running.wait_for("key.published", count=2)
    later = running.events[count:]
    assert later
    assert all(event.get("audit") for event in later)


def test_a_file_that_is_filled_in_from_now_on(running: AgentProcess) -> None:
    """It is watched from then on, though at that moment it changes no setting."""
    level = running.home / "level" / "file"
    level.parent.mkdir()
    level.write_text("debug")
    written = running.status().written_at
    running.configure(log={"level": f"${{file:{level}}}"})
    eventually(lambda: running.status().written_at > written)
    assert not running.told("config.reloaded")
    level.write_text("error")
    running.wait_for("config.reloaded")


def _volume(agent: AgentProcess) -> dict[str, Any]:
    return {"volume": {"path": str(agent.volume), "mode": "0400"}}


def _port(_agent: AgentProcess) -> dict[str, Any]:
    return {"http": {"listen": "off"}}


def _source(agent: AgentProcess) -> dict[str, Any]:
    return {"keys": {"master": agent.file_key("other")}}


def _length(agent: AgentProcess) -> dict[str, Any]:
    return {"keys": {"master": agent.file_key() | {"lenght": 32}}, "log": {"level": "loud"}}


REFUSED = {
    "volume": (
        _volume,
        ["volume.mode changed, and a running agent cannot follow; restart the pod, or undo it"],
    ),
    "http": (_port, ["http.listen changed, and a running agent cannot follow; restart the pod, or undo it"]),
    "source": (
        _source,
        [
            (
                "keys.master names another source now, and that is another key, which never replaces a "
                "published one; use a new key name or a new pod, or undo it"
            )
        ],
    ),
    "invalid": (_length, ["log.level: ", "keys.master.lenght: "]),
}


@pytest.mark.parametrize(("change", "problems"), REFUSED.values(), ids=REFUSED)
def test_refused(
    running: AgentProcess, key: str, change: Callable[[AgentProcess], dict[str, Any]], problems: list[str]
) -> None:
    """It is told everywhere, nothing of it is applied, and the old configuration works on."""
    before = dict(running.settings)
    volume = running.tree()
    running.configure(**change(running))

    told = running.wait_for("config.refused", audit=True)["problems"]
    assert len(told) == len(problems)
    for sentence, start in zip(told, problems, strict=True):
        assert sentence.startswith(start)
    eventually(lambda: list(running.status().config_problems) == told)
    assert json.loads(running.request("/status").body)["agent"]["config_problems"] == told
    running.send(signal.SIGHUP)
    running.wait_for("refresh.succeeded", outcome="unchanged", count=2)
    assert running.tree() == volume
    assert len(running.told("config.refused")) == 1

    running.configure(**before)
    eventually(lambda: running.status().config_problems == ())
    running.wait_for("config.accepted", audit=True)
    rotated = new_key()
    running.write_key(rotated)
    running.wait_published(rotated)


def test_a_file_that_is_gone_for_a_moment(running: AgentProcess, key: str) -> None:
    running.config.unlink()
    running.send(signal.SIGHUP)
    (problem,) = running.wait_for("config.refused")["problems"]
    assert problem.startswith(f"{running.config}: cannot be read: No such file or directory; ")
    running.configure()
    eventually(lambda: running.status().config_problems == ())
    assert running.plain() == key


def test_a_refused_configuration_is_read_again_when_its_file_is_there(running: AgentProcess) -> None:
    """A ConfigMap may come before the Secret that it names."""
    level = running.home / "secret" / "level"
    level.parent.mkdir()
    running.configure(log={"level": f"${{file:{level}}}"})
    (problem,) = running.wait_for("config.refused")["problems"]
    assert "which cannot be read: No such file or directory" in problem
    level.write_text("debug\n")
    running.wait_for("config.accepted")
    # The heartbeat follows the event.
    eventually(lambda: running.status().config_problems == ())


def test_other_settings_reach_a_call_under_way(agent: AgentProcess, key: str, black_hole: str) -> None:
    """A hanging call of the old configuration is dropped; the new one is asked, and its answer counts."""
    agent.configure(
        refresh={"interval": "1h", "timeout": "500ms", "max_backoff": "100ms"},
        keys={
            "master": agent.file_key(),
            "hung": {
                "provider": "vault",
                "address": black_hole,
                "path": "secret/app/key",
                "auth": {"token": "none"},
            },
        },
    )
    agent.start()
    agent.wait_for("refresh.started", key="hung")
    agent.wait_published(key)
    agent.configure(outage={"max_stale": "3h"})
    agent.wait_for("config.reloaded")
    agent.wait_for("refresh.failed", key="hung", outcome="unavailable")
