# SPDX-License-Identifier: Apache-2.0
"""A directory held by its descriptor, and the few steps on it that publishing needs.

Rules:

- Names are resolved in the descriptor only; links are never followed, files are made with O_EXCL.
- What is made gets its mode and group through its own descriptor before anybody can reach it.
- A link or a file is replaced in one rename. Something else under its name is renamed aside first: renaming
  works where unlinking a planted directory does not, and nothing of somebody else's is lost.
- What fails removes what it made, with no more descriptors than it has.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

TEMPORARY_PREFIX: Final = "..tmp-"
FOREIGN_PREFIX: Final = "..foreign-"

# A keyring of many versions is a few KiB; whatever is larger than this was not written by an agent.
MAX_FILE_BYTES: Final = 16 * 1024 * 1024

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a planted FIFO must not hang the agent.
_OLD_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class ForeignError(OSError):
    """A file or directory is not what an agent of this uid would have made."""


class Directory:
    """An open directory. Use it as a context manager, or call ``close``."""

    def __init__(self, descriptor: int) -> None:
        """Own ``descriptor``."""
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the directory at ``path``, following links as the path's owner meant them."""
        return cls(os.open(path, _DIRECTORY))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the descriptor go."""
        # It holds nothing that was not written yet, so a close that fails loses nothing.
        with suppress(OSError):
            os.close(self.descriptor)

    def stat(self) -> os.stat_result:
        """Return the directory's own state."""
        return os.fstat(self.descriptor)

    def names(self) -> list[str]:
        """Return the names in the directory."""
        return os.listdir(self.descriptor)

    def child(self, name: str) -> "Directory":
        """Open the directory ``name`` in this one; a link is an error."""
        return Directory(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor))

    def make(self, name: str) -> "Directory":
        """Make and open the directory ``name``, for its owner only until it is sealed."""
        os.mkdir(name, stat.S_IRWXU, dir_fd=self.descriptor)
        try:
            return self.child(name)
        except BaseException:
            self.rmdir(name)
            raise

    def write(self, name: str, data: bytes, *, mode: int, group: int | None) -> None:
        """Make the file ``name`` with all of ``data``."""
        descriptor = os.open(name, _NEW_FILE, stat.S_IRUSR | stat.S_IWUSR, dir_fd=self.descriptor)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            seal(descriptor, mode=mode, group=group)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> tuple[bytes, os.stat_result]:
        """Return the regular file ``name`` and its state; ``ForeignError`` for anything else."""
        descriptor = os.open(name, _OLD_FILE, dir_fd=self.descriptor)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_FILE_BYTES:
                message = f"{name} is not a file that an agent wrote"
                raise ForeignError(message)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_FILE_BYTES), info
        finally:
            os.close(descriptor)

    def state(self, name: str) -> os.stat_result | None:
        """Return the state of ``name`` itself, not of what it links to; ``None`` if there is nothing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def link_target(self, name: str) -> str | None:
        """Return where the link ``name`` points, ``None`` if there is no link of that name."""
        try:
            return os.readlink(name, dir_fd=self.descriptor)
        except OSError as error:
            # EINVAL: it is something else. Any other failure must not pass for "no link".
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise

    def set_link(self, name: str, target: str) -> str | None:
        """Make the link ``name`` point to ``target`` in one step.

        Returns the new name of a foreign thing that had to be moved out of the way, else ``None``.
        """
        temporary = _temporary()
        os.symlink(target, temporary, dir_fd=self.descriptor)
        try:
            return self._put(temporary, name, stat.S_ISLNK)
        except BaseException:
            self.clear([temporary])
            raise

    def replace(self, name: str, data: bytes, *, mode: int, group: int | None) -> str | None:
        """Replace the file ``name`` in one step; the result is ``set_link``'s."""
        temporary = _temporary()
        try:
            self.write(temporary, data, mode=mode, group=group)
            return self._put(temporary, name, stat.S_ISREG)
        except BaseException:
            self.clear([temporary])
            raise

    def unlink(self, name: str) -> None:
        """Remove the file or link ``name``; it may be gone already."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def clear(self, names: Iterable[str]) -> None:
        """Remove the files ``names`` as far as possible."""
        for name in names:
            with suppress(OSError):
                os.unlink(name, dir_fd=self.descriptor)

    def clear_temporaries(self) -> None:
        """Remove what a crash in the middle of ``set_link`` or ``replace`` left."""
        self.clear(name for name in self.names() if name.startswith(TEMPORARY_PREFIX))

    def rmdir(self, name: str) -> bool:
        """Remove the empty directory ``name``; return whether it is gone."""
        try:
            os.rmdir(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def remove(self, name: str) -> bool:
        """Remove the directory ``name`` and its files; return whether all of it is gone.

        An agent's directories are flat. A directory planted inside stays, but no file beside it does.
        """
        with suppress(OSError), self.child(name) as child:
            child.clear(child.names())
        return self.rmdir(name)

    def move_aside(self, name: str) -> str:
        """Rename whatever is called ``name`` out of the way and return its new name."""
        aside = f"{FOREIGN_PREFIX}{name.lstrip('.')}.{secrets.token_hex(4)}"
        self._rename(name, aside)
        return aside

    def _put(self, temporary: str, name: str, is_own: Callable[[int], bool]) -> str | None:
        info = self.state(name)
        aside = None if info is None or is_own(info.st_mode) else self.move_aside(name)
        self._rename(temporary, name)
        return aside

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)


def seal(descriptor: int, *, mode: int, group: int | None) -> None:
    """Give what ``descriptor`` holds its group (``None``: leave it) and then its mode.

    In this order: setgid is only granted to a member of the group. The umask has no say. What is right
    already is not touched, since even a change to the same mode wakes up those who watch the directory above.
    """
    info = os.fstat(descriptor)
    if group not in (None, info.st_gid):
        os.fchown(descriptor, -1, group)
    if stat.S_IMODE(info.st_mode) != mode:
        os.fchmod(descriptor, mode)


def _temporary() -> str:
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}"
