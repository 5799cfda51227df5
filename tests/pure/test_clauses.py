# SPDX-License-Identifier: Apache-2.0
"""Every clause of the activation rule has a history that goes wrong without it.

Each history is played twice: as the rules are, and with one clause taken out. Refreshes take no time to speak
of and nothing is left to chance, so every history says when who asks.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from agent import keyring, schedule
from agent.errors import MissingError, UnavailableError
from agent.offer import UNRELEASED, Offer
from agent.settings import RefreshSettings
from keyferry.layout import Keyring, Version
from tests.pure.fleet import KEY, START, Fleet, Replica, Store, tight_delay

REFRESH = RefreshSettings(interval=100.0, jitter=0.0, timeout=0.001, max_backoff=1.0)
DELAY = tight_delay([REFRESH])
LONG_AGO = START - 20 * DELAY


class Story:
    """A fleet whose replicas are started with their refreshes ``at`` seconds into each interval."""

    def __init__(self, store: Store | None = None, *, old_records: bool = True, **rules: Any) -> None:
        self.store = store or Store()
        self.rules = keyring.Rules(**{"activation_delay": DELAY, **rules})
        self.fleet = Fleet(self.store, old_records=old_records)
        self.put("1", created_at=LONG_AGO)

    def put(self, id_: str, *, created_at: float | None = None, late: float = 0.0) -> None:
        now = self.fleet.now
        self.store.put(id_, now=now, created_at=now - late if created_at is None else created_at)

    def pod(self, name: str, kind: type[Replica] = Replica, **fields: Any) -> Replica:
        return self.fleet.start(kind(name, REFRESH, self.rules, **fields))

    def until(self, seconds: float) -> None:
        self.fleet.run(START + seconds)

    def end(self) -> Fleet:
        self.fleet.run(self.fleet.now + 5 * DELAY)
        return self.fleet


def two(story: Story, first: float = 0.0, second: float = 50.0) -> tuple[Replica, Replica]:
    story.until(first)
    a = story.pod("a")
    story.until(second)
    return a, story.pod("b")


def ordinary() -> Fleet:
    story = Story()
    two(story)
    story.until(310)
    story.put("2")
    return story.end()


def fresh_pod_inside_the_window() -> Fleet:
    story = Story()
    two(story)
    story.until(301)
    story.put("2")
    story.until(310)
    story.pod("fresh")
    return story.end()


def merged_long_after_it_was_written() -> Fleet:
    story = Story()
    two(story)
    story.until(310)
    story.put("2", late=3 * DELAY)
    return story.end()


def published_while_cut_off() -> Fleet:
    story = Story()
    a, _ = two(story)
    a.cut_off_until = START + 960
    story.until(955)
    story.put("2", late=3 * DELAY)
    return story.end()


def published_just_after_a_refresh_and_a_neighbour_is_away() -> Fleet:
    story = Story()
    _, b = two(story)
    story.until(351)
    b.cut_off_until = START + 520
    story.put("2", late=3 * DELAY)
    return story.end()


def neighbour_at_its_bound() -> Fleet:
    story = Story()
    two(story, 0, 50)
    story.until(249)
    a, b = story.fleet.replicas
    story.until(250.5)
    b.cut_off_until = START + 449
    story.put("2")
    story.fleet.refresh_now(a)
    return story.end()


def fresh_pod_with_a_fast_clock() -> Fleet:
    story = Story(activation_delay=tight_delay([REFRESH], clock_skew=60.0))
    a, _ = two(story)
    story.until(301)
    a.cut_off_until = START + 500
    story.put("2")
    story.until(302)
    story.pod("fresh", offset=60.0)
    return story.end()


class Mounted(Replica):
    def shown_at(self, true_now: float, chance: float) -> float:
        return true_now - schedule.MOUNT_DELAY_SECONDS


def mounted_late() -> Fleet:
    story = Story(activation_delay=tight_delay([REFRESH], mounted=True))
    a = story.pod("a", Mounted)
    story.until(279)
    story.pod("b")
    story.until(379.5)
    story.put("2")
    story.fleet.refresh_now(story.fleet.replicas[1])
    story.until(450)
    a.cut_off_until = START + 650
    return story.end()


def rotated_twice() -> Fleet:
    story = Story()
    two(story)
    story.until(310)
    story.put("2")
    story.until(810)
    story.put("3")
    return story.end()


def store_clock_steps_back() -> Fleet:
    story = Story()
    two(story)
    story.until(310)
    story.put("2", created_at=LONG_AGO - DELAY)
    return story.end()


def rotated_with_one_version_kept() -> Fleet:
    story = Story(old_records=False, keep_versions=1)
    two(story)
    story.until(310)
    story.put("2")
    return story.end()


def rolled_back_with_one_version_kept() -> Fleet:
    story = Story(old_records=False, keep_versions=1)
    two(story)
    story.until(310)
    story.put("2")
    story.until(1310)
    story.put("1")
    story.end()
    story.put("2")
    return story.end()


def replaced_twice_in_a_store_without_history() -> Fleet:
    story = Story(Store(shown=1, unstaged="it shows one value"))
    two(story, 10, 95)
    story.until(300)
    story.put("2")
    story.until(350)
    story.put("3")
    return story.end()


def deleted_and_brought_back() -> Fleet:
    story = Story(old_records=False)
    two(story)
    story.until(310)
    story.put("2")
    story.until(1310)
    material = story.store.offer(story.fleet.now).versions[-1].material
    assert material is not None
    story.store.change("2", MissingError("deleted"), now=story.fleet.now)
    story.until(1490)
    story.pod("fresh")
    story.until(1495)
    story.store.change("2", material, now=story.fleet.now)
    return story.end()


def pending() -> Story:
    story = Story()
    two(story)
    story.until(310)
    now = story.fleet.now
    story.store.put("2", now=now, created_at=now, activates_at=UNRELEASED)
    return story


def never_released() -> Fleet:
    return pending().end()


def released_in_the_end() -> Fleet:
    story = pending()
    story.until(1310)
    story.store.release("2", now=story.fleet.now)
    return story.end()


def ordered_at_once() -> Fleet:
    story = Story()
    two(story)
    story.until(310)
    now = story.fleet.now
    story.store.put("2", now=now, created_at=now, activates_at=now)
    story.fleet.at_once("2", until=now + DELAY)
    return story.end()


class Unlucky(Replica):
    """Cannot read one version for some time, though it is answered."""

    unread = "1"
    reads_from = START + 400

    def merge(self, offer: Offer, now: float) -> keyring.Merged:
        if now < self.reads_from:
            error = UnavailableError("this one takes too long")
            versions = tuple(v._replace(material=error) if v.id == self.unread else v for v in offer.versions)
            offer = offer._replace(versions=versions)
        return super().merge(offer, now)


def fresh_pod_that_cannot_read_the_active_version() -> Fleet:
    story = Story()
    two(story)
    story.until(301)
    story.put("2")
    story.until(305)
    story.pod("fresh", Unlucky)
    return story.end()


class Unlucky2(Unlucky):
    unread = "2"
    reads_from = START + 900


def new_version_that_one_replica_cannot_read() -> Fleet:
    story = Story()
    story.pod("a")
    story.until(50)
    story.pod("unlucky", Unlucky2)
    story.until(310)
    story.put("2")
    return story.end()


def judged_at(moment: Callable[[Replica, float], float]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return the removal that takes another moment for the one at which a version was first seen."""

    def merge(self: Replica, offer: Offer, now: float) -> keyring.Merged:
        return keyring.merge(self.held, offer, key=KEY, rules=self.rules, now=moment(self, now))

    return lambda patch: patch.setattr(Replica, "merge", merge)


