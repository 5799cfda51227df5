# SPDX-License-Identifier: Apache-2.0
"""Makes and rotates a key in a wrapped keyring's file; the provider's own key store wraps it.

Rules:

- The key is wrapped before the file is touched, and no lock is held while the store is asked. What the file
  held then it must still hold when the entry is appended.
- The file may be a working copy of the one that the pods mount: it is of no use to whoever cannot unwrap it.
"""

import time
from collections.abc import Mapping
from typing import Final, Protocol

from agent.errors import ConfigError
from agent.keyring_file import appended, new_entry, new_keyring, next_id, parse_wrapped_keyring
from agent.providers.files import change_file, create_file, read_file
from agent.providers.lifecycle import ChangedError, Rotation
from agent.providers.wrapped import binding
from agent.settings import KeySettings
from agent.sources.wrapped import WrappedSource
from keyferry.material import Material

_MODE: Final = 0o644


class Wrapper(Protocol):
    """What wraps: the provider that unwraps."""

    def wrap(self, plain: bytes, binding: Mapping[str, str]) -> str:
        """Return the ciphertext's text as the provider takes it; raise ``RefreshError``."""

    def close(self) -> None:
        """Let connections go."""


class WrappedKeeper:
    """The wrapped keyring of one key."""

    states_times = True

    def __init__(self, key: KeySettings, source: WrappedSource, wrapper: Wrapper) -> None:
        """Keep where the keyring of ``key`` is, and own ``wrapper``."""
        if isinstance(source.keyring, str):
            message = (
                f"keys.{key.name}.keyring: stands in the configuration, which no command writes; move it "
                "into a file, and name that"
            )
            raise ConfigError(message)
        self._key_name = key.name
        self._path = source.keyring
        self._place = f"file {source.keyring}"
        self._wrapper = wrapper

    def create(self, material: Material) -> str:
        """Make the file."""
        id_ = next_id(())
        entry = new_entry(id_, time.time(), self._wrapped(material, id_))
        create_file(self._path, new_keyring(self._key_name, entry), mode=_MODE)
        return id_

    def rotate(self, material: Material, rotation: Rotation) -> str:
        """Append a version."""
        data = read_file(self._path)
        if not data.lstrip().startswith(b"{"):
            message = (
                f"{self._place} holds a bare ciphertext, which has no room for another version; wrap its key "
                "into a keyring first (docs/wrapped-keyring.md)"
            )
            raise ConfigError(message)
        ids = [entry.offered.id for entry in parse_wrapped_keyring(data, self._key_name, self._place)]
        self._check(ids[-1] == rotation.expected)
        id_ = next_id(ids)
        wrapped, now = self._wrapped(material, id_), time.time()
        entry = new_entry(id_, now, wrapped, activates_at=rotation.stated(now))

        def change(now: bytes) -> bytes:
            self._check(now == data)
            return appended(data, entry)

        change_file(self._path, change)
        return id_

    def close(self) -> None:
        """Drop the wrapper's connections."""
        self._wrapper.close()

    def _wrapped(self, material: Material, id_: str) -> str:
        return self._wrapper.wrap(material.raw, binding(self._key_name, id_))

    def _check(self, unchanged: bool) -> None:  # noqa: FBT001 - the condition itself
        if not unchanged:
            message = f"{self._place} was changed meanwhile; nothing was written"
            raise ChangedError(message)
