# SPDX-License-Identifier: Apache-2.0
import asyncio
import copy
import logging
import math
import os
import pickle
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import keyferry.adapter
from keyferry import (
    ContractError,
    FileAdapter,
    InvalidMaterialError,
    KeyferryError,
    KeyWithdrawnError,
    NotPublishedError,
    ReadOnlyKeyError,
    UnknownKeyError,
    UnknownVersionError,
    VolumeMissingError,
)
from keyferry.layout import Generation, parse
from keyferry.reader import Published, read_volume
from tests.adapter.conftest import Connect
from tests.adapter.volume import Volume, keyring, status, version, withdrawn

NOW = 1_800_000_000.0


class Clock:
    """The adapter's ``time``, moved by hand; ``sleep`` moves it too and does what is planned for then."""

    def __init__(self) -> None:
        self.wall = NOW
        self.ticks = 1000.0
        self.plans: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        for plan in [plan for plan in self.plans if plan[0] <= self.ticks]:
            self.plans.remove(plan)
            plan[1]()

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds

    def plan(self, seconds: float, action: Callable[[], object]) -> None:
        self.plans.append((self.ticks + seconds, action))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keyferry.adapter, "time", clock)
    monkeypatch.setattr("tests.adapter.volume.time", clock)
    return clock


def ids(keys: FileAdapter) -> list[tuple[str, str]]:
    return [(key.id, key.state) for key in keys.keyring]


def test_what_an_app_sees(volume: Volume, connect: Connect) -> None:
    first, second = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    volume.publish(
        version("1", material=first),
        version("2", material=second, created_at=None),
        version("3", activates_at=time.time() + 3600),
        version("4", activates_at=None),
    )
    keys = connect()
    assert (keys.active.id, keys.active.text, keys.active.state) == ("2", second, "active")
    assert len(keys.active.bytes) == 32
    assert keys.active.created_at is None
    assert keys.get("1").created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert keys.get("4").activates_at is None
    assert keys.get("1").text == first
    assert keys.get_master_key() == second
    assert ids(keys) == [("1", "deactivated"), ("2", "active"), ("3", "pre-active"), ("4", "deactivated")]
    assert [key.id for key in keys.candidates()] == ["2", "4", "3", "1"]
    assert keys.generation == keys.keyring.generation == 1
    assert len(keys.keyring) == 4
    assert keys.problem is None


def test_a_key_never_shows_itself(volume: Volume, connect: Connect) -> None:
    volume.publish(version("1"), version("2"))
    keys = connect()
    key = keys.active
    for shown in (repr(key), str(key), f"{keys.keyring}", repr(keys.candidates()), repr(keys._view.held)):
        assert "Material(<censored>)" in shown
        assert key.text not in shown
        assert repr(key.bytes) not in shown
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            attempt(key)
        assert str(caught.value) == (
            "a key is never pickled: a copy would leave the process unnoticed; send its id instead"
        )
    assert key == keys.active
    assert key != keys.get("1")


def test_nothing_is_read_before_the_first_use(tmp_path: Path) -> None:
    keys = FileAdapter(tmp_path / "nowhere")
    with pytest.raises(VolumeMissingError):
        _ = keys.active


@pytest.mark.parametrize(
    ("argument", "variable", "path"),
    [
        ("/a", "/b", "/a"),
        (Path("/a"), None, "/a"),
        (None, "/b", "/b"),
        (None, None, "/run/keyferry"),
        (None, "", "/run/keyferry"),
    ],
    ids=["argument", "path", "variable", "default", "empty variable"],
)
def test_the_path(
    monkeypatch: pytest.MonkeyPatch, argument: str | Path | None, variable: str | None, path: str
) -> None:
    monkeypatch.delenv("KEYFERRY_DIR", raising=False)
    if variable is not None:
        monkeypatch.setenv("KEYFERRY_DIR", variable)
    keys = FileAdapter(argument)
    assert keys.path == path
    assert repr(keys) == f"FileAdapter(path={path!r}, key='master')"


