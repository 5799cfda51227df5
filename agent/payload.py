# SPDX-License-Identifier: Apache-2.0
"""The payload of a publication: a generation as the directory of files that it is on the volume.

Rules:

- What readers would refuse is never written: the document is read back before anything is.
- A generation is taken over from an agent before only if this uid made it and nobody else could change it.
- Plain files hold the material that was active when the generation was published, byte for byte.

It neither makes a generation visible nor removes one: that is the publisher's.
"""

import os
import re
import secrets
import stat
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from agent.directory import MAX_FILE_BYTES, Directory, ForeignError, seal
from agent.errors import PublishError, VolumeError
from agent.settings import VolumeSettings
from agent.volume import target_group
from keyferry.layout import (
    DATA_LINK,
    GENERATION_PREFIX,
    KEYRING_FILE,
    Generation,
    Keyring,
    active_index,
    parse,
    serialize,
)

# A planted number of hundreds of digits is none, or the name of what comes after it would be too long.
_NUMBER: Final = re.compile(re.escape(GENERATION_PREFIX) + r"([0-9]{1,15})\..*", re.DOTALL)


class Access(NamedTuple):
    """Who gets at what is written: modes of files and directories, and the group (``None``: as it comes)."""

    mode: int
    directory_mode: int
    group: int | None

    @classmethod
    def of(cls, settings: VolumeSettings, root: os.stat_result) -> Self:
        """Return what ``settings`` mean in a volume with this root; raises ``VolumeError``."""
        # Whoever may read the files may also enter their directory.
        readers = settings.mode & (stat.S_IRGRP | stat.S_IROTH)
        directory_mode = stat.S_IRWXU | readers | readers >> 2
        try:
            group = target_group(settings, root)
        except KeyError:
            message = f"volume.group: there is no group {settings.group!r} here; give its number"
            raise VolumeError(message) from None
        # Who is not a member cannot give files away, and asking for setgid would be undone by the kernel:
        # then the files keep the group that they get, and `check` says so.
        if os.geteuid() == 0 or group in (os.getegid(), *os.getgroups()):
            return cls(settings.mode, directory_mode | stat.S_ISGID, group)
        return cls(settings.mode, directory_mode, None)

    def is_kept(self, info: os.stat_result, mode: int) -> bool:
        """Tell whether ``info`` is that of something of ours which still has ``mode`` and the group."""
        return (
            info.st_uid == os.geteuid()
            and self.group in (None, info.st_gid)
            and stat.S_IMODE(info.st_mode) == mode
        )


class Payload(NamedTuple):
    """The name of a generation's directory, the generation, and the files in it."""

    directory: str
    generation: Generation
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, generation: Generation) -> Self:
        """Return ``generation`` as files in a new directory; ``PublishError`` if it breaks the contract."""
        return cls._in(f"{GENERATION_PREFIX}{generation.number:06d}.{secrets.token_hex(4)}", generation)

    @classmethod
    def adopt(cls, root: Directory, directory: str) -> Self:
        """Return what an agent before published in ``directory``.

        Raises ``OSError`` where it is unreadable or not ours alone, ``DocumentError`` or ``PublishError``
        where it is no generation.
        """
        if not is_generation(directory):
            message = f"{DATA_LINK} points elsewhere"
            raise ForeignError(message)
        with root.child(directory) as child:
            _require_own(child.stat())
            for name in child.names():
                _require_own(child.read(name)[1])
            document, _ = child.read(KEYRING_FILE)
        return cls._in(directory, parse(document))

    @classmethod
    def _in(cls, directory: str, generation: Generation) -> Self:
        document, problem = _document(generation)
        # Raised out here: the frames and the arguments of the first error may hold material.
        if problem is not None:
            message = f"this would break the volume's contract, so it was not published: {problem}"
            raise PublishError(message)
        plain = plain_files(generation.keys, generation.published_at)
        return cls(directory, generation, {KEYRING_FILE: document, **plain})

    def shows(self, keys: Mapping[str, Keyring], now: float) -> bool:
        """Tell whether a generation of ``keys`` at ``now`` would be the same but for its number and time."""
        before = self.generation
        return before.keys == keys and plain_files(keys, now) == plain_files(keys, before.published_at)

    def write(self, child: Directory, access: Access) -> None:
        """Write the files into ``child``, the directory that was made for them; raises ``OSError``."""
        for name, data in self.files.items():
            child.write(name, data, mode=access.mode, group=access.group)
        seal(child.descriptor, mode=access.directory_mode, group=access.group)

    def is_intact(self, root: Directory, access: Access) -> bool:
        """Tell whether ``root`` shows exactly this, with the owner, group and modes that it should have."""
        try:
            if root.link_target(DATA_LINK) != self.directory:
                return False
            with root.child(self.directory) as child:
                found = {name: child.read(name) for name in child.names()}
                return (
                    access.is_kept(child.stat(), access.directory_mode)
                    and all(access.is_kept(info, access.mode) for _, info in found.values())
                    and {name: data for name, (data, _) in found.items()} == self.files
                )
        except OSError:
            return False


def is_generation(name: str) -> bool:
    """Tell whether ``name`` can be that of a generation's directory in the volume's root."""
    return name.startswith(GENERATION_PREFIX) and "/" not in name


def number_of(directory: str) -> int:
    """Return the number in the name of a generation's directory, 0 where it has none."""
    match = _NUMBER.fullmatch(directory)
    return int(match[1]) if match else 0


def plain_files(keys: Mapping[str, Keyring], now: float) -> dict[str, bytes]:
    """Return the plain file of each key that has versions: the material that is active at ``now``."""
    return {
        name: keyring.versions[active_index(keyring.versions, now)].material.raw
        for name, keyring in keys.items()
        if keyring.versions
    }


def _document(generation: Generation) -> tuple[bytes, str | None]:
    try:
        document = serialize(generation)
        parse(document)
        if len(document) > MAX_FILE_BYTES:
            return b"", f"{KEYRING_FILE} would have {len(document)} bytes; allowed: {MAX_FILE_BYTES}"
    # Besides DocumentError: half of a surrogate pair in a provider's id, and times beyond the year 9999.
    except (ValueError, OverflowError) as error:
        return b"", str(error)
    return document, None


def _require_own(info: os.stat_result) -> None:
    if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = "it was made by somebody else, or somebody else may change it"
        raise ForeignError(message)
