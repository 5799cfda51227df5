# SPDX-License-Identifier: Apache-2.0
"""Whatever somebody else leaves at a name of ours goes out of the way, is not lost, and is told."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import PublishError
from agent.publisher import Publisher
from keyferry.layout import DATA_LINK, KEYRING_FILE
from keyferry.reader import read_volume
from tests.publisher.conftest import needs_root
from tests.publisher.scene import (
    BOOT,
    NOW,
    Reports,
    material,
    names,
    picture,
    plain,
    published,
    publisher_on,
    ring,
    shown,
)

Plant = Callable[[Path], None]


def plant_file(path: Path) -> None:
    path.write_bytes(b"foreign")


def plant_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(b"foreign")


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_link(path: Path) -> None:
    # Never at a real file of the system: these tests run as root, and may find the bug that they look for.
    (path.parent.parent / "elsewhere").touch()
    path.symlink_to(path.parent.parent / "elsewhere")


THINGS = pytest.mark.parametrize("plant", [plant_file, plant_directory, plant_fifo, plant_link])
NAMES = pytest.mark.parametrize("name", [DATA_LINK, KEYRING_FILE, "master"])


def clear(path: Path) -> None:
    if path.is_symlink():
        path.unlink()


@THINGS
@NAMES
@pytest.mark.parametrize("when", ["before the first", "before the next", "before the same again", "restart"])
def test_at_a_published_name(root: Path, reports: Reports, name: str, plant: Plant, when: str) -> None:
    """The next publication puts it right, also if it would have had nothing to change."""
    keys = {"master": ring(material())}
    publisher = publisher_on(root, reports)
    publisher.open(BOOT)
    if when != "before the first":
        publisher.publish(keys, now=NOW, boot=BOOT)
        clear(root / name)
    plant(root / name)
    kind = stat.S_IFMT((root / name).lstat().st_mode)
    if when == "before the next":
        keys = {"master": ring(material())}
    if when == "restart":
        publisher.close()
        publisher = publisher_on(root, reports)
        publisher.open(BOOT)
    publisher.publish(keys, now=NOW, boot=BOOT)
    assert shown(root) == keys
    assert (root / KEYRING_FILE).read_bytes() == (root / published(root) / KEYRING_FILE).read_bytes()
    aside = [path for path in root.iterdir() if path.name.startswith("..foreign-")]
    # A link is replaced: it holds nothing that could be lost.
    wanted = [] if plant is plant_link else [kind]
    assert [stat.S_IFMT(path.lstat().st_mode) for path in aside] == wanted
    assert [name for event, name in reports if event == "volume.foreign"] == [path.name for path in aside]
    assert publisher.publish(keys, now=NOW, boot=BOOT) is None
    publisher.close()


@THINGS
def test_at_the_status_directory(root: Path, publisher: Publisher, reports: Reports, plant: Plant) -> None:
    """Nobody else's directory is written into, and no link is followed."""
    plant(root / "..status")
    ours = plant is plant_directory and os.geteuid() == (root / "..status").stat().st_uid
    publisher.write_status(b"{}")
    assert publisher.read_status() == b"{}"
    aside = [] if ours else [name for name in names(root) if name.startswith("..foreign-status.")]
    assert reports == [("volume.foreign", name) for name in aside]
    assert bool(aside) != ours


@needs_root
def test_a_status_directory_of_another_user(root: Path, publisher: Publisher, reports: Reports) -> None:
    (root / "..status").mkdir()
    os.chown(root / "..status", 1234, 1234)
    assert publisher.read_status() is None
    publisher.write_status(b"{}")
    assert (root / "..status").stat().st_uid == os.geteuid()
    assert [event for event, _ in reports] == ["volume.foreign"]


@THINGS
def test_at_the_status_file(root: Path, publisher: Publisher, reports: Reports, plant: Plant) -> None:
    (root / "..status").mkdir()
    plant(root / "..status/status.json")
    if plant is not plant_file:
        assert publisher.read_status() is None
    publisher.write_status(b"{}")
    assert publisher.read_status() == b"{}"
    aside = [path.name for path in (root / "..status").iterdir() if path.name.startswith("..foreign-")]
    assert reports == [("volume.foreign", f"..status/{name}") for name in aside]
    # A file there was ours, as far as one can tell.
    assert bool(aside) == (plant is not plant_file)


