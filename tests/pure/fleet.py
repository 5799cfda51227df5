# SPDX-License-Identifier: Apache-2.0
"""A fleet on a simulated clock: the real rules, and the world around them as bad as they must withstand.

Real: ``keyring.merge`` and ``pruned``, ``schedule``, ``layout.active_index``, the format at a restart.
Simulated: the store, the calls, the volume and the adapter's looks. One heap of events, no waiting.

What it watches for is told in ``Fleet.problems``:

- "cannot decrypt": somebody encrypts, or has encrypted, with a version that a replica within its bound lacks.
  Within the bound is a replica whose app looks at a refresh that began no longer ago than
  ``schedule.longest_staleness`` and the check interval.
- "runs backwards": a replica goes on to a version that stands before its last one.
- "is not released": a replica encrypts with a version that its store has made and not released.

A version that was ordered at once may be missing for a bound: then ``Fleet.foretold`` tells, and from then on
``Fleet.problems`` does, where some replica within its bound still lacks it or does not use it.

Times are seconds; the store's and each replica's clock differ from the true one by a constant of their own.
"""

import heapq
import math
import random
import secrets
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from agent import keyring, schedule
from agent.errors import MissingError, RefreshError, UnavailableError
from agent.offer import UNRELEASED, Known, Offer, Offered
from agent.settings import KeySettings, RefreshSettings, RotationSettings
from agent.sources.env import EnvSource
from keyferry.layout import (
    CHECK_INTERVAL_SECONDS,
    Generation,
    Keyring,
    active_index,
    next_activation,
    parse,
    serialize,
)
from keyferry.material import Material

START = 1_000_000.0
KEY = KeySettings(name="master", provider="env", source=EnvSource())

# What the clock's rounding to milliseconds may add or take.
_TICK = 0.001


class Store:
    """A key store with history. It remembers when it showed what, since a mounted copy lags behind."""

    def __init__(self, *, shown: int | None = None, unstaged: str | None = None) -> None:
        self._shown = shown  # how many of the newest it shows, None: all
        self._unstaged = unstaged
        self._versions: list[Offered] = []
        self._times: list[float] = []
        self._offers: list[Offer] = []
        self.gone: set[str] = set()

    @property
    def ids(self) -> list[str]:
        return [version.id for version in self._versions]

    @property
    def pending(self) -> list[str]:
        return [version.id for version in self._versions if version.activates_at == UNRELEASED]

    @property
    def readable(self) -> list[str]:
        """The versions that are released and not deleted."""
        return [id_ for id_ in self.ids if id_ not in self.gone and id_ not in self.pending]

    def put(
        self, id_: str, *, now: float, created_at: float | None, activates_at: float | None = None
    ) -> None:
        """Show a new version, or one that was there before, as the newest: only pending ones are after it."""
        old = self._take(id_)
        material = Material(secrets.token_urlsafe(32).encode())
        first = not self._versions
        self._place(old or Offered(id_, created_at, material, first, activates_at), now)

    def release(self, id_: str, *, now: float) -> None:
        """State no time of activation any more: a version that was pending may be used."""
        version = self._take(id_)
        assert version is not None
        self._place(version._replace(activates_at=None), now)

    def give_up(self, id_: str, *, now: float, shown: bool) -> None:
        """Never release a pending version: show it among the older ones, as AWS does, or not any more."""
        version = self._take(id_)
        assert version is not None
        if shown:
            newest = len(self._versions) - len(self.pending) - 1
            self._versions.insert(newest, version._replace(activates_at=None))
        self._show(now)

    def delete(self, id_: str, *, now: float) -> None:
        """Let nobody read a version any more, for good."""
        self.gone.add(id_)
        self.change(id_, MissingError("deleted"), now=now)

    def change(self, id_: str, material: Material | RefreshError, *, now: float) -> None:
        """Give another answer for one version."""
        self._versions = [v._replace(material=material) if v.id == id_ else v for v in self._versions]
        self._show(now)

    def offer(self, time: float) -> Offer:
        """Return what was shown at ``time``; the same object as long as it is the same."""
        return self._offers[bisect_right(self._times, time) - 1]

    def _take(self, id_: str) -> Offered | None:
        old = next((version for version in self._versions if version.id == id_), None)
        self._versions = [version for version in self._versions if version.id != id_]
        return old

    def _place(self, version: Offered, now: float) -> None:
        end = len(self._versions)
        if version.activates_at != UNRELEASED:
            end -= len(self.pending)
        self._versions.insert(end, version)
        self._show(now)

    def _show(self, now: float) -> None:
        shown = self._versions if self._shown is None else self._versions[-self._shown :]
        self._times.append(now)
        self._offers.append(Offer(tuple(shown), self._unstaged))


