# SPDX-License-Identifier: Apache-2.0
"""The one writer of a volume: the writing half of the volume contract (docs/volume-contract.md).

Rules:

- One rename of ``..data`` makes a generation visible. Whatever fails before it leaves the volume as it was
  and nothing behind; whatever fails after it is repaired by the next call or the next start.
- If bytes, modes, owner and links are already as wanted, nothing is written.
- Old generations go some seconds after they were replaced, since a reader may stand in one; at once when a
  key was withdrawn. What ``..data`` shows stays until something else is shown.
- One agent a volume (agent.lock). A lock that somebody removed is taken anew, if no other agent was quicker.

It does not decide what to publish or when. ``boot`` is CLOCK_BOOTTIME seconds, ``now`` Unix seconds.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Final

from agent.directory import Directory, seal
from agent.errors import PublishError, VolumeError
from agent.lock import TakenError, VolumeLock
from agent.payload import Access, Payload, is_generation, number_of
from agent.settings import VolumeSettings
from keyferry.document import DocumentError
from keyferry.layout import DATA_LINK, LOCK_FILE, STATUS_DIRECTORY, STATUS_FILE, Generation, Keyring
from keyferry.times import to_millis

# Measured on a tmpfs with four readers at 20 publications/s: removal at once gave a reader that stood in the
# old generation 183 ENOENT in 5 s, after 0.5 s none. A slow reader gets ten times that.
RETIRE_AFTER_SECONDS: Final = 5.0

# What could not be removed is tried again, seldom enough that its warning stays readable.
RETRY_AFTER_SECONDS: Final = 60.0

# Hears of what happened that nobody asked for: an event's name, and the name on the volume.
Report = Callable[[str, str], None]


class Publisher:
    """Publishes generations on the volume, from ``open`` to ``close``."""

    def __init__(self, settings: VolumeSettings, *, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._number = 0
        self._payload: Payload | None = None
        # Generations that are shown no more, and when each is to be removed.
        self._due: dict[str, float] = {}

    def open(self, boot: float) -> Generation | None:
        """Take the volume: lock it, clear what a crash left, and return the generation to go on from, if any.

        Raises ``VolumeError``, also when another agent has the volume.
        """
        path = self._settings.path
        try:
            with ExitStack() as undo:
                self._root = undo.enter_context(Directory.open(path))
                self._lock = VolumeLock.take(self._root.descriptor, path)
                undo.callback(self._lock.release)
                self._access = Access.of(self._settings, self._root.stat())
                self._recover(boot)
                undo.pop_all()
        except OSError as error:
            message = f"volume.path: {path} cannot be opened ({error.strerror})"
            raise VolumeError(message) from error
        return self.generation

    @property
    def generation(self) -> Generation | None:
        """The generation that is published now, ``None`` before the first."""
        return self._payload.generation if self._payload else None

    def publish(self, keys: Mapping[str, Keyring], *, now: float, boot: float) -> Generation | None:
        """Make ``keys`` visible in one step; return the new generation, or ``None`` if nothing had to change.

        Raises ``PublishError``; then the volume shows what it showed before. ``TakenError`` if another agent
        has the volume by now.
        """
        previous = self._payload
        # No clock counts as earlier than what was published: an activation is never taken back.
        now = to_millis(max(now, previous.generation.published_at if previous else 0.0))
        same = previous is not None and previous.shows(keys, now)
        try:
            self._keep_lock()
            if previous and same and previous.is_intact(self._root, self._access):
                missing = self._missing_links(previous.files)
                self._make_links(missing)
                for name in missing:
                    self._report("volume.repaired", name)
                self._prune_links(previous.files)
                return None
            # Claimed whatever happens next: no number is ever used for two generations.
            self._number += 1
            payload = Payload.of(Generation(self._number, now, dict(keys)))
            self._replace(payload, boot)
        except OSError as error:
            message = f"cannot publish on {self._settings.path} ({error.strerror}); what was published stays"
            raise PublishError(message) from error
        if previous and same:
            self._report("volume.repaired", previous.directory)
        self._prune_links(payload.files)
        if _withdrawn(keys) - _withdrawn(previous.generation.keys if previous else {}):
            self.retire(boot, every=True)
        return payload.generation

    def retire(self, boot: float, *, every: bool = False) -> float | None:
        """Remove generations that were replaced long enough ago; return when the next one is due, if any."""
        for directory, due in list(self._due.items()):
            if not every and boot < due:
                continue
            if self._root.remove(directory):
                del self._due[directory]
            else:
                self._due[directory] = boot + RETRY_AFTER_SECONDS
                self._report("volume.leftover", directory)
        return min(self._due.values(), default=None)

    def write_status(self, document: bytes) -> None:
        """Replace ``..status/status.json``; raises ``PublishError``."""
        mode, group = self._access.mode, self._access.group
        try:
            with self._status_directory() as directory:
                seal(directory.descriptor, mode=self._access.directory_mode, group=group)
                aside = directory.replace(STATUS_FILE, document, mode=mode, group=group)
        except OSError as error:
            place = self._settings.path / STATUS_DIRECTORY / STATUS_FILE
            message = f"cannot write {place} ({error.strerror})"
            raise PublishError(message) from error
        if aside is not None:
            self._report("volume.foreign", f"{STATUS_DIRECTORY}/{aside}")

    def read_status(self) -> bytes | None:
        """Return the heartbeat that an agent of this uid left here, ``None`` if there is none."""
        try:
            with self._root.child(STATUS_DIRECTORY) as directory:
                data, info = directory.read(STATUS_FILE)
                return data if info.st_uid == os.geteuid() else None
        except OSError:
            return None

    def wipe(self) -> None:
        """Remove every key from the volume; raises ``PublishError``."""
        self._payload = None
        try:
            if self._root.link_target(DATA_LINK) is not None:
                self._root.unlink(DATA_LINK)
            self._due = {name: 0.0 for name in self._root.names() if is_generation(name)}
        except OSError as error:
            message = f"cannot wipe {self._settings.path} ({error.strerror}); keys may still be on it"
            raise PublishError(message) from error
        self.retire(0.0, every=True)
        self._prune_links(())
        if self._due:
            leftovers = ", ".join(sorted(self._due))
            message = f"cannot wipe {self._settings.path}: {leftovers} could not be removed"
            raise PublishError(message)

    def close(self) -> None:
        """Give the volume free; what is published stays."""
        self._lock.release()
        self._root.close()

    def _keep_lock(self) -> None:
        if self._lock.is_in_place(self._root.descriptor):
            return
        try:
            lock = VolumeLock.take(self._root.descriptor, self._settings.path)
        except TakenError:
            raise
        except VolumeError:
            # The lock that nobody sees does for this publication: it may be a withdrawal. What is in the way
            # makes room, if it can; the next look tries again.
            with suppress(OSError):
                if self._root.state(LOCK_FILE) is not None:
                    self._report("volume.foreign", self._root.move_aside(LOCK_FILE))
            return
        self._lock.release()
        self._lock = lock
        self._report("volume.repaired", LOCK_FILE)

    def _recover(self, boot: float) -> None:
        self._root.clear_temporaries()
        with suppress(OSError), self._root.child(STATUS_DIRECTORY) as directory:
            directory.clear_temporaries()
        generations = [name for name in self._root.names() if is_generation(name)]
        shown = self._root.link_target(DATA_LINK)
        # The link counts as well: its directory may be gone, and readers have seen it.
        self._number = max(map(number_of, [*generations, shown or ""]))
        # A reader may stand in any of them, so even orphans wait their turn.
        self._due = {name: boot + RETIRE_AFTER_SECONDS for name in generations if name != shown}
        if shown is not None:
            self._adopt(shown, boot)

    def _adopt(self, directory: str, boot: float) -> None:
        try:
            payload = Payload.adopt(self._root, directory)
        except (OSError, DocumentError, PublishError):
            self._report("volume.not_adopted", directory)
            return
        self._payload = payload
        self._number = max(self._number, payload.generation.number)
        # A volume that is full must not keep an agent from going on; the next call tries again.
        with suppress(OSError):
            self._make_links(self._missing_links(payload.files))
        self._prune_links(payload.files)
        if _withdrawn(payload.generation.keys):
            self.retire(boot, every=True)

    def _replace(self, payload: Payload, boot: float) -> None:
        shown = self._root.link_target(DATA_LINK)
        try:
            self._write(payload)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._due:
                raise
            self.retire(boot, every=True)
            self._write(payload)
        # Both, since somebody may have pointed the link elsewhere.
        for directory in {shown, self._payload.directory if self._payload else None}:
            if directory is not None and is_generation(directory):
                self._due[directory] = boot + RETIRE_AFTER_SECONDS
        self._payload = payload

    def _write(self, payload: Payload) -> None:
        # Made before the swap: to a reader, a link whose file is missing is what no link is, and so the plain
        # file of a new key appears in the same instant as everything else.
        missing = self._missing_links(payload.files)
        with self._root.make(payload.directory) as child:
            try:
                payload.write(child, self._access)
                self._make_links(missing)
                self._set_link(DATA_LINK, payload.directory)
            except BaseException:
                # An interruption may come when the swap is already made.
                if self._root.link_target(DATA_LINK) != payload.directory:
                    self._prune_links(self._payload.files if self._payload else (), missing)
                    child.clear(payload.files)
                    self._root.rmdir(payload.directory)
                raise

    def _missing_links(self, names: Collection[str]) -> list[str]:
        return [name for name in names if self._root.link_target(name) != f"{DATA_LINK}/{name}"]

    def _make_links(self, names: Collection[str]) -> None:
        """Make the top-level links that plain readers use."""
        for name in names:
            self._set_link(name, f"{DATA_LINK}/{name}")

    def _prune_links(self, kept: Collection[str], names: Collection[str] | None = None) -> None:
        """Remove the links of keys that are gone, as far as possible: without its file none harms."""
        with suppress(OSError):
            found = self._root.names() if names is None else names
            # No key's name starts with a dot, and a busy volume has many generations.
            for name in {name for name in found if not name.startswith(".")}.difference(kept):
                if self._root.link_target(name) == f"{DATA_LINK}/{name}":
                    self._root.unlink(name)

    def _set_link(self, name: str, target: str) -> None:
        aside = self._root.set_link(name, target)
        if aside is not None:
            self._report("volume.foreign", aside)

    def _status_directory(self) -> Directory:
        info = self._root.state(STATUS_DIRECTORY)
        if info is not None:
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                return self._root.child(STATUS_DIRECTORY)
            self._report("volume.foreign", self._root.move_aside(STATUS_DIRECTORY))
        return self._root.make(STATUS_DIRECTORY)


def _withdrawn(keys: Mapping[str, Keyring]) -> set[str]:
    return {name for name, keyring in keys.items() if keyring.withdrawn is not None}