def test_a_status_file_of_no_sane_size(root: Path, publisher: Publisher) -> None:
    """It was not written by an agent, and reading it would cost the container its memory."""
    (root / "..status").mkdir()
    with (root / "..status/status.json").open("wb") as file:
        file.truncate(1 << 40)
    assert publisher.read_status() is None


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda directory: (directory / "master").chmod(0o444), id="mode of a file"),
        pytest.param(lambda directory: directory.chmod(0o755), id="mode of the directory"),
        pytest.param(lambda directory: (directory / "master").write_bytes(b"x"), id="content"),
        pytest.param(lambda directory: (directory / KEYRING_FILE).unlink(), id="keyring.json gone"),
        pytest.param(lambda directory: (directory / "more").touch(), id="one file more"),
        pytest.param(lambda directory: plant_directory(directory / "more"), id="a directory inside"),
        pytest.param(lambda directory: plant_fifo(directory / "more"), id="a FIFO inside"),
        pytest.param(lambda directory: plant_link(directory / "more"), id="a link inside"),
        pytest.param(lambda directory: (directory / "..data").symlink_to("."), id="a loop inside"),
        pytest.param(lambda directory: directory.rename(f"{directory}x"), id="renamed"),
        pytest.param(lambda directory: (directory.parent / DATA_LINK).unlink(), id="link gone"),
        pytest.param(
            lambda directory: os.chown(directory / "master", 1234, -1), id="owner", marks=needs_root
        ),
        pytest.param(lambda directory: os.chown(directory, -1, 1234), id="group", marks=needs_root),
    ],
)
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_tampering_is_repaired(
    root: Path, reports: Reports, tamper: Callable[[Path], None], *, restart: bool
) -> None:
    """The same keys again: a new generation if anything about the shown one is not as it was written."""
    keys = {"master": ring(material())}
    publisher = publisher_on(root, reports)
    publisher.open(BOOT)
    publisher.publish(keys, now=NOW, boot=BOOT)
    before = published(root)
    tamper(root / before)
    adopted = True
    if restart:
        publisher.close()
        publisher = publisher_on(root, reports)
        adopted = publisher.open(BOOT) is not None
    linked = (root / DATA_LINK).is_symlink()
    generation = publisher.publish(keys, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == 2
    assert shown(root) == keys
    # Without a link there is nothing that could have been adopted.
    told = [("volume.repaired" if adopted else "volume.not_adopted", before)]
    assert reports == (told if adopted or linked else [])
    publisher.close()


@pytest.mark.parametrize("name", [KEYRING_FILE, "master"])
def test_a_missing_link_is_made_again(root: Path, publisher: Publisher, name: str) -> None:
    """Nothing else was wrong, so there is no new generation."""
    keys = {"master": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    before = picture(root)
    (root / name).unlink()
    assert publisher.publish(keys, now=NOW, boot=BOOT) is None
    after = picture(root)
    assert (root / "master").read_bytes() == plain(keys["master"])
    assert {path: entry[1:2] for path, entry in after.items()} == {
        path: entry[1:2] for path, entry in before.items()
    }


def test_a_link_of_ours_that_is_nobodys_goes(root: Path, publisher: Publisher) -> None:
    """Only links of exactly our form are removed."""
    (root / "old").symlink_to("..data/old")
    (root / "theirs").symlink_to("..data/master")
    (root / "file").touch()
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    assert names(root) - {published(root)} == {DATA_LINK, KEYRING_FILE, "master", "theirs", "file"}


def test_the_link_points_to_another_generation(root: Path, publisher: Publisher) -> None:
    """Somebody rolls the app back by hand. The directory they chose retires as any other."""
    old, new = {"master": ring(material())}, {"master": ring(material())}
    publisher.publish(old, now=NOW, boot=BOOT)
    before = published(root)
    publisher.publish(new, now=NOW, boot=BOOT)
    (root / DATA_LINK).unlink()
    (root / DATA_LINK).symlink_to(before)
    publisher.publish(new, now=NOW, boot=BOOT)
    assert shown(root) == new
    publisher.retire(BOOT, every=True)
    assert names(root) == {DATA_LINK, published(root), KEYRING_FILE, "master"}


@pytest.mark.parametrize(
    "target", ["{parent}/outside", "../outside", "..gen-000001.x/../../outside", "inside", "inside/below"]
)
def test_the_link_leads_out_of_the_volume(root: Path, publisher: Publisher, target: str) -> None:
    """Nothing that it names is ever removed."""
    kept = [root.parent / "outside/file", root / "inside/file", root / "inside/below/file"]
    (root / "..gen-000001.x").mkdir()
    for file in kept:
        file.parent.mkdir()
        file.touch()
    (root / DATA_LINK).symlink_to(target.format(parent=root.parent))
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    publisher.retire(BOOT, every=True)
    assert all(file.exists() for file in kept)
    assert read_volume(str(root)).generation.number == 1


def test_wiping_leaves_what_is_foreign(root: Path, publisher: Publisher) -> None:
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    clear(root / DATA_LINK)
    plant_directory(root / DATA_LINK)
    publisher.wipe()
    assert names(root) == {DATA_LINK}


def test_a_generation_that_is_no_directory(root: Path, publisher: Publisher, reports: Reports) -> None:
    """A planted ..gen-* cannot be removed as a directory; wiping says so."""
    plant_fifo(root / "..gen-000009.x")
    with pytest.raises(PublishError) as caught:
        publisher.wipe()
    assert str(caught.value) == f"cannot wipe {root}: ..gen-000009.x could not be removed"
    assert reports == [("volume.leftover", "..gen-000009.x")]
