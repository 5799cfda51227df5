# SPDX-License-Identifier: Apache-2.0
"""What the loop does with the volume, at moments that the test chooses and on a real directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.clock import Moment
from agent.errors import VolumeError
from agent.events import Event, Events
from agent.publication import Publication
from agent.publisher import RETIRE_AFTER_SECONDS
from agent.settings import VolumeSettings
from tests.unit.scenes import keyring, version

if TYPE_CHECKING:
    from keyferry.layout import Keyring

BEGAN = 1_700_000_000.0
OLD = version("1", 0.0)
NEW = version("2", BEGAN + 100.0)


def at(boot: float) -> Moment:
    return Moment(BEGAN + boot, boot)


class Scene:
    def __init__(self, volume: Path) -> None:
        self.volume = volume
        self.told: list[Event] = []
        events = Events(lambda: BEGAN)
        events.attach(self.told.append)
        settings = VolumeSettings(path=volume, require_tmpfs=False)
        self.publication = Publication(settings, events)
        self.keys: dict[str, Keyring] = {"master": keyring(OLD)}

    def turn(self, boot: float) -> None:
        self.publication.turn(self.keys, at(boot))

    def next_turn(self, boot: float) -> float:
        return self.publication.next_turn(self.keys, at(boot))

    @property
    def names(self) -> list[str]:
        """The events so far."""
        return [event.name for event in self.told]

    @property
    def generations(self) -> int:
        return len(list(self.volume.glob("..gen-*")))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    volume = tmp_path / "volume"
    volume.mkdir()
    found = Scene(volume)
    found.publication.open(at(0.0))
    yield found
    found.publication.close()


def test_publishes_what_differs_and_only_that(scene: Scene) -> None:
    scene.turn(0.0)
    assert scene.names == ["generation.published", "key.published"]
    assert scene.publication.heartbeat_due
    scene.turn(1.0)
    scene.publication.look_soon()
    scene.turn(2.0)
    assert scene.names == ["generation.published", "key.published"]
    assert scene.next_turn(2.0) == float("inf")


def test_nothing_to_publish(scene: Scene) -> None:
    scene.keys = {}
    scene.publication.look_soon()
    scene.turn(0.0)
    assert scene.names == []
    assert not (scene.volume / "..data").is_symlink()


def test_activation_is_a_publication(scene: Scene) -> None:
    """The plain file changes at the moment that was promised, even if nothing else happens."""
    scene.keys = {"master": keyring(OLD, NEW)}
    scene.turn(0.0)
    assert (scene.volume / "master").read_text() == OLD.material.text
    assert scene.next_turn(40.0) == pytest.approx(100.0)
    scene.turn(99.9)
    assert (scene.volume / "master").read_text() == OLD.material.text
    scene.turn(100.0)
    assert (scene.volume / "master").read_text() == NEW.material.text
    assert scene.names[-2:] == ["generation.published", "key.activated"]


def test_a_clock_that_steps_back_takes_no_activation_back(scene: Scene) -> None:
    scene.keys = {"master": keyring(OLD, NEW)}
    scene.turn(100.0)
    count = len(scene.told)
    scene.publication.look_soon()
    scene.turn(50.0)
    assert (scene.volume / "master").read_text() == NEW.material.text
    assert len(scene.told) == count


def test_old_generations_go_on_time(scene: Scene) -> None:
    scene.turn(0.0)
    scene.keys = {"master": keyring(NEW)}
    scene.turn(10.0)
    assert scene.generations == 2
    assert scene.next_turn(10.0) == 10.0 + RETIRE_AFTER_SECONDS
    scene.turn(10.0 + RETIRE_AFTER_SECONDS)
    assert scene.generations == 1


def test_what_a_crash_left_goes_even_if_nothing_is_published(scene: Scene) -> None:
    scene.turn(0.0)
    scene.publication.close()
    (scene.volume / "..gen-000009.left").mkdir()
    scene.publication.open(at(1.0))
    scene.turn(1.0)
    assert scene.next_turn(1.0) == 1.0 + RETIRE_AFTER_SECONDS
    scene.turn(1.0 + RETIRE_AFTER_SECONDS)
    assert scene.generations == 1


def test_a_failure_is_told_and_tried_again(scene: Scene) -> None:
    """After waits that double, and not at every turn: a full volume must not fill the log as well."""
    scene.volume.rename(scene.volume.with_name("away"))
    scene.turn(0.0)
    assert scene.names == ["generation.published", "key.published"]  # the descriptor is the volume

    scene.keys = {"master": keyring(NEW)}
    for directory in scene.volume.with_name("away").iterdir():
        if directory.is_dir() and not directory.is_symlink():
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()
        else:
            directory.unlink()
    scene.volume.with_name("away").rmdir()
    for boot in (10.0, 10.1, 10.5):
        scene.turn(boot)
    assert scene.names[2:] == ["publish.failed"]
    assert scene.told[-1].fields["reason"] == (
        f"cannot publish on {scene.volume} (No such file or directory); what was published stays"
    )
    assert scene.next_turn(10.5) == 11.0
    assert scene.publication.heartbeat_due
    assert scene.publication.problem == scene.told[-1].fields["reason"]
    due = [11.0, 13.0, 17.0, 25.0, 41.0, 73.0, 133.0, 193.0]
    for boot in due:
        assert scene.next_turn(boot) == boot
        scene.turn(boot)
    assert scene.names[2:] == ["publish.failed"] * 9

    scene.keys = {"master": keyring(OLD)}
    scene.publication.look_soon()
    scene.turn(200.0)
    assert scene.next_turn(200.0) == 260.0


def test_a_heartbeat_that_is_none(scene: Scene) -> None:
    (scene.volume / "..status").mkdir()
    (scene.volume / "..status" / "status.json").write_text("{")
    assert scene.publication.last_status() is None
    assert scene.names == ["volume.warning"]


def test_a_volume_that_is_not_there(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "nowhere")
    with pytest.raises(VolumeError, match=r"^volume\.path: .*/nowhere does not exist; "):
        scene.publication.open(at(0.0))
