# SPDX-License-Identifier: Apache-2.0
"""All configured keys: what the loop asks of each refresher, asked of all.

Rules:

- A key that the configuration no longer names is dropped, whatever its call still brings.
- One key's trouble is no other's: nothing here waits, and each has its own record and timer.
- A key that a new configuration adds to those of a running agent does not count for readiness until it is
  published: a typo in it would take every pod out of service at once, though the app has all that it had.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from agent import health
from agent.call import Call, Opener
from agent.clock import Moment, boot_id
from agent.events import Events
from agent.refresher import Refresher
from agent.settings import Settings
from keyferry.layout import Generation, Keyring
from keyferry.status import KeyStatus, Status


class Keyset:
    """The refreshers by the names of their keys."""

    def __init__(self, *, events: Events, opener: Opener, done: Callable[[Call], None]) -> None:
        """Keep what every refresher needs; ``configure`` makes them."""
        self._events = events
        self._opener = opener
        self._done = done
        self._refreshers: dict[str, Refresher] = {}
        self._added: set[str] = set()

    def configure(self, settings: Settings) -> None:
        """Carry the keys of ``settings`` from now on."""
        # Not where a key goes: a rename takes from the app what it had.
        if self._refreshers and self._refreshers.keys() <= settings.keys.keys():
            self._added |= settings.keys.keys() - self._refreshers.keys()
        refreshers = {}
        for name, key in settings.keys.items():
            refresher = self._refreshers.get(name)
            if refresher is None:
                refresher = Refresher(
                    key, settings, events=self._events, opener=self._opener, done=self._done
                )
            else:
                refresher.configure(key, settings)
            refreshers[name] = refresher
        self._refreshers = refreshers

    def adopt(self, published: Generation, status: Status | None, at: Moment) -> None:
        """Go on from what an agent before this one published, and from its heartbeat where there is one."""
        same_boot = status is not None and status.boot_id == boot_id()
        for name, refresher in self._refreshers.items():
            if name in published.keys:
                before = status.keys.get(name) if status else None
                record = health.resumed(
                    before,
                    published_at=published.published_at,
                    now=at.now,
                    boot=at.boot,
                    same_boot=same_boot,
                )
                refresher.adopt(published.keys[name], record)

    def turn(self, at: Moment) -> None:
        """Do what is due."""
        for refresher in self._refreshers.values():
            refresher.turn(at)

    def next_turn(self, at: Moment) -> float:
        """Return when ``turn`` has something to do (boot clock), infinity if only a message can bring it."""
        return min((refresher.next_turn(at) for refresher in self._refreshers.values()), default=float("inf"))

    def finished(self, call: Call, at: Moment) -> None:
        """Take the result of ``call``."""
        if call.key in self._refreshers:
            self._refreshers[call.key].finished(call, at)

    def refresh_all(self) -> None:
        """Ask for every key as soon as possible."""
        for refresher in self._refreshers.values():
            refresher.refresh_soon()

    def files_changed(self, files: Collection[Path]) -> None:
        """Ask as soon as possible for the keys that come from ``files``, or whose login reads them."""
        for refresher in self._refreshers.values():
            key = refresher.key
            if not set(files).isdisjoint((*key.source_files, *key.credential_files)):
                refresher.refresh_soon()

    def entries(self, now: float) -> dict[str, Keyring]:
        """Return what should be on the volume."""
        entries = {name: refresher.entry(now) for name, refresher in self._refreshers.items()}
        return {name: entry for name, entry in entries.items() if entry is not None}

    def statuses(self, at: Moment) -> dict[str, KeyStatus]:
        """Return what the heartbeat says of each key."""
        return {name: refresher.status(at) for name, refresher in self._refreshers.items()}

    @property
    def is_attempted(self) -> bool:
        """Whether every key was asked for, and the answer is here or was given up."""
        return all(refresher.record.attempts for refresher in self._refreshers.values())

    def unready(
        self, published: Generation | None, *, confirmed: bool = False
    ) -> tuple[tuple[str, str], ...]:
        """Return the keys that cannot be read, and why; or with ``confirmed`` were not fetched either."""
        keys = published.keys if published else {}
        unready = []
        for name, refresher in self._refreshers.items():
            keyring, record = keys.get(name), refresher.record
            if keyring is None and name in self._added:
                continue
            if keyring is None or (confirmed and record.outcome not in ("changed", "unchanged")):
                waits = "not published yet" if record.last_success_at else "not fetched yet"
                unready.append((name, record.reason or waits))
            elif keyring.withdrawn is not None:
                unready.append((name, f"withdrawn: {keyring.withdrawn}"))
        return tuple(unready)
