# SPDX-License-Identifier: Apache-2.0
"""Makes and rotates a key in a file.

Rules:

- A keyring gets one more entry. A raw or JSON file has room for one value: it is replaced, and whoever reads
  it afterwards has the new one only.
- A JSON file's other fields stay to the byte, and so do its mode, its owner and a link to it.
"""

import json
import time
from typing import Final

from agent.errors import ConfigError
from agent.keyring_file import appended, new_entry, new_keyring, next_id
from agent.providers.file import FileProvider
from agent.providers.files import change_file, create_file
from agent.providers.lifecycle import ChangedError, Rotation
from agent.providers.values import replaced_field
from agent.settings import KeySettings
from agent.sources.file import FileSource
from keyferry.material import Material

# A key in the clear is its owner's only; who mounts it says who else reads it.
_MODE: Final = 0o600


class FileKeeper:
    """The key in one file."""

    def __init__(self, key: KeySettings, source: FileSource) -> None:
        """Keep where ``key`` is."""
        if source.format == "json" and key.encoding == "binary":
            message = (
                f"keys.{key.name}.encoding: binary does not fit into a JSON field; use base64, or format raw"
            )
            raise ConfigError(message)
        self.states_times = source.format == "keyring"
        self._key = key
        self._source = source
        self._provider = FileProvider(key, source)

    def create(self, material: Material) -> str:
        """Make the file."""
        data = self._first(material)
        version_id = self._newest(data)  # what could not be read back is not written
        create_file(self._source.path, data, mode=_MODE)
        return version_id

    def rotate(self, material: Material, rotation: Rotation) -> str:
        """Add a version to the keyring, or replace the value."""
        made: list[str] = []

        def change(data: bytes) -> bytes:
            newest = self._newest(data)
            if newest != rotation.expected:
                message = (
                    f"file {self._source.path} has a newer version by now, {newest}; nothing was written"
                )
                raise ChangedError(message)
            changed = self._changed(data, material, rotation)
            made.append(self._newest(changed))
            return changed

        change_file(self._source.path, change)
        return made[0]

    def close(self) -> None:
        """Nothing is held open."""

    def _newest(self, data: bytes) -> str:
        return self._provider.parsed(data).versions[-1].id

    def _first(self, material: Material) -> bytes:
        match self._source.format:
            case "keyring":
                return new_keyring(self._key.name, new_entry(next_id(()), time.time(), material))
            case "json":
                document = {str(self._source.field): material.text}
                return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
            case "raw":
                return material.raw

    def _changed(self, data: bytes, material: Material, rotation: Rotation) -> bytes:
        match self._source.format:
            case "keyring":
                id_ = next_id(version.id for version in self._provider.parsed(data).versions)
                now = time.time()
                return appended(data, new_entry(id_, now, material, activates_at=rotation.stated(now)))
            case "json":
                field = str(self._source.field)
                return replaced_field(data, field, material.text, f"file {self._source.path}")
            case "raw":
                newline = b"\n" if data.endswith(b"\n") and not material.binary else b""
                return material.raw + newline
