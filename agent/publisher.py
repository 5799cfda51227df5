# SPDX-License-Identifier: Apache-2.0
"""Writes generations on the volume: the writing half of the volume contract (docs/volume-contract.md).

Rules:

- One rename of ``..data`` makes a generation visible. Whatever fails before it leaves the volume as it was
  and nothing behind; whatever fails after it is repaired by the next call or the next start.
- If bytes, modes, owner and links are already as wanted, nothing is written.
- Old generations go some seconds after they were replaced, since a reader may stand in one; at once when a
  key was withdrawn.
- A generation is taken over from an agent before only if this uid made it and nobody else could change it.
- One agent a volume (agent.lock).

It does not decide what to publish or when. ``boot`` is CLOCK_BOOTTIME seconds, ``now`` Unix seconds.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.directory import TEMPORARY_PREFIX, Directory, ForeignError, seal
from agent.errors import PublishError, VolumeError
from agent.lock import VolumeLock
from agent.settings import VolumeSettings
from agent.volume import target_group
from keyferry.document import DocumentError
from keyferry.layout import (
    DATA_LINK,
    GENERATION_PREFIX,
    KEYRING_FILE,
    STATUS_DIRECTORY,
    STATUS_FILE,
    Generation,
    Keyring,
    active_index,
    parse,
    serialize,
)
from keyferry.times import to_millis

# Measured on a tmpfs with four readers at 20 publications/s: removal at once gave a reader that stood in the
# old generation 183 ENOENT in 5 s, after 0.5 s none. A slow reader gets ten times that.
RETIRE_AFTER_SECONDS: Final = 5.0

# Hears of what happened that nobody asked for: an event's name, and the name on the volume.
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class _Published:
    """What ``..data`` points to: the directory's name, the generation, and the plain files of its keys."""

    directory: str
    generation: Generation
    keyring_file: bytes
    plain: Mapping[str, bytes]

    @property
    def files(self) -> Mapping[str, bytes]:
        return {KEYRING_FILE: self.keyring_file, **self.plain}


