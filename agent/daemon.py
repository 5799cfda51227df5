# SPDX-License-Identifier: Apache-2.0
"""The agent's one loop: it does what is due, publishes, waits, and takes what came.

Rules:

- Everything that decides or writes happens in this loop's thread. Provider calls, the watcher and HTTP run in
  daemon threads that only post messages or read the last ``View``.
- Each turn looks at the whole state, not at what woke it. A message that is lost or doubled changes nothing.
- Publishing comes first: log, metrics, HTTP and watcher are loaded when the first refresh of every key has
  ended, or after a moment if a provider is slow.
"""

import os
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent import __version__, health
from agent.call import Call
from agent.clock import Moment, moment
from agent.errors import ConfigError
from agent.events import Events
from agent.exits import Exit
from agent.loading import Loaded, restart_reasons
from agent.providers import open_provider
from agent.publication import Publication
from agent.refresher import Refresher
from agent.view import View
from agent.wakeup import Wakeup
from keyferry.layout import Keyring
from keyferry.status import Status

if TYPE_CHECKING:
    from agent.services import Services

# How long the first refresh may hold up probes and logs.
FIRST_REFRESH_SECONDS: Final = 0.5
# The loop turns at least this often, so that /livez can tell a stuck loop from a quiet one.
LONGEST_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Changed:
    """The watcher's message: these files changed, or something on the volume did."""

    files: Collection[Path]
    volume: bool


