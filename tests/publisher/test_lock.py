# SPDX-License-Identifier: Apache-2.0
"""One agent a volume, and how others learn which process it is."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import VolumeError
from agent.lock import TakenError, holder
from agent.publisher import Publisher
from tests.publisher.conftest import needs_root
from tests.publisher.scene import (
    BOOT,
    NOW,
    Reports,
    material,
    open_descriptors,
    picture,
    publisher_on,
    ring,
    user,
)

ROOT = Path(__file__).parents[2]


def test_the_holder_is_known(root: Path) -> None:
    assert holder(root) is None
    publisher = publisher_on(root)
    publisher.open(BOOT)
    assert holder(root) == os.getpid()
    assert (root / "..lock").stat().st_mode & 0o777 == 0o600
    publisher.close()
    assert holder(root) is None


@pytest.mark.parametrize(
    ("written", "pid"),
    [(None, os.getpid()), (b"", "unknown"), (b"x", "unknown")],
    ids=["its pid", "nothing yet", "no number"],
)
def test_a_second_agent_is_refused(
    root: Path, publisher: Publisher, written: bytes | None, pid: int | str
) -> None:
    """It says who has the volume and what to do, and changes nothing."""
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    if written is not None:
        (root / "..lock").write_bytes(written)
    before = picture(root)
    with pytest.raises(VolumeError) as caught:
        publisher_on(root).open(BOOT)
    assert str(caught.value) == (
        f"volume.path: another keyferry-agent (pid {pid}) already publishes on {root}; "
        "one volume has one agent: stop the other, or give this one its own volume"
    )
    assert picture(root) == before


def test_a_refused_agent_gives_everything_back(root: Path, publisher: Publisher) -> None:
    before = open_descriptors()
    with pytest.raises(VolumeError):
        publisher_on(root).open(BOOT)
    assert open_descriptors() == before


def test_asking_is_no_second_agent(root: Path) -> None:
    """Whoever asks holds the lock for a moment, and an agent that starts right then must not give up."""
    (root / "..lock").touch(0o600)
    descriptor = os.open(root / "..lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.03, os.close, [descriptor]).start()
    publisher = publisher_on(root)
    publisher.open(BOOT)
    assert holder(root) == os.getpid()
    publisher.close()


def test_a_killed_agent_leaves_no_lock(root: Path) -> None:
    """Its pid is still in the file, and may be somebody else's by now."""
    program = (
        "import sys, time; from pathlib import Path; from agent.publisher import Publisher;"
        "from agent.settings import VolumeSettings;"
        "Publisher(VolumeSettings(path=Path(sys.argv[1])), report=print).open(0); print(flush=True);"
        "time.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", program, root], cwd=ROOT, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    agent.stdout.readline()
    assert holder(root) == agent.pid
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    assert (root / "..lock").read_text() == f"{agent.pid} {Path('/proc/self/ns/pid').stat().st_ino}\n"
    assert holder(root) is None
    publisher = publisher_on(root)
    publisher.open(BOOT)
    publisher.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
def test_an_agent_in_another_container(root: Path) -> None:
    """Its number is somebody else's here, who must not get its signal."""
    program = (
        "import sys; from pathlib import Path; from agent.publisher import Publisher;"
        "from agent.settings import VolumeSettings;"
        "Publisher(VolumeSettings(path=Path(sys.argv[1])), report=print).open(0); print(flush=True);"
        "sys.stdin.read()"
    )
    agent = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program, root],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    agent.stdout.readline()
    with pytest.raises(VolumeError) as caught:
        holder(root)
    agent.communicate()
    assert str(caught.value) == (
        f"the agent on {root} (pid 1 there) runs in another container; run this command in it"
    )
    assert holder(root) is None


def hard_link(path: Path) -> None:
    (path.parent / "keyring").write_bytes(b"foreign")
    path.hardlink_to(path.parent / "keyring")


