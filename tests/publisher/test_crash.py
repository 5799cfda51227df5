# SPDX-License-Identifier: Apache-2.0
"""The agent is killed at every system call of a publication: readers see all of the old or all of the new."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.publisher import RETIRE_AFTER_SECONDS
from keyferry import FileAdapter
from keyferry.errors import KeyferryError
from keyferry.layout import DATA_LINK, KEYRING_FILE, Keyring
from tests.publisher.scene import (
    BOOT,
    NOW,
    material,
    names,
    published,
    publisher_on,
    ring,
    shown,
    withdrawn,
)
from tests.publisher.traced import traced

Keys = Mapping[str, Keyring]

OLD: Keys = {"master": ring(material()), "leaves": ring(material())}
NEW: Keys = {"master": ring(material(), material()), "arrives": ring(material())}
WITHDRAWN: Keys = {"master": withdrawn(), "leaves": OLD["leaves"]}


def nothing(_: Path) -> None:
    """Plant nothing."""


def foreign_directory(root: Path) -> None:
    (root / DATA_LINK).unlink()
    (root / DATA_LINK).mkdir()


@dataclass(frozen=True)
class Scenario:
    """What was published before, what somebody did to the volume, and what is published now."""

    before: tuple[Keys, ...]
    after: Keys
    tamper: Callable[[Path], object] = nothing
    aside: int = 0
    readable_before: bool = True


SCENARIOS = [
    pytest.param(Scenario((), NEW, readable_before=False), id="first"),
    pytest.param(Scenario((OLD,), NEW), id="next"),
    pytest.param(Scenario((NEW, OLD), WITHDRAWN), id="withdrawal"),
    pytest.param(Scenario((OLD,), OLD), id="same again"),
    pytest.param(
        Scenario((OLD,), OLD, lambda root: (root / "master").chmod(0o444)), id="same again, tampered with"
    ),
    pytest.param(
        Scenario((OLD,), NEW, foreign_directory, aside=1, readable_before=False),
        id="a foreign thing in the way",
    ),
]


def staged(root: Path, scenario: Scenario) -> Callable[[], Callable[[], str]]:
    """Bring the volume to where the scenario begins and return what makes the publication."""
    root.mkdir()
    publisher = publisher_on(root)
    publisher.open(BOOT)
    for keys in scenario.before:
        publisher.publish(keys, now=NOW, boot=BOOT)
    publisher.close()
    scenario.tamper(root)

    def prepare() -> Callable[[], str]:
        agent = publisher_on(root)
        agent.open(BOOT)
        return lambda: str(agent.publish(scenario.after, now=NOW, boot=BOOT) is not None)

    return prepare


def look(root: Path) -> Keys | None:
    """Return what readers see now, ``None`` if nothing is there."""
    try:
        seen = shown(root)
    except KeyferryError:
        return None
    for name, keyring in seen.items():
        if keyring.withdrawn is None:
            adapter = FileAdapter(str(root), key=name)
            assert adapter.get_master_key() == keyring.versions[-1].material.text
    return seen


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_system_call(tmp_path: Path, scenario: Scenario) -> None:
    """And the next start repairs whatever was left."""
    run = traced(staged(tmp_path / "whole", scenario))
    assert run.result is not None
    assert len(run.calls) > 10
    old = scenario.before[-1] if scenario.readable_before else None
    seen = []
    for number, call in enumerate(run.calls):
        root = tmp_path / str(number)
        killed = traced(staged(root, scenario), f"{call.name}:signal=KILL:when={call.number}")
        assert killed.result is None, f"{call} was not reached"
        found = look(root)
        assert found in (old, scenario.after), f"{call}: neither the old nor the new generation is shown"
        seen.append(found == scenario.after)

        publisher = publisher_on(root)
        adopted = publisher.open(BOOT)
        assert (adopted.keys if adopted else None) == found, f"{call}: the start took something else over"
        publisher.publish(scenario.after, now=NOW, boot=BOOT)
        assert look(root) == scenario.after, f"{call}: the next publication does not work"
        publisher.retire(BOOT + RETIRE_AFTER_SECONDS)
        plain = {name for name, keyring in scenario.after.items() if keyring.versions}
        left = names(root) - {DATA_LINK, published(root), KEYRING_FILE, *plain}
        # What was moved aside stays, whether before the kill or after it.
        assert len(left) == scenario.aside, f"{call}: {left} is left"
        assert all(name.startswith("..foreign-") for name in left)
        publisher.close()
    # There is one moment before which everybody sees the old and after which everybody sees the new.
    assert seen == sorted(seen)
    assert seen[-1]