@dataclass(frozen=True, slots=True)
class View:
    """What an app sees: a generation, and when the refresh behind it began."""

    keyring: Keyring
    ids: frozenset[str]
    began: float


@dataclass(eq=False)
class Replica:
    """One pod: an agent and an app. ``offset`` is how far its clock is ahead."""

    name: str
    refresh: RefreshSettings
    rules: keyring.Rules
    offset: float = 0.0
    mount_delay: float = 0.0
    held: Keyring | None = None
    view: View | None = None
    active: str | None = None
    cut_off_until: float = 0.0
    failures: int = 0
    last_success: float = -math.inf
    process: int = 0  # counts the agent's restarts: what an earlier one began no longer counts
    _merged: Offer | None = field(default=None, repr=False)
    _shown_at: float = 0.0
    _latest: float = 0.0

    @property
    def limit(self) -> float:
        """The age of the view's refresh up to which the app must be able to decrypt everything."""
        return schedule.longest_staleness(self.refresh) + CHECK_INTERVAL_SECONDS

    def merge(self, offer: Offer, now: float) -> keyring.Merged:
        """Merge by this replica's clock. Scenarios replace it to try another rule."""
        return keyring.merge(self.held, offer, key=KEY, rules=self.rules, now=now)

    def take(self, offer: Offer, true_now: float) -> RefreshError | None:
        """Hold what the store showed, and return why it is no success all the same."""
        # Merging the same again changes nothing (test_keyring.py), and is most of what a fleet does.
        if offer is self._merged:
            return None
        merged = self.merge(_but_known(offer, keyring.known(self.held)), true_now + self.offset)
        self.held = merged.keyring
        self._merged = None if merged.failure else offer
        return merged.failure

    def published(self, true_now: float) -> Keyring:
        assert self.held is not None
        return keyring.pruned(self.held, self.rules, true_now + self.offset)

    def restart(self, true_now: float) -> None:
        """Go on from what the volume holds, as it is written there."""
        self.process += 1
        self.failures = 0
        self._merged = None
        if self.held is not None:
            generation = Generation(1, true_now, {KEY.name: self.published(true_now)})
            self.held = parse(serialize(generation)).keys[KEY.name]

    def shown_at(self, true_now: float, chance: float) -> float:
        """Return as of when the replica sees the store: a mounted copy is late, but never goes back."""
        self._shown_at = max(self._shown_at, true_now - self.mount_delay * chance)
        return self._shown_at

    def clock(self, true_now: float) -> float:
        """Return the adapter's time: its clock's, but never an earlier one than before."""
        self._latest = max(self._latest, true_now + self.offset)
        return self._latest


