# SPDX-License-Identifier: Apache-2.0
"""A key in a file: raw, a field of a JSON object, or a keyring with all its versions (agent.keyring_file).

Rules:

- One trailing newline is not part of a raw text: every editor and ``echo`` adds one. Binary is verbatim.
- How the file is read, and what that fails of, is agent.providers.files' matter.
"""

from typing import Final

from agent.keyring_file import parse_keyring
from agent.offer import Known, Offer
from agent.providers.files import read_file
from agent.providers.values import field_material, json_object, raw_material, unversioned
from agent.settings import KeySettings
from agent.sources.file import FileSource

UNSTAGED: Final = "a {} file has no history; format: keyring can show the next version before it is used"


class FileProvider:
    """The key in one file, read anew at each fetch."""

    def __init__(self, key: KeySettings, source: FileSource) -> None:
        """Keep where ``key`` is; the file is opened at each fetch."""
        self._key = key
        self._source = source

    def fetch(self, known: Known) -> Offer:  # noqa: ARG002 - reading is as cheap as comparing
        """Return what the file holds now."""
        return self.parsed(read_file(self._source.path))

    def parsed(self, data: bytes) -> Offer:
        """Return what a file with ``data`` in it holds."""
        place = f"file {self._source.path}"
        if self._source.format == "keyring":
            return Offer(parse_keyring(data, self._key.name, place))
        if self._source.format == "json":
            material = field_material(json_object(data, place), self._source.field or "", place)
        else:
            binary = self._key.encoding == "binary"
            material = raw_material(data if binary else _without_newline(data), place, binary=binary)
        return unversioned(material, self._key, place, unstaged=UNSTAGED.format(self._source.format))

    def close(self) -> None:
        """Nothing is held open."""


def _without_newline(data: bytes) -> bytes:
    return data[:-2] if data.endswith(b"\r\n") else data.removesuffix(b"\n")
