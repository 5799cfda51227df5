# SPDX-License-Identifier: Apache-2.0
"""Looks at the volume before it is trusted with a key: what is it, whose is it, what could go wrong?

It only looks. ``problems`` refuse the volume, ``warnings`` are for the operator (design section 11).
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.settings import VolumeSettings

_MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    root: str
    point: str
    file_system: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What stands against the volume (``problems``) and what should be known of it (``warnings``)."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect(settings: VolumeSettings) -> Inspection:
    """Return what is wrong with the volume's root and what its operator should know."""
    path = settings.path
    try:
        info = path.stat()
    except FileNotFoundError:
        return _refused(f"volume.path: {path} does not exist; mount an emptyDir with medium: Memory there")
    except OSError as error:
        return _refused(f"volume.path: {path} cannot be looked at ({error.strerror})")
    if not stat.S_ISDIR(info.st_mode):
        return _refused(f"volume.path: {path} is not a directory; mount an emptyDir with medium: Memory there")
    mount = mount_of(path)
    return Inspection(tuple(_problems(settings, mount)), tuple(_warnings(settings, mount, info)))


def mount_of(path: Path) -> Mount | None:
    """Return the mount that ``path`` lies on, ``None`` if the system does not tell."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(path)
    # Several mounts may show one device (bind mounts): the deepest one above the path is the one in use.
    found = [
        mount
        for number, mount in _mounts()
        if number == wanted and (mount.point == "/" or f"{real}/".startswith(f"{mount.point}/"))
    ]
    return max(found, key=lambda mount: len(mount.point), default=None)


def _refused(problem: str) -> Inspection:
    return Inspection((problem,), ())


def _problems(settings: VolumeSettings, mount: Mount | None) -> Iterator[str]:
    path = settings.path
    if settings.require_tmpfs and (mount is None or mount.file_system not in _MEMORY_FILE_SYSTEMS):
        kind = f"a {mount.file_system}" if mount else "of an unknown kind"
        yield (
            f"volume.path: {path} is {kind}, not a tmpfs: keys would reach a disk. Mount an emptyDir with "
            "medium: Memory, or set volume.require_tmpfs: false if you accept that"
        )
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        yield (
            f"volume.path: {path} is not writable for uid {os.geteuid()}, gid {os.getegid()}; set the pod's fsGroup "
            "or mount it without readOnly for the agent"
        )


def _warnings(settings: VolumeSettings, mount: Mount | None, info: os.stat_result) -> Iterator[str]:
    path = settings.path
    if mount and mount.file_system == "tmpfs" and "noswap" not in mount.options and _has_swap():
        yield f"{path} may be swapped to disk: this node has swap and the tmpfs is mounted without noswap"
    if mount and mount.root != "/" and mount.file_system in _MEMORY_FILE_SYSTEMS and mount.point == str(path):
        yield f"{path} is part of a larger volume (a subPath or bind mount); the app must mount the same directory"
    if info.st_uid not in (0, os.geteuid()):
        yield f"{path} belongs to uid {info.st_uid}, neither root nor the agent's uid {os.geteuid()}"
    # An emptyDir is 0777 by default and the agent cannot change that; elsewhere it is somebody's mistake.
    if info.st_mode & stat.S_IWOTH and not _looks_like_empty_dir(mount):
        yield f"{path} is writable for everybody (mode {stat.S_IMODE(info.st_mode):04o})"
    try:
        group = target_group(settings, info)
    except KeyError:
        return  # the publisher refuses it
    if group not in (os.getegid(), *os.getgroups()) and os.geteuid() != 0:
        yield (
            f"the agent (uid {os.geteuid()}) is not a member of group {group}, so it cannot give files to it; "
            "set fsGroup or supplementalGroups, or volume.group"
        )


def target_group(settings: VolumeSettings, info: os.stat_result) -> int:
    """Return the group id that files get: the configured one, else that of the volume's root (the fsGroup)."""
    match settings.group:
        case None:
            return info.st_gid
        case int(number):
            return number
        case name:
            # Looked up here only: a configured number must not need a group database in the image.
            import grp  # noqa: PLC0415

            return grp.getgrnam(name).gr_gid


def _looks_like_empty_dir(mount: Mount | None) -> bool:
    return mount is not None and mount.file_system in _MEMORY_FILE_SYSTEMS


def _mounts() -> Iterator[tuple[str, Mount]]:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        _, _, device, root, point, *_ = before.split(" ")
        file_system, _, options = after.split(" ", 2)
        yield device, Mount(_unescape(root), _unescape(point), file_system, frozenset(options.split(",")))


def _unescape(text: str) -> str:
    # mountinfo writes space, tab, newline and backslash as \ooo.
    return text.encode().decode("unicode_escape") if "\\" in text else text


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False
