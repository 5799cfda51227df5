# SPDX-License-Identifier: Apache-2.0
"""The agent's one loop: it does what is due, publishes, waits, and takes what came.

Rules:

- Everything that decides or writes happens in this loop's thread. Provider calls, the watcher and HTTP run in
  daemon threads that only post messages or read the last ``Overview``.
- Each turn looks at the whole state, not at what woke it. A message that is lost or doubled changes nothing.
- Publishing comes first: log, metrics, HTTP and watcher are loaded when the first refresh of every key has
  ended, or after a moment if a provider is slow.
"""

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from agent import __version__
from agent.call import Call
from agent.clock import Moment, boot_id, moment
from agent.errors import ConfigError
from agent.events import Events
from agent.exits import Exit
from agent.filestate import FileState, file_state
from agent.keyset import Keyset
from agent.loading import Loaded, restart_reasons
from agent.overview import Overview
from agent.providers import open_provider
from agent.publication import Publication
from agent.wakeup import Wakeup, reap
from keyferry.status import Status

if TYPE_CHECKING:
    from agent.services import Services

# How long the first refresh may hold up probes and logs.
FIRST_REFRESH_SECONDS: Final = 0.5
# The loop turns at least this often, so that /livez can tell a stuck loop from a quiet one.
LONGEST_WAIT_SECONDS: Final = 5.0