class Publisher:
    """The one writer of a volume."""

    def __init__(self, settings: VolumeSettings, *, report: Report) -> None:
        """Keep the arguments; ``open`` does the work."""
        self._settings = settings
        self._report = report
        # Whoever may read the files may also enter their directory.
        self._directory_mode = stat.S_IRWXU | (settings.mode & 0o044) | (settings.mode & 0o044) >> 2
        self._group: int | None = None
        self._number = 0
        self._published: _Published | None = None
        self._demoted: dict[str, float] = {}

    def open(self, boot: float) -> Generation | None:
        """Take the volume: lock it, clear what a crash left, and return the generation to go on from, if any.

        Raises ``VolumeError``, also when another agent has the volume.
        """
        path = self._settings.path
        try:
            self._root = Directory.open(path)
        except OSError as error:
            message = f"volume.path: {path} cannot be opened ({error.strerror})"
            raise VolumeError(message) from error
        self._lock = VolumeLock.take(self._root.descriptor, path)
        self._choose_group()
        self._recover(boot)
        return self.generation

    @property
    def generation(self) -> Generation | None:
        """The generation that is published now, ``None`` before the first."""
        return self._published.generation if self._published else None

    def publish(self, keys: Mapping[str, Keyring], *, now: float, boot: float) -> Generation | None:
        """Make ``keys`` visible in one step; return the new generation, or ``None`` if nothing had to change.

        Raises ``PublishError``; then the volume shows what it showed before.
        """
        previous = self._published
        # No clock counts as earlier than what was published: an activation is never taken back.
        now = to_millis(max(now, previous.generation.published_at if previous else 0.0))
        plain = {
            name: keyring.versions[active_index(keyring.versions, now)].material.raw
            for name, keyring in keys.items()
            if keyring.versions
        }
        try:
            if previous and previous.generation.keys == keys and previous.plain == plain and self._intact(previous):
                self._link_names(plain)
                return None
            generation = Generation(self._number + 1, now, dict(keys))
            self._replace(generation, plain, boot)
            self._link_names(plain)
        except OSError as error:
            message = f"cannot publish on {self._settings.path} ({error.strerror}); what was published stays"
            raise PublishError(message) from error
        if any(keyring.withdrawn is not None for keyring in keys.values()):
            self.retire(boot, every=True)
        return generation

    def retire(self, boot: float, *, every: bool = False) -> float | None:
        """Remove generations that were replaced long enough ago; return when the next one is due, if any."""
        for directory, demoted in list(self._demoted.items()):
            if every or boot - demoted >= RETIRE_AFTER_SECONDS:
                del self._demoted[directory]
                self._remove(directory)
        return min(self._demoted.values()) + RETIRE_AFTER_SECONDS if self._demoted else None

    def write_status(self, document: bytes) -> None:
        """Replace ``..status/status.json``; raises ``PublishError``."""
        try:
            with self._status_directory() as directory:
                seal(directory.descriptor, mode=self._directory_mode, group=self._group)
                directory.replace(STATUS_FILE, document, mode=self._settings.mode, group=self._group)
        except OSError as error:
            message = f"cannot write {STATUS_DIRECTORY}/{STATUS_FILE} on {self._settings.path} ({error.strerror})"
            raise PublishError(message) from error

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
        try:
            self._root.unlink(DATA_LINK)
            if self._published:
                self._demoted[self._published.directory] = 0.0
                self._published = None
            self._link_names({})
        except OSError as error:
            message = f"cannot wipe {self._settings.path} ({error.strerror})"
            raise PublishError(message) from error
        self.retire(0.0, every=True)

    def close(self) -> None:
        """Give the volume free; what is published stays."""
        self._lock.release()
        self._root.close()

    def _choose_group(self) -> None:
        try:
            group = target_group(self._settings, self._root.stat())
        except KeyError:
            message = f"volume.group: there is no group {self._settings.group!r} here; give its number"
            raise VolumeError(message) from None
        # Who is not a member cannot give files away, and asking for setgid would be undone by the kernel:
        # then the files keep the group that they get, and `check` says so.
        if os.geteuid() == 0 or group in (os.getegid(), *os.getgroups()):
            self._group = group
            self._directory_mode |= stat.S_ISGID

    def _status_directory(self) -> Directory:
        try:
            return self._root.make(STATUS_DIRECTORY)
        except FileExistsError:
            pass
        with suppress(OSError):
            directory = self._root.child(STATUS_DIRECTORY)
            if directory.stat().st_uid == os.geteuid():
                return directory
            directory.close()
        self._report("volume.foreign", self._root.move_aside(STATUS_DIRECTORY))
        return self._root.make(STATUS_DIRECTORY)

    def _recover(self, boot: float) -> None:
        names = self._root.names()
        _unlink_temporaries(self._root)
        with suppress(OSError), self._root.child(STATUS_DIRECTORY) as directory:
            _unlink_temporaries(directory)
        generations = [name for name in names if name.startswith(GENERATION_PREFIX)]
        self._number = max((_number(name) for name in generations), default=0)
        target = self._root.link_target(DATA_LINK)
        if target is not None:
            self._adopt(target)
        # A reader may stand in any of them, so even orphans wait their turn.
        self._demoted = dict.fromkeys(generations, boot)
        if self._published:
            self._demoted.pop(self._published.directory, None)
            self._link_names(self._published.plain)

    def _adopt(self, directory: str) -> None:
        """Take over what ``..data`` points to, if an agent of this uid made it and nobody else can change it."""
        try:
            if not directory.startswith(GENERATION_PREFIX) or "/" in directory:
                message = f"{DATA_LINK} points elsewhere"
                raise ForeignError(message)
            with self._root.child(directory) as child:
                _require_own(child.stat())
                files = {}
                for name in child.names():
                    files[name], info = child.read(name)
                    _require_own(info)
            generation = parse(files.pop(KEYRING_FILE))
        except (OSError, KeyError, DocumentError):
            self._report("volume.not_adopted", directory)
            return
        self._number = max(self._number, generation.number)
        self._published = _Published(directory, generation, serialize(generation), files)

    def _replace(self, generation: Generation, plain: Mapping[str, bytes], boot: float) -> None:
        try:
            published = self._write(generation, plain)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._demoted:
                raise
            self.retire(boot, every=True)
            published = self._write(generation, plain)
        if self._published:
            self._demoted[self._published.directory] = boot
        self._number = generation.number
        self._published = published

    def _write(self, generation: Generation, plain: Mapping[str, bytes]) -> _Published:
        directory = f"{GENERATION_PREFIX}{generation.number:06d}.{secrets.token_hex(4)}"
        published = _Published(directory, generation, serialize(generation), plain)
        try:
            with self._root.make(directory) as child:
                for name, data in published.files.items():
                    child.write(name, data, mode=self._settings.mode, group=self._group)
                seal(child.descriptor, mode=self._directory_mode, group=self._group)
            self._set_link(DATA_LINK, directory)
        except BaseException:
            self._remove(directory)
            raise
        return published

    def _remove(self, directory: str) -> None:
        if not self._root.remove(directory):
            self._report("volume.leftover", directory)

    def _link_names(self, plain: Mapping[str, bytes]) -> None:
        """Make the top-level links that plain readers use, and remove those of keys that are gone."""
        wanted = {name: f"{DATA_LINK}/{name}" for name in ([KEYRING_FILE, *plain] if self._published else [])}
        for name in self._root.names():
            target = self._root.link_target(name)
            if target == f"{DATA_LINK}/{name}" and name not in wanted:
                self._root.unlink(name)
            elif target is not None and wanted.get(name) == target:
                del wanted[name]
        for name, target in wanted.items():
            self._set_link(name, target)

    def _set_link(self, name: str, target: str) -> None:
        aside = self._root.set_link(name, target)
        if aside is not None:
            self._report("volume.foreign", aside)

    def _intact(self, published: _Published) -> bool:
        """Tell whether the published files are on the volume as they were written."""
        if self._root.link_target(DATA_LINK) != published.directory:
            return False
        try:
            with self._root.child(published.directory) as child:
                if not self._is_own(child.stat(), self._directory_mode):
                    return False
                if set(child.names()) != set(published.files):
                    return False
                for name, wanted in published.files.items():
                    data, info = child.read(name)
                    if data != wanted or not self._is_own(info, self._settings.mode):
                        return False
        except OSError:
            return False
        return True

    def _is_own(self, info: os.stat_result, mode: int) -> bool:
        return (
            info.st_uid == os.geteuid()
            and self._group in (None, info.st_gid)
            and stat.S_IMODE(info.st_mode) == mode
        )


def _number(directory: str) -> int:
    digits = directory.removeprefix(GENERATION_PREFIX).partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _unlink_temporaries(directory: Directory) -> None:
    for name in directory.names():
        if name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):
                directory.unlink(name)


def _require_own(info: os.stat_result) -> None:
    if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = "it was made by somebody else, or somebody else may change it"
        raise ForeignError(message)
