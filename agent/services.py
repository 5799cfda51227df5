# SPDX-License-Identifier: Apache-2.0
"""What the running agent has beside its loop: log, metrics, HTTP and watcher.

They are in a module of their own because importing them takes longer than fetching and publishing a key.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from agent import logs
from agent.events import Events
from agent.filestate import FileState
from agent.loading import Loaded
from agent.metrics import Metrics
from agent.overview import Overview
from agent.watcher import Notify, Watcher
from agent.web import Server


class Services:
    """Starts, reconfigures and stops them together."""

    def __init__(
        self, loaded: Loaded, *, events: Events, overview: Callable[[], Overview | None], changed: Notify
    ) -> None:
        """Keep the arguments; ``start`` begins."""
        self._loaded = loaded
        self._events = events
        self._changed = changed
        self._metrics = Metrics(overview)
        self._server = Server(loaded.settings.http, overview, self._metrics)
        self._watcher = Watcher(loaded.settings.volume.path, notify=changed, warn=self._warn)

    def start(self, seen: Mapping[Path, FileState] | None = None) -> None:
        """Begin to log, serve and watch. ``ConfigError`` if HTTP cannot listen.

        ``seen`` is how the files were when they were read.
        """
        self._events.attach(logs.sink(self._loaded.settings.log), self._metrics.count)
        address = self._server.start()
        if address is not None:
            self._events.emit("http.listening", address=address)
        self._watcher.start(self._loaded.watched, seen)
        # What changed there before it was watched would go unseen; looking again is cheap.
        self._changed(self._loaded.files, True)  # noqa: FBT003 - as the watcher calls it

    def configure(self, loaded: Loaded, more_files: Iterable[Path] = ()) -> None:
        """Log and watch as ``loaded`` says, and watch ``more_files``; what it may not change was refused."""
        self._loaded = loaded
        self._events.attach(logs.sink(loaded.settings.log), self._metrics.count)
        self._watcher.watch({*loaded.watched, *more_files})

    def check(self) -> None:
        """Tell it if the watcher has ended by itself. The agent goes on without."""
        if self._watcher.broken:
            self._watcher.stop()
            self._warn("the watcher has ended: changes are seen by the timer and by SIGHUP only")

    def stop(self) -> None:
        """End serving and watching."""
        self._watcher.stop()
        self._server.stop()

    def _warn(self, reason: str) -> None:
        self._events.emit("agent.warning", "warning", reason=reason)
