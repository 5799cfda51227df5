# SPDX-License-Identifier: Apache-2.0
"""Histories of simulated fleets, as plans that anybody may make up and one class that plays them.

A plan says nothing but what happens when, so that Hypothesis can shrink it and a seed can make it.
"""

from dataclasses import dataclass

from agent import keyring, schedule
from agent.offer import UNRELEASED
from agent.settings import RefreshSettings
from keyferry.times import to_millis
from tests.pure.fleet import START, Fleet, Replica, Store, tight_delay

EVENTS = (
    "rotate",
    "merge late",
    "schedule",
    "make pending",
    "end pending",
    "roll back",
    "delete",
    "new pod",
    "restart",
    "outage",
    "clock",
    "interval",
    "hup",
)
# What promises less: some decrypts may fail, for a bound.
AT_ONCE = "rotate now"


@dataclass(frozen=True)
class Event:
    """What happens ``after`` (in delays) the last; ``which`` and ``how`` (0 to 1) choose the details."""

    after: float
    kind: str
    which: int
    how: float


@dataclass(frozen=True)
class Plan:
    """One history of one fleet."""

    deployments: tuple[RefreshSettings, ...]
    clock_skew: float
    mounted: bool
    keep_versions: int | None
    replicas: int
    events: tuple[Event, ...]
    seed: int


