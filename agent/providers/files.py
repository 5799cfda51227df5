# SPDX-License-Identifier: Apache-2.0
"""Reads the file that a key comes from, and makes and replaces it for those who keep it.

Rules:

- The file is opened once and read through that descriptor, so one fetch sees one file whatever is swapped
  meanwhile. Only regular files are read, at most 1 MiB, and opening never blocks.
- A refused permission is unavailable, not denied: a mode says as little about the key as a proxy's 403 does,
  and the kill switch must not fire for a chmod. Taking the key away is deleting the file: missing.
- A file is made or replaced whole and on disk, or not at all. Whoever does it holds a lock on its directory,
  sees what is in it then, and removes what a killed one left there; a link is followed, and stays.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.errors import MalformedError, MissingError, UnavailableError
from agent.providers.lifecycle import ExistsError

SIZE_LIMIT: Final = 1 << 20
_SWAP_ATTEMPTS: Final = 3
_LOCK_SECONDS: Final = 10.0
_LOCK_EVERY_SECONDS: Final = 0.02
_HINTS: Final = {
    errno.EROFS: "; a mounted ConfigMap or Secret is changed at its source, not in the pod",
    errno.ENOENT: "; make its directory first",
}


def read_file(path: Path) -> bytes:
    """Return what the regular file at ``path`` holds; raise ``RefreshError`` if it cannot be had."""
    try:
        descriptor = _open(path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _irregular(path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(SIZE_LIMIT + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"file {path} does not exist; create it, or check the volume's mount and the key's path"
        raise MissingError(message) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise _irregular(path) from error
        hint = f"; the agent runs as uid {os.geteuid()}" if isinstance(error, PermissionError) else ""
        message = f"cannot read file {path}: {error.strerror}{hint}"
        raise UnavailableError(message) from error
    if len(data) > SIZE_LIMIT:
        message = f"file {path} is larger than 1 MiB, which is no key"
        raise MalformedError(message)
    return data


def _open(path: Path) -> int:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(_SWAP_ATTEMPTS):
        # The old directory of a volume can vanish between its link ..data being read and being followed.
        with suppress(FileNotFoundError):
            return os.open(path, flags)
    return os.open(path, flags)


def _irregular(path: Path) -> MalformedError:
    return MalformedError(f"{path} is not a regular file; name the file that holds the key")


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Make the file at ``path``; raises ``ExistsError`` where there is something, or ``UnavailableError``."""
    with _writing(path), _locked(path), _written(path, data, mode) as temporary:
        try:
            # A rename would overwrite, and O_EXCL on the name itself would let readers see half of it.
            os.link(temporary, path)
        except FileExistsError:
            message = f"file {path} exists already; nothing was written"
            raise ExistsError(message) from None
        _sync(path.parent)


def change_file(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace what the file at ``path`` holds by what ``change`` makes of it; one at a time.

    What ``change`` raises comes out, and the file is as it was. Mode and owner stay.
    """
    with _writing(path):
        target = path.resolve()
        with _locked(target):
            data = change(read_file(target))
            before = target.stat()
            with _written(target, data, stat.S_IMODE(before.st_mode)) as temporary:
                os.chown(temporary, before.st_uid, before.st_gid)
                temporary.rename(target)
                _sync(target.parent)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot write file {path}: {error.strerror}{_HINTS.get(error.errno or 0, '')}"
        raise UnavailableError(message) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # On the directory: the file itself is another one after each change, and a lock file would stay behind.
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                message = (
                    f"another one is changing file {path}, or holds a lock on its directory, for more than "
                    f"{_LOCK_SECONDS:g} s; nothing was written"
                )
                raise UnavailableError(message)
            time.sleep(_LOCK_EVERY_SECONDS)
        _sweep(path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what writers of ``path`` left who were killed: it holds a key. A living one holds the lock."""
    for entry in list(os.scandir(path.parent)):
        if re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}", entry.name):
            Path(entry.path).unlink()


@contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Lend a new file beside ``path`` that holds ``data``, on disk; nothing is left of its name."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
