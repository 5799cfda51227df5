# SPDX-License-Identifier: Apache-2.0
import logging
import sys
import threading
import time
from collections.abc import Callable

import pytest

from keyferry import FileAdapter, Snapshot
from tests.adapter.conftest import Connect
from tests.adapter.volume import Volume, keyring, version, withdrawn


def eventually(done: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


class Heard:
    """A callback that keeps what it was told."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    @property
    def active(self) -> list[str | None]:
        return [None if found.withdrawn else found.active.id for found in self.snapshots]


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("keyferry-")]


@pytest.fixture(params=["kernel events", "polling"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "polling":
        # What an import finds where the `watch` extra is not installed.
        monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    return name


@pytest.mark.usefixtures("mode")
def test_it_calls_back_for_every_kind_of_change(volume: Volume, connect: Connect) -> None:
    """A new version, an activation by the clock, a withdrawal and its end; not another key's rotation."""
    volume.publish(version("1"))
    one, other = version("1"), version("1")
    heard = Heard()
    keys = connect(check_interval=0.02)
    volume.publish(master=keyring(one), other=keyring(other))
    keys.wait()
    keys.on_change(heard)
    volume.publish(master=keyring(one), other=keyring(other, version("2")))
    eventually(lambda: keys.generation == 3)
    assert heard.active == []
    two = version("2", activates_at=time.time() + 0.3)
    volume.publish(one, two)
    eventually(lambda: len(heard.snapshots) == 1)
    eventually(lambda: len(heard.snapshots) == 2)
    volume.publish(master=withdrawn("denied"))
    eventually(lambda: len(heard.snapshots) == 3)
    volume.publish(one, two)
    eventually(lambda: len(heard.snapshots) == 4)
    assert heard.active == ["1", "2", None, "2"]
    assert heard.snapshots[2].withdrawn == "denied"
    assert heard.snapshots[1].generation == heard.snapshots[0].generation == 4


def test_the_kernel_tells_at_once(volume: Volume, connect: Connect) -> None:
    """With watchdog nobody waits for the next look."""
    volume.publish(version("1"))
    heard = Heard()
    keys = connect(check_interval=3600)
    keys.on_change(heard)
    two = version("2")

    def heard_of_it() -> bool:
        # Again and again: nobody tells when the kernel's watch stands.
        volume.publish(two)
        time.sleep(0.02)
        return heard.active == ["2"]

    eventually(heard_of_it)


def test_what_a_fork_brings_to_the_child(volume: Volume, connect: Connect) -> None:
    """In this process, where coverage sees it; test_processes.py forks."""
    volume.publish(version("1"))
    heard = Heard()
    keys, quiet = connect(check_interval=3600), connect(check_interval=3600)
    keys.on_change(heard)
    quiet.wait()
    volume.publish(version("2"))
    before = watchers()
    for adapter in (keys, quiet):
        adapter._after_fork()
    assert quiet.active.id == "2"
    eventually(lambda: heard.active == ["2"])
    assert len(set(watchers()) - set(before)) == 1

    def is_the_parents_thread_gone() -> bool:
        # A real child has none. This one ends at its next look, which the kernel's watch brings.
        volume.publish(version("2"))
        time.sleep(0.02)
        return not set(watchers()).intersection(before)

    eventually(is_the_parents_thread_gone)


@pytest.mark.usefixtures("mode")
def test_a_volume_that_comes_later(volume: Volume, connect: Connect) -> None:
    volume.path.rmdir()
    heard = Heard()
    connect(check_interval=0.02).on_change(heard)
    volume.path.mkdir()
    volume.publish(version("1"))
    eventually(lambda: heard.active == ["1"])


def test_a_failing_callback_ends_nothing_and_shows_nothing(
    volume: Volume, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    volume.publish(version("1"))
    heard = Heard()
    keys = connect(check_interval=0.02)

    @keys.on_change
    def failing(snapshot: Snapshot) -> None:
        raise RuntimeError(snapshot.active.text)

    keys.on_change(heard)
    two, three = version("2"), version("3")
    volume.publish(two)
    eventually(lambda: heard.active == ["2"])
    volume.publish(three)
    eventually(lambda: heard.active == ["2", "3"])
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    line = failing.__code__.co_firstlineno + 2
    assert messages == [f"on_change callback failed with RuntimeError at {__file__}:{line}, going on"] * 2
    assert two["material"] not in caplog.text
    assert [record.exc_info for record in caplog.records] == [None] * len(caplog.records)


def test_one_daemon_thread_an_adapter_and_none_before(volume: Volume, connect: Connect) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=3600)
    keys.wait()
    assert watchers() == []
    for _ in range(3):
        keys.on_change(Heard())
    assert [(thread.name, thread.daemon) for thread in watchers()] == [("keyferry-watch-master", True)]
    keys.close()
    assert watchers() == []
    keys.close()


def test_close_stops_the_callbacks_and_not_the_reading(volume: Volume) -> None:
    volume.publish(version("1"))
    heard, again = Heard(), Heard()
    with FileAdapter(volume.path, check_interval=0.02) as keys:
        keys.on_change(heard)
    volume.publish(version("2"))
    assert keys.get("2").state == "active"
    keys.on_change(again)
    volume.publish(version("3"))
    eventually(lambda: again.active == ["3"])
    keys.close()
    assert heard.active == []


def test_close_in_a_callback(volume: Volume, connect: Connect) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=0.02)
    keys.on_change(lambda _: keys.close())
    volume.publish(version("2"))
    eventually(lambda: watchers() == [])


def test_close_says_who_did_not_stop(
    volume: Volume, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=0.02)
    entered, leave = threading.Event(), threading.Event()

    @keys.on_change
    def slow(_: Snapshot) -> None:
        entered.set()
        leave.wait(30)

    volume.publish(version("2"))
    assert entered.wait(20)
    keys.close(timeout=0.01)
    assert caplog.messages == ["thread keyferry-watch-master is still in a callback after 0.01 s"]
    leave.set()
    eventually(lambda: watchers() == [])


def test_a_watch_that_the_system_refuses(
    volume: Volume, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of inotify watches, say: the looks go on."""
    caplog.set_level(logging.DEBUG, logger="keyferry")
    heard = Heard()
    volume.path.rmdir()
    connect(check_interval=0.02).on_change(heard)
    eventually(lambda: caplog.messages)
    assert caplog.messages == [
        f"no kernel events for {volume.path} ([Errno 2] No such file or directory): looking at intervals only"
    ]


def test_the_thread_survives_what_nobody_foresaw(
    volume: Volume, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.publish(version("1"))
    heard = Heard()
    keys = connect(check_interval=0.02)
    keys.on_change(heard)

    def broken(_: str) -> str:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("keyferry.watch._PAUSE_AFTER_FAILURE_SECONDS", 0.0)
        patched.setattr("keyferry.adapter.read_link", broken)
        eventually(lambda: caplog.messages)
    assert caplog.messages[0] == "thread keyferry-watch-master: unexpected ZeroDivisionError, going on"
    volume.publish(version("2"))
    eventually(lambda: heard.active == ["2"])
