# SPDX-License-Identifier: Apache-2.0
"""Reads the file that a key comes from.

Rules:

- The file is opened once and read through that descriptor, so one fetch sees one file whatever is swapped
  meanwhile. Only regular files are read, at most 1 MiB, and opening never blocks.
- A refused permission is unavailable, not denied: a mode says as little about the key as a proxy's 403 does,
  and the kill switch must not fire for a chmod. Taking the key away is deleting the file: missing.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.errors import MalformedError, MissingError, UnavailableError

SIZE_LIMIT: Final = 1 << 20
_SWAP_ATTEMPTS: Final = 3


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
