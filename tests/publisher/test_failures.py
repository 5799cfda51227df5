# SPDX-License-Identifier: Apache-2.0
"""What fails before the swap leaves the volume as it was; what fails after it is repaired by the next."""

import json
import os
import resource
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.directory import Directory
from agent.errors import PublishError, VolumeError
from agent.publisher import RETIRE_AFTER_SECONDS, Publisher
from keyferry.layout import DATA_LINK, KEYRING_FILE, Keyring
from tests.publisher.conftest import needs_root
from tests.publisher.scene import (
    BOOT,
    NOW,
    Namespace,
    Reports,
    material,
    names,
    open_descriptors,
    picture,
    published,
    publisher_on,
    ring,
    shown,
    user,
    withdrawn,
)
from tests.publisher.traced import traced

Keys = Mapping[str, Keyring]

OLD: Keys = {"master": ring(material()), "leaves": ring(material())}
NEW: Keys = {"master": ring(material(), material()), "arrives": ring(material())}
WITHDRAWN: Keys = {"master": withdrawn(), "leaves": OLD["leaves"]}


def attempt(publisher: Publisher, keys: Keys) -> str:
    """Publish and tell what came of it."""
    try:
        return "unchanged" if publisher.publish(keys, now=NOW, boot=BOOT) is None else "published"
    except PublishError as error:
        return str(error)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, NEW, id="first"),
        pytest.param(OLD, NEW, id="next"),
        pytest.param(OLD, WITHDRAWN, id="withdrawal"),
        pytest.param(OLD, OLD, id="same again"),
    ],
)
def test_every_system_call_fails_once(tmp_path: Path, before: Keys | None, after: Keys) -> None:
    """It fails as if nothing had been tried, or it works; the second try works in any case."""

    def staged(root: Path) -> Callable[[], Callable[[], str]]:
        root.mkdir()

        def prepare() -> Callable[[], str]:
            publisher = publisher_on(root)
            publisher.open(BOOT)
            if before is not None:
                publisher.publish(before, now=NOW, boot=BOOT)
            was = picture(root)

            def act() -> str:
                first = attempt(publisher, after)
                # The second mark of the trace: what follows is not of this publication.
                os.getppid()
                return json.dumps([first, picture(root) == was, attempt(publisher, after)])

            return act

        return prepare

    run = traced(staged(tmp_path / "whole"))
    plain = {name for name, keyring in after.items() if keyring.versions}
    for number, call in enumerate(run.calls):
        root = tmp_path / str(number)
        failed = traced(staged(root), f"{call.name}:error=EIO:when={call.number}")
        assert failed.result is not None
        first, untouched, second = json.loads(failed.result)
        if first == f"cannot publish on {root} (Input/output error); what was published stays":
            assert untouched, f"{call}: it failed and something is different"
            assert second == ("unchanged" if before == after else "published"), call
        else:
            assert first in ("unchanged", "published"), f"{call}: {first}"
            assert second == "unchanged", f"{call}: {second}"
        assert shown(root) == after, call
        publisher = publisher_on(root)
        publisher.open(BOOT)
        publisher.retire(BOOT + RETIRE_AFTER_SECONDS)
        assert names(root) == {DATA_LINK, published(root), KEYRING_FILE, *plain}, call
        publisher.close()


def test_every_system_call_of_a_start_fails_once(tmp_path: Path) -> None:
    """It takes the generation over, does without it, or fails with a sentence; the app keeps what it has."""

    def staged(root: Path) -> Callable[[], Callable[[], str]]:
        root.mkdir()
        publisher = publisher_on(root)
        publisher.open(BOOT)
        for keys in (NEW, OLD):
            publisher.publish(keys, now=NOW, boot=BOOT)
        publisher.write_status(b"{}")
        publisher.close()

        def start() -> str:
            agent = publisher_on(root)
            try:
                adopted = agent.open(BOOT) is not None
            except VolumeError as error:
                return str(error)
            os.getppid()
            agent.retire(BOOT + RETIRE_AFTER_SECONDS)
            return "adopted" if adopted else "not adopted"

        return lambda: start

    results = set()
    for number, call in enumerate(traced(staged(tmp_path / "whole")).calls):
        root = tmp_path / str(number)
        result = traced(staged(root), f"{call.name}:error=EIO:when={call.number}").result
        assert result is not None
        results.add(result.replace(str(root), "VOLUME"))
        assert shown(root) == OLD, f"{call}: {result}"
    assert results == {
        "adopted",
        "not adopted",
        "volume.path: VOLUME cannot be opened (Input/output error)",
        (
            "volume.path: VOLUME/..lock cannot be opened for writing (Input/output error); "
            "remove what is there, or give the agent a writable volume of its own"
        ),
    }


