# SPDX-License-Identifier: Apache-2.0
"""The agent as Prometheus metrics (docs/operations.md has the list and the alerts).

Counters follow the events; everything else is read off the last ``Overview`` at the moment of the scrape, so
that ages grow and states change even while nothing happens.
"""

from collections.abc import Callable, Iterable
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from agent.clock import moment
from agent.events import Event
from agent.overview import Overview
from keyferry.layout import states
from keyferry.status import Outcome

# From a cache's answer to the default timeout.
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Counters begin at 0: Prometheus sees no increase in a series that is born with 1, so a first failure
# would have no alert.
_REFRESH_OUTCOMES: Final = tuple(outcome for outcome in get_args(Outcome) if outcome != "none")
_PUBLISH_OUTCOMES: Final = ("published", "failed")


class Metrics(Collector):
    """Counts events and describes the overview in Prometheus' text format."""

    def __init__(self, overview: Callable[[], Overview | None]) -> None:
        """Read ages and states off ``overview``."""
        self._overview = overview
        # A second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._refreshes = Counter(
            "keyferry_refresh",
            "Refreshes by outcome.",
            ("key", "provider", "outcome"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "keyferry_refresh_duration_seconds",
            "How long a refresh took until its answer was there.",
            ("key", "provider"),
            buckets=_DURATION_BUCKETS,
            registry=self._registry,
        )
        self._publications = Counter(
            "keyferry_publish",
            "Generations published, and attempts that failed.",
            ("outcome",),
            registry=self._registry,
        )
        for outcome in _PUBLISH_OUTCOMES:
            self._publications.labels(outcome)
        self._calls = Counter(
            "keyferry_provider_calls",
            "Fetches begun at a provider.",
            ("key", "provider"),
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count(self, event: Event) -> None:
        """Count what ``event`` tells."""
        fields = event.fields
        match event.name:
            case "refresh.started":
                self._calls.labels(fields["key"], fields["provider"]).inc()
                for outcome in _REFRESH_OUTCOMES:
                    self._refreshes.labels(fields["key"], fields["provider"], outcome)
            case "refresh.succeeded" | "refresh.failed":
                self._refreshes.labels(fields["key"], fields["provider"], fields["outcome"]).inc()
                duration = fields.get("duration")
                if isinstance(duration, float):
                    self._durations.labels(fields["key"], fields["provider"]).observe(duration)
            case "generation.published":
                self._publications.labels("published").inc()
            case "publish.failed":
                self._publications.labels("failed").inc()

    def render(self) -> bytes:
        """Return all metrics in the text exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Describe the overview at this moment."""
        overview = self._overview()
        if overview is None:
            return
        yield GaugeMetricFamily(
            "keyferry_generation", "Number of the published generation.", overview.status.generation
        )
        yield from _key_metrics(overview)
        yield _outcome_metric(overview)
        yield _version_metric(overview)


def _key_metrics(overview: Overview) -> Iterable[Metric]:
    def gauge(name: str, meaning: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"keyferry_{name}", meaning, labels=("key",))

    last_success = gauge(
        "last_success_timestamp_seconds", "When the provider last confirmed the key (Unix time)."
    )
    staleness = gauge("staleness_seconds", "Seconds since the provider last confirmed the key.")
    beyond_bound = gauge("beyond_bound", "1 if the key may lack a version that other replicas already have.")
    bound = gauge("bound_seconds", "The longest time this replica may take to have a new version.")
    delay = gauge("activation_delay_seconds", "How long a new version waits before it encrypts.")
    failures = gauge("refresh_failures", "Refreshes that failed in a row.")
    withdrawn = gauge("withdrawn", "1 if the key may no longer be used.")
    boot = moment().boot
    for name, key in overview.status.keys.items():
        labels = (name,)
        age = None if key.last_success_boottime is None else max(0.0, boot - key.last_success_boottime)
        if age is not None and key.last_success_at is not None:
            last_success.add_metric(labels, key.last_success_at)
            staleness.add_metric(labels, age)
        beyond_bound.add_metric(labels, float(key.beyond_bound))
        bound.add_metric(labels, key.bound_seconds)
        delay.add_metric(labels, key.activation_delay_seconds)
        failures.add_metric(labels, key.failures)
        withdrawn.add_metric(labels, float(key.withdrawn is not None))
    return last_success, staleness, beyond_bound, bound, delay, failures, withdrawn


def _outcome_metric(overview: Overview) -> Metric:
    info = GaugeMetricFamily(
        "keyferry_last_refresh_info", "1 for the outcome of the last refresh.", labels=("key", "outcome")
    )
    for name, key in overview.status.keys.items():
        info.add_metric((name, key.outcome), 1.0)
    return info


def _version_metric(overview: Overview) -> Metric:
    info = GaugeMetricFamily(
        "keyferry_key_version_info", "1 for each version on the volume.", labels=("key", "version", "state")
    )
    generation = overview.generation
    if generation is None:
        return info
    now = max(moment().now, generation.published_at)
    for name, keyring in generation.keys.items():
        for version, state in zip(keyring.versions, states(keyring.versions, now), strict=True):
            info.add_metric((name, version.id, state), 1.0)
    return info
