# SPDX-License-Identifier: Apache-2.0
"""A wrapped keyring, and what all providers that unwrap one have in common.

    class SomeKmsProvider:
        def fetch(self, known: Known) -> Offer:
            return self._keyring.fetch(known, self._unwrap)

        def _unwrap(self, ciphertext: Ciphertext) -> bytes: ...

        def wrap(self, plain: bytes, binding: Mapping[str, str]) -> str: ...

Rules:

- The keyring comes from a file, which is read at each fetch, or stands in the configuration. A text that is
  no JSON object is a bare ciphertext: one version without a name, a time or a binding.
- Key name and version id are bound into each ciphertext, so that an entry cannot be relabelled.
- The newest version and the one that is active by the keyring's own times are unwrapped at every fetch: that
  is how a disabled key is noticed. So is whatever changed since it was unwrapped; the rest is known. Once
  one is denied nothing counts as known, since one key unwraps them all and any of them may be in use.
- What is wrong with one version is that version's problem; what is unavailable ends the fetch.
"""

import base64
import json
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.errors import DeniedError, MalformedError, RefreshError, UnavailableError
from agent.keyring_file import Wrapped, parse_wrapped_keyring
from agent.offer import Known, Offer, Offered
from agent.providers.files import read_file
from agent.providers.values import raw_material, unversioned
from agent.settings import KeySettings
from agent.sources.wrapped import WrappedSource
from keyferry.material import Material

KEY_NAME: Final = "keyferry:key"
VERSION_ID: Final = "keyferry:version"

UNSTAGED: Final = (
    "a bare ciphertext has no history; a wrapped keyring shows the next version before it is used"
)


def binding(key_name: str, version_id: str) -> Mapping[str, str]:
    """Return what is bound into the ciphertext of a version."""
    return {KEY_NAME: key_name, VERSION_ID: version_id}


def aad_of(binding: Mapping[str, str]) -> bytes:
    """Return ``binding`` as additional authenticated data: JSON with sorted names and no blanks."""
    return json.dumps(binding, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """What is to be unwrapped: the store's own ``text`` for it, and what was bound into it.

    ``binding`` is empty for a bare ciphertext. ``place`` names it in messages.
    """

    text: str
    place: str
    binding: Mapping[str, str]

    @property
    def aad(self) -> bytes:
        """The binding as additional authenticated data, nothing where there is none."""
        return aad_of(self.binding) if self.binding else b""

    def decoded(self) -> bytes:
        """Return the bytes of a ciphertext in base64; ``MalformedError`` if it is none."""
        try:
            # Tools wrap base64 into lines.
            return base64.b64decode("".join(self.text.split()), validate=True)
        except ValueError:
            message = f"{self.place} is not base64; write the ciphertext as the store's own tool prints it"
            raise MalformedError(message) from None


Unwrap: TypeAlias = Callable[[Ciphertext], bytes]
"""Returns what was wrapped, or raises ``RefreshError``: unavailable, or else about this ciphertext only."""


class WrappedKeyring:
    """The wrapped keyring of one key."""

    def __init__(self, key: KeySettings, source: WrappedSource) -> None:
        """Keep where the keyring of ``key`` is; it is read at each fetch."""
        self._key = key
        self._source = source
        self._unwrapped: dict[str, str] = {}

    def fetch(self, known: Known, unwrap: Unwrap) -> Offer:
        """Return the keyring's versions, unwrapped by ``unwrap`` where they are not known."""
        place, data = self._read()
        if not data.strip():
            message = f"{place} is empty; write a keyring or a ciphertext into it"
            raise MalformedError(message)
        if data.startswith(BOM_UTF8):
            message = f"{place} begins with a byte order mark; write it without one"
            raise MalformedError(message)
        if not data.lstrip().startswith(b"{"):
            return self._bare(data, place, unwrap)
        entries = parse_wrapped_keyring(data, self._key.name, place)
        always = {entries[-1].offered.id, _active(entries).offered.id}
        offered: list[Offered] = []
        denied = False
        for entry in reversed(entries):
            if not denied and entry.offered.id not in always and self._is_known(entry, known):
                offered.append(entry.offered)
                continue
            version = self._version(entry, place, unwrap)
            denied = denied or isinstance(version.material, DeniedError)
            offered.append(version)
        return Offer(tuple(offered[::-1]))

    def _read(self) -> tuple[str, bytes]:
        if isinstance(self._source.keyring, str):
            return "the configured keyring", self._source.keyring.encode()
        return f"file {self._source.keyring}", read_file(self._source.keyring)

    def _is_known(self, entry: Wrapped, known: Known) -> bool:
        offered = entry.offered
        # Not by its id alone: a ciphertext can be replaced in place.
        same = self._unwrapped.get(offered.id) == entry.ciphertext
        return same and offered.id in known and known[offered.id] == offered.created_at

    def _version(self, entry: Wrapped, place: str, unwrap: Unwrap) -> Offered:
        offered = entry.offered
        bound = binding(self._key.name, offered.id)
        try:
            if isinstance(entry.ciphertext, MalformedError):
                raise entry.ciphertext
            ciphertext = Ciphertext(entry.ciphertext, f"version {offered.id} in {place}", bound)
            material = self._material(ciphertext, unwrap)
        except UnavailableError:
            raise
        except RefreshError as error:
            self._unwrapped.pop(offered.id, None)
            return offered._replace(material=error)
        self._unwrapped[offered.id] = entry.ciphertext
        return offered._replace(material=material)

    def _bare(self, data: bytes, place: str, unwrap: Unwrap) -> Offer:
        # No store's ciphertext has quotes, and what is left of a keyring without its head has.
        if not data.isascii() or b'"' in data:
            message = f"{place} is neither a keyring nor a ciphertext in text; write a binary one as base64"
            raise MalformedError(message)
        ciphertext = Ciphertext(data.decode().strip(), f"the ciphertext in {place}", {})
        material = self._material(ciphertext, unwrap)
        return unversioned(material, self._key, place, unstaged=UNSTAGED)

    def _material(self, ciphertext: Ciphertext, unwrap: Unwrap) -> Material:
        plain = unwrap(ciphertext)
        return raw_material(plain, f"what {ciphertext.place} holds", binary=self._key.encoding == "binary")


def _active(entries: tuple[Wrapped, ...]) -> Wrapped:
    """Return the last version whose time has come as far as the keyring says, else the first."""
    now = time.time()
    come = [entry for entry in entries if (entry.offered.activates_at or 0) <= now]
    return come[-1] if come else entries[0]
