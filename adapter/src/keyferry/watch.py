# SPDX-License-Identifier: Apache-2.0
"""Calls the app back when its key changes.

Rules:

- One daemon thread an adapter. It looks as often as everybody else (``check_interval``, and at the moment of
  an activation). Where watchdog is installed, the kernel's word on a swap of ``..data`` wakes it at once;
  the looks stay, since a watch can be lost and the clock makes no file event. Whatever keeps watchdog from
  working leaves the looks alone.
- A callback that fails is logged by its place and type, without the values that its text may hold, and ends
  nothing.
- A forked child gets a thread of its own, without the kernel's help: a watch does not survive a fork.
"""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from keyferry.key import Snapshot
from keyferry.layout import DATA_LINK

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

Callback: TypeAlias = Callable[[Snapshot], object]

# Keeps a check_interval of 0 from turning the thread into a busy loop.
_SHORTEST_PAUSE_SECONDS: Final = 0.01
_PAUSE_AFTER_FAILURE_SECONDS: Final = 1.0
_logger: Final = logging.getLogger("keyferry")


class Watch:
    """The callbacks of one adapter and the thread that calls them.

    ``observe`` returns the snapshot that is there, if any, and in how many seconds to look again.
    """

    def __init__(self, path: str, key: str, observe: Callable[[], tuple[Snapshot | None, float]]) -> None:
        self._path = path
        self._name = f"keyferry-watch-{key}"
        self._observe = observe
        self._callbacks: list[Callback] = []
        self._seen: Snapshot | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, callback: Callback) -> None:
        """Register ``callback``; the first one starts the thread. What is there already is no change."""
        with self._lock:
            self._callbacks.append(callback)
            if self._thread is None:
                self._seen, _ = self._observe()
                self._start(kernel=True)

    def close(self, timeout: float) -> None:
        """Forget the callbacks and stop the thread; log if it does not stop within ``timeout`` seconds."""
        with self._lock:
            self._callbacks.clear()
            thread, self._thread = self._thread, None
        # In this order: the thread forgets a wake-up before it asks whether it should go on.
        self._wake.set()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            _logger.warning("thread %s is still in a callback after %g s", thread.name, timeout)

    def after_fork(self) -> None:
        """Replace, in a child, what did not come along: the thread, and the locks that another may hold."""
        self._lock = threading.Lock()
        if self._thread is not None:
            self._start(kernel=False)

    def _start(self, *, kernel: bool) -> None:
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._wake, kernel), name=self._name, daemon=True
        )
        self._thread.start()

    def _run(self, wake: threading.Event, kernel: bool) -> None:  # noqa: FBT001 -- Thread passes args by position
        observer = _listen(self._path, wake) if kernel else None
        while self._thread is threading.current_thread():
            try:
                pause = self._turn()
            except Exception as error:  # noqa: BLE001 -- a thread that must not end
                kind = type(error).__qualname__
                _logger.error("thread %s: unexpected %s, going on", self._name, kind)  # noqa: TRY400 -- as below
                pause = _PAUSE_AFTER_FAILURE_SECONDS
            wake.wait(max(pause, _SHORTEST_PAUSE_SECONDS))
            wake.clear()
        if observer is not None:
            observer.stop()

    def _turn(self) -> float:
        snapshot, pause = self._observe()
        if snapshot is not None and _differ(snapshot, self._seen):
            self._seen = snapshot
            for callback in tuple(self._callbacks):
                _call(callback, snapshot)
        return pause


def _differ(snapshot: Snapshot, seen: Snapshot | None) -> bool:
    # Another generation alone is no change: it may be another key's.
    return seen is None or snapshot.versions != seen.versions


def _call(callback: Callback, snapshot: Snapshot) -> None:
    try:
        callback(snapshot)
    except Exception as error:  # noqa: BLE001 -- the app's code, whatever it raises
        # Needed rarely, and it costs an app some milliseconds at its start.
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        kind, file = type(error).__qualname__, place.filename
        _logger.error(  # noqa: TRY400 -- a traceback ends with the error's text, which may hold values
            "on_change callback failed with %s at %s:%s, going on", kind, file, place.lineno
        )


def _listen(path: str, wake: threading.Event) -> "BaseObserver | None":
    """Set ``wake`` at each swap of ``..data``, if watchdog is there and the system lets it."""
    try:
        return _observer(path, wake)
    # Whatever it is, the looks go on without: the app's watchdog may be older than ours, or a half of one.
    except Exception as error:  # noqa: BLE001 -- as above
        _logger.debug("no kernel events for %s (%s): looking at intervals only", path, error)
        return None


def _observer(path: str, wake: threading.Event) -> "BaseObserver":
    from watchdog.events import FileMovedEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Swaps(FileSystemEventHandler):
        def on_moved(self, event: "FileSystemEvent") -> None:
            if str(event.dest_path).endswith(f"/{DATA_LINK}"):
                wake.set()

    observer = Observer()
    # The directory, not the link: a watch on what the link points to dies with the first swap.
    observer.schedule(Swaps(), path, event_filter=[FileMovedEvent])
    observer.start()
    return observer