class History:
    """Plays a plan. What would break the promise by its nature is left out, and says so."""

    def __init__(self, plan: Plan, *, activation_delay: float | None = None) -> None:
        tight = tight_delay(plan.deployments, clock_skew=plan.clock_skew, mounted=plan.mounted)
        self.rules = keyring.Rules(
            activation_delay=tight if activation_delay is None else activation_delay,
            keep_versions=plan.keep_versions,
        )
        self.plan = plan
        self.delay = tight
        self.store = Store()
        self.versions = 1
        self.stated: set[str] = set()
        self.store.put("1", now=START - 10 * tight, created_at=START - 10 * tight)
        self.fleet = Fleet(self.store, seed=plan.seed, old_records=plan.keep_versions is None)
        self.settled_at = START
        self.late_until = START
        for number in range(plan.replicas):
            self.new_pod(number, number / plan.replicas)

    def play(self) -> Fleet:
        for event in self.plan.events:
            self.fleet.run(self.fleet.now + event.after * self.delay)
            getattr(self, event.kind.replace(" ", "_"))(event.which, event.how)
        self.fleet.run(self.fleet.now + 3 * self.delay)
        return self.fleet

    def pick(self, which: int) -> Replica:
        return self.fleet.replicas[which % len(self.fleet.replicas)]

    def publish(self, created_at: float, activates_at: float | None = None) -> str:
        """Publish a version, and let everything be settled when all use it, by the bound."""
        self.versions += 1
        id_, now = str(self.versions), self.fleet.now
        self.store.put(id_, now=now, created_at=created_at, activates_at=activates_at)
        if activates_at != UNRELEASED:
            self.settle_at(max(now + self.delay, activates_at or now))
            if activates_at is not None:
                self.stated.add(id_)
        return id_

    def settle_at(self, time: float) -> None:
        self.settled_at = max(self.settled_at, time + self.plan.clock_skew)

    def by_the_store(self, how: float) -> float:
        """Return the time by the store's clock, as it writes it."""
        return to_millis(self.fleet.now + self.plan.clock_skew * (how - 0.5))

    def rotate(self, _which: int, how: float) -> None:
        self.publish(self.by_the_store(how))

    def rotate_now(self, _which: int, how: float) -> None:
        """State that it activates when it was created."""
        created_at = self.by_the_store(how)
        self.fleet.at_once(self.publish(created_at, created_at), until=self.fleet.now + self.delay)

    def merge_late(self, _which: int, how: float) -> None:
        """Publish long after creation: a keyring merged late, a store's clock that is slow or steps back."""
        self.publish(self.fleet.now - 3 * self.delay * how)
        self.late()

    def schedule(self, _which: int, how: float) -> None:
        """State when a version activates, as a keyring may: once everybody has it, by the bound."""
        now = self.fleet.now
        self.publish(now - 3 * self.delay * how, to_millis(now + self.delay * (1 + how)))

    def make_pending(self, _which: int, how: float) -> None:
        self.publish(self.by_the_store(how), UNRELEASED)

    def end_pending(self, which: int, how: float) -> None:
        """Release a version that is pending, or give it up."""
        pending, now = self.store.pending, self.fleet.now
        if not pending:
            return
        if how < 0.5:
            self.store.release(pending[which % len(pending)], now=now)
        else:
            self.store.give_up(pending[which % len(pending)], now=now, shown=how < 0.75)
        self.settle_at(now + self.delay)
        self.late_where_versions_are_dropped()

    def roll_back(self, which: int, _how: float) -> None:
        """Roll back, but not to a stated time where versions are dropped: that is obeyed, never staged."""
        there = self.store.readable
        if self.plan.keep_versions is not None:
            there = [id_ for id_ in there if id_ not in self.stated]
        if not there:
            return
        self.store.put(there[which % len(there)], now=self.fleet.now, created_at=None)
        self.settle_at(self.fleet.now + self.delay)
        self.late_where_versions_are_dropped()

    def late_where_versions_are_dropped(self) -> None:
        """Take it for a late publication: to a new pod it looks as old as its creation is."""
        if self.plan.keep_versions is not None:
            self.late()

    def late(self) -> None:
        """Let no pod start with an empty volume until the fleet has what was published late.

        A pod that also drops versions by their times must not start before nobody uses the last one any more.
        """
        delays = 1 if self.plan.keep_versions is None else 2
        self.late_until = self.fleet.now + delays * self.delay + self.plan.clock_skew

    def delete(self, which: int, _how: float) -> None:
        """Delete a version, unless everybody would have to go on with one that not everybody has yet."""
        there = self.store.readable
        if self.plan.keep_versions is not None:
            # Without the newest the one before it serves again, which others may no longer have.
            there = there[:-1]
        if self.fleet.now > self.settled_at and len(there) > 1:
            self.store.delete(there[which % len(there)], now=self.fleet.now)

    def new_pod(self, which: int, how: float) -> None:
        """Start a pod with an empty volume, unless it would meet a late publication: it cannot know."""
        if self.fleet.now < self.late_until:
            return
        if len(self.fleet.replicas) >= self.plan.replicas:
            self.fleet.stop(self.pick(which))
        deployment = self.plan.deployments[which % len(self.plan.deployments)]
        self.fleet.start(
            Replica(
                f"replica-{which}",
                deployment,
                self.rules,
                offset=self.plan.clock_skew * (how - 0.5),
                mount_delay=schedule.MOUNT_DELAY_SECONDS if self.plan.mounted else 0.0,
            )
        )

    def restart(self, which: int, _how: float) -> None:
        """Restart an agent, unless it had no answer yet: that would be another new pod."""
        replica = self.pick(which)
        if replica.held is not None:
            self.fleet.restart(replica)

    def outage(self, which: int, how: float) -> None:
        """Cut a replica off: for less than its bound where the others do not keep what it goes on using."""
        replica = self.pick(which)
        longest = 3 * self.delay * how if self.plan.keep_versions is None else replica.refresh.interval / 2
        replica.cut_off_until = self.fleet.now + longest * how

    def clock(self, which: int, how: float) -> None:
        self.fleet.step_clock(self.pick(which), self.plan.clock_skew * (how - 0.5))

    def interval(self, which: int, how: float) -> None:
        deployments = self.plan.deployments
        self.pick(which).refresh = deployments[int(how * len(deployments)) % len(deployments)]

    def hup(self, which: int, _how: float) -> None:
        """Refresh at once, unless the first call is under way: the real one waits for it as well."""
        replica = self.pick(which)
        if replica.held is not None:
            self.fleet.refresh_now(replica)
