# SPDX-License-Identifier: Apache-2.0
"""What the app holds: the versions of one key as of one instant, decoded and checked.

Rules:

- Values in, values out: no file, clock or thread is touched here.
- A snapshot never changes. Another instant, or another generation, is another snapshot.
- Keys never show themselves: ``repr`` is censored and pickling is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias

from keyferry.errors import KeyWithdrawnError, UnknownVersionError
from keyferry.layout import Keyring, State, Version, states
from keyferry.material import Material, decode

_Bytes: TypeAlias = bytes  # inside Key, `bytes` is the field


@dataclass(frozen=True, slots=True)
class Key:
    """One version of a key. Encrypt with the active one's ``bytes`` and store its ``id`` with the ciphertext.

    ``bytes`` is decoded and length-checked. ``created_at`` is ``None`` where the key store does not say,
    ``activates_at`` where no activation is planned: the version then stays what it is.
    """

    id: str
    state: State
    created_at: datetime | None
    activates_at: datetime | None
    fingerprint: str
    material: Material
    # Not compared: the material is, and takes constant time.
    bytes: _Bytes = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The key as the key store holds it, verbatim; ``InvalidMaterialError`` for a binary one."""
        return self.material.text

    def __reduce__(self) -> NoReturn:
        message = "a key is never pickled: a copy would leave the process unnoticed; send its id instead"
        raise TypeError(message)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All versions of one key as of one instant, in order of activation; none if it is ``withdrawn``."""

    key: str
    generation: int
    versions: tuple[Key, ...]
    withdrawn: str | None = None

    @property
    def active(self) -> Key:
        """The version to encrypt with; ``KeyWithdrawnError`` if the key may no longer be used."""
        return next(version for version in self if version.state == "active")

    def get(self, version_id: str) -> Key:
        """Return the version that a ciphertext names; ``UnknownVersionError`` lists what there is."""
        for version in self:
            if version.id == version_id:
                return version
        raise UnknownVersionError(self.key, version_id, tuple(version.id for version in self.versions))

    def candidates(self) -> tuple[Key, ...]:
        """Return the active version, then the others, newest first: for ciphertexts that name none.

        Only for authenticated encryption (AES-GCM, Fernet), where a wrong key is noticed.
        """
        others = (version for version in reversed(self.versions) if version.state != "active")
        return (self.active, *others)

    def __iter__(self) -> Iterator[Key]:
        if self.withdrawn is not None:
            raise KeyWithdrawnError(self.key, self.withdrawn)
        return iter(self.versions)

    def __len__(self) -> int:
        return len(self.versions)


def snapshot(name: str, generation: int, keyring: Keyring, now: float) -> Snapshot:
    """Return the key's versions at ``now``; ``InvalidMaterialError`` if one is not what the keyring says."""
    versions = tuple(
        _key(version, state, decode(version.material, keyring.encoding, keyring.length))
        for version, state in zip(keyring.versions, states(keyring.versions, now), strict=True)
    )
    return Snapshot(name, generation, versions, keyring.withdrawn)


def _key(version: Version, state: State, decoded: bytes) -> Key:
    return Key(
        id=version.id,
        state=state,
        created_at=_moment(version.created_at),
        activates_at=_moment(version.activates_at),
        fingerprint=version.fingerprint,
        material=version.material,
        bytes=decoded,
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
