# SPDX-License-Identifier: Apache-2.0
"""Rotation without a failed decrypt, 100,000 times: fleets of 1 to 1,000 replicas, made by seeds."""

import os
import random
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import pytest

from agent.settings import RefreshSettings
from tests.pure.history import EVENTS, Event, History, Plan


class Share(NamedTuple):
    """So many histories of fleets of one size, and the rotations in each."""

    replicas: int
    rotations: int
    histories: int


# What one costs grows with the fleet, so most are had from small ones: 175 s of processor time in all.
SHARES = (
    Share(1, 20, 500),
    Share(2, 20, 1000),
    Share(3, 20, 1000),
    Share(6, 20, 1500),
    Share(10, 20, 700),
    Share(20, 20, 245),
    Share(100, 10, 100),
    Share(1000, 5, 20),
)


def plan(share: Share, seed: int) -> Plan:
    """Return a plan with the rotations, close to each other and far apart, and everything else in between."""
    chance = random.Random(f"{share}{seed}")  # noqa: S311 - for variety

    def event(kind: str) -> Event:
        # In delays: most rotations go wrong, if they do, within a few gaps of each other.
        after = chance.random() * chance.choice((0.1, 1.5))
        return Event(after, kind, chance.randrange(1000), chance.random())

    def refresh() -> RefreshSettings:
        interval = chance.uniform(5, 600)
        return RefreshSettings(
            interval=interval,
            jitter=chance.uniform(0, 0.5),
            timeout=chance.uniform(0.1, min(20, interval)),
            max_backoff=chance.uniform(0.5, 120),
        )

    others = [kind for kind in EVENTS if kind != "rotate"]
    events = []
    for _ in range(share.rotations):
        events += [event(chance.choice(others)) for _ in range(chance.randrange(3))]
        events.append(event("rotate"))
    return Plan(
        deployments=(refresh(), refresh()) if chance.random() < 0.5 else (refresh(),),
        clock_skew=chance.uniform(0, 60),
        mounted=chance.random() < 0.5,
        keep_versions=None,
        replicas=share.replicas,
        events=tuple(events),
        seed=seed,
    )


def play(share: Share, seed: int) -> tuple[int, int, str | None]:
    """Play one history; return how often it rotated, how many versions were used, what went wrong first."""
    made = plan(share, seed)
    fleet = History(made).play()
    rotations = sum(event.kind == "rotate" for event in made.events)
    problem = f"{share}, seed {seed}: {fleet.problems[0]}" if fleet.problems else None
    return rotations, len(fleet.used), problem


def everything() -> Iterable[tuple[Share, int]]:
    # The large ones first: at the end no core waits for another one's large fleet.
    return ((share, seed) for share in reversed(SHARES) for seed in range(share.histories))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_100_000_rotations_without_a_violation() -> None:
    """On all cores; no history depends on another, or on which core plays it."""
    # Not by fork: this process may have threads.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        shares, seeds = zip(*everything(), strict=True)
        results = list(pool.map(play, shares, seeds, chunksize=5))
    assert [problem for _, _, problem in results if problem] == []
    assert sum(rotations for rotations, _, _ in results) == 100_000
    # Nothing can go wrong with versions that nobody uses. Some are followed or deleted before their time.
    assert sum(used for _, used, _ in results) > 80_000


@pytest.mark.parametrize(
    "share",
    [
        pytest.param(share, marks=pytest.mark.slow if share.replicas > 20 else [], id=str(share.replicas))
        for share in SHARES
        if share.replicas > 1
    ],
)
def test_without_a_delay_each_size_of_fleet_fails(share: Share) -> None:
    """The control: the same fleets and histories, but a new version is used as soon as it is seen."""
    problems = History(plan(share, 0), activation_delay=0.0).play().problems
    assert any("cannot decrypt" in problem for problem in problems)
