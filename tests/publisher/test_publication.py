# SPDX-License-Identifier: Apache-2.0
"""What a publication puts on the volume, what it leaves alone, and what goes when."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.directory import MAX_FILE_BYTES
from agent.errors import PublishError
from agent.publisher import RETIRE_AFTER_SECONDS, RETRY_AFTER_SECONDS, Publisher
from keyferry.layout import DATA_LINK, KEYRING_FILE, Keyring, Version, parse, serialize
from keyferry.material import NO_FINGERPRINT, Material
from keyferry.status import STATUS_SCHEMA
from tests.publisher.conftest import needs_root
from tests.publisher.scene import (
    BOOT,
    NOW,
    Reports,
    Watch,
    material,
    names,
    picture,
    plain,
    published,
    publisher_on,
    ring,
    shown,
    user,
    withdrawn,
)


def test_a_publication_is_what_the_contract_says(root: Path, publisher: Publisher) -> None:
    """One directory, one link to it, and a link for each plain file; the material byte for byte."""
    keys = {"master": ring(material(), material()), "other": ring(material())}
    generation = publisher.publish(keys, now=NOW, boot=BOOT)
    assert generation is not None
    assert (generation.number, generation.published_at, generation.keys) == (1, NOW, keys)
    assert publisher.generation == generation
    directory = published(root)
    assert directory.startswith("..gen-000001.")
    assert names(root) == {DATA_LINK, directory, KEYRING_FILE, "master", "other"}
    assert {name: str((root / name).readlink()) for name in (KEYRING_FILE, "master", "other")} == {
        KEYRING_FILE: "..data/keyring.json",
        "master": "..data/master",
        "other": "..data/other",
    }
    assert {path.name for path in (root / directory).iterdir()} == {KEYRING_FILE, "master", "other"}
    assert (root / KEYRING_FILE).read_bytes() == serialize(generation)
    assert parse((root / KEYRING_FILE).read_bytes()) == generation
    assert (root / "master").read_bytes() == plain(keys["master"])


def test_binary_material_is_plain_as_it_is(root: Path, publisher: Publisher) -> None:
    value = Material(bytes(range(256)), binary=True)
    version = Version("1", None, NOW, NO_FINGERPRINT, value)
    publisher.publish({"blob": Keyring("file", "sha256:1", "binary", 256, (version,))}, now=NOW, boot=BOOT)
    assert (root / "blob").read_bytes() == value.raw


def test_the_same_again_is_nothing(root: Path, publisher: Publisher) -> None:
    """No swap, no event, no app that reloads."""
    keys = {"master": ring(material()), "other": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    before = picture(root)
    with Watch(root) as changes, Watch(root / published(root)) as inside:
        assert publisher.publish(dict(keys), now=NOW + 3600, boot=BOOT + 3600) is None
        assert changes.heard() == inside.heard() == []
    assert picture(root) == before


def test_a_watch_hears_the_swap(root: Path, publisher: Publisher) -> None:
    """The test above could not fail if the watch were deaf."""
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    with Watch(root) as changes:
        publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
        assert DATA_LINK in changes.heard()


def test_an_activation_is_a_publication(root: Path, publisher: Publisher) -> None:
    """The plain file holds the active version, so it changes when only the clock did."""
    first, second = material(), material()
    keys = {"master": ring(first, second, activates_at=NOW + 59)}
    publisher.publish(keys, now=NOW, boot=BOOT)
    assert (root / "master").read_bytes() == first.raw
    assert publisher.publish(keys, now=NOW + 60.5, boot=BOOT) is None
    generation = publisher.publish(keys, now=NOW + 61, boot=BOOT)
    assert generation is not None
    assert (root / "master").read_bytes() == second.raw


def test_an_activation_is_never_taken_back(root: Path, publisher: Publisher) -> None:
    """The clock steps back behind what was published."""
    first, second = material(), material()
    keys = {"master": ring(first, second, activates_at=NOW + 59)}
    publisher.publish(keys, now=NOW + 61, boot=BOOT)
    assert publisher.publish(keys, now=NOW, boot=BOOT) is None
    generation = publisher.publish(keys | {"other": ring(material())}, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.published_at == NOW + 61
    assert (root / "master").read_bytes() == second.raw


@pytest.mark.parametrize(
    ("mode", "directory_mode"),
    [
        pytest.param(0o400, 0o2700, id="owner"),
        pytest.param(0o440, 0o2750, id="group"),
        pytest.param(0o444, 0o2755, id="all"),
    ],
)
def test_modes(root: Path, mode: int, directory_mode: int) -> None:
    """Whoever reads the files also enters their directory, whatever the umask is."""
    umask = os.umask(0o077)
    try:
        publisher = publisher_on(root, mode=mode)
        publisher.open(BOOT)
        publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
        publisher.write_status(b"{}")
    finally:
        os.umask(umask)
    directory, status = root / published(root), root / "..status"
    found = [directory, status, directory / "master", directory / KEYRING_FILE, status / "status.json"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in found]
    assert modes == [directory_mode, directory_mode, mode, mode, mode]
    publisher.close()


@needs_root
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        pytest.param(None, 4000, id="that of the root"),
        pytest.param(4001, 4001, id="number"),
        pytest.param("daemon", 1, id="name"),
    ],
)
def test_groups(shared: Path, setting: str | int | None, expected: int) -> None:
    """By default everything belongs to the group of the volume's root, which is the pod's fsGroup."""
    publisher = publisher_on(shared, group=setting)
    publisher.open(BOOT)
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    publisher.write_status(b"{}")
    found = [path for name in (published(shared), "..status") for path in (shared / name).rglob("*")]
    assert {path.stat().st_gid for path in (shared / published(shared), *found)} == {expected}
    assert publisher.publish(publisher.generation.keys, now=NOW, boot=BOOT) is None  # type: ignore[union-attr]
    publisher.close()


@needs_root
@pytest.mark.parametrize(
    ("root_group", "groups", "expected_mode", "expected_group"),
    [
        pytest.param(4000, [4000], 0o2750, 4000, id="member"),
        pytest.param(4000, [], 0o750, 4000, id="not a member, but the volume hands its group down"),
        pytest.param(None, [], 0o750, 1234, id="not a member"),
    ],
)
def test_an_agent_without_root(
    shared: Path, root_group: int | None, groups: list[int], expected_mode: int, expected_group: int
) -> None:
    """Who is not a member publishes all the same, once, and the app gets in where the system lets it."""
    if root_group is None:
        shared.chmod(0o777)
    with user(1234, 1234, *groups):
        publisher = publisher_on(shared)
        publisher.open(BOOT)
        keys = {"master": ring(material())}
        publisher.publish(keys, now=NOW, boot=BOOT)
        publisher.write_status(b"{}")
        assert publisher.publish(keys, now=NOW, boot=BOOT) is None
        publisher.close()
    info = (shared / published(shared)).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (expected_mode, 1234, expected_group)
    info = (shared / "master").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o440, 1234, expected_group)
    if root_group is not None:
        with user(2345, 2345, root_group):
            assert shown(shared) == keys
    with user(2345, 2345), pytest.raises(PermissionError):
        (shared / published(shared) / "master").read_bytes()


def test_keys_come_and_go(root: Path, publisher: Publisher) -> None:
    """A plain file appears and vanishes with its key."""
    one, two = ring(material()), ring(material())
    for keys in ({"a": one}, {"a": one, "b": two}, {"b": two}, {}):
        publisher.publish(keys, now=NOW, boot=BOOT)
        assert shown(root) == keys
        assert {name for name in names(root) if not name.startswith("..")} == {KEYRING_FILE, *keys}


def test_a_withdrawal_leaves_no_material(root: Path, publisher: Publisher) -> None:
    """The older generations go with it, not some seconds later."""
    keys = {"master": ring(material()), "other": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    publisher.publish(keys | {"master": ring(material())}, now=NOW, boot=BOOT)
    publisher.publish(keys | {"master": withdrawn()}, now=NOW, boot=BOOT)
    assert names(root) == {DATA_LINK, published(root), KEYRING_FILE, "other"}
    assert shown(root) == keys | {"master": withdrawn()}
    assert publisher.retire(BOOT) is None


def test_a_key_that_was_withdrawn_hurries_nobody_later(root: Path, publisher: Publisher) -> None:
    """Readers of the other keys keep their seconds: nothing of what is withdrawn is left to hurry for."""
    keys = {"gone": withdrawn(), "other": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    before = published(root)
    publisher.publish(keys | {"other": ring(material())}, now=NOW, boot=BOOT)
    assert before in names(root)


def test_a_withdrawn_key_comes_back(root: Path, publisher: Publisher) -> None:
    keys = {"master": ring(material())}
    for wanted in (keys, {"master": withdrawn()}, keys):
        publisher.publish(wanted, now=NOW, boot=BOOT)
        assert shown(root) == wanted


def test_generations_retire_by_age(root: Path, publisher: Publisher) -> None:
    """A reader may stand in one for some seconds."""
    directories = []
    for second in range(3):
        publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT + second)
        directories.append(published(root))
    generations = {name for name in names(root) if name.startswith("..gen-")}
    assert generations == set(directories)
    assert publisher.retire(BOOT + 1) == BOOT + 1 + RETIRE_AFTER_SECONDS
    assert publisher.retire(BOOT + 1 + RETIRE_AFTER_SECONDS) == BOOT + 2 + RETIRE_AFTER_SECONDS
    assert directories[0] not in names(root)
    assert directories[1] in names(root)
    assert publisher.retire(BOOT + 2 + RETIRE_AFTER_SECONDS) is None
    assert names(root) == {DATA_LINK, directories[2], KEYRING_FILE, "master"}


def test_what_cannot_be_removed_is_tried_again(root: Path, publisher: Publisher, reports: Reports) -> None:
    """A directory planted inside stays; the material beside it does not."""
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    directory = published(root)
    (root / directory / "planted").mkdir()
    (root / directory / "planted" / "file").touch()
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    later = BOOT + RETIRE_AFTER_SECONDS
    assert publisher.retire(later) == later + RETRY_AFTER_SECONDS
    assert [path.name for path in (root / directory).iterdir()] == ["planted"]
    assert reports == [("volume.leftover", directory)]
    (root / directory / "planted" / "file").unlink()
    (root / directory / "planted").rmdir()
    assert publisher.retire(later + RETRY_AFTER_SECONDS) is None
    assert directory not in names(root)


def test_what_is_gone_already_is_no_trouble(root: Path, publisher: Publisher, reports: Reports) -> None:
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    before = root / published(root)
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    for path in before.iterdir():
        path.unlink()
    before.rmdir()
    assert publisher.retire(BOOT, every=True) is None
    assert reports == []


def _surrogate(keyring: Keyring) -> Keyring:
    return keyring._replace(versions=(keyring.versions[0]._replace(id="\udc80"),))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(
            lambda keyring: keyring._replace(versions=()),
            "keyring.json: keys.master.versions has none that may ever be active",
            id="no versions",
        ),
        pytest.param(
            lambda keyring: keyring._replace(versions=keyring.versions * 2),
            "keyring.json: keys.master.versions has two with the same id",
            id="an id twice",
        ),
        pytest.param(
            _surrogate,
            "'utf-8' codec can't encode character '\\udc80' in position 258: surrogates not allowed",
            id="not Unicode",
        ),
        pytest.param(
            lambda keyring: keyring._replace(versions=(keyring.versions[0]._replace(created_at=1e12),)),
            "date value out of range",
            id="no such year",
        ),
        pytest.param(
            lambda keyring: keyring._replace(
                versions=(keyring.versions[0]._replace(material=Material(b"x" * MAX_FILE_BYTES)),)
            ),
            f"keyring.json would have {MAX_FILE_BYTES + 430} bytes; allowed: {MAX_FILE_BYTES}",
            id="larger than anybody reads",
        ),
    ],
)
def test_what_no_reader_would_accept_is_not_published(
    root: Path, publisher: Publisher, spoil: Callable[[Keyring], Keyring], problem: str
) -> None:
    """One broken keyring would take all keys of the volume away from every app."""
    good = {"master": ring(material())}
    publisher.publish(good, now=NOW, boot=BOOT)
    before = picture(root)
    with pytest.raises(PublishError) as caught:
        publisher.publish({"master": spoil(good["master"])}, now=NOW, boot=BOOT)
    assert str(caught.value) == f"this would break the volume's contract, so it was not published: {problem}"
    assert caught.value.__context__ is None
    assert picture(root) == before


def test_no_number_is_used_twice(root: Path, publisher: Publisher) -> None:
    """A failure uses its number up: whether readers saw it is not always known."""
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    with pytest.raises(PublishError):
        publisher.publish({"master": ring()}, now=NOW, boot=BOOT)
    generation = publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    assert generation is not None
    assert generation.number == 3


def test_status_is_replaced_in_one_step(root: Path, publisher: Publisher) -> None:
    """Watchers of the root hear nothing of it, a reader with the file open keeps what it opened."""
    assert publisher.read_status() is None
    publisher.write_status(b"one")
    assert publisher.read_status() == b"one"
    with (root / "..status/status.json").open("rb") as reader, Watch(root) as changes:
        with Watch(root / "..status") as inside:
            publisher.write_status(b"two")
            assert inside.heard()[-1] == "status.json"
        assert reader.read() == b"one"
        assert changes.heard() == []
    assert publisher.read_status() == b"two"
    assert [path.name for path in (root / "..status").iterdir()] == ["status.json"]


@needs_root
def test_a_foreign_status_is_not_read(root: Path, publisher: Publisher) -> None:
    """Or somebody could make a key look fresh."""
    publisher.write_status(b"{}")
    os.chown(root / "..status/status.json", 1234, -1)
    assert publisher.read_status() is None


def test_wipe(root: Path, publisher: Publisher) -> None:
    """Every key goes, old generations too; the heartbeat, which holds none, stays."""
    for _ in range(2):
        publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    publisher.write_status(STATUS_SCHEMA.encode())
    publisher.wipe()
    assert names(root) == {"..status"}
    assert publisher.generation is None
    publisher.wipe()
    keys = {"master": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    assert shown(root) == keys


def test_wipe_says_what_is_left(root: Path, publisher: Publisher) -> None:
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    directory = published(root)
    (root / directory / "planted").mkdir()
    with pytest.raises(PublishError) as caught:
        publisher.wipe()
    assert str(caught.value) == f"cannot wipe {root}: {directory} could not be removed"
    assert names(root) == {directory}
    assert [path.name for path in (root / directory).iterdir()] == ["planted"]
