# SPDX-License-Identifier: Apache-2.0
"""What a start finds on the volume: what it goes on from, what it refuses, and what it clears away."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.errors import VolumeError
from agent.publisher import RETIRE_AFTER_SECONDS
from keyferry.layout import DATA_LINK, KEYRING_FILE, Generation, Keyring, serialize
from tests.publisher.conftest import needs_root
from tests.publisher.scene import (
    BOOT,
    NOW,
    Reports,
    material,
    names,
    picture,
    published,
    publisher_on,
    ring,
    shown,
    user,
    withdrawn,
)

KEYS = {"master": ring(material(), material()), "other": ring(material()), "gone": withdrawn()}


def left_behind(root: Path, keys: Mapping[str, Keyring] = KEYS) -> Path:
    """Leave a generation as an agent of this uid does; return its directory."""
    publisher = publisher_on(root)
    publisher.open(BOOT)
    publisher.publish(keys, now=NOW, boot=BOOT)
    publisher.write_status(b"{}")
    publisher.close()
    return root / published(root)


def test_a_warm_restart_changes_nothing(root: Path, reports: Reports) -> None:
    """The app does not notice it, and a refresh that shows the same publishes nothing."""
    left_behind(root)
    before = picture(root)
    publisher = publisher_on(root, reports)
    generation = publisher.open(BOOT)
    assert generation == Generation(1, NOW, KEYS)
    assert publisher.publish(KEYS, now=NOW + 5, boot=BOOT) is None
    assert publisher.read_status() == b"{}"
    assert publisher.retire(BOOT) is None
    assert picture(root) == before
    assert reports == []
    publisher.close()


def test_an_empty_volume_has_nothing(root: Path, reports: Reports) -> None:
    publisher = publisher_on(root, reports)
    assert publisher.open(BOOT) is None
    assert (names(root), reports) == (set(), [])
    publisher.close()


def group_writable(path: Path) -> None:
    path.chmod(0o660)


def _number(number: int) -> bytes:
    return serialize(Generation(number, NOW, KEYS))


REFUSED = [
    pytest.param(lambda d: os.chown(d, 1234, -1), id="directory of another uid", marks=needs_root),
    pytest.param(lambda d: os.chown(d / "master", 1234, -1), id="file of another uid", marks=needs_root),
    pytest.param(lambda d: d.chmod(0o770), id="directory the group may write"),
    pytest.param(lambda d: d.chmod(0o757), id="directory everybody may write"),
    pytest.param(lambda d: (d / KEYRING_FILE).chmod(0o460), id="file the group may write"),
    pytest.param(lambda d: (d / "other").chmod(0o446), id="file everybody may write"),
    pytest.param(lambda d: (d / "link").symlink_to(KEYRING_FILE), id="a link inside"),
    pytest.param(lambda d: (d / "inside").mkdir(), id="a directory inside"),
    pytest.param(lambda d: os.mkfifo(d / "fifo"), id="a FIFO inside"),
    pytest.param(lambda d: (d / KEYRING_FILE).unlink(), id="no keyring.json"),
    pytest.param(lambda d: (d / KEYRING_FILE).write_bytes(b"{"), id="no JSON"),
    pytest.param(
        lambda d: (d / KEYRING_FILE).write_bytes(_number(1).replace(b"keyferry/v1", b"keyferry/v2")),
        id="another schema",
    ),
    pytest.param(
        lambda d: (d / KEYRING_FILE).write_bytes(
            _number(1).replace(b'"published_at": "', b'"published_at": "9999-12-31T23:59:59.9999Z", "x": "')
        ),
        id="a time beyond all times",
    ),
]


@pytest.mark.parametrize("spoil", REFUSED)
def test_what_others_could_have_changed_is_not_adopted(
    root: Path, reports: Reports, spoil: Callable[[Path], None]
) -> None:
    """It is told, stays shown until there is something better, and then goes."""
    directory = left_behind(root)
    spoil(directory)
    before = picture(root)
    publisher = publisher_on(root, reports)
    assert publisher.open(BOOT) is None
    assert reports == [("volume.not_adopted", directory.name)]
    publisher.retire(BOOT + 10 * RETIRE_AFTER_SECONDS)
    assert picture(root) == before
    keys = {"master": ring(material())}
    generation = publisher.publish(keys, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == 2
    assert shown(root) == keys
    assert publisher.retire(BOOT) == BOOT + RETIRE_AFTER_SECONDS
    publisher.close()


@pytest.mark.parametrize(
    "target", ["/nowhere", "../volume", "keys", "..data", "..gen-000001.x/..", "..gen-000001.nothing"]
)
def test_a_link_that_leads_elsewhere_is_not_adopted(root: Path, reports: Reports, target: str) -> None:
    (root / "keys").mkdir()
    (root / DATA_LINK).symlink_to(target)
    publisher = publisher_on(root, reports)
    assert publisher.open(BOOT) is None
    assert reports == [("volume.not_adopted", target)]
    publisher.close()


@needs_root
def test_another_user_does_not_adopt(shared: Path, reports: Reports) -> None:
    """A pod whose agent got another uid starts over; nothing of root's is in its way."""
    with user(1111, 1111, 4000):
        first = publisher_on(shared)
        first.open(BOOT)
        first.publish(KEYS, now=NOW, boot=BOOT)
        first.write_status(b"{}")
        first.close()
    (shared / "..lock").unlink()
    with user(2222, 2222, 4000):
        second = publisher_on(shared, reports)
        assert second.open(BOOT) is None
        assert second.read_status() is None
        second.write_status(b"{}")
        assert second.publish(KEYS, now=NOW, boot=BOOT) is not None
        assert shown(shared) == KEYS
        second.close()
    assert [event for event, _ in reports][:2] == ["volume.not_adopted", "volume.foreign"]


