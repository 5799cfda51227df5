# SPDX-License-Identifier: Apache-2.0
"""Looks at the volume before it is trusted with a key: what it is, whose it is, what could go wrong.

It only looks. ``problems`` refuse the volume, ``warnings`` are for the operator (design section 11).
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agent.settings import VolumeSettings
from keyferry.mounts import Mount, mounts

_MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs")
_MOUNT_ONE: Final = "mount an emptyDir with medium: Memory there"


class Inspection(NamedTuple):
    """What stands against the volume (``problems``) and what should be known of it (``warnings``)."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect(settings: VolumeSettings) -> Inspection:
    """Return what is wrong with the volume's root and what its operator should know."""
    path = settings.path
    try:
        info = path.stat()
    except FileNotFoundError:
        return _refused(f"volume.path: {path} does not exist; {_MOUNT_ONE}")
    except OSError as error:
        return _refused(f"volume.path: {path} cannot be looked at ({error.strerror})")
    if not stat.S_ISDIR(info.st_mode):
        return _refused(f"volume.path: {path} is not a directory; {_MOUNT_ONE}")
    mount = mount_of(path)
    return Inspection(tuple(_problems(settings, mount)), tuple(_warnings(settings, mount, info)))


def mount_of(path: Path) -> Mount | None:
    """Return the mount that ``path`` lies on, ``None`` if the system does not tell."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(path)
    found = [
        mount
        for mount in mounts()
        if mount.device == wanted and f"{real}/".startswith(f"{mount.point.rstrip('/')}/")
    ]
    # Several mounts may show one device (bind mounts). The deepest above the path is in use, and of several
    # at one point the last, which covers the others.
    return max(reversed(found), key=lambda mount: len(mount.point), default=None)


def _refused(problem: str) -> Inspection:
    return Inspection((problem,), ())


def _problems(settings: VolumeSettings, mount: Mount | None) -> Iterator[str]:
    path = settings.path
    if settings.require_tmpfs and (mount is None or mount.file_system not in _MEMORY_FILE_SYSTEMS):
        kind = f"on {mount.file_system}" if mount else "of an unknown kind"
        yield (
            f"volume.path: {path} is {kind}, not a tmpfs: keys could reach a disk. Mount an emptyDir with "
            "medium: Memory, or set volume.require_tmpfs: false if you accept that"
        )
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        yield (
            f"volume.path: {path} is not writable for uid {os.geteuid()}, gid {os.getegid()}; "
            "set the pod's fsGroup or mount it without readOnly for the agent"
        )


def _warnings(settings: VolumeSettings, mount: Mount | None, info: os.stat_result) -> Iterator[str]:
    path = settings.path
    in_memory = mount is not None and mount.file_system in _MEMORY_FILE_SYSTEMS
    if mount and mount.file_system == "tmpfs" and "noswap" not in mount.options and _has_swap():
        yield f"{path} may be swapped to disk: this node has swap and the tmpfs is mounted without noswap"
    if in_memory and mount and mount.root != "/" and mount.point == os.path.realpath(path):
        yield f"{path} is part of a larger volume (a subPath or bind mount); the app must mount the same part"
    if info.st_uid not in (0, os.geteuid()):
        yield f"{path} belongs to uid {info.st_uid}, neither root nor the agent's uid {os.geteuid()}"
    # An emptyDir is 0777 by default and the agent cannot change that; elsewhere it is somebody's mistake.
    if info.st_mode & stat.S_IWOTH and not in_memory:
        yield f"{path} is writable for everybody (mode {stat.S_IMODE(info.st_mode):04o})"
    try:
        group = target_group(settings, info)
    except KeyError:
        return  # the publisher refuses it
    if group not in (os.getegid(), *os.getgroups()) and os.geteuid() != 0:
        yield (
            f"the agent (uid {os.geteuid()}) is not a member of group {group}, so it cannot give files to it;"
            " set fsGroup or supplementalGroups, or volume.group"
        )


def target_group(settings: VolumeSettings, info: os.stat_result) -> int:
    """Return the id of the files' group: the configured one, else that of the volume's root (the fsGroup)."""
    match settings.group:
        case None:
            return info.st_gid
        case int(number):
            return number
        case name:
            # Looked up here only: a configured number must not need a group database in the image.
            import grp

            return grp.getgrnam(name).gr_gid


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False
