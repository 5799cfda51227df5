# SPDX-License-Identifier: Apache-2.0
"""One key's refreshes against a store in memory, at moments that the test chooses."""

import queue
import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.clock import Moment
from agent.errors import ConfigError, MalformedError, MissingError, UnavailableError
from agent.events import Event, Events
from agent.providers.base import Provider
from agent.refresher import Refresher
from agent.settings import KeySettings, OutageSettings, Reaction, RefreshSettings, RotationSettings, Settings
from agent.sources.file import FileSource
from keyferry.layout import Keyring
from tests.providers.fake import FakeProvider, FakeStore

if TYPE_CHECKING:
    from agent.call import Call

BEGAN = 1_700_100_000.0
KEY = KeySettings(name="master", provider="file", source=FileSource(path=Path("/source")))
SETTINGS = Settings(
    keys={"master": KEY},
    refresh=RefreshSettings(interval=60.0, jitter=0.0, timeout=10.0, max_backoff=20.0),
    rotation=RotationSettings(activation_delay=0.0),
)


def at(boot: float) -> Moment:
    return Moment(BEGAN + boot, boot)


def material() -> str:
    return secrets.token_urlsafe(32)


class Scene:
    """A refresher, its store, and what it told."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.store = FakeStore()
        self.events: list[Event] = []
        self.opened: list[FakeProvider] = []
        self.opening: Exception | None = None
        self._done: queue.SimpleQueue[Call] = queue.SimpleQueue()
        events = Events(lambda: BEGAN)
        events.attach(self.events.append)
        self.refresher = Refresher(KEY, settings, events=events, opener=self._open, done=self._done.put)

    def _open(self, key: KeySettings, *, timeout: float) -> Provider:
        if self.opening is not None:
            raise self.opening
        self.opened.append(FakeProvider(self.store))
        return self.opened[-1]

    def turn(self, boot: float) -> None:
        self.refresher.turn(at(boot))

    def finish(self, boot: float) -> None:
        """Wait for the call under way and hand in its result."""
        self.refresher.finished(self._done.get(timeout=10), at(boot))

    def refresh(self, boot: float) -> None:
        """Ask and take the answer at once."""
        self.refresher.refresh_soon()
        self.turn(boot)
        self.finish(boot)
        self.turn(boot)

    @property
    def is_asked(self) -> bool:
        return self.refresher.next_turn(at(0.0)) > 0 and self.refresher.due is None

    @property
    def entry(self) -> Keyring | None:
        return self.refresher.entry(BEGAN)

    @property
    def ids(self) -> list[str]:
        """The ids that should be on the volume."""
        return [version.id for version in self.entry.versions] if self.entry else []

    def outcome(self, boot: float) -> str:
        return self.refresher.status(at(boot)).outcome

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


@pytest.fixture
def scene() -> Scene:
    found = Scene()
    found.store.create(material())
    return found


class TestSchedule:
    def test_asks_at_once_and_then_by_the_timer(self, scene: Scene) -> None:
        scene.turn(5.0)
        scene.finish(6.0)
        assert scene.ids == ["1"]
        assert scene.refresher.due == 66.0
        scene.turn(65.9)
        assert scene.store.fetches == 1
        scene.turn(66.0)
        scene.finish(66.0)
        assert scene.store.fetches == 2
        assert scene.store.value_reads == 1

    def test_the_stores_ttl_comes_first(self, scene: Scene) -> None:
        scene.store.ttl_seconds = 7.0
        scene.refresh(0.0)
        assert scene.refresher.due == 7.0

    def test_a_failure_backs_off(self, scene: Scene) -> None:
        scene.store.fail()
        for _ in range(12):
            scene.refresh(0.0)
        due = scene.refresher.due
        assert due is not None
        assert 10.0 <= due <= 20.0
        assert scene.refresher.record.failures == 12

    def test_the_stores_wish_to_be_left_alone_is_heard(self, scene: Scene) -> None:
        scene.store.fail(retry_after_seconds=300.0)
        scene.refresh(0.0)
        due = scene.refresher.due
        assert due is not None
        assert due >= 300.0

    def test_success_counts_from_the_question(self, scene: Scene) -> None:
        """What was published while the answer was on its way may not be in it."""
        scene.turn(100.0)
        scene.finish(109.0)
        assert scene.refresher.record.last_success_boot == 100.0

    def test_beyond_the_bound(self, scene: Scene) -> None:
        """Two intervals, two timeouts and a backoff: what a healthy replica stays below."""
        scene.refresh(0.0)
        assert [scene.refresher.status(at(boot)).beyond_bound for boot in (160.0, 160.1)] == [False, True]


class TestHangingStore:
    @pytest.fixture
    def hung(self, scene: Scene) -> Iterator[Scene]:
        scene.store.hold = threading.Event()
        scene.turn(0.0)
        yield scene
        scene.store.hold.set()

    def answer(self, scene: Scene) -> None:
        assert scene.store.hold is not None
        scene.store.hold.set()

    def test_gives_up_at_the_timeout(self, hung: Scene) -> None:
        assert hung.refresher.next_turn(at(0.0)) == 10.0
        hung.turn(9.9)
        assert hung.outcome(9.9) == "none"
        hung.turn(10.0)
        status = hung.refresher.status(at(10.0))
        assert (status.outcome, status.reason) == ("unavailable", "no answer within 10 s")
        hung.turn(10.0)
        assert status.failures == 1

    def test_a_late_answer_is_dropped(self, hung: Scene) -> None:
        hung.turn(10.0)
        self.answer(hung)
        hung.finish(11.0)
        assert hung.entry is None
        assert hung.outcome(11.0) == "unavailable"
        hung.refresh(12.0)
        assert hung.ids == ["1"]

    def test_is_not_asked_twice_at_a_time(self, hung: Scene) -> None:
        """The second question would hang as well; that it cannot be asked is a failure too."""
        hung.turn(10.0)
        for boot in (40.0, 80.0, 120.0):
            hung.refresher.refresh_soon()
            hung.turn(boot)
        assert hung.store.fetches == 1
        assert hung.refresher.record.reason == "the last call has not come back for 120 s"
        assert "duration" not in hung.told("refresh.failed")[-1].fields
        assert hung.refresher.record.last_attempt_at == BEGAN + 120.0
        self.answer(hung)
        hung.finish(121.0)
        assert hung.refresher.due == 0.0

    def test_a_signal_during_a_call_is_not_lost(self, hung: Scene) -> None:
        hung.refresher.refresh_soon()
        hung.refresher.refresh_soon()
        self.answer(hung)
        hung.finish(1.0)
        assert hung.ids == ["1"]
        assert hung.refresher.due == 0.0
        hung.turn(1.0)
        hung.finish(1.0)
        assert hung.refresher.due == 61.0

    def test_new_settings_make_its_answer_outdated(self, hung: Scene) -> None:
        hung.refresher.configure(replace(KEY, length=32, encoding="base64url"), SETTINGS)
        self.answer(hung)
        hung.finish(1.0)
        assert hung.ids == []
        hung.turn(1.0)
        hung.finish(1.0)
        assert hung.entry is not None
        assert hung.entry.length == 32
        assert len(hung.opened) == 2
        assert hung.opened[0].closed


class TestOpening:
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ConfigError("keys.master.provider: needs a package"), "keys.master.provider: needs a package"),
            (OSError("secret text"), "unexpected builtins.OSError at opening it"),
        ],
        ids=["no SDK", "anything else"],
    )
    def test_that_fails_is_unavailable(self, scene: Scene, error: Exception, reason: str) -> None:
        scene.opening = error
        scene.refresh(0.0)
        assert (scene.refresher.record.outcome, scene.refresher.record.reason) == ("unavailable", reason)
        scene.opening = None
        scene.refresh(1.0)
        assert scene.ids == ["1"]

    def test_settings_that_stay_keep_the_provider(self, scene: Scene) -> None:
        scene.refresh(0.0)
        scene.refresher.configure(KEY, replace(SETTINGS, outage=OutageSettings(on_missing="withdraw")))
        scene.refresh(1.0)
        assert len(scene.opened) == 1

    def test_other_settings_open_another(self, scene: Scene) -> None:
        scene.refresh(0.0)
        scene.refresher.configure(replace(KEY, length=43), SETTINGS)
        scene.refresh(1.0)
        assert len(scene.opened) == 2
        assert scene.opened[0].closed

    def test_no_more_threads(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """A container's pids limit is the container's trouble, and no end of the agent."""

        def start(_thread: threading.Thread) -> None:
            message = "can't start new thread"
            raise RuntimeError(message)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            scene.refresh(0.0)
        assert scene.refresher.record.reason == (
            "the system gives the agent no more threads; raise its pids limit"
        )
        scene.refresh(1.0)
        assert scene.ids == ["1"]


def outage(**reactions: Reaction) -> Settings:
    return replace(SETTINGS, outage=OutageSettings(max_stale=600.0, **reactions))


def deny(scene: Scene, boots: tuple[float, ...]) -> None:
    scene.store.deny()
    for boot in boots:
        scene.refresh(boot)


class TestFailures:
    """What a failure means for a key that is published."""

    @pytest.mark.parametrize("reaction", ["keep", "withdraw"])
    def test_missing(self, reaction: Reaction) -> None:
        scene = Scene(outage(on_missing=reaction))
        scene.store.create(material())
        scene.refresh(0.0)
        scene.store.failure = MissingError("nothing is there")
        scene.refresh(1.0)
        assert scene.outcome(1.0) == "missing"
        assert scene.entry is not None
        assert scene.entry.withdrawn == (None if reaction == "keep" else "missing: nothing is there")
        assert scene.ids == (["1"] if reaction == "keep" else [])

    @pytest.mark.parametrize("reaction", ["keep", "withdraw"])
    def test_expired(self, reaction: Reaction) -> None:
        scene = Scene(outage(on_expired=reaction))
        scene.store.create(material())
        scene.refresh(0.0)
        scene.store.fail()
        scene.refresh(590.0)
        scene.turn(600.0)
        assert scene.ids == ["1"]
        scene.turn(600.1)
        assert scene.refresher.status(at(600.1)).freshness == "expired"
        assert scene.ids == (["1"] if reaction == "keep" else [])

    def test_expiry_is_on_time(self) -> None:
        """It is a reason to wake up, even if the next refresh is far away."""
        scene = Scene(replace(outage(on_expired="withdraw"), refresh=RefreshSettings(interval=3600.0)))
        scene.store.create(material())
        scene.refresh(0.0)
        due = scene.refresher.next_turn(at(0.0))
        assert 600.0 < due < 600.1
        scene.turn(due)
        assert scene.ids == []
        assert scene.refresher.next_turn(at(due)) > due

    @pytest.mark.parametrize(
        ("reaction", "boots", "is_withdrawn"),
        [
            ("withdraw", (0.0, 30.0, 60.0), True),
            ("withdraw", (0.0, 60.0), False),
            ("withdraw", (0.0, 20.0, 40.0, 59.0), False),
            ("keep", (0.0, 30.0, 60.0, 600.0), False),
        ],
        ids=["3 in a minute", "only 2", "too fast", "kept"],
    )
    def test_denied(self, reaction: Reaction, boots: tuple[float, ...], is_withdrawn: bool) -> None:
        scene = Scene(outage(on_denied=reaction))
        scene.store.create(material())
        scene.refresh(0.0)
        deny(scene, boots)
        assert scene.entry is not None
        assert scene.entry.withdrawn == ("denied: the store refuses the value" if is_withdrawn else None)
        assert all(event.audit for event in scene.told("refresh.failed"))
        due = scene.refresher.due
        assert due is not None
        assert 30.0 <= due - boots[-1] <= 45.0

    def test_denials_with_an_answer_in_between_start_over(self) -> None:
        scene = Scene(outage(on_denied="withdraw"))
        scene.store.create(material())
        scene.refresh(0.0)
        deny(scene, (0.0, 30.0))
        scene.store.recover()
        scene.refresh(40.0)
        deny(scene, (60.0, 90.0))
        assert scene.ids == ["1"]
        scene.refresh(120.0)
        assert scene.ids == []

    @pytest.mark.parametrize("reaction", ["keep", "withdraw"])
    def test_malformed_never_replaces(self, reaction: Reaction) -> None:
        scene = Scene(outage(on_missing=reaction, on_denied=reaction, on_expired=reaction))
        scene.store.create(material())
        scene.refresh(0.0)
        before = scene.entry
        scene.store.failure = MalformedError("a key of 3 bytes")
        for boot in (1.0, 30.0, 99.0):
            scene.refresh(boot)
        assert scene.entry == before
        assert scene.outcome(99.0) == "malformed"

    def test_conflict_never_merges(self, scene: Scene) -> None:
        """A store that was wiped and filled anew shows a known id with another value."""
        scene.refresh(0.0)
        before = scene.entry
        scene.store.forget()
        scene.store.create(material())
        scene.refresh(1.0)
        assert scene.outcome(1.0) == "conflict"
        assert scene.entry == before
        assert [event.audit for event in scene.told("refresh.failed")] == [True]

    @pytest.mark.parametrize("reaction", ["missing", "denied", "expired"])
    def test_recovery_after_withdrawal(self, reaction: str) -> None:
        """A key that is back is served again, whole."""
        scene = Scene(outage(on_missing="withdraw", on_denied="withdraw", on_expired="withdraw"))
        scene.store.create(material())
        scene.store.create(material())
        scene.refresh(0.0)
        match reaction:
            case "missing":
                scene.store.failure = MissingError("gone")
                scene.refresh(1.0)
            case "denied":
                deny(scene, (1.0, 31.0, 61.0))
            case _:
                scene.store.fail()
                scene.refresh(601.0)
        assert scene.ids == []
        assert scene.entry is not None
        assert scene.entry.withdrawn is not None
        assert scene.refresher.status(at(601.0)).withdrawn == scene.entry.withdrawn
        scene.store.recover()
        scene.refresh(700.0)
        assert scene.ids == ["1", "2"]
        assert scene.refresher.status(at(700.0)).withdrawn is None

    def test_each_trouble_is_told_once(self, scene: Scene) -> None:
        scene.store.create(UnavailableError("being made"))
        scene.store.probe_refused = True
        for boot in (0.0, 1.0, 2.0):
            scene.refresh(boot)
        assert [event.fields["version"] for event in scene.told("version.skipped")] == ["2"]
        assert len(scene.told("provider.warning")) == 1

    def test_a_failure_tells_its_duration(self, scene: Scene) -> None:
        scene.store.fail()
        scene.turn(0.0)
        scene.finish(2.5)
        (event,) = scene.told("refresh.failed")
        assert event.fields["duration"] == 2.5
        assert event.fields["reason"] == "the store is away"