class Daemon:
    """Carries the configured keys to the volume until it is told to stop."""

    def __init__(self, loaded: Loaded, reload: Callable[[], Loaded], *, once: bool = False) -> None:
        """Keep the configuration and how to load it anew; ``once`` ends the run with the first refresh."""
        self._loaded = loaded
        self._reload = reload
        self._once = once
        self._events = Events(lambda: moment().now)
        self._wakeup: Wakeup[Call | Changed] = Wakeup(
            [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD]
        )
        self._publication = Publication(loaded.settings.volume, self._events)
        self._refreshers: dict[str, Refresher] = {}
        self._config_problems: tuple[str, ...] = ()
        self._services: Services | None = None
        self._started_up = False
        self._exit: Exit | None = None
        self.view: View | None = None

    def run(self) -> Exit:
        """Run until a signal (or the end of ``once``) and return the exit code.

        Raises ``VolumeError`` or ``ConfigError`` if it cannot begin.
        """
        self._began = moment()
        try:
            with self._wakeup:
                _reap()  # what ended before anybody listened
                self._open_volume()
                try:
                    while self._exit is None:
                        self._turn(moment())
                        if self._exit is None:
                            for message in self._wakeup.wait(self._wait_seconds(moment())):
                                self._take(message, moment())
                    # What `once` brought is for those who come after it.
                    if self._loaded.settings.volume.wipe_on_exit and not self._once:
                        self._publication.wipe()
                finally:
                    self._publication.close()
        finally:
            self._stop_services()
        return self._exit

    def _open_volume(self) -> None:
        warnings = self._publication.open(self._began)
        keys = list(self._loaded.settings.keys)
        self._events.emit("agent.started", version=__version__, uid=os.geteuid(), keys=keys)
        for warning in (*self._loaded.warnings, *warnings):
            self._events.emit("agent.warning", "warning", reason=warning)
        self._configure_keys()
        adopted = self._publication.generation
        if adopted is None:
            return
        status = self._publication.last_status()
        for name, refresher in self._refreshers.items():
            if name in adopted.keys:
                before = status.keys.get(name) if status else None
                same_boot = status is not None and status.boot_id == _boot_id()
                record = health.resumed(
                    before, now=self._began.now, boot=self._began.boot, same_boot=same_boot
                )
                refresher.adopt(adopted.keys[name], record)
        self._events.emit("volume.adopted", generation=adopted.number)

    def _turn(self, at: Moment) -> None:
        for refresher in self._refreshers.values():
            refresher.turn(at)
        self._publication.turn(self._entries(at), at)
        self._pass_startup(at)
        self.view = self._look(at)
        if self._publication.heartbeat_due:
            self._publication.beat(self.view.status)
        if self._services is not None:
            self._services.check()

    def _wait_seconds(self, at: Moment) -> float:
        times = [at.boot + LONGEST_WAIT_SECONDS, self._publication.next_turn(self._entries(at), at)]
        times += [refresher.next_turn(at) for refresher in self._refreshers.values()]
        if self._services is None and not self._once:
            times.append(self._began.boot + FIRST_REFRESH_SECONDS)
        timeout = self._loaded.settings.startup.timeout
        if timeout is not None and not self._started_up:
            times.append(self._began.boot + timeout)
        return max(0.0, min(times) - at.boot)

    def _take(self, message: Call | Changed | signal.Signals, at: Moment) -> None:
        match message:
            case Call():
                if message.key in self._refreshers:
                    self._refreshers[message.key].finished(message, at)
                self._publication.look_soon()
                self._publication.heartbeat_due = True
            case Changed(files, volume):
                self._take_change(files, volume=volume)
            case signal.SIGHUP:
                self._events.emit("signal.received", signal=message.name)
                self._reload_config()
                self._refresh_all()
            case signal.SIGCHLD:
                _reap()
            case _:
                self._events.emit("signal.received", signal=message.name)
                self._exit = Exit.FAILED if self._once else Exit.OK

    def _take_change(self, files: Collection[Path], *, volume: bool) -> None:
        if volume:
            self._publication.look_soon()
        if not set(files).isdisjoint(self._loaded.files):
            self._reload_config()
        for refresher in self._refreshers.values():
            key = refresher.key
            if not set(files).isdisjoint((*key.source_files, *key.credential_files)):
                refresher.refresh_soon()

    def _entries(self, at: Moment) -> dict[str, Keyring]:
        entries = {name: refresher.entry(at.now) for name, refresher in self._refreshers.items()}
        return {name: entry for name, entry in entries.items() if entry is not None}

    # Start-up, and the end of `once`

    def _pass_startup(self, at: Moment) -> None:
        waited = at.boot - self._began.boot
        attempted = all(refresher.record.attempts for refresher in self._refreshers.values())
        if self._services is None and not self._once and (attempted or waited >= FIRST_REFRESH_SECONDS):
            self._start_services()
        if self._started_up:
            return
        unready = self._unready()
        self._started_up = not unready
        timeout = self._loaded.settings.startup.timeout
        if self._started_up:
            self._exit = Exit.OK if self._once else None
        elif timeout is not None and waited >= timeout:
            self._events.emit("startup.timeout", "error", seconds=timeout, keys=dict(unready))
            self._exit = Exit.NOT_READY
        elif self._once and timeout is None and attempted:
            self._exit = Exit.FAILED

    def _unready(self) -> tuple[tuple[str, str], ...]:
        """Return the keys that hold up the agent, and why; ``run`` is content with what it adopted."""
        generation = self._publication.generation
        published = generation.keys if generation else {}
        unready = []
        for name, refresher in self._refreshers.items():
            keyring, record = published.get(name), refresher.record
            if keyring is None or (self._once and record.outcome not in ("changed", "unchanged")):
                unready.append((name, record.reason or "not fetched yet"))
            elif keyring.withdrawn is not None:
                unready.append((name, f"withdrawn: {keyring.withdrawn}"))
        return tuple(unready)

    # What others see

    def _look(self, at: Moment) -> View:
        generation = self._publication.generation
        status = Status(
            agent_version=__version__,
            pid=os.getpid(),
            boot_id=_boot_id(),
            started_at=self._began.now,
            written_at=at.now,
            generation=generation.number if generation else 0,
            config_problems=self._config_problems,
            keys={name: refresher.status(at) for name, refresher in self._refreshers.items()},
        )
        return View(at.boot, status, generation, self._unready())

    def _start_services(self) -> None:
        # Imported late: log, metrics, HTTP and watchdog cost more time than fetching and publishing a key.
        from agent.services import Services

        self._services = Services(
            self._loaded, events=self._events, view=lambda: self.view, changed=self._changed
        )
        self._services.start()

    def _stop_services(self) -> None:
        if self._services is None:
            # Not started yet, or not needed by `once`: the events must reach the log all the same.
            from agent import logs

            self._events.attach(logs.sink(self._loaded.settings.log))
        else:
            self._services.stop()

    def _changed(self, files: Collection[Path], volume: bool) -> None:  # noqa: FBT001 - the watcher's callback
        self._wakeup.post(Changed(files, volume))

    # Configuration

    def _configure_keys(self) -> None:
        settings = self._loaded.settings
        for name in list(self._refreshers):
            if name not in settings.keys:
                del self._refreshers[name]
        refreshers = {}
        for name, key in settings.keys.items():
            refresher = self._refreshers.get(name)
            if refresher is None:
                refresher = Refresher(
                    key, settings, events=self._events, opener=open_provider, done=self._wakeup.post
                )
            else:
                refresher.configure(key, settings)
            refreshers[name] = refresher
        self._refreshers = refreshers

    def _reload_config(self) -> None:
        self._publication.heartbeat_due = True
        before = self._loaded
        try:
            loaded = self._reload()
        except ConfigError as error:
            self._refuse_config(error.problems)
            return
        reasons = restart_reasons(before.settings, loaded.settings)
        if reasons:
            self._refuse_config(reasons)
            return
        self._config_problems = ()
        self._loaded = loaded
        for warning in loaded.warnings:
            if warning not in before.warnings:
                self._events.emit("agent.warning", "warning", reason=warning)
        if loaded.settings == before.settings:
            return
        self._configure_keys()
        self._refresh_all()
        if self._services is not None:
            self._services.configure(loaded)
        self._events.emit("config.reloaded", audit=True, keys=list(loaded.settings.keys))

    def _refuse_config(self, problems: tuple[str, ...]) -> None:
        if problems != self._config_problems:
            self._config_problems = problems
            self._events.emit("config.refused", "error", audit=True, problems=list(problems))

    def _refresh_all(self) -> None:
        for refresher in self._refreshers.values():
            refresher.refresh_soon()


def _reap() -> None:
    """Collect orphans that were handed to this process, which happens when it is PID 1."""
    if os.getpid() != 1:
        return
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
