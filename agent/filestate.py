# SPDX-License-Identifier: Apache-2.0
"""What tells one state of a file from another, without opening it."""

from pathlib import Path
from typing import TypeAlias

FileState: TypeAlias = tuple[int, ...] | None


def file_state(path: Path) -> FileState:
    """Return what changes with the file behind ``path``, ``None`` if there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