def strangers_file(path: Path) -> None:
    path.touch()
    os.chown(path, 1234, -1)


NOT_OURS = (
    "volume.path: {lock} is not a file that an agent of uid {uid} made; "
    "remove what is there, or give the agent a volume of its own"
)
NOT_OPEN = (
    "volume.path: {lock} cannot be opened for writing ({reason}); "
    "remove what is there, or give the agent a writable volume of its own"
)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        pytest.param(os.mkfifo, NOT_OURS, id="a FIFO"),
        pytest.param(hard_link, NOT_OURS, id="a second name of a file"),
        pytest.param(
            strangers_file,
            NOT_OURS, id="a file of somebody else", marks=needs_root,
        ),
        pytest.param(Path.mkdir, NOT_OPEN.replace("{reason}", "Is a directory"), id="a directory"),
        pytest.param(
            lambda path: path.symlink_to("keyring"),
            NOT_OPEN.replace("{reason}", "Too many levels of symbolic links"), id="a link",
        ),
    ],
)  # fmt: skip
def test_a_planted_lock_is_refused(root: Path, plant: Callable[[Path], None], message: str) -> None:
    """Nothing is written into it or through it."""
    lock = root / "..lock"
    plant(lock)
    before = picture(root)
    with pytest.raises(VolumeError) as caught:
        publisher_on(root).open(BOOT)
    assert str(caught.value) == message.format(lock=lock, uid=os.geteuid())
    assert picture(root) == before


def test_a_removed_lock_is_taken_anew(root: Path, publisher: Publisher, reports: Reports) -> None:
    """Even if there is nothing to publish."""
    keys = {"master": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    (root / "..lock").unlink()
    assert holder(root) is None
    assert publisher.publish(keys, now=NOW, boot=BOOT) is None
    assert holder(root) == os.getpid()
    assert reports == [("volume.repaired", "..lock")]


def test_a_lock_that_another_agent_took(root: Path, publisher: Publisher) -> None:
    keys = {"master": ring(material())}
    publisher.publish(keys, now=NOW, boot=BOOT)
    (root / "..lock").unlink()
    other = publisher_on(root)
    other.open(BOOT)
    before = picture(root)
    with pytest.raises(TakenError, match=r"another keyferry-agent .* already publishes on"):
        publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    assert picture(root) == before
    other.close()


def test_what_is_planted_for_a_removed_lock_makes_room(
    root: Path, publisher: Publisher, reports: Reports
) -> None:
    """Nothing is held up by it: it may be a withdrawal."""
    publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT)
    (root / "..lock").unlink()
    (root / "..lock").mkdir()
    assert publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT) is not None
    ((event, aside),) = reports
    assert (event, (root / aside).is_dir()) == ("volume.foreign", True)
    assert holder(root) is None
    assert publisher.publish({"master": ring(material())}, now=NOW, boot=BOOT) is not None
    assert holder(root) == os.getpid()
    assert reports[1:] == [("volume.repaired", "..lock")]


def test_a_planted_fifo_holds_nobody_up(root: Path) -> None:
    os.mkfifo(root / "..lock")
    began = time.monotonic()
    assert holder(root) is None
    assert time.monotonic() - began < 5


def test_a_planted_link_is_not_followed(root: Path) -> None:
    (root / "..lock").symlink_to("elsewhere")
    with pytest.raises(VolumeError) as caught:
        holder(root)
    assert str(caught.value) == (
        f"{root}/..lock cannot be read (Too many levels of symbolic links); "
        "ask with the uid that the agent has"
    )


@needs_root
def test_another_user_cannot_ask(shared: Path) -> None:
    publisher = publisher_on(shared)
    publisher.open(BOOT)
    with user(1234, 1234), pytest.raises(VolumeError) as caught:
        holder(shared)
    assert str(caught.value) == (
        f"{shared}/..lock cannot be read (Permission denied); ask with the uid that the agent has"
    )
    publisher.close()
