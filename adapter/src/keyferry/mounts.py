# SPDX-License-Identifier: Apache-2.0
"""The mounts that this process sees, as the system tells them; nothing else is looked at.

The format is Linux's, see proc_pid_mountinfo(5).
"""

import os
import re
from typing import Final, NamedTuple

_MOUNTINFO: Final = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """What lies at ``point``: the part ``root`` of the file system on ``device`` (``major:minor``)."""

    device: str
    root: str
    point: str
    file_system: str
    options: frozenset[str]


def mounts() -> list[Mount]:
    """Return all mounts, one that covers another behind it; none where the system does not tell."""
    try:
        with open(_MOUNTINFO, "rb") as stream:
            text = os.fsdecode(stream.read())
    except OSError:
        return []
    # Not splitlines: names are bytes that may be anything but a newline.
    return [_mount(line) for line in text.split("\n") if line]


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    _, _, device, root, point, *_ = before.split(" ")
    file_system, _, options = after.split(" ", 2)
    return Mount(device, _unescape(root), _unescape(point), file_system, frozenset(options.split(",")))


def _unescape(text: str) -> str:
    # Space, tab, newline and backslash are written as \ooo.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
