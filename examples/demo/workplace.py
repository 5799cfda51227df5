# SPDX-License-Identifier: Apache-2.0
"""Where the demo works: one directory in memory that is gone afterwards, whatever happens."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.volume import mount_of

PLACES = ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/run")  # noqa: S108 - only looked at


class NoTmpfsError(Exception):
    """No file system in memory was found that this user may write to."""

    def __str__(self) -> str:
        looked = ", ".join(filter(None, PLACES))
        return (
            f"no tmpfs that you may write to ({looked}); mount one (mount -t tmpfs tmpfs /dev/shm), or "
            "accept that the demo's throw-away keys reach a disk: --no-tmpfs"
        )


@contextmanager
def workplace(*, in_memory: bool) -> Iterator[Path]:
    """Give a directory of this user's own, and remove it with everything in it; raises ``NoTmpfsError``."""
    parent = find_tmpfs() if in_memory else None
    home = Path(tempfile.mkdtemp(prefix="keyferry-demo-", dir=parent))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def find_tmpfs() -> Path:
    """Return the first place that is in memory and writable."""
    for place in map(Path, filter(None, PLACES)):
        mount = mount_of(place) if place.is_dir() and os.access(place, os.W_OK | os.X_OK) else None
        if mount is not None and mount.file_system == "tmpfs":
            return place
    raise NoTmpfsError
