# SPDX-License-Identifier: Apache-2.0
"""A keyring file that goes wrong while the agent runs: what was published stays."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from keyferry.times import format_time
from tests.daemon.agent_process import AgentProcess
from tests.daemon.conftest import new_key

Document = dict[str, Any]


def keyring() -> Document:
    versions = [
        {"id": str(number), "created_at": format_time(1_700_000_000.0 + number), "material": new_key()}
        for number in (1, 2)
    ]
    return {"schema": "keyferry-keyring/v1", "key": "master", "versions": versions}


WRONG: dict[str, tuple[Callable[[Document], str], str]] = {
    "truncated": (lambda d: json.dumps(d)[:-20], "is not JSON"),
    "an entry twice": (
        lambda d: json.dumps(d | {"versions": [*d["versions"], d["versions"][0]]}),
        "versions has two with the same id",
    ),
    "another key's": (lambda d: json.dumps(d | {"key": "other"}), "this file was made for another key"),
    "no entries": (lambda d: json.dumps(d | {"versions": []}), "versions is empty"),
    "empty": (lambda _: "", "is not JSON"),
}


@pytest.mark.parametrize(("spoil", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_changes_nothing(
    agent: AgentProcess, spoil: Callable[[Document], str], reason: str
) -> None:
    good = keyring()
    agent.write_key(json.dumps(good))
    agent.configure(keys={"master": agent.file_key() | {"format": "keyring"}})
    agent.start()
    agent.wait_published(good["versions"][1]["material"])
    before = agent.tree()
    agent.write_key(spoil(good))
    failure = agent.wait_for("refresh.failed", outcome="malformed")
    assert reason in failure["reason"]
    assert agent.tree() == before
    assert not [v for v in good["versions"] if v["material"] in json.dumps(agent.events)]
    agent.write_key(json.dumps(good))
    agent.wait_for("refresh.succeeded", count=2)
    assert agent.tree() == before