def test_mode_of_the_settings_changes(root: Path, reports: Reports) -> None:
    """What is adopted gets its new mode with the first publication of the same keys."""
    left_behind(root)
    publisher = publisher_on(root, reports, mode=0o444)
    assert publisher.open(BOOT) is not None
    assert publisher.publish(KEYS, now=NOW, boot=BOOT) is not None
    assert (root / "master").stat().st_mode & 0o777 == 0o444
    publisher.close()


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        pytest.param("..gen-000041.deadbeef", 42, id="an orphan"),
        pytest.param("..gen-7.x", 8, id="without zeros"),
        pytest.param("..gen-", 1, id="no number"),
        pytest.param("..gen-x.y", 1, id="no digits"),
        pytest.param("..gen-\N{ARABIC-INDIC DIGIT SEVEN}.y", 1, id="digits of another script"),
        pytest.param(f"..gen-{'9' * 200}.x", 1, id="more digits than a name has room for"),
    ],
)
def test_the_counter_starts_above_what_is_seen(root: Path, planted: str, expected: int) -> None:
    (root / planted).mkdir()
    publisher = publisher_on(root)
    publisher.open(BOOT)
    generation = publisher.publish(KEYS, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == expected
    publisher.close()


def test_the_counter_starts_above_what_is_linked(root: Path) -> None:
    """Readers saw it, even if its directory is gone."""
    (root / DATA_LINK).symlink_to("..gen-000041.deadbeef")
    publisher = publisher_on(root)
    publisher.open(BOOT)
    generation = publisher.publish(KEYS, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == 42
    publisher.close()


def test_the_counter_starts_above_what_is_written(root: Path) -> None:
    """The number in the file counts as well: somebody may have renamed the directory."""
    directory = left_behind(root)
    (directory / KEYRING_FILE).write_bytes(_number(99))
    publisher = publisher_on(root)
    publisher.open(BOOT)
    generation = publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == 100
    publisher.close()


def test_leftovers_of_a_crash_go(root: Path, reports: Reports) -> None:
    """Temporary names at once, orphaned generations in their turn: a reader may stand in one."""
    directory = left_behind(root, {"master": ring(material())})
    wanted = names(root)
    (root / "..tmp-0badf00d").symlink_to("..gen-000009.x")
    (root / "..status/..tmp-0badf00d").write_bytes(b"half a heartb")
    (root / "..gen-000002.0badf00d").mkdir()
    (root / "..gen-000002.0badf00d" / KEYRING_FILE).write_bytes(b"half a keyr")
    publisher = publisher_on(root, reports)
    publisher.open(BOOT)
    assert [path.name for path in (root / "..status").iterdir()] == ["status.json"]
    assert publisher.retire(BOOT) == BOOT + RETIRE_AFTER_SECONDS
    assert names(root) == wanted | {"..gen-000002.0badf00d"}
    assert publisher.retire(BOOT + RETIRE_AFTER_SECONDS) is None
    assert names(root) == wanted
    assert root / published(root) == directory
    assert reports == []
    publisher.close()


def test_a_withdrawal_that_was_cut_short_is_finished(root: Path) -> None:
    """The crash came between the swap and the removal of the material."""
    left_behind(root)
    (root / "..gen-000000.0badf00d").mkdir()
    (root / "..gen-000000.0badf00d" / "gone").write_bytes(material().raw)
    publisher = publisher_on(root)
    publisher.open(BOOT)
    assert "..gen-000000.0badf00d" not in names(root)
    publisher.close()


def test_links_are_repaired_at_the_start(root: Path) -> None:
    """Also while the source is away: nothing is published then for a long time."""
    left_behind(root)
    (root / "master").unlink()
    (root / "gone").symlink_to("..data/gone")
    publisher = publisher_on(root)
    publisher.open(BOOT)
    assert shown(root) == KEYS
    assert not (root / "gone").is_symlink()
    publisher.close()


def test_no_volume(tmp_path: Path) -> None:
    with pytest.raises(VolumeError) as caught:
        publisher_on(tmp_path / "nothing").open(BOOT)
    assert (
        str(caught.value) == f"volume.path: {tmp_path}/nothing cannot be opened (No such file or directory)"
    )


def test_no_such_group(root: Path) -> None:
    """The volume is free again after it."""
    with pytest.raises(VolumeError) as caught:
        publisher_on(root, group="no-such-group").open(BOOT)
    assert str(caught.value) == "volume.group: there is no group 'no-such-group' here; give its number"
    publisher = publisher_on(root)
    publisher.open(BOOT)
    publisher.close()
