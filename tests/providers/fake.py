# SPDX-License-Identifier: Apache-2.0
"""A key store in memory that implements the port: what the agent's own tests fetch from.

The contract suite holds it to the same cells as the real stores.
"""

import threading
from dataclasses import dataclass, field, replace

from agent.errors import DeniedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer, Offered
from keyferry.material import Material


@dataclass(frozen=True, slots=True)
class Stored:
    """One version in the store, or the error that stands in its value's place."""

    id: str
    created_at: float
    value: Material | RefreshError
    first: bool
    activates_at: float | None = None


@dataclass
class FakeStore:
    """Versions in order of activation. ``clock`` stamps them; ``failure`` is raised by each fetch instead."""

    clock: float = 1_700_000_000.0
    versions: list[Stored] = field(default_factory=list)
    failure: RefreshError | None = None
    probe_refused: bool = False
    unstaged: str | None = None
    ttl_seconds: float | None = None
    hold: threading.Event | None = None  # a fetch waits for it: a store that hangs
    fetches: int = 0
    value_reads: int = 0
    _next_id: int = 1

    def create(self, value: str | RefreshError, *, activates_at: float | None = None) -> str:
        """Add a version and return its id."""
        material = Material(value.encode()) if isinstance(value, str) else value
        version_id = str(self._next_id)
        self.versions.append(
            Stored(version_id, self.clock, material, first=self._next_id == 1, activates_at=activates_at)
        )
        self._next_id += 1
        self.clock += 1
        return version_id

    def delete(self, version_id: str) -> None:
        """Take a version's value away."""
        self.versions = [
            replace(v, value=MissingError(f"version {v.id} was deleted")) if v.id == version_id else v
            for v in self.versions
        ]

    def point_at(self, version_id: str) -> None:
        """Make an older version the newest word, as moving AWSCURRENT back does."""
        self.versions.sort(key=lambda version: version.id == version_id)

    def forget(self) -> None:
        """Forget everything, so that the next version is number 1 again."""
        self.versions.clear()
        self._next_id = 1

    def deny(self) -> None:
        """Refuse the value."""
        self.failure = DeniedError("the store refuses the value")

    def fail(self, retry_after_seconds: float | None = None) -> None:
        """Be out of reach."""
        self.failure = UnavailableError("the store is away", retry_after_seconds=retry_after_seconds)

    def recover(self) -> None:
        """Work again."""
        self.failure = None


class FakeProvider:
    """One key in one ``FakeStore``."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.closed = False

    def fetch(self, known: Known) -> Offer:
        store = self._store
        store.fetches += 1
        if store.hold is not None:
            store.hold.wait()
        if store.failure is not None:
            raise store.failure
        if not store.versions:
            message = "the store has no such key"
            raise MissingError(message)
        return Offer(
            tuple(self._offered(version, known) for version in store.versions),
            unstaged=store.unstaged,
            ttl_seconds=store.ttl_seconds,
            warnings=("the store refuses the probe",) if store.probe_refused else (),
        )

    def close(self) -> None:
        self.closed = True

    def _offered(self, version: Stored, known: Known) -> Offered:
        material: Material | RefreshError | None = version.value
        is_newest = version is self._store.versions[-1]
        held = version.id in known and known[version.id] == version.created_at
        if isinstance(material, Material):
            if held and not (self._store.probe_refused and is_newest):
                material = None
            else:
                self._store.value_reads += 1
        return Offered(version.id, version.created_at, material, version.first, version.activates_at)
