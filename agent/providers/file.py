# SPDX-License-Identifier: Apache-2.0
"""A key in a file: raw, a field of a JSON object, or a keyring with all its versions (agent.keyring_file).

Rules:

- The file is opened once and read through that descriptor, so one fetch sees one file whatever is swapped
  meanwhile. Only regular files are read, at most 1 MiB, and opening never blocks.
- One trailing newline is not part of a raw text: every editor and ``echo`` adds one. Binary is verbatim.
- A refused permission is unavailable, not denied: a mode says as little about the key as a proxy's 403 does,
  and the kill switch must not fire for a chmod. Taking the key away is deleting the file: missing.
"""

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.errors import MalformedError, MissingError, UnavailableError
from agent.keyring_file import parse_keyring
from agent.offer import Known, Offer
from agent.providers.values import field_material, raw_material, unversioned
from agent.settings import FileSource, KeySettings

SIZE_LIMIT: Final = 1 << 20
_SWAP_ATTEMPTS: Final = 3
_UNSTAGED: Final = "a {} file has no history; format: keyring can show the next version before it is used"


class FileProvider:
    """The key in one file, read anew at each fetch."""

    def __init__(self, key: KeySettings, source: FileSource) -> None:
        """Keep where ``key`` is; the file is opened at each fetch."""
        self._key = key
        self._source = source

    def fetch(self, known: Known) -> Offer:  # noqa: ARG002 - reading is as cheap as comparing
        """Return what the file holds now."""
        place = f"file {self._source.path}"
        data = _read(self._source.path)
        if self._source.format == "keyring":
            return Offer(parse_keyring(data, self._key.name, place))
        if self._source.format == "json":
            material = field_material(_object(data, place), self._source.field or "", place)
        else:
            binary = self._key.encoding == "binary"
            material = raw_material(data if binary else _without_newline(data), place, binary=binary)
        return unversioned(material, self._key, place, unstaged=_UNSTAGED.format(self._source.format))

    def close(self) -> None:
        """Nothing is held open."""


def _read(path: Path) -> bytes:
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


def _without_newline(data: bytes) -> bytes:
    return data[:-2] if data.endswith(b"\r\n") else data.removesuffix(b"\n")


def _object(data: bytes, place: str) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # `from None`: a JSONDecodeError carries the whole document.
        message = f"{place} is not JSON"
        raise MalformedError(message) from None
    if not isinstance(document, dict):
        message = f"{place} is not a JSON object"
        raise MalformedError(message)
    return document
