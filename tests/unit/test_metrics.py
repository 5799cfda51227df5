# SPDX-License-Identifier: Apache-2.0
"""The metrics as a scraper sees them."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.events import Event
from agent.metrics import Metrics
from agent.overview import Overview
from tests.unit.scenes import key_status, keyring, overview, version

# Alerts and dashboards depend on these names.
NAMES = {
    "keyferry_refresh_total",
    "keyferry_refresh_duration_seconds_bucket",
    "keyferry_refresh_duration_seconds_count",
    "keyferry_refresh_duration_seconds_sum",
    "keyferry_last_success_timestamp_seconds",
    "keyferry_staleness_seconds",
    "keyferry_key_version_info",
    "keyferry_generation",
    "keyferry_publish_total",
    "keyferry_beyond_bound",
    "keyferry_provider_calls_total",
    # Beside those of the design: what the alerts' thresholds are made of.
    "keyferry_bound_seconds",
    "keyferry_activation_delay_seconds",
    "keyferry_refresh_failures",
    "keyferry_last_refresh_info",
    "keyferry_withdrawn",
}


def event(name: str, **fields: object) -> Event:
    return Event(name, "info", 0.0, audit=False, fields={"key": "master", "provider": "vault", **fields})


class Scrape:
    """All samples of one scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self.samples = [
            sample
            for family in text_string_to_metric_families(metrics.render().decode())
            for sample in family.samples
        ]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples if not sample.name.startswith("process_")}

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found[0] if found else None


def scrape(shown: Overview | None, *events: Event) -> Scrape:
    metrics = Metrics(lambda: shown)
    for item in events:
        metrics.count(item)
    return Scrape(metrics)


@pytest.fixture
def full() -> Scrape:
    """Return a scrape with everything that can be in one."""
    return scrape(
        overview({"master": key_status(30.0)}, {"master": keyring(version("5", 0.0))}),
        event("refresh.started"),
        event("refresh.started"),
        event("refresh.succeeded", outcome="changed", duration=0.02),
        event("refresh.failed", outcome="denied", duration=0.3),
        event("generation.published", generation=7),
        event("publish.failed", reason="full"),
        event("agent.started"),
    )


def test_names(full: Scrape) -> None:
    assert full.names == NAMES


def test_counters(full: Scrape) -> None:
    labels = {"key": "master", "provider": "vault"}
    assert full.value("keyferry_refresh_total", outcome="changed", **labels) == 1
    assert full.value("keyferry_refresh_total", outcome="denied", **labels) == 1
    assert full.value("keyferry_refresh_duration_seconds_count", **labels) == 2
    assert full.value("keyferry_refresh_duration_seconds_sum", **labels) == pytest.approx(0.32)
    assert full.value("keyferry_provider_calls_total", **labels) == 2
    assert full.value("keyferry_publish_total", outcome="published") == 1
    assert full.value("keyferry_publish_total", outcome="failed") == 1


def test_failures_are_counted_from_zero() -> None:
    """An alert on an increase is blind to a series that begins with 1."""
    begun = scrape(overview({"master": key_status()}), event("refresh.started"))
    failures = ("unavailable", "denied", "missing", "malformed", "conflict")
    counted = {name: begun.value("keyferry_refresh_total", key="master", outcome=name) for name in failures}
    assert counted == dict.fromkeys(failures, 0)
    assert begun.value("keyferry_publish_total", outcome="failed") == 0


def test_the_last_outcome_is_a_state() -> None:
    """What is wrong now, however long it is until somebody asks again."""
    shown = scrape(overview({"master": key_status(1.0)._replace(outcome="denied")}))
    assert shown.value("keyferry_last_refresh_info", key="master", outcome="denied") == 1
    assert shown.value("keyferry_last_refresh_info", outcome="unchanged") is None


def test_ages_grow_while_nothing_happens(full: Scrape) -> None:
    assert full.value("keyferry_last_success_timestamp_seconds", key="master") == 1_700_000_000.0
    staleness = full.value("keyferry_staleness_seconds", key="master")
    assert staleness is not None
    assert 30.0 <= staleness < 90.0


def test_before_anything_is_known() -> None:
    assert scrape(None).value("keyferry_generation") is None
    nothing = scrape(overview({"master": key_status()}))
    assert nothing.value("keyferry_generation") == 0
    assert nothing.value("keyferry_staleness_seconds", key="master") is None
    assert nothing.value("keyferry_beyond_bound", key="master") == 0


def test_states_follow_the_clock() -> None:
    """A version turns active at its time, even while the loop is elsewhere."""
    ring = keyring(version("gone", None), version("old", 0.0), version("new", time.time() + 3600))
    shown = scrape(overview({"master": key_status(1.0)}, {"master": ring}))
    for name, state in {"gone": "deactivated", "old": "active", "new": "pre-active"}.items():
        assert shown.value("keyferry_key_version_info", key="master", version=name, state=state) == 1
    later = scrape(overview({"master": key_status(1.0)}, {"master": ring}, published_at=time.time() + 7200))
    assert later.value("keyferry_key_version_info", version="new", state="active") == 1
    assert later.value("keyferry_key_version_info", version="old", state="deactivated") == 1


@pytest.mark.parametrize("beyond", [False, True])
def test_beyond_bound_is_what_status_says(beyond: bool) -> None:
    """One rule for both: the bound holds more than staleness, so that alone must not be held against it."""
    status = key_status(1.0)._replace(beyond_bound=beyond)
    assert scrape(overview({"master": status})).value("keyferry_beyond_bound", key="master") == beyond


def test_withdrawn() -> None:
    shown = scrape(
        overview({"master": key_status(1.0, withdrawn="denied")}, {"master": keyring(withdrawn="denied")})
    )
    assert shown.value("keyferry_withdrawn", key="master") == 1
    assert shown.value("keyferry_key_version_info") is None