@pytest.mark.parametrize("interval", [-1, math.nan, math.inf, 1e300, "5", None], ids=repr)
def test_a_check_interval_that_is_none(interval: float) -> None:
    """Told where it is written, not by the thread that would wait for it."""
    with pytest.raises(ValueError, match="check_interval") as caught:
        FileAdapter(check_interval=interval)
    assert str(caught.value) == (
        f"check_interval {interval!r} cannot be used; allowed: seconds as a number, from 0 (which looks at"
        f" every use) to {threading.TIMEOUT_MAX:.0f}"
    )


@pytest.mark.parametrize("interval", [0, 0.5, threading.TIMEOUT_MAX], ids=["least", "between", "most"])
def test_a_check_interval_that_is_one(volume: Volume, connect: Connect, interval: float) -> None:
    """The callback thread can wait for as long."""
    volume.publish(version("1"))
    keys = connect(check_interval=interval)
    keys.on_change(print)
    assert keys.active.id == "1"
    keys.close()


def test_the_volume_is_left_alone_within_the_check_interval(
    volume: Volume, connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look an interval, and that is one readlink unless the link moved."""
    looks: list[str] = []
    readlink = os.readlink

    def counted_readlink(path: str) -> str:
        looks.append("readlink")
        return readlink(path)

    def counted_parse(data: bytes) -> Generation:
        looks.append("parse")
        return parse(data)

    monkeypatch.setattr(os, "readlink", counted_readlink)
    monkeypatch.setattr("keyferry.reader.parse", counted_parse)
    volume.publish(version("1"))
    keys = connect(check_interval=5)
    _ = keys.active
    assert looks == ["readlink", "parse"]
    volume.publish(version("2"))
    clock.pass_by(4.9)
    assert (keys.active.id, keys.get_master_key(), keys.get("1")) == ("1", keys.active.text, keys.active)
    assert looks == ["readlink", "parse"]
    clock.pass_by(0.2)
    assert (keys.active.id, keys.generation) == ("2", 2)
    assert looks[2:] == ["readlink", "readlink", "parse"]
    clock.pass_by(6)
    assert keys.get_master_key() == keys.get("2").text
    assert looks[5:] == ["readlink"]


def test_an_activation_happens_on_time_though_the_agent_is_dead(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    volume.publish(version("1"), version("2", activates_at=NOW + 10), version("3", activates_at=NOW + 20))
    keys = connect(check_interval=3600)
    assert ids(keys) == [("1", "active"), ("2", "pre-active"), ("3", "pre-active")]
    clock.pass_by(9.99)
    assert keys.active.id == "1"
    clock.pass_by(0.02)
    assert ids(keys) == [("1", "deactivated"), ("2", "active"), ("3", "pre-active")]
    clock.pass_by(10)
    assert (keys.active.id, keys.get_master_key()) == ("3", keys.get("3").text)
    assert keys.generation == 1


def test_a_clock_that_steps_back_takes_no_activation_back(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    volume.publish(version("1"), version("2", activates_at=NOW + 10))
    keys = connect()
    clock.pass_by(11)
    assert keys.active.id == "2"
    clock.wall -= 3600
    assert keys.active.id == "2"
    volume.publish(version("1"), version("2", activates_at=NOW + 10), version("3", activates_at=NOW + 20))
    assert keys.active.id == "2"


def test_no_clock_counts_as_earlier_than_the_publication(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    """The agent saw that time already, so every reader that starts now agrees with it."""
    clock.wall = NOW + 100
    volume.publish(version("1"), version("2", activates_at=NOW + 50))
    clock.wall = NOW
    assert connect().active.id == "2"


def test_a_clock_that_steps_forward_is_believed_at_the_next_look(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    volume.publish(version("1"), version("2", activates_at=NOW + 3600))
    keys = connect(check_interval=1)
    assert keys.active.id == "1"
    clock.wall += 7200
    clock.ticks += 1
    assert keys.active.id == "2"


Damage = Callable[[Volume], object]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda v: v.unpublish(), "nothing is published in ", id="..data is gone"),
        pytest.param(
            lambda v: v.path.rename(v.path.with_name("gone")), "does not exist", id="the volume is gone"
        ),
        pytest.param(lambda v: v.write_bytes(b"{"), "keyring.json is not JSON", id="no JSON"),
        pytest.param(lambda v: v.point_to("..gen-x"), "which has no keyring.json", id="dangling link"),
        pytest.param(
            lambda v: v.publish(other=keyring(version("9"))), "has no key 'master'", id="key is gone"
        ),
        pytest.param(
            lambda v: v.publish(version("9", material="AAA")),
            "key 'master' is malformed: the value is 2 zero bytes, which is no key",
            id="malformed material",
        ),
        pytest.param(
            lambda v: v.write({"schema": "keyferry/v2"}), "upgrade keyferry here", id="next contract"
        ),
    ],
)
def test_the_last_snapshot_outlives(
    volume: Volume, connect: Connect, caplog: pytest.LogCaptureFixture, damage: Damage, problem: str
) -> None:
    """Whatever happens to the volume, an app that has its key goes on, and the problem is told once."""
    volume.publish(version("1"))
    keys = connect()
    key = keys.active
    damage(volume)
    for _ in range(3):
        assert keys.active == key
        assert keys.problem is not None
        assert problem in keys.problem
    assert [record.getMessage() for record in caplog.records] == [
        f"key master: the last generation stays in use: {keys.problem}"
    ]
    assert caplog.records[0].levelno == logging.WARNING
    volume.path.mkdir(exist_ok=True)
    volume.publish(version("2"))
    assert (keys.active.id, keys.problem) == ("2", None)
    assert len(caplog.records) == 1


def test_an_activation_happens_though_the_volume_is_gone(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    volume.publish(version("1"), version("2", activates_at=NOW + 10))
    keys = connect()
    assert keys.active.id == "1"
    volume.unpublish()
    clock.pass_by(10)
    assert keys.active.id == "2"


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        pytest.param(lambda v: v.unpublish(), NotPublishedError, "nothing is published", id="unpublished"),
        pytest.param(lambda v: v.write_bytes(b"{"), ContractError, "keyring.json is not JSON", id="no JSON"),
        pytest.param(
            lambda v: v.publish(other=keyring(version("1")), spare=keyring(version("1"))),
            UnknownKeyError,
            "has no key 'master', only: other, spare.",
            id="other keys",
        ),
        pytest.param(
            lambda v: v.publish(version("1", material="short")),
            ContractError,
            "key 'master' is malformed: not valid base64url",
            id="malformed material",
        ),
    ],
)
def test_without_a_snapshot_it_raises(
    volume: Volume, connect: Connect, damage: Damage, error: type[KeyferryError], text: str
) -> None:
    volume.publish(version("1"))
    damage(volume)
    keys = connect()
    for _ in range(2):
        with pytest.raises(error) as caught:
            _ = keys.active
        assert text in str(caught.value)
    volume.publish(version("2"))
    assert keys.active.id == "2"


def test_a_withdrawal_takes_the_key_away(volume: Volume, connect: Connect) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=0)
    assert keys.active.id == "1"
    volume.publish(master=withdrawn("denied by the key store"))
    uses: list[Callable[[], object]] = [
        lambda: keys.active,
        keys.get_master_key,
        lambda: keys.get("1"),
        keys.candidates,
        lambda: keys.keyring,
        lambda: keys.generation,
        lambda: keys.wait(timeout=60),
        lambda: keys.get("9", wait=60),
    ]
    for use in uses:
        with pytest.raises(KeyWithdrawnError) as caught:
            use()
        assert caught.value.reason == "denied by the key store"
    assert keys._view.held.keyring.versions == ()
    assert keys._view.snapshot.versions == ()


def test_a_withdrawal_is_only_taken_back_by_a_publication(volume: Volume, connect: Connect) -> None:
    volume.publish(master=withdrawn())
    keys = connect()
    with pytest.raises(KeyWithdrawnError):
        _ = keys.active
    volume.unpublish()
    with pytest.raises(KeyWithdrawnError):
        _ = keys.active
    volume.publish(version("1"))
    assert keys.active.id == "1"


def test_a_withdrawn_snapshot_gives_nothing(volume: Volume, connect: Connect) -> None:
    """What a callback gets: it can be asked, and says no."""
    volume.publish(master=withdrawn())
    keys = connect()
    snapshot, _ = keys._observe()
    assert snapshot is not None
    assert (len(snapshot), snapshot.withdrawn) == (0, "denied by the key store")
    for use in (
        lambda: snapshot.active,
        lambda: snapshot.get("1"),
        snapshot.candidates,
        lambda: list(snapshot),
    ):
        with pytest.raises(KeyWithdrawnError):
            use()


def test_a_wiped_volume_that_counts_from_one_again_is_followed(volume: Volume, connect: Connect) -> None:
    volume.number = 41
    volume.publish(version("1"))
    keys = connect()
    assert keys.generation == 42
    volume.number = 0
    volume.publish(version("1"), version("2"))
    assert (keys.generation, keys.active.id) == (1, "2")


def test_several_keys(volume: Volume, connect: Connect) -> None:
    """Each adapter holds its own key's material and no other's."""
    volume.publish(master=keyring(version("1")), db=keyring(version("7")))
    keys = connect(key="db")
    assert keys.active.id == "7"
    assert [found.id for found in keys._view.held.keyring.versions] == ["7"]


def test_a_binary_key_has_bytes_and_no_text(volume: Volume, connect: Connect) -> None:
    volume.publish(master=keyring(version("1", material="AP8=", binary=True), encoding="binary", length=2))
    keys = connect()
    assert keys.active.bytes == b"\0\xff"
    for use in (keys.get_master_key, lambda: keys.active.text):
        with pytest.raises(
            InvalidMaterialError, match=r"^this key is binary: it has no text, use its bytes$"
        ):
            use()


def test_get_looks_at_once_for_a_version_that_it_does_not_have(
    volume: Volume, connect: Connect, clock: Clock
) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=3600)
    assert keys.active.id == "1"
    volume.publish(version("1"), version("2"))
    assert keys.get("2").state == "active"
    with pytest.raises(UnknownVersionError) as caught:
        keys.get("3")
    assert caught.value.known == ("1", "2")
    assert clock.wall == NOW


def test_get_waits_for_a_version(volume: Volume, connect: Connect, clock: Clock) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=3600)
    clock.plan(1.5, lambda: volume.publish(version("1"), version("2")))
    assert keys.get("2", wait=2).id == "2"
    assert clock.wall - NOW == pytest.approx(1.5, abs=0.02)
    with pytest.raises(UnknownVersionError):
        keys.get("3", wait=2)
    assert clock.wall - NOW == pytest.approx(3.5, abs=0.03)


def test_wait(volume: Volume, connect: Connect, clock: Clock) -> None:
    keys = connect(check_interval=3600)
    with pytest.raises(NotPublishedError, match=r"^nothing is published in "):
        keys.wait(timeout=2)
    assert clock.wall - NOW == pytest.approx(2, abs=0.02)
    clock.plan(100, lambda: volume.publish(other=keyring(version("1"))))
    clock.plan(200, lambda: volume.publish(other=keyring(version("1")), master=keyring(version("1"))))
    assert keys.wait().generation == 2
    assert keys.wait(timeout=0).active.id == "1"


def test_waiting_does_not_cure_a_missing_volume(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(VolumeMissingError):
        FileAdapter(tmp_path / "nowhere").wait(timeout=60)
    assert clock.wall == NOW


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        pytest.param(
            {"last_success_boottime": time.clock_gettime(time.CLOCK_BOOTTIME) - 60}, True, id="known"
        ),
        pytest.param({"last_success_boottime": None}, False, id="never a success"),
    ],
)
def test_staleness(volume: Volume, connect: Connect, fields: dict[str, object], known: bool) -> None:
    volume.write_status(status(fields=fields))
    age = connect().staleness
    assert (age is not None and 60 <= age < 3600) if known else age is None


def test_staleness_unknown(volume: Volume, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = connect()
    found = [keys.staleness]
    for document in (status(keys=["other"]), status() | {"boot_id": "another boot"}, status()):
        volume.write_status(document)
        found.append(keys.staleness)
    monkeypatch.setattr("keyferry.reader._BOOT_ID", "/nowhere/boot_id")
    found.append(keys.staleness)
    assert [age is not None for age in found] == [False, False, False, True, False]


def test_a_success_in_the_future_is_not_less_than_fresh(volume: Volume, connect: Connect) -> None:
    volume.write_status(status(fields={"last_success_boottime": 1e12}))
    assert connect().staleness == 0


def test_rotate_key(connect: Connect) -> None:
    with pytest.raises(ReadOnlyKeyError) as caught:
        connect().rotate_key()
    assert str(caught.value) == (
        "key 'master' is a read-only copy here: rotate it at the key store, or with keyferry-agent rotate,"
        " and the agent brings the new version"
    )


def test_a_look_in_the_middle_of_a_look(
    volume: Volume, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that uses the key while the same thread looks: the later look's result stays."""
    volume.publish(version("1"))
    keys = connect()

    def interrupted(path: str) -> Published:
        monkeypatch.setattr(keyferry.adapter, "read_volume", read_volume)
        found = read_volume(path)
        volume.publish(version("1"), version("2"))
        assert keys.active.id == "2"
        return found

    monkeypatch.setattr(keyferry.adapter, "read_volume", interrupted)
    assert keys.active.id == "2"
    assert keys.generation == 2


def test_a_thread_with_a_key_does_not_wait_for_the_one_that_looks(volume: Volume, connect: Connect) -> None:
    volume.publish(version("1"))
    keys = connect()
    assert keys.active.id == "1"
    volume.publish(version("2"))
    held, release = threading.Event(), threading.Event()

    def look() -> None:
        with keys._lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=look)
    thread.start()
    held.wait(30)
    assert keys.active.id == "1"
    release.set()
    thread.join()
    assert keys.active.id == "2"


