# SPDX-License-Identifier: Apache-2.0
"""The lock that makes an agent the only writer of its volume, and tells others which process that is.

A lock on the root itself would be simpler, but any reader of the volume could take it.
"""

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from agent.errors import VolumeError
from keyferry.layout import LOCK_FILE

# Whoever asks for the holder has the lock for some microseconds. That is no second agent.
_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.02


class TakenError(VolumeError):
    """Another agent has the volume."""


class VolumeLock:
    """``..lock``, held by flock(2) as long as the process lives.

    It contains the holder's pid and the inode of its pid namespace: in another container the same number is
    somebody else, perhaps the app.
    """

    def __init__(self, descriptor: int) -> None:
        """Own ``descriptor``, whose file is locked."""
        self._descriptor = descriptor

    @classmethod
    def take(cls, root: int, path: Path) -> Self:
        """Take the lock in the directory ``root``; ``TakenError`` names the agent that has it.

        ``VolumeError`` says what stands in its place.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(LOCK_FILE, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=root)
        except OSError as error:
            message = (
                f"volume.path: {path}/{LOCK_FILE} cannot be opened for writing ({error.strerror}); "
                "remove what is there, or give the agent a writable volume of its own"
            )
            raise VolumeError(message) from error
        try:
            _check(os.fstat(descriptor), path)
            _lock(descriptor, path)
            # The pid is for people. A volume that is full must not keep an agent from what it published.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} {_pid_namespace()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def is_in_place(self, root: int) -> bool:
        """Tell whether ``..lock`` in the directory ``root`` is still the file that is locked."""
        try:
            found = os.stat(LOCK_FILE, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._descriptor))

    def release(self) -> None:
        """Give the volume free. The file stays: removing it would race with the next holder."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(path: Path) -> int | None:
    """Return the pid of the agent that has the volume at ``path``, ``None`` if no agent runs on it.

    Raises ``VolumeError`` where this process may not look, or where the agent is in another pid namespace.
    """
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{path}/{LOCK_FILE} cannot be read ({error.strerror}); ask with the uid that the agent has"
        raise VolumeError(message) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, namespace = _content(descriptor)
        if namespace not in (None, _pid_namespace()):
            message = (
                f"the agent on {path} (pid {pid} there) runs in another container; run this command in it"
            )
            raise VolumeError(message) from None
        return pid
    else:
        return None
    finally:
        os.close(descriptor)


def _check(info: os.stat_result, path: Path) -> None:
    # Writing the pid through a second name of some other file would destroy that file, and whoever may open
    # the lock may hold it.
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1 or info.st_uid != os.geteuid():
        message = (
            f"volume.path: {path}/{LOCK_FILE} is not a file that an agent of uid {os.geteuid()} made; "
            "remove what is there, or give the agent a volume of its own"
        )
        raise VolumeError(message)


def _lock(descriptor: int, path: Path) -> None:
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_SECONDS)
    message = (
        f"volume.path: another keyferry-agent (pid {_content(descriptor)[0] or 'unknown'}) already publishes "
        f"on {path}; one volume has one agent: stop the other, or give this one its own volume"
    )
    raise TakenError(message)


def _content(descriptor: int) -> tuple[int | None, int | None]:
    """Return pid and pid namespace of the holder, as far as they are there."""
    numbers = [int(word) for word in os.pread(descriptor, 40, 0).split() if word.isdigit()]
    pid, namespace = [*numbers[:2], None, None][:2]
    return pid, namespace


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