class Changed(NamedTuple):
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
        self._keys = Keyset(events=self._events, opener=open_provider, done=self._wakeup.post)
        self._config_problems: tuple[str, ...] = ()
        # What the refused configuration fills in: it may be good once they are there.
        self._refused_files: tuple[Path, ...] = ()
        self._seen: dict[Path, FileState] = {}
        self._services: Services | None = None
        self._is_telling = False
        self._started_up = False
        self._exit: Exit | None = None
        self.overview: Overview | None = None

    def run(self) -> Exit:
        """Run until a signal (or the end of ``once``) and return the exit code.

        Raises ``VolumeError`` or ``ConfigError`` if it cannot begin.
        """
        self._began = moment()
        # Signals are handled up to the end: a second one must not spoil it.
        with self._wakeup:
            reap()  # what ended before anybody listened
            try:
                self._open_volume()
                try:
                    return self._loop()
                finally:
                    self._publication.close()
            finally:
                self._end_telling()

    def _loop(self) -> Exit:
        while True:
            self._turn(moment())
            if self._exit is None:
                self._listen()
            if self._exit is not None:
                break
        # What `once` brought is for those who come after it.
        if self._loaded.settings.volume.wipe_on_exit and not self._once:
            self._publication.wipe()
        return self._exit

    def _listen(self) -> None:
        for message in self._wakeup.wait(self._wait_seconds(moment())):
            self._take(message, moment())
            # What else came does not hold up the end.
            if self._exit is not None:
                return

    def _open_volume(self) -> None:
        warnings = self._publication.open(self._began)
        keys = list(self._loaded.settings.keys)
        self._events.emit("agent.started", version=__version__, uid=os.geteuid(), keys=keys)
        for warning in (*self._loaded.warnings, *warnings):
            self._events.emit("agent.warning", "warning", reason=warning)
        self._keys.configure(self._loaded.settings)
        # Before anything is fetched: a change from now on is told when the watcher comes, and nothing else.
        self._seen = {file: file_state(file) for file in self._loaded.watched}
        adopted = self._publication.generation
        if adopted is not None:
            self._keys.adopt(adopted, self._publication.last_status(), self._began)
            self._events.emit("volume.adopted", generation=adopted.number)

    def _turn(self, at: Moment) -> None:
        self._keys.turn(at)
        self._publication.turn(self._keys.entries(at.now), at)
        self._pass_startup(at)
        self.overview = self._look(at)
        if self._publication.heartbeat_due:
            self._publication.beat(self.overview.status)
        # Last, for it takes longer than all the rest: by then key and heartbeat are out.
        self._look_after_services(at)

    def _wait_seconds(self, at: Moment) -> float:
        times = [
            at.boot + LONGEST_WAIT_SECONDS,
            self._keys.next_turn(at),
            self._publication.next_turn(self._keys.entries(at.now), at),
        ]
        if not self._is_telling:
            times.append(self._began.boot + FIRST_REFRESH_SECONDS)
        timeout = self._loaded.settings.startup.timeout
        if timeout is not None and not self._started_up:
            times.append(self._began.boot + timeout)
        return max(0.0, min(times) - at.boot)

    def _take(self, message: Call | Changed | signal.Signals, at: Moment) -> None:
        match message:
            case Call():
                # By a clock that was ahead for a while, what is new now would seem to be due at once.
                self._keys.finished(message, self._publication.as_of(at))
                self._publication.look_soon()
                self._publication.heartbeat_due = True
            case Changed(files, volume):
                self._take_change(files, volume=volume)
            case signal.SIGHUP:
                self._events.emit("signal.received", signal=message.name)
                self._reload_config()
                self._keys.refresh_all()
            case signal.SIGCHLD:
                reap()
            case _:
                self._events.emit("signal.received", signal=message.name)
                self._exit = Exit.FAILED if self._once else Exit.OK

    def _take_change(self, files: Collection[Path], *, volume: bool) -> None:
        # What a failed try made and removed is heard as a change too; then the retry keeps its own time.
        if volume and self._publication.problem is None:
            self._publication.look_soon()
        if not set(files).isdisjoint((*self._loaded.files, *self._refused_files)):
            self._reload_config()
        self._keys.files_changed(files)

    # Start-up, and the end of `once`

    def _pass_startup(self, at: Moment) -> None:
        if self._started_up:
            return
        # `run` is content with what it adopted, `once` was asked to fetch and publish.
        unready = self._keys.unready(self._publication.generation, confirmed=self._once)
        self._started_up = not unready and not (self._once and self._publication.problem is not None)
        timeout = self._loaded.settings.startup.timeout
        if self._started_up:
            self._exit = Exit.OK if self._once else None
        elif timeout is not None and at.boot - self._began.boot >= timeout:
            self._events.emit("startup.timeout", "error", seconds=timeout, keys=dict(unready))
            self._exit = Exit.NOT_READY
        elif self._once and timeout is None and self._keys.is_attempted:
            self._exit = Exit.FAILED

    def _look_after_services(self, at: Moment) -> None:
        if self._services is not None:
            self._services.check()
        elif not self._is_telling and (
            self._keys.is_attempted or at.boot - self._began.boot >= FIRST_REFRESH_SECONDS
        ):
            self._begin_to_tell()

    # What others see

    def _look(self, at: Moment) -> Overview:
        generation = self._publication.generation
        status = Status(
            agent_version=__version__,
            pid=os.getpid(),
            boot_id=boot_id(),
            started_at=self._began.now,
            written_at=at.now,
            generation=generation.number if generation else 0,
            config_problems=self._config_problems,
            keys=self._keys.statuses(at),
            publish_problem=self._publication.problem,
        )
        return Overview(at.boot, status, generation, self._keys.unready(generation))

    def _begin_to_tell(self) -> None:
        self._is_telling = True
        # Imported late: log, metrics, HTTP and watchdog cost more time than fetching and publishing a key.
        if self._once:
            self._attach_log()
            return
        from agent.services import Services

        self._services = Services(
            self._loaded, events=self._events, overview=lambda: self.overview, changed=self._changed
        )
        self._services.start(self._seen)

    def _end_telling(self) -> None:
        if self._services is not None:
            self._services.stop()
        elif not self._is_telling:
            # It ended before the log was loaded, and must not end in silence.
            self._attach_log()

    def _attach_log(self) -> None:
        from agent import logs

        self._events.attach(logs.sink(self._loaded.settings.log))

    def _changed(self, files: Collection[Path], volume: bool) -> None:  # noqa: FBT001 - the watcher's callback
        self._wakeup.post(Changed(files, volume))

    # Configuration

    def _reload_config(self) -> None:
        self._publication.heartbeat_due = True
        before = self._loaded
        try:
            loaded = self._reload()
        except ConfigError as error:
            self._refuse_config(error.problems, tuple(map(Path, error.files)))
            return
        reasons = restart_reasons(before.settings, loaded.settings)
        if reasons:
            self._refuse_config(reasons, loaded.files)
            return
        if self._config_problems:
            self._config_problems = self._refused_files = ()
            self._events.emit("config.accepted", audit=True)
        self._loaded = loaded
        for warning in loaded.warnings:
            if warning not in before.warnings:
                self._events.emit("agent.warning", "warning", reason=warning)
        # Even if the settings are the same: they may come from other files now.
        if self._services is not None:
            self._services.configure(loaded)
        if loaded.settings == before.settings:
            return
        self._keys.configure(loaded.settings)
        self._keys.refresh_all()
        self._events.emit("config.reloaded", audit=True, keys=list(loaded.settings.keys))

    def _refuse_config(self, problems: tuple[str, ...], files: tuple[Path, ...]) -> None:
        self._refused_files = files
        if self._services is not None:
            self._services.configure(self._loaded, files)
        if problems != self._config_problems:
            self._config_problems = problems
            self._events.emit("config.refused", "error", audit=True, problems=list(problems))
