# SPDX-License-Identifier: Apache-2.0
"""Keeps the volume at what the refreshers hold, and tells what came of it.

Rules:

- Each look compares what should be there with what is, whatever called for it.
- A failure to publish or to write the heartbeat is told and tried again; what was published stays.
- A version's activation by the clock alone is a publication too: plain files change at that moment.
"""

from collections.abc import Mapping
from typing import Final

from agent.clock import Moment
from agent.errors import PublishError, VolumeError
from agent.events import Events, publication_events
from agent.publisher import Publisher
from agent.settings import VolumeSettings
from agent.volume import inspect
from keyferry.document import DocumentError
from keyferry.layout import Generation, Keyring, active_index, next_activation
from keyferry.status import Status, parse_status, serialize_status

# A full volume is not empty a moment later, and each try is told: the waits double up to a minute. A refresh
# or a signal brings the next look at once, a change on the volume does not: the try itself made one.
FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 60.0

_NEVER: Final = float("inf")


class Publication:
    """The agent's hold on its volume, from ``open`` to ``close``."""

    def __init__(self, settings: VolumeSettings, events: Events) -> None:
        """Keep the arguments; nothing is touched yet."""
        self._settings = settings
        self._events = events
        self._publisher = Publisher(settings, report=self._report)
        self._look_due = _NEVER
        self._retire_due = _NEVER
        self.heartbeat_due = False
        self._retry_seconds = FIRST_RETRY_SECONDS
        # Why the volume lacks what it should show, if publishing failed.
        self.problem: str | None = None

    @property
    def generation(self) -> Generation | None:
        """The generation that is published now, ``None`` before the first."""
        return self._publisher.generation

    def open(self, at: Moment) -> tuple[str, ...]:
        """Take the volume and what is published there; return warnings. Raises ``VolumeError``."""
        inspection = inspect(self._settings)
        if inspection.problems:
            raise VolumeError("\n".join(inspection.problems))
        self._publisher.open(at.boot)
        # What a crash left may have to go; the first turn looks.
        self._retire_due = at.boot
        return inspection.warnings

    def last_status(self) -> Status | None:
        """Return the heartbeat that the agent before this one left, ``None`` if there is none to believe."""
        data = self._publisher.read_status()
        try:
            return None if data is None else parse_status(data)
        except DocumentError as error:
            self._events.emit("volume.warning", "warning", reason=str(error))
            return None

    def as_of(self, at: Moment) -> Moment:
        """Return ``at``, but not before what is published: no activation that was seen is taken back."""
        shown = self.generation
        return at if shown is None else at._replace(now=max(at.now, shown.published_at))

    def look_soon(self) -> None:
        """Look at the volume in the next turn: something may have changed there."""
        self._look_due = 0.0

    def turn(self, entries: Mapping[str, Keyring], at: Moment) -> None:
        """Publish ``entries`` if they are not what is published, and remove what was replaced long ago."""
        if at.boot >= self._look_due or (self._look_due == _NEVER and self._differs(entries, at)):
            self._publish(entries, at)
        if at.boot >= self._retire_due:
            self._retire(at)

    def next_turn(self, entries: Mapping[str, Keyring], at: Moment) -> float:
        """Return when ``turn`` has something to do (boot clock), infinity if only a change can bring it."""
        times = [self._look_due, self._retire_due]
        for keyring in entries.values():
            activation = next_activation(keyring.versions, at.now) if keyring.versions else None
            if activation is not None:
                times.append(at.boot + activation - at.now)
        return min(times)

    def beat(self, status: Status) -> None:
        """Write the heartbeat."""
        self.heartbeat_due = False
        try:
            self._publisher.write_status(serialize_status(status))
        except PublishError as error:
            self._events.emit("heartbeat.failed", "error", reason=str(error))

    def wipe(self) -> None:
        """Remove every key from the volume; raises ``PublishError``."""
        self._publisher.wipe()

    def close(self) -> None:
        """Give the volume free; what is published stays."""
        self._publisher.close()

    def _differs(self, entries: Mapping[str, Keyring], at: Moment) -> bool:
        shown = self.generation
        if shown is None:
            return bool(entries)
        return shown.keys != entries or any(
            active_index(keyring.versions, self.as_of(at).now)
            != active_index(keyring.versions, shown.published_at)
            for keyring in entries.values()
        )

    def _publish(self, entries: Mapping[str, Keyring], at: Moment) -> None:
        self._look_due = _NEVER
        before = self.generation
        if not entries and before is None:
            return
        try:
            after = self._publisher.publish(entries, now=at.now, boot=at.boot)
        except PublishError as error:
            self._look_due = at.boot + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY_SECONDS)
            self.problem = str(error)
            self.heartbeat_due = True
            self._events.emit("publish.failed", "error", reason=self.problem)
            return
        self._retry_seconds = FIRST_RETRY_SECONDS
        self.heartbeat_due = self.heartbeat_due or self.problem is not None
        self.problem = None
        if after is None:
            return
        self.heartbeat_due = True
        self._retire(at)
        self._events.emit("generation.published", "debug", generation=after.number)
        for name, level, fields in publication_events(before, after):
            self._events.emit(name, level, audit=True, **fields)

    def _retire(self, at: Moment) -> None:
        due = self._publisher.retire(at.boot)
        self._retire_due = _NEVER if due is None else due

    def _report(self, event: str, name: str) -> None:
        self._events.emit(event, "warning", audit=True, name=name)
