# SPDX-License-Identifier: Apache-2.0
"""When to ask again, and how long a replica may take."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.schedule import (
    DENIED_RETRY_SECONDS,
    LONGEST_WISH_SECONDS,
    MOUNT_DELAY_SECONDS,
    after_failure,
    after_success,
    bound,
    longest_gap,
    longest_staleness,
)
from agent.settings import RefreshSettings, RotationSettings

DEFAULT = RefreshSettings()
PLAIN = RefreshSettings(interval=100.0, jitter=0.2, timeout=5.0, max_backoff=60.0)

durations = st.floats(0.001, 1e6)
chances = st.floats(0, 1, exclude_max=True)
refreshes = st.builds(
    RefreshSettings, interval=durations, jitter=st.floats(0, 0.5), timeout=durations, max_backoff=durations
)


def test_the_terms_of_the_bound() -> None:
    """2 intervals with jitter, 2 timeouts, a backoff, the check interval and the skew; 3 min if mounted."""
    rotation = RotationSettings(clock_skew=7.0)
    assert longest_gap(PLAIN) == 125.0
    assert longest_staleness(PLAIN) == 310.0
    assert bound(PLAIN, rotation, mounted=False) == 318.0
    assert bound(PLAIN, rotation, mounted=True) == 318.0 + MOUNT_DELAY_SECONDS == 498.0


def test_the_default_bounds_are_within_the_default_delay() -> None:
    rotation = RotationSettings()
    assert bound(DEFAULT, rotation, mounted=True) <= rotation.activation_delay


SUCCESSES = {
    "shortest": (0.0, None, 80.0),
    "middle": (0.5, None, 100.0),
    "longest": (math.nextafter(1.0, 0.0), None, 120.0),
    "a ttl that is shorter": (0.5, 30.0, 30.0),
    "a ttl that is longer": (0.5, 3000.0, 100.0),
    "no time at all": (0.5, 0.0, 0.5),
    "a ttl below zero": (0.5, -9.0, 0.5),
}


@pytest.mark.parametrize(("chance", "ttl", "wait"), SUCCESSES.values(), ids=SUCCESSES)
def test_after_success(chance: float, ttl: float | None, wait: float) -> None:
    assert after_success(PLAIN, chance=chance, ttl_seconds=ttl) == pytest.approx(wait)


FAILURES = {
    "first, soonest": (1, 0.0, False, None, 0.25),
    "first, latest": (1, 1.0, False, None, 0.5),
    "second": (2, 1.0, False, None, 1.0),
    "fifth": (5, 0.0, False, None, 4.0),
    "as late as it gets": (8, 1.0, False, None, 60.0),
    "for days": (100_000, 0.0, False, None, 30.0),
    "denied": (1, 0.0, True, None, 30.0),
    "denied for long": (100, 0.5, True, None, 37.5),
    "asked to wait": (1, 1.0, False, 20.0, 20.5),
    "asked to wait beyond the interval": (1, 0.0, False, 600.0, 600.25),
    "denied and locked out": (3, 0.0, True, 900.0, 930.0),
    "asked to wait for a day": (1, 1.0, False, 86_400.0, 3600.5),
    "asked to wait for ever": (1, 1.0, False, math.inf, 3600.5),
    "asked to come back in the past": (1, 1.0, False, -60.0, 0.5),
}


@pytest.mark.parametrize(("failures", "chance", "denied", "asked", "wait"), FAILURES.values(), ids=FAILURES)
def test_after_failure(failures: int, chance: float, denied: bool, asked: float | None, wait: float) -> None:
    assert after_failure(
        PLAIN, failures=failures, chance=chance, denied=denied, retry_after_seconds=asked
    ) == pytest.approx(wait)


def test_a_refusal_is_asked_again_no_later_than_anything() -> None:
    """An interval shorter than the pause after a refusal stays the interval."""
    fast = RefreshSettings(interval=DENIED_RETRY_SECONDS / 3)
    assert after_failure(fast, failures=1, chance=0.0, denied=True) == fast.interval


@given(refreshes, chances, st.none() | durations)
def test_successes_are_never_further_apart_than_the_longest_gap(
    refresh: RefreshSettings, chance: float, ttl: float | None
) -> None:
    wait = after_success(refresh, chance=chance, ttl_seconds=ttl)
    assert wait > 0
    assert wait + refresh.timeout <= longest_gap(refresh) * (1 + 1e-9)


@given(refreshes, chances, durations)
def test_a_ttl_only_shortens(refresh: RefreshSettings, chance: float, ttl: float) -> None:
    assert after_success(refresh, chance=chance, ttl_seconds=ttl) <= after_success(refresh, chance=chance)


@given(refreshes, st.integers(1, 10_000), chances)
def test_a_backoff_stays_within_max_backoff(refresh: RefreshSettings, failures: int, chance: float) -> None:
    wait = after_failure(refresh, failures=failures, chance=chance)
    assert min(refresh.max_backoff, 0.5) / 2 <= wait <= refresh.max_backoff


@given(refreshes, st.integers(1, 1000), chances)
def test_a_backoff_never_shrinks_as_failures_go_on(
    refresh: RefreshSettings, failures: int, chance: float
) -> None:
    shorter = after_failure(refresh, failures=failures, chance=chance)
    assert shorter <= after_failure(refresh, failures=failures + 1, chance=chance)


@given(refreshes, st.integers(1, 1000), chances, st.booleans(), durations)
def test_the_store_is_not_asked_sooner_than_it_wishes_unless_it_wishes_too_much(
    refresh: RefreshSettings, failures: int, chance: float, denied: bool, asked: float
) -> None:
    wait = after_failure(refresh, failures=failures, chance=chance, denied=denied, retry_after_seconds=asked)
    assert wait > min(asked, LONGEST_WISH_SECONDS)


@given(refreshes, chances)
def test_a_refusal_is_no_longer_gap_than_the_bound_has_room_for(
    refresh: RefreshSettings, chance: float
) -> None:
    """It takes the place of one refresh, and is asked about again before the next would be."""
    wait = after_failure(refresh, failures=1, chance=chance, denied=True)
    assert wait <= refresh.interval


@given(refreshes, st.floats(0, 1e4), chances, chances)
def test_one_failed_refresh_stays_within_the_bound(
    refresh: RefreshSettings, skew: float, chance: float, another: float
) -> None:
    """From a question that just missed it, over a failure, to an app that looks as late as it may."""
    if refresh.timeout > refresh.interval:
        return
    took = (
        refresh.timeout
        + after_success(refresh, chance=chance)
        + refresh.timeout
        + after_failure(refresh, failures=1, chance=another)
        + refresh.timeout
    )
    assert took <= longest_staleness(refresh) * (1 + 1e-9)
    assert took < bound(refresh, RotationSettings(clock_skew=skew), mounted=False)