class Fleet:
    """Replicas, one store, and a clock that jumps from event to event."""

    def __init__(self, store: Store, *, seed: int = 0, old_records: bool = True) -> None:
        self.store = store
        self._old_records = (
            old_records  # or only what is encrypted now: not every store and setting keeps all
        )
        self.now = START
        self.replicas: list[Replica] = []
        self.problems: list[str] = []
        self.foretold: list[str] = []
        self._at_once: dict[str, float] = {}
        self._random = random.Random(seed)  # noqa: S311 - jitter, not a secret
        self._used: set[str] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    @property
    def used(self) -> frozenset[str]:
        """The versions that somebody encrypted with; without old records those of now."""
        return frozenset(self._used)

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), action))

    def run(self, until: float) -> None:
        """Let everything happen that is due before ``until``."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

    def start(self, replica: Replica) -> Replica:
        self.replicas.append(replica)
        self._call(replica, replica.process)
        return replica

    def stop(self, replica: Replica) -> None:
        replica.process += 1
        self.replicas.remove(replica)

    def restart(self, replica: Replica) -> None:
        replica.restart(self.now)
        self._call(replica, replica.process)

    def at_once(self, id_: str, *, until: float) -> None:
        """Expect of a version that some lack it, and all within their bound use it after ``until``."""
        self._at_once[id_] = until
        self.at(until + _TICK, lambda: self._check_use(id_))

    def step_clock(self, replica: Replica, offset: float) -> None:
        replica.offset = offset
        self._observe(replica)

    def refresh_now(self, replica: Replica) -> None:
        """Do what SIGHUP does."""
        replica.process += 1
        self._call(replica, replica.process)

    def _call(self, replica: Replica, process: int) -> None:
        if process != replica.process:
            return
        # What is published right after the question is missed, however long the answer takes.
        offer: Offer | None = None
        if self.now >= replica.cut_off_until:
            offer = self.store.offer(replica.shown_at(self.now, self._random.random()))
        began = self.now
        lasts = replica.refresh.timeout * self._random.random()
        self.at(began + lasts, lambda: self._answer(replica, process, offer, began))

    def _answer(self, replica: Replica, process: int, offer: Offer | None, began: float) -> None:
        if process != replica.process:
            return
        failure: RefreshError | None = UnavailableError("cut off")
        if offer is not None:
            try:
                failure = replica.take(offer, self.now)
            except RefreshError as error:
                failure = error
        if failure is None:
            replica.failures = 0
            replica.last_success = began
            wait = schedule.after_success(replica.refresh, chance=self._random.random())
        else:
            replica.failures += 1
            wait = schedule.after_failure(
                replica.refresh, failures=replica.failures, chance=self._random.random()
            )
        self._publish(replica)
        self.at(self.now + wait, lambda: self._call(replica, process))

    def _publish(self, replica: Replica) -> None:
        if replica.held is None:
            return
        shown, before = replica.published(self.now), replica.view
        # Mostly nothing is new, and this is what a large fleet does most.
        if before is not None and before.keyring is shown:
            ids = before.ids
        else:
            ids = frozenset(version.id for version in shown.versions)
        view = View(shown, ids, replica.last_success)

        def look() -> None:
            if replica in self.replicas and (replica.view is None or replica.view.began <= view.began):
                replica.view = view
                self._observe(replica)

        self.at(self.now + CHECK_INTERVAL_SECONDS * self._random.random(), look)

    def _observe(self, replica: Replica) -> None:
        """Let the app see its view as of now, and come back when the clock changes it."""
        view = replica.view
        if view is None:
            return
        clock = replica.clock(self.now)
        versions = view.keyring.versions
        active = versions[active_index(versions, clock)].id
        if active != replica.active:
            self._check_order(replica, view.keyring, active)
            if active in self.store.pending:
                self._tell(f"{replica.name} uses {active}, which is not released")
            replica.active = active
            self._encrypt(active)
        self._check_view(replica)
        upcoming = next_activation(versions, clock)
        if upcoming is not None:

            def activate() -> None:
                if replica.view is view and replica in self.replicas:
                    before = replica.active
                    self._observe(replica)
                    if replica.active != before:
                        self._publish(replica)

            self.at(max(self.now, upcoming - replica.offset) + _TICK, activate)

    def _encrypt(self, active: str) -> None:
        now = {replica.active for replica in self.replicas if replica.active}
        before = self._used
        self._used = before | {active} if self._old_records else now
        if not self._used <= before:
            for replica in self.replicas:
                self._check_view(replica)

    def _check_view(self, replica: Replica) -> None:
        view = self._view_within_bound(replica)
        missing = self._used - view.ids - self.store.gone if view else None
        if missing:
            foretold = all(self.now <= self._at_once.get(id_, 0.0) for id_ in missing)
            self._tell(f"{replica.name} cannot decrypt {sorted(missing)}", foretold=foretold)

    def _check_use(self, id_: str) -> None:
        for replica in self.replicas:
            self._check_view(replica)
            view = self._view_within_bound(replica)
            if view and id_ not in self.store.gone:
                order = [version.id for version in view.keyring.versions]
                if id_ not in order or replica.active not in order[order.index(id_) :]:
                    self._tell(f"{replica.name} does not use {id_} but {replica.active}")

    def _view_within_bound(self, replica: Replica) -> View | None:
        view = replica.view
        return view if view and self.now - view.began <= replica.limit else None

    def _check_order(self, replica: Replica, shown: Keyring, active: str) -> None:
        order = [version.id for version in shown.versions if version.activates_at is not None]
        if replica.active in order and order.index(active) < order.index(replica.active):
            self._tell(f"{replica.name} runs backwards, {replica.active} to {active}")

    def _tell(self, problem: str, *, foretold: bool = False) -> None:
        (self.foretold if foretold else self.problems).append(f"{self.now - START:.3f}: {problem}")


def tight_delay(
    deployments: Sequence[RefreshSettings], *, clock_skew: float = 0.0, mounted: bool = False
) -> float:
    """Return the least activation delay that all of ``deployments`` accept."""
    rotation = RotationSettings(clock_skew=clock_skew)
    return max(schedule.bound(refresh, rotation, mounted=mounted) for refresh in deployments)


def _but_known(offer: Offer, known: Known) -> Offer:
    """Return ``offer`` as a provider shows it that does not read known values again."""
    versions = tuple(
        version._replace(material=None)
        if known.get(version.id, ...) == version.created_at and isinstance(version.material, Material)
        else version
        for version in offer.versions
    )
    return offer._replace(versions=versions)
