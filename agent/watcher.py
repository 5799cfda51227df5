# SPDX-License-Identifier: Apache-2.0
"""Notices at once what a timer would notice later: changed configuration, sources, credentials and volume.

Rules:

- A file is watched through its directory, since a ConfigMap changes by a swap of ``..data`` beside it and an
  editor by a rename onto it. What counts is whether the file behind the name is another one now.
- Events come in bursts; one message is posted when they have been quiet for a moment.
- It only says that something changed. Missing an event is harmless: everything is looked at now and then
  all the same. So what cannot be watched is told, and costs promptness only.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from agent.filestate import FileState, file_state
from keyferry.layout import STATUS_DIRECTORY

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

QUIET_SECONDS: Final = 0.02
# A burst that never ends (a busy log in the same directory) must not hold the message back for ever.
LONGEST_BURST_SECONDS: Final = 0.5
# Without any event: there may be no watches left, and a link's target in another directory makes none.
LOOK_EVERY_SECONDS: Final = 30.0

# Without this filter every read by the app would be an event too.
_CHANGES: Final[list[type[FileSystemEvent]]] = [
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]

Notify = Callable[[Collection[Path], bool], None]


class Watcher(FileSystemEventHandler):
    """Watches files and the volume; calls ``notify(files, volume_changed)`` in a thread of its own."""

    def __init__(self, volume: Path, *, notify: Notify, warn: Callable[[str], None]) -> None:
        """Keep the arguments; ``start`` watches. ``warn`` hears, in that thread, what is not watched."""
        # Resolved: inotify would watch a link in the place of the directory behind it.
        self._volume = str(volume.resolve())
        self._status = f"{self._volume}/{STATUS_DIRECTORY}"
        self._notify = notify
        self._warn = warn
        self._observer: BaseObserver | None = None
        self._watches: dict[str, ObservedWatch] = {}
        self._states: dict[Path, FileState] = {}
        self._volume_touched = False
        self._touched = threading.Event()
        self._stopping = False
        self._teller = threading.Thread(target=self._tell_changes, name="watcher", daemon=True)

    def start(self, files: Iterable[Path], seen: Mapping[Path, FileState] | None = None) -> None:
        """Watch ``files`` and the volume; tell at once which files are not as they were ``seen``."""
        self._states = dict(seen or {})
        try:
            observer = Observer()
            # First, so that a directory that cannot be watched does not keep the others from it.
            observer.start()
        except OSError as error:
            self._warn(_unwatched("files", error))
        else:
            self._observer = observer
            self._schedule(self._volume, recursive=True)
        self.watch(files)
        self._touched.set()
        self._teller.start()

    def watch(self, files: Iterable[Path]) -> None:
        """Watch these files instead of those before. A directory that does not exist is not watched."""
        wanted = {file: self._states[file] if file in self._states else file_state(file) for file in files}
        directories = {str(file.parent.resolve()) for file in wanted if file.parent.is_dir()}
        self._states = wanted
        if self._observer is None:
            return
        for directory in self._watches.keys() - directories:
            self._observer.unschedule(self._watches.pop(directory))
        for directory in directories - self._watches.keys():
            watch = self._schedule(directory)
            if watch is not None:
                self._watches[directory] = watch

    @property
    def broken(self) -> bool:
        """Whether it should be watching and one of its threads has ended."""
        threads = [self._teller] if self._observer is None else [self._teller, self._observer]
        return not self._stopping and not all(thread.is_alive() for thread in threads)

    def stop(self) -> None:
        """Stop watching."""
        self._stopping = True
        self._touched.set()
        if self._observer is not None:
            self._observer.stop()
            self._observer = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note that something happened; runs in the observer's thread."""
        path = os.fsdecode(event.src_path)
        # The heartbeat is the agent's own; hearing it would wake the loop after every refresh.
        if path == self._status or path.startswith(f"{self._status}/"):
            return
        if path == self._volume or path.startswith(f"{self._volume}/"):
            self._volume_touched = True
        self._touched.set()

    def _schedule(self, directory: str, *, recursive: bool = False) -> "ObservedWatch | None":
        assert self._observer is not None  # noqa: S101 - for the type checker
        try:
            return self._observer.schedule(self, directory, recursive=recursive, event_filter=_CHANGES)
        except OSError as error:
            self._warn(_unwatched(directory, error))
            return None

    def _tell_changes(self) -> None:
        while True:
            heard = self._touched.wait(LOOK_EVERY_SECONDS)
            if self._stopping:
                return
            if heard:
                self._wait_for_quiet()
            touched, self._volume_touched = self._volume_touched or not heard, False
            # ``watch`` may put others in its place meanwhile.
            states = self._states
            changed = {file for file, before in states.items() if file_state(file) != before}
            for file in changed:
                states[file] = file_state(file)
            if changed or touched:
                self._notify(changed, touched)

    def _wait_for_quiet(self) -> None:
        end = time.monotonic() + LONGEST_BURST_SECONDS
        while time.monotonic() < end:
            self._touched.clear()
            if not self._touched.wait(QUIET_SECONDS):
                return
        self._touched.clear()


def _unwatched(what: str, error: OSError) -> str:
    late = f"changes there are noticed within {LOOK_EVERY_SECONDS:g} s, not at once"
    return f"cannot watch {what} ({error.strerror}): {late}"