def last_success(replica: Replica, now: float) -> float:
    return max(replica.last_success, LONG_AGO) if replica.held else now


def one_gap_before(replica: Replica, now: float) -> float:
    return max(last_success(replica, now), now - schedule.longest_gap(replica.refresh))


def delay_of(seconds: float) -> Callable[[pytest.MonkeyPatch], None]:
    """Return the removal that sets another activation delay, whatever the bound."""

    def merge(self: Replica, offer: Offer, now: float) -> keyring.Merged:
        rules = self.rules._replace(activation_delay=seconds)
        return keyring.merge(self.held, offer, key=KEY, rules=rules, now=now)

    return lambda patch: patch.setattr(Replica, "merge", merge)


def in_keyring(name: str, function: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(keyring, name, function)


def without_creation_time(patch: pytest.MonkeyPatch) -> None:
    rule = keyring._activates_at
    in_keyring("_activates_at", lambda offered, *a, **k: rule(offered._replace(created_at=None), *a, **k))(
        patch
    )


def without_the_store_s_word(patch: pytest.MonkeyPatch) -> None:
    rule = keyring._activates_at
    in_keyring("_activates_at", lambda offered, *a, **k: rule(offered._replace(activates_at=None), *a, **k))(
        patch
    )


def without_release(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keyring, "UNRELEASED", math.nan)


def without_what_is_held(patch: pytest.MonkeyPatch) -> None:
    rule = keyring._activates_at
    in_keyring("_activates_at", lambda offered, _, *a, **k: rule(offered, None, *a, **k))(patch)


def sorted_by_time(patch: pytest.MonkeyPatch) -> None:
    rule = Replica.merge

    def merge(self: Replica, offer: Offer, now: float) -> keyring.Merged:
        in_time = tuple(sorted(offer.versions, key=lambda version: version.created_at or 0.0))
        return rule(self, offer._replace(versions=in_time), now)

    patch.setattr(Replica, "merge", merge)


def pruned_at_once(patch: pytest.MonkeyPatch) -> None:
    rule = keyring.pruned

    def pruned(ring: Keyring, rules: keyring.Rules, now: float) -> Keyring:
        return rule(ring, rules, now + 2 * rules.activation_delay)

    in_keyring("pruned", pruned)(patch)


def success_whatever_was_read(patch: pytest.MonkeyPatch) -> None:
    rule = Replica.merge
    patch.setattr(Replica, "merge", lambda *a: rule(*a)._replace(failure=None))


def kept_pending(version: Version, *_: object) -> Version:
    return version


@dataclass(frozen=True)
class Clause:
    """A history, the version that is active at its end, how to take the clause out, and what happens then."""

    play: Callable[[], Fleet]
    active: str
    take_out: Callable[[pytest.MonkeyPatch], None]
    symptom: str


CLAUSES = {
    "a delay": Clause(ordinary, "2", delay_of(0.0), "a cannot decrypt ['2']"),
    "counted from the creation": Clause(
        fresh_pod_inside_the_window, "2", without_creation_time, "a cannot decrypt ['2']"
    ),
    "counted from first sight, not from creation alone": Clause(
        merged_long_after_it_was_written, "2", judged_at(lambda *_: 0.0), "a cannot decrypt ['2']"
    ),
    "counted from first sight, not from the last success": Clause(
        published_while_cut_off, "2", judged_at(last_success), "b cannot decrypt ['2']"
    ),
    "counted from first sight, not from one gap before": Clause(
        published_just_after_a_refresh_and_a_neighbour_is_away,
        "2",
        judged_at(one_gap_before),
        "b cannot decrypt ['2']",
    ),
    "the bound holds two gaps and a backoff": Clause(
        neighbour_at_its_bound, "2", delay_of(DELAY - 5), "b cannot decrypt ['2']"
    ),
    "the bound holds the clocks' difference": Clause(
        fresh_pod_with_a_fast_clock, "2", delay_of(DELAY), "a cannot decrypt ['2']"
    ),
    "the bound holds the mount's delay": Clause(mounted_late, "2", delay_of(DELAY), "a cannot decrypt ['2']"),
    "what was published is kept": Clause(
        rotated_twice, "3", without_what_is_held, "a runs backwards, 2 to 1"
    ),
    "the order is the provider's": Clause(store_clock_steps_back, "2", sorted_by_time, ""),
    "a superseded version stays for a while": Clause(
        rotated_with_one_version_kept, "2", pruned_at_once, "b cannot decrypt ['1']"
    ),
    "a rollback is staged where versions are dropped": Clause(
        rolled_back_with_one_version_kept,
        "2",
        in_keyring("_returning", lambda *_: set()),
        "cannot decrypt ['1']",
    ),
    "what a store without history passed over never activates": Clause(
        replaced_twice_in_a_store_without_history,
        "3",
        in_keyring("_absent", kept_pending),
        "cannot decrypt ['2']",
    ),
    "a deleted version is never active": Clause(
        deleted_and_brought_back, "2", in_keyring("_never", kept_pending), "fresh cannot decrypt ['2']"
    ),
    "what was not read may be what the fleet uses": Clause(
        fresh_pod_that_cannot_read_the_active_version,
        "2",
        in_keyring("_has_come", lambda *_: True),
        "cannot decrypt ['2']",
    ),
    "what its store has not released is not used": Clause(
        never_released, "1", without_the_store_s_word, "a uses 2, which is not released"
    ),
    "what was ordered at once is used before the bound is over": Clause(
        ordered_at_once, "2", without_the_store_s_word, "a does not use 2 but 1"
    ),
    "what its store has released is used": Clause(released_in_the_end, "2", without_release, ""),
    "a version that was not read is no success": Clause(
        new_version_that_one_replica_cannot_read,
        "2",
        success_whatever_was_read,
        "unlucky cannot decrypt ['2']",
    ),
}


def test_what_is_ordered_at_once_costs_decrypts_until_the_last_one_has_refreshed() -> None:
    """Replica b sees it 350 s after the start and encrypts with it, a 400 s after the start."""
    fleet = ordered_at_once()
    failed = [problem.split(": ") for problem in fleet.foretold]
    assert {problem for _, problem in failed} == {"a cannot decrypt ['2']"}
    assert all(350 < float(at) < 402 for at, _ in failed)


def told(problems: Iterable[str]) -> str:
    return "\n".join(problems)


@pytest.mark.parametrize("clause", CLAUSES.values(), ids=CLAUSES)
def test_the_rule_holds(clause: Clause) -> None:
    """Nothing goes wrong, and the rotation arrives everywhere."""
    fleet = clause.play()
    assert fleet.problems == []
    assert {replica.active for replica in fleet.replicas} == {clause.active}


@pytest.mark.parametrize("clause", CLAUSES.values(), ids=CLAUSES)
def test_without_the_clause_it_goes_wrong(clause: Clause, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same history shows what the clause is for."""
    clause.take_out(monkeypatch)
    fleet = clause.play()
    if clause.symptom:
        assert clause.symptom in told(fleet.problems)
    else:
        assert {replica.active for replica in fleet.replicas} != {clause.active}