def test_threads_that_wait_for_the_first_look_share_it(
    volume: Volume, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.publish(version("1"))
    keys = connect(check_interval=3600)
    reads: list[str] = []
    ready = threading.Barrier(8)

    def slow(path: str) -> Published:
        reads.append(path)
        time.sleep(0.05)
        return read_volume(path)

    monkeypatch.setattr(keyferry.adapter, "read_volume", slow)

    def use() -> None:
        ready.wait(30)
        assert keys.active.id == "1"

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


@pytest.fixture
def hasty_interpreter() -> Iterator[None]:
    """Switch threads a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 1000)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_interpreter")
def test_many_threads_during_many_rotations(volume: Volume, connect: Connect) -> None:
    """No thread sees a mixture, an error, or a generation older than one that it has seen."""

    # The material of generation n holds n: a mixture of two generations cannot hide.
    def materials(number: int) -> list[dict[str, object]]:
        return [version(str(place), material=f"{number:040d}AAA") for place in (1, 2)]

    volume.number = 0
    volume.publish(*materials(1))
    keys = connect()
    stop, wrong = threading.Event(), list[str]()

    def use() -> None:
        seen = 0
        while not stop.is_set():
            snapshot = keys.keyring
            if {int(key.text[:40]) for key in snapshot} != {snapshot.generation}:
                wrong.append(f"torn in {snapshot.generation}")
            if snapshot.generation < seen:
                wrong.append(f"{snapshot.generation} after {seen}")
            seen = snapshot.generation

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    links = [volume.publish(*materials(number)) for number in range(2, 300)]
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (keys.generation, keys.problem, len(links)) == (299, None, 298)


def test_asyncio(volume: Volume, connect: Connect) -> None:
    """A look blocks no loop; waiting goes to a thread."""
    volume.publish(version("1"))
    keys = connect()

    async def main() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(keys.get, "2", 30))
        turns = 0
        while not waiting.done():
            assert keys.active.id in {"1", "2"}
            turns += 1
            if turns == 20:
                volume.publish(version("1"), version("2"))
            await asyncio.sleep(0)
        assert (await waiting).id == "2"
        assert turns >= 20

    asyncio.run(main())


def test_no_frame_of_an_error_holds_material(volume: Volume, connect: Connect) -> None:
    """Some error reporters upload the variables of every frame that an exception passed."""
    secret = secrets.token_urlsafe(40)
    volume.publish(version("1", material=secret))
    with pytest.raises(ContractError) as caught:
        _ = connect().active
    assert "the value is 40 bytes long after decoding as base64url, not 32" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert secret not in str([frame.locals for frame in shown.stack if "/keyferry/" in frame.filename])
        error = error.__context__
