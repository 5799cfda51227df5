# SPDX-License-Identifier: Apache-2.0
"""How a reader reads the volume; the adapter and the agent's commands use the same.

Rules:

- ``..data`` is resolved once, and everything is read through the directory it named: never two resolutions
  that a publication could fall between.
- Link names are compared, never generation numbers: a wiped volume starts counting again.
- Links inside a generation are not followed. What vanishes while it is read is looked up again, a bounded
  number of times.
- Only ``KeyferryError`` comes out, and none of its frames holds key material.

It keeps nothing, waits for nothing and never writes.
"""

import errno
import os
import stat
import time
from typing import Final, NamedTuple, NoReturn

from keyferry.document import DocumentError
from keyferry.errors import (
    ContractError,
    NotPublishedError,
    SubPathError,
    VolumeAccessError,
    VolumeMissingError,
)
from keyferry.layout import (
    DATA_LINK,
    GENERATION_PREFIX,
    KEYRING_FILE,
    STATUS_DIRECTORY,
    STATUS_FILE,
    Generation,
    parse,
)
from keyferry.status import Status, parse_status

# A generation outlives its demotion by seconds, so one retry is rare and this many mean a broken volume.
_ATTEMPTS: Final = 10
_CHUNK_BYTES: Final = 1 << 16
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Published(NamedTuple):
    """A generation and the name that ``..data`` pointed to: another name is another generation."""

    link: str
    generation: Generation


def read_link(path: str) -> str:
    """Return the name of the generation's directory that is published in ``path``; one system call."""
    try:
        link = os.readlink(os.path.join(path, DATA_LINK))
    except OSError as error:
        _explain(path, error)
    if not link.startswith(GENERATION_PREFIX) or "/" in link:
        raise ContractError(
            path, f"{DATA_LINK} points to {link!r}, not to a {GENERATION_PREFIX}* directory in it"
        )
    return link


def read_volume(path: str) -> Published:
    """Return the generation that is published in ``path``, as one coherent snapshot.

    Raises ``NotPublishedError`` and the kinds of ``DeploymentError``.
    """
    link = read_link(path)
    for _ in range(_ATTEMPTS):
        found = _read_generation(path, link)
        if isinstance(found, Generation):
            return Published(link, found)
        if not isinstance(found, FileNotFoundError):
            break
        link = read_link(path)
    else:
        raise ContractError(path, f"{DATA_LINK} points to {link}, which has no {KEYRING_FILE}")
    if isinstance(found, OSError):
        _explain(path, found, link)
    raise ContractError(path, found)


def read_status(path: str) -> Status | None:
    """Return the agent's heartbeat, ``None`` where there is none that can be read."""
    try:
        return parse_status(_read_file(os.path.join(path, STATUS_DIRECTORY), STATUS_FILE))
    except (OSError, DocumentError):
        return None


def staleness(status: Status, key: str) -> float | None:
    """Return the seconds since the key store last answered for ``key``, ``None`` if nobody knows.

    Counted on the boot clock: a step of the wall clock changes nothing, a reboot makes it unknown.
    """
    known = status.keys.get(key)
    if known is None or known.last_success_boottime is None or status.boot_id != _boot_id():
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - known.last_success_boottime)


def pinned_mount(path: str) -> str | None:
    """Return the mount at or below ``path`` that shows part of one generation only, if there is one.

    A subPath mount is a bind mount whose root lies inside a generation, since Kubernetes resolves the
    volume's links when it makes it.
    """
    # Only where nothing is published: no other start needs it.
    from keyferry.mounts import mounts

    for mount in mounts():
        inside = mount.point == path or mount.point.startswith(f"{path}/")
        if inside and f"/{GENERATION_PREFIX}" in mount.root:
            return mount.point
    return None


def _boot_id() -> str | None:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _read_generation(path: str, link: str) -> Generation | OSError | str:
    # Problems are returned, not raised: this frame holds the material, and some error reporters upload the
    # variables of every frame that an exception passed.
    try:
        data = _read_file(os.path.join(path, link), KEYRING_FILE)
        return parse(data)
    except DocumentError as error:
        return str(error)
    except OSError as error:
        return error.with_traceback(None)


def _read_file(directory: str, name: str) -> bytes:
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: a planted FIFO would hold the app until somebody writes to it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file_fd = os.open(name, flags, dir_fd=directory_fd)
    finally:
        os.close(directory_fd)
    try:
        chunks = []
        while chunk := os.read(file_fd, _CHUNK_BYTES):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(file_fd)


def _explain(path: str, error: OSError, link: str | None = None) -> NoReturn:
    """Raise what ``error`` means for somebody who wanted to read ``path``."""
    place = path if link is None else os.path.join(path, link)
    match error.errno:
        case errno.EACCES | errno.EPERM:
            raise _denied(path, link) from error
        case errno.ENOENT | errno.ENOTDIR if link is None:
            raise _absent(path) from error
        case errno.EINVAL | errno.ENOTDIR | errno.ELOOP | errno.EISDIR:
            what = DATA_LINK if link is None else f"{link}/{KEYRING_FILE}"
            raise ContractError(path, f"{what} is not what it should be ({error.strerror})") from error
        case _:
            raise VolumeAccessError(place, f"{error.strerror}; the node or its limits need a look") from error


def _absent(path: str) -> Exception:
    pinned = pinned_mount(os.path.realpath(path))
    if pinned is not None:
        return SubPathError(pinned)
    if not os.path.lexists(path):
        return VolumeMissingError(path)
    if not os.path.isdir(path):
        return VolumeMissingError(path, "is not a directory")
    return NotPublishedError(path)


def _denied(path: str, link: str | None) -> VolumeAccessError:
    # The deepest thing that can be looked at is the one that refuses: it hides whatever is below it.
    places = (
        [path] if link is None else [os.path.join(path, link, KEYRING_FILE), os.path.join(path, link), path]
    )
    for place in places:
        try:
            found = os.stat(place)
        except OSError:
            continue
        return VolumeAccessError(place, _denial(found))
    return VolumeAccessError(
        path, "permission denied, and no permission to see why: check the directories above"
    )


def _denial(found: os.stat_result) -> str:
    groups = sorted({os.getegid(), *os.getgroups()})
    if found.st_gid not in groups:
        advice = f"Give the pod that group: securityContext.fsGroup: {found.st_gid} (or supplementalGroups)"
    elif not found.st_mode & stat.S_IRGRP:
        advice = 'Let the group read: volume.mode "0440" in the agent\'s configuration'
    else:
        advice = "The mode allows it, so look for SELinux, AppArmor or a user namespace"
    return (
        f"permission denied. This process has uid {os.geteuid()} and groups {', '.join(map(str, groups))};"
        f" it belongs to uid {found.st_uid}, group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}."
        f" {advice}"
    )
