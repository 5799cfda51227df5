# SPDX-License-Identifier: Apache-2.0
"""Random lives of a volume against a model of three facts: what is published, its number and its time."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.payload import number_of
from agent.publisher import RETIRE_AFTER_SECONDS
from keyferry.layout import DATA_LINK, KEYRING_FILE, Keyring
from keyferry.reader import read_volume
from tests.publisher.scene import BOOT, NOW, material, names, plain, published, publisher_on, ring, withdrawn

NAMES = st.sampled_from(["a", "b", "c"])
CHOICES = st.sampled_from(["absent", "same", "rotated", "withdrawn"])


def _retarget(root: Path) -> None:
    (root / DATA_LINK).unlink(missing_ok=True)
    (root / DATA_LINK).symlink_to("..gen-000000.nowhere")


def _plant(root: Path) -> None:
    (root / DATA_LINK).unlink(missing_ok=True)
    (root / DATA_LINK).mkdir()


def _damage(root: Path) -> None:
    for file in (root / DATA_LINK).iterdir():
        file.chmod(0o600)
        file.write_bytes(b"damage")


def _remove(root: Path) -> None:
    shutil.rmtree(root / published(root))


def _unlink(root: Path) -> None:
    (root / KEYRING_FILE).unlink()


class Volume(RuleBasedStateMachine):
    """An agent, its crashes, and somebody who tampers with the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="keyferry-"))
        self.now, self.boot = NOW, BOOT
        self.keys: dict[str, Keyring] | None = None
        self.number, self.published_at = 0, 0.0
        self.tampered = False

    @initialize()
    def start(self) -> None:
        self.publisher = publisher_on(self.root)
        self.publisher.open(self.boot)

    def teardown(self) -> None:
        self.publisher.close()
        shutil.rmtree(self.root)

    @rule(choices=st.dictionaries(NAMES, CHOICES))
    def publish(self, choices: dict[str, str]) -> None:
        before = self.keys or {}
        keys = {name: keyring for name, keyring in before.items() if choices.get(name, "same") != "absent"}
        for name, choice in choices.items():
            if choice == "withdrawn":
                keys[name] = withdrawn()
            elif choice == "rotated" or (choice == "same" and name not in keys):
                versions = keys[name].versions[-3:] if name in keys else ()
                values = (*(version.material for version in versions), material())
                # Long ago, so that the last one is active however the clock steps.
                keys[name] = ring(*values, activates_at=0.0)
        generation = self.publisher.publish(keys, now=self.now, boot=self.boot)
        if generation is None:
            assert keys == self.keys
            assert not self.tampered or read_volume(str(self.root)).generation.number == self.number
        else:
            assert generation.number > self.number
            assert generation.published_at >= self.published_at
            self.number, self.published_at = generation.number, generation.published_at
        self.keys, self.tampered = keys, False

    @precondition(lambda self: self.keys is not None and not self.tampered)
    @rule(tamper=st.sampled_from([_retarget, _plant, _damage, _remove, _unlink]))
    def tamper(self, tamper: Callable[[Path], None]) -> None:
        tamper(self.root)
        self.tampered = True

    @rule()
    def crash(self) -> None:
        """Let the process go without a word: the system closes its files, and another agent starts."""
        os.close(self.publisher._lock._descriptor)
        os.close(self.publisher._root.descriptor)
        self.publisher = publisher_on(self.root)
        adopted = self.publisher.open(self.boot)
        if not self.tampered:
            assert (adopted.keys if adopted else None) == self.keys
        elif adopted is None:
            # Nothing tells the time of what nobody can read any more, nor the number of what is gone.
            self.published_at = 0.0
            link = [published(self.root)] if (self.root / DATA_LINK).is_symlink() else []
            self.number = max(map(number_of, [*names(self.root), *link]))

    @precondition(lambda self: not self.tampered)
    @rule(leftover=st.sampled_from(["..tmp-1", "..gen-000001.leftover"]))
    def leave(self, leftover: str) -> None:
        """Leave what an agent leaves that is killed at a bad moment."""
        (self.root / leftover).mkdir(exist_ok=True)

    @rule()
    def retire(self) -> None:
        due = self.publisher.retire(self.boot)
        assert due is None or self.boot < due <= self.boot + 60

    @rule(seconds=st.sampled_from([0.001, 1.0, RETIRE_AFTER_SECONDS, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.boot += seconds

    @rule(seconds=st.sampled_from([-3600.0, -0.001, 0.5, 3600.0]))
    def step_clock(self, seconds: float) -> None:
        """Only the wall clock steps."""
        self.now += seconds

    @invariant()
    def readers_see_what_was_published(self) -> None:
        if self.keys is None or self.tampered:
            return
        generation = read_volume(str(self.root)).generation
        assert generation.keys == self.keys
        assert (generation.number, generation.published_at) == (self.number, self.published_at)
        with_files = {name for name, keyring in self.keys.items() if keyring.versions}
        assert {name for name in names(self.root) if not name.startswith(".")} == {KEYRING_FILE, *with_files}
        for name in with_files:
            assert (self.root / name).read_bytes() == plain(self.keys[name])

    @invariant()
    def withdrawn_keys_are_nowhere(self) -> None:
        if self.keys is None or self.tampered:
            return
        for name, keyring in self.keys.items():
            if keyring.withdrawn is not None:
                assert not list(self.root.glob(f"..gen-*/{name}"))


Volume.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestVolume = Volume.TestCase