def test_a_kernel_that_takes_a_few_bytes_at_a_time(
    root: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write(2) may write less than it was given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    publisher.publish(NEW, now=NOW, boot=BOOT)
    assert shown(root) == NEW


@contextmanager
def free_descriptors(number: int) -> Iterator[None]:
    """Let this process open ``number`` more files and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for descriptor in taken[:number]:
            os.close(descriptor)
        del taken[:number]
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", range(5))
def test_no_descriptors_left(root: Path, publisher: Publisher, reports: Reports, number: int) -> None:
    """Clearing up needs no more descriptors than there were for making the mess."""
    publisher.publish(OLD, now=NOW, boot=BOOT)
    publisher.write_status(b"old")
    before = picture(root)
    with free_descriptors(number):
        first = attempt(publisher, NEW)
        try:
            publisher.write_status(b"new")
        except PublishError as error:
            status = str(error)
        else:
            status = ""
    if first != "published":
        assert first == f"cannot publish on {root} (Too many open files); what was published stays"
        after = picture(root)
        assert {name: after[name] for name in after if not name.startswith("..status")} == {
            name: before[name] for name in before if not name.startswith("..status")
        }
    if status:
        assert status == f"cannot write {root}/..status/status.json (Too many open files)"
    assert publisher.read_status() == (b"old" if status else b"new")
    assert [path.name for path in (root / "..status").iterdir()] == ["status.json"]
    assert (first == "published", status == "") == (number >= 2, number >= 2)
    assert attempt(publisher, NEW) == ("unchanged" if number >= 2 else "published")
    assert shown(root) == NEW
    publisher.retire(BOOT, every=True)
    assert names(root) == {DATA_LINK, published(root), KEYRING_FILE, "..status", "master", "arrives"}
    assert reports == []


class Stop(BaseException):
    """An interruption such as KeyboardInterrupt."""


@pytest.mark.parametrize("before", [None, OLD], ids=["first", "next"])
def test_an_interruption_after_the_swap(root: Path, before: Keys | None) -> None:
    """What readers see by now is not removed, and its number is not used again."""
    stop = False

    def report(event: str, name: str) -> None:
        if stop:
            raise Stop

    publisher = publisher_on(root)
    publisher._report = report
    publisher.open(BOOT)
    if before is not None:
        publisher.publish(before, now=NOW, boot=BOOT)
        (root / DATA_LINK).unlink()
    (root / DATA_LINK).mkdir()
    stop = True
    with pytest.raises(Stop):
        publisher.publish(NEW, now=NOW, boot=BOOT)
    assert shown(root) == NEW
    number = published(root).partition(".gen-")[2]
    stop = False
    publisher.publish(NEW, now=NOW, boot=BOOT)
    assert shown(root) == NEW
    assert published(root).partition(".gen-")[2] > number
    publisher.close()


@pytest.fixture
def small(namespace: Namespace, tmp_path: Path) -> Path:
    """Mount a tmpfs of 16 pages; a generation of one key takes two, the lock one."""
    namespace.run(f"mount -t tmpfs -o mode=700,size=64k,nr_inodes=64 none {shlex.quote(str(tmp_path))}")
    return namespace.path(tmp_path)


@pytest.fixture
def on_small(small: Path, reports: Reports) -> Iterator[Publisher]:
    publisher = publisher_on(small, reports)
    publisher.open(BOOT)
    yield publisher
    publisher.close()


def fill(root: Path) -> None:
    """Take what space the volume has left."""
    with (root / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def fill_names(root: Path) -> None:
    """Take what inodes the volume has left."""
    (root / "names").mkdir()
    try:
        for number in range(1000):
            (root / "names" / str(number)).touch()
    except OSError:
        pass


@pytest.mark.parametrize("what", [fill, fill_names], ids=["space", "inodes"])
def test_a_full_volume(small: Path, on_small: Publisher, what: Callable[[Path], object]) -> None:
    """Nothing of ours can be spared: it says so, and goes on when there is room again."""
    on_small.publish(OLD, now=NOW, boot=BOOT)
    on_small.write_status(b"old")
    what(small)
    before = picture(small)
    message = f"cannot publish on {small} (No space left on device); what was published stays"
    assert attempt(on_small, NEW) == message
    with pytest.raises(PublishError) as caught:
        on_small.write_status(b"new")
    assert str(caught.value) == f"cannot write {small}/..status/status.json (No space left on device)"
    assert picture(small) == before
    assert shown(small) == OLD
    assert attempt(on_small, OLD) == "unchanged"
    for path in [*small.glob("ballast"), *small.glob("names/*")]:
        path.unlink()
    assert attempt(on_small, NEW) == "published"
    assert shown(small) == NEW


def test_room_is_made_by_old_generations(small: Path, on_small: Publisher, reports: Reports) -> None:
    """A hundred rotations within a second: those that nobody is shown any more go before a new one fails."""
    for _ in range(100):
        keys = {"master": ring(material())}
        assert attempt(on_small, keys) == "published"
        assert shown(small) == keys
    assert reports == []


def test_room_that_old_generations_cannot_make(small: Path, on_small: Publisher) -> None:
    """They are gone after it, but what is shown is not."""
    on_small.publish(NEW, now=NOW, boot=BOOT)
    on_small.publish(OLD, now=NOW, boot=BOOT)
    directory_before = published(small)
    fill(small)
    big = {f"key{number}": ring(material()) for number in range(12)}
    assert attempt(on_small, big) == (
        f"cannot publish on {small} (No space left on device); what was published stays"
    )
    assert names(small) == {DATA_LINK, directory_before, KEYRING_FILE, "master", "leaves", "ballast"}
    assert shown(small) == OLD


def test_a_document_that_fits_in_part(small: Path, on_small: Publisher) -> None:
    """The system takes the first pages of it and refuses the rest."""
    on_small.publish(OLD, now=NOW, boot=BOOT)
    before = picture(small)
    big = {"master": ring(*(material() for _ in range(600)))}
    assert attempt(on_small, big) == (
        f"cannot publish on {small} (No space left on device); what was published stays"
    )
    assert picture(small) == before


def test_a_warm_restart_on_a_full_volume(small: Path, reports: Reports) -> None:
    """An agent that cannot even write its pid serves on."""
    publisher = publisher_on(small)
    publisher.open(BOOT)
    publisher.publish(OLD, now=NOW, boot=BOOT)
    publisher.close()
    (small / "leaves").unlink()
    fill(small)
    fill_names(small)
    publisher = publisher_on(small, reports)
    generation = publisher.open(BOOT)
    assert generation is not None
    assert generation.keys == OLD
    with pytest.raises(VolumeError) as caught:
        publisher_on(small).open(BOOT)
    assert "another keyferry-agent (pid unknown) already publishes" in str(caught.value)
    assert reports == []
    publisher.close()


def test_a_link_that_cannot_be_read_is_not_taken_for_none(root: Path) -> None:
    with Directory.open(root) as directory, pytest.raises(OSError, match="File name too long"):
        directory.link_target("x" * 256)


def test_a_read_only_volume(namespace: Namespace, small: Path, tmp_path: Path) -> None:
    namespace.run(f"mount -o remount,ro {shlex.quote(str(tmp_path))}")
    with pytest.raises(VolumeError) as caught:
        publisher_on(small).open(BOOT)
    assert str(caught.value) == (
        f"volume.path: {small}/..lock cannot be opened for writing (Read-only file system); "
        "remove what is there, or give the agent a writable volume of its own"
    )


def test_wiping_without_descriptors(root: Path, publisher: Publisher) -> None:
    """It does not claim what it could not do, and can be asked again."""
    publisher.publish(OLD, now=NOW, boot=BOOT)
    with free_descriptors(0), pytest.raises(PublishError) as caught:
        publisher.wipe()
    assert str(caught.value) == f"cannot wipe {root} (Too many open files); keys may still be on it"
    publisher.wipe()
    assert names(root) == set()


@needs_root
def test_a_link_that_cannot_be_replaced(shared: Path) -> None:
    """In a directory with the sticky bit nobody removes what is somebody else's."""
    shared.chmod(0o1777)
    (shared / DATA_LINK).symlink_to("nowhere")
    before = picture(shared)
    with user(1234, 1234):
        publisher = publisher_on(shared)
        publisher.open(BOOT)
        message = f"cannot publish on {shared} (Operation not permitted); what was published stays"
        assert attempt(publisher, NEW) == message
        publisher.close()
    assert picture(shared) == before


@needs_root
def test_a_root_that_was_closed(shared: Path) -> None:
    """A link that may not be looked at is not taken for one that is missing."""
    with user(1234, 1234):
        publisher = publisher_on(shared)
        publisher.open(BOOT)
        publisher.publish(OLD, now=NOW, boot=BOOT)
    before = picture(shared)
    shared.chmod(0o666)
    with user(1234, 1234):
        message = f"cannot publish on {shared} (Permission denied); what was published stays"
        assert attempt(publisher, OLD) == message
        publisher.close()
    assert picture(shared) == before


def test_a_volume_that_cannot_be_listed(root: Path) -> None:
    """The start fails with a sentence, and holds nothing afterwards."""
    before = open_descriptors()
    with free_descriptors(2), pytest.raises(VolumeError) as caught:
        publisher_on(root).open(BOOT)
    assert str(caught.value) == f"volume.path: {root} cannot be opened (Too many open files)"
    assert open_descriptors() == before
