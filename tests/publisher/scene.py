# SPDX-License-Identifier: Apache-2.0
"""What the tests of the publisher act on: keyrings, pictures of a volume, a watch, users, namespaces."""

import ctypes
import os
import secrets
import stat
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from agent.publisher import Publisher
from agent.settings import VolumeSettings
from keyferry.layout import DATA_LINK, Keyring, Version
from keyferry.material import NO_FINGERPRINT, Material
from keyferry.reader import read_volume

NOW = 1_900_000_000.0
BOOT = 1_000.0

Reports = list[tuple[str, str]]


def material() -> Material:
    """Return a value that nobody has seen before."""
    return Material(secrets.token_urlsafe(32).encode())


def ring(*values: Material, activates_at: float = NOW - 100) -> Keyring:
    """Return a keyring of ``values`` with ids from 1 on, activated a second apart after ``activates_at``."""
    versions = tuple(
        Version(str(number), NOW - 200, activates_at + number, NO_FINGERPRINT, value)
        for number, value in enumerate(values, 1)
    )
    return Keyring("env", "sha256:0123456789abcdef", "base64url", 32, versions)


def withdrawn(reason: str = "denied") -> Keyring:
    """Return a withdrawn key."""
    return Keyring("env", "sha256:0123456789abcdef", "base64url", 32, withdrawn=reason)


def plain(keyring: Keyring) -> bytes:
    """Return the material of the keyring's last version, which is the active one in these tests."""
    return keyring.versions[-1].material.raw


def publisher_on(root: Path, reports: Reports | None = None, **settings: object) -> Publisher:
    """Return a publisher for the volume ``root``, not opened."""
    seen: Reports = [] if reports is None else reports
    volume = VolumeSettings(path=root, **settings)  # type: ignore[arg-type]
    return Publisher(volume, report=lambda event, name: seen.append((event, name)))


def shown(root: Path) -> Mapping[str, Keyring]:
    """Return what a reader sees, after checking that plain readers see the same."""
    generation = read_volume(str(root)).generation
    for name, keyring in generation.keys.items():
        if keyring.versions:
            assert (root / name).read_bytes() == plain(keyring)
        else:
            assert not (root / name).exists()
    return generation.keys


def published(root: Path) -> str:
    """Return the name of the generation's directory that is shown."""
    return str((root / DATA_LINK).readlink())


def names(root: Path) -> set[str]:
    """Return the names in the volume's root, without the lock."""
    return {entry.name for entry in root.iterdir()} - {"..lock"}


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything on the volume but the lock: inode, kind, mode, owner, time of change, and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        if path.name == "..lock":
            continue
        info = path.lstat()
        # What was made in a directory and removed again shows in the directory's time, and nowhere else.
        content: tuple[object, ...] = ()
        if stat.S_ISLNK(info.st_mode):
            content = (info.st_mtime_ns, str(path.readlink()))
        elif stat.S_ISREG(info.st_mode):
            content = (info.st_mtime_ns, path.read_bytes())
        owner = (info.st_mode, info.st_uid, info.st_gid)
        found[str(path.relative_to(root))] = (info.st_ino, owner, *content)
    return found


def open_descriptors() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Watch:
    """Hears of every change to the names and attributes in one directory (inotify(7))."""

    # IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE
    _CHANGES = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = libc.inotify_add_watch(self._descriptor, os.fsencode(directory), self._CHANGES)
        assert watch >= 0, os.strerror(ctypes.get_errno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def heard(self) -> list[str]:
        """Return the names of what changed since the last call."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return []
        found = []
        while data:
            _, _, _, size = struct.unpack_from("iIII", data)
            found.append(data[16 : 16 + size].rstrip(b"\0").decode())
            data = data[16 + size :]
        return found


@contextmanager
def user(uid: int, gid: int, *groups: int) -> Iterator[None]:
    """Act as another user of the system, with these groups only; needs root."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


class Namespace:
    """A mount namespace of its own: what is mounted in it is nowhere else, and gone with it."""

    def __init__(self) -> None:
        # A user's own user namespace lets everybody mount.
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._shell = subprocess.Popen(
            ["unshare", "--mount", *as_root, "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        self.run("true")
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.communicate()

    def run(self, script: str) -> str:
        """Run shell commands in it and return what they print; all of them must succeed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f'(set -e; {script}\n) </dev/null; echo "--- $?"\n')
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith("--- "):
                assert line == "--- 0\n", "".join(lines)
                return "".join(lines)
            lines.append(line)
        raise AssertionError("".join(lines))

    def path(self, inside: Path) -> Path:
        """Return how this process reaches the path ``inside``."""
        return Path(f"/proc/{self._shell.pid}/root{inside}")
