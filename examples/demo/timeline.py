# SPDX-License-Identifier: Apache-2.0
"""What happened, when: recorded as it happens, then asked by the terminal and the picture.

Rules:

- Values only: no clock, file or process. All times are Unix seconds of one machine's clock.
- What counts is when an app saw a version, not when an agent published it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from keyferry.layout import State


class Rotation(NamedTuple):
    """A version was written at a time, and how it becomes known."""

    version: str
    written_at: float
    found_by: str


class Sighting(NamedTuple):
    """An app saw a version in a new state."""

    at: float
    pod: str
    version: str
    state: State


class Sample(NamedTuple):
    """What an app had done by a time."""

    at: float
    encrypted: int
    decrypted: int
    failures: int


@dataclass
class Span:
    """A time without something; the end is unknown while it lasts."""

    start: float
    end: float | None = None


@dataclass
class Timeline:
    """One run of the demo. ``activation_delay`` is in seconds."""

    provider: str
    pods: tuple[str, ...]
    activation_delay: float
    began: float
    ended: float = 0.0
    rotations: list[Rotation] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    due: dict[tuple[str, str], float] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    signals: list[float] = field(default_factory=list)
    away: Span | None = None
    killed: dict[str, Span] = field(default_factory=dict)
    failure: str | None = None

    def take(self, pod: str, message: Mapping[str, Any]) -> list[Sighting]:
        """Record what the app of ``pod`` told, and return what is new about versions."""
        at = message["at"]
        if message["kind"] == "totals":
            sample = Sample(at, message["encrypted"], message["decrypted"], message["failures"])
            self.samples.setdefault(pod, []).append(sample)
            self.failure = self.failure or message["failure"]
            return []
        self.generations[pod] = message["generation"]
        news = []
        for version in message["versions"]:
            id_, state = version["id"], version["state"]
            self.fingerprints[id_] = version["fingerprint"]
            if version["activates_at"] is not None:
                self.due[pod, id_] = version["activates_at"]
            if state != self.state(pod, id_):
                news.append(Sighting(at, pod, id_, state))
        self.sightings += news
        return news

    def state(self, pod: str, version: str) -> State | None:
        """Return the state in which the app of ``pod`` saw ``version`` last."""
        states = [seen.state for seen in self.sightings if (seen.pod, seen.version) == (pod, version)]
        return states[-1] if states else None

    def is_known(self, version: str) -> bool:
        """Tell whether every app has ``version``, in whatever state."""
        return all(self.state(pod, version) is not None for pod in self.pods)

    def everywhere(self, version: str, state: State) -> bool:
        """Tell whether every app sees ``version`` in ``state``."""
        return all(self.state(pod, version) == state for pod in self.pods)

    def reached_after(self, pod: str, version: str) -> float | None:
        """Return the seconds from the write of ``version`` until the app of ``pod`` could decrypt with it."""
        first = self._first(pod, version)
        written = next(
            (rotation.written_at for rotation in self.rotations if rotation.version == version), None
        )
        return None if first is None or written is None else first.at - written

    def late(self, pod: str, version: str) -> float | None:
        """Return how many seconds after its due time the app of ``pod`` saw ``version`` become active."""
        active = self._first(pod, version, "active")
        due = self.due.get((pod, version))
        return None if active is None or due is None else active.at - due

    def segments(self, pod: str, version: str) -> Iterator[tuple[State, float, float]]:
        """Yield state, start and end of each stretch of ``version`` in the app of ``pod``."""
        seen = [seen for seen in self.sightings if (seen.pod, seen.version) == (pod, version)]
        ends = [*(following.at for following in seen[1:]), self.ended]
        for sighting, end in zip(seen, ends, strict=False):
            yield sighting.state, sighting.at, end

    @property
    def totals(self) -> Sample:
        """What all apps together have done by their last samples."""
        last = [samples[-1] for samples in self.samples.values()]
        return Sample(
            max((sample.at for sample in last), default=self.began),
            sum(sample.encrypted for sample in last),
            sum(sample.decrypted for sample in last),
            sum(sample.failures for sample in last),
        )

    def decrypted_by(self, at: float) -> float:
        """Return how many records all apps had decrypted by ``at``, between samples by interpolation."""
        return sum(_interpolate(samples, at) for samples in self.samples.values())

    def decrypts_per_second(self, step: float) -> list[tuple[float, float]]:
        """Return the middle of each ``step`` seconds, and the rate of all apps together in it."""
        edges = [self.began + step * index for index in range(int((self.ended - self.began) / step) + 1)]
        counts = [self.decrypted_by(edge) for edge in edges]
        return [
            (start + step / 2, (after - before) / step)
            for start, (before, after) in zip(edges, pairwise(counts), strict=False)
        ]

    def _first(self, pod: str, version: str, *states: State) -> Sighting | None:
        for seen in self.sightings:
            if (seen.pod, seen.version) == (pod, version) and (not states or seen.state in states):
                return seen
        return None


def _interpolate(samples: list[Sample], at: float) -> float:
    """Return the decrypts by ``at``; nothing before the first sample, nothing more after the last."""
    before = None
    for sample in samples:
        if sample.at >= at:
            if before is None:
                return 0.0
            share = (at - before.at) / (sample.at - before.at)
            return before.decrypted + share * (sample.decrypted - before.decrypted)
        before = sample
    return 0.0 if before is None else float(before.decrypted)
