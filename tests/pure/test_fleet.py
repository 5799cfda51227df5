# SPDX-License-Identifier: Apache-2.0
"""Rotation without a failed decrypt, over fleets that Hypothesis makes up."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.settings import RefreshSettings
from tests.pure.history import AT_ONCE, EVENTS, Event, History, Plan


@st.composite
def refreshes(draw: st.DrawFn) -> RefreshSettings:
    interval = draw(st.floats(5, 600))
    return RefreshSettings(
        interval=interval,
        jitter=draw(st.floats(0, 0.5)),
        timeout=draw(st.floats(0.1, min(20, interval))),
        max_backoff=draw(st.floats(0.5, 120)),
    )


def plans(
    *,
    replicas: tuple[int, int],
    events: tuple[int, int],
    keep_versions: st.SearchStrategy[int | None],
    kinds: Sequence[str] = EVENTS,
) -> st.SearchStrategy[Plan]:
    fraction = st.floats(0, 1)
    # Most rotations go wrong, if they do, within a few gaps of each other.
    after = st.one_of(st.floats(0, 0.1), st.floats(0, 1.5))
    return st.builds(
        Plan,
        deployments=st.tuples(refreshes()) | st.tuples(refreshes(), refreshes()),
        clock_skew=st.floats(0, 60),
        mounted=st.booleans(),
        keep_versions=keep_versions,
        replicas=st.integers(*replicas),
        events=st.lists(
            st.builds(Event, after, st.sampled_from(kinds), st.integers(0, 1000), fraction),
            min_size=events[0],
            max_size=events[1],
        ).map(tuple),
        seed=st.integers(0, 2**32),
    )


@given(plans(replicas=(1, 6), events=(1, 12), keep_versions=st.none()))
@settings(max_examples=300, deadline=None)
def test_whatever_is_encrypted_can_be_decrypted_within_the_bound(plan: Plan) -> None:
    """Every record is readable for every replica within its bound, and nobody's activation runs backwards."""
    assert History(plan).play().problems == []


@given(plans(replicas=(2, 6), events=(1, 12), keep_versions=st.none(), kinds=(*EVENTS, AT_ONCE, AT_ONCE)))
@settings(max_examples=300, deadline=None)
def test_a_rotation_at_once_is_over_after_a_bound(plan: Plan) -> None:
    """Until then some replicas lack that version, and no other; then all have it and use it."""
    assert History(plan).play().problems == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(plans(replicas=(1, 6), events=(1, 12), keep_versions=st.integers(1, 3)))
@settings(max_examples=1000, deadline=None)
def test_whatever_is_encrypted_now_can_be_decrypted_where_versions_are_dropped(plan: Plan) -> None:
    """With ``keep_versions`` a number old records go, but never the version that a neighbour uses."""
    assert History(plan).play().problems == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(plans(replicas=(20, 60), events=(30, 60), keep_versions=st.none()))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_large_fleets(plan: Plan) -> None:
    """The same, for more of everything."""
    assert History(plan).play().problems == []
