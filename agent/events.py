# SPDX-License-Identifier: Apache-2.0
"""What happens in the agent, as plain events that logs and metrics tell of.

Rules:

- One name a thing that happens, each with the fields that say which key, version, reason and duration.
- Field values are shown as they are, so no secret may ever be one: only ids, fingerprints, times and reasons.
- Events are emitted by the main thread only. Those before ``attach`` are kept for the sinks that come later:
  loading the log and metrics libraries takes longer than fetching a key, so it is done after the first one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from keyferry.layout import Generation, Keyring, active_index

Level = Literal["debug", "info", "warning", "error"]


class Event(NamedTuple):
    """One thing that happened ``at`` a time (Unix seconds). ``audit`` marks what an auditor asks for."""

    name: str
    level: Level
    at: float
    audit: bool
    fields: Mapping[str, object]


Sink = Callable[[Event], None]


class Events:
    """Hands each event to every sink, those of the past included."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Stamp events with ``now`` (Unix seconds)."""
        self._now = now
        self._past: list[Event] | None = []
        self._sinks: tuple[Sink, ...] = ()

    def emit(self, name: str, level: Level = "info", /, *, audit: bool = False, **fields: object) -> None:
        """Tell that ``name`` happened."""
        event = Event(name, level, self._now(), audit, fields)
        if self._past is not None:
            self._past.append(event)
        for sink in self._sinks:
            sink(event)

    def attach(self, *sinks: Sink) -> None:
        """Tell ``sinks`` instead of those before; the first ones are told of the past too."""
        past, self._past, self._sinks = self._past or [], None, sinks
        for event in past:
            for sink in sinks:
                sink(event)


def publication_events(
    before: Generation | None, after: Generation
) -> Iterator[tuple[str, Level, dict[str, object]]]:
    """Return what an auditor wants to know of a publication: name, level and fields of each event."""
    for name, keyring in after.keys.items():
        previous = before.keys.get(name) if before else None
        fields: dict[str, object] = {"key": name, "generation": after.number}
        if keyring.withdrawn is not None:
            if previous is None or previous.withdrawn != keyring.withdrawn:
                yield "key.withdrawn", "error", fields | {"reason": keyring.withdrawn}
            continue
        active = keyring.versions[active_index(keyring.versions, after.published_at)]
        fields |= {"version": active.id, "fingerprint": active.fingerprint}
        if previous != keyring:
            yield "key.published", "info", fields | {"versions": [version.id for version in keyring.versions]}
        if before and _active_id(previous, before.published_at) not in (None, active.id):
            yield "key.activated", "info", fields
    for name in before.keys if before else ():
        if name not in after.keys:
            yield "key.removed", "warning", {"key": name, "generation": after.number}


def _active_id(keyring: Keyring | None, now: float) -> str | None:
    if keyring is None or not keyring.versions:
        return None
    return keyring.versions[active_index(keyring.versions, now)].id
