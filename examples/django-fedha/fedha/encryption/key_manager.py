# SPDX-License-Identifier: Apache-2.0
"""Encrypts text with the master key, and decrypts what any of its versions encrypted.

    kf1:<version id, percent-encoded>:<base64url of nonce, ciphertext and tag>

Rules:

- The adapter is asked each time and no key is kept here: that is how a rotation arrives.
- What stands before the ciphertext, the version's id, is authenticated with it (AES-256-GCM).
- Older ciphertexts have nothing before them, only base64: for those every version is tried. So it is where an
  id is not there, since a value that moved to another key store has another id.
"""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, Protocol
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from keyferry import Key, Snapshot, UnknownVersionError

_FORMAT: Final = "kf1"
_KEY_BYTES: Final = 32
# NIST SP 800-38D, section 8.2: random nonces of 96 bits serve 2**32 encryptions under one key.
_NONCE_BYTES: Final = 12
_STANDARD_TO_URL: Final = str.maketrans("+/", "-_")


class KMSAdapter(Protocol):
    """The seam: where the master key comes from. keyferry's adapters fit, and so does a test's own."""

    @property
    def active(self) -> Key:
        """The version to encrypt with."""

    @property
    def keyring(self) -> Snapshot:
        """All versions, each with its state."""

    def get(self, version_id: str) -> Key:
        """Return the version that a ciphertext names."""

    def candidates(self) -> tuple[Key, ...]:
        """Return all versions, the likeliest first."""

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Block until there is a key."""

    def get_master_key(self) -> str:
        """Return the active version's text, for code that knows one key."""

    def rotate_key(self) -> object:
        """Ask for a new version; keyferry's adapters refuse, since the key store rotates."""


class UnreadableError(ValueError):
    """No version of the key opens this ciphertext: it was altered, or encrypted with another key."""


class KeyManager:
    """Encrypts and decrypts under whatever versions ``adapter`` has at that moment."""

    def __init__(self, adapter: KMSAdapter) -> None:
        self.adapter = adapter

    def encrypt(self, plaintext: str) -> str:
        """Return ``plaintext`` encrypted with the active version."""
        key, nonce = self.adapter.active, os.urandom(_NONCE_BYTES)
        header = _header(key)
        sealed = _cipher(key).encrypt(nonce, plaintext.encode(), header.encode())
        return header + urlsafe_b64encode(nonce + sealed).decode()

    def decrypt(self, ciphertext: str) -> str:
        """Return the plaintext.

        Raises keyferry's ``UnknownVersionError`` if the version that it names is not there, under another id
        neither, and ``UnreadableError`` if no version opens it.
        """
        header, _, body = ciphertext.rpartition(":")
        if not header:
            return _open(self.adapter.candidates(), body.translate(_STANDARD_TO_URL), None)
        name, _, version_id = header.partition(":")
        if name != _FORMAT:
            message = f"the ciphertext's format is not {_FORMAT}"
            raise UnreadableError(message)
        authenticated = f"{header}:".encode()
        try:
            named = self.adapter.get(unquote(version_id))
        except UnknownVersionError as unknown:
            try:
                return _open(self.adapter.candidates(), body, authenticated)
            except UnreadableError:
                raise unknown from None
        return _open((named,), body, authenticated)

    def settled(self) -> tuple[str, ...]:
        """Return what a ciphertext begins with that need not be encrypted again.

        Pre-active versions count: a replica may be a moment ahead of this one, and nothing goes back.
        """
        return tuple(_header(key) for key in self.adapter.keyring if key.state != "deactivated")


def key_manager() -> KeyManager:
    """Return the KeyManager of this site."""
    return KeyManager(settings.KMS_ADAPTER)


def _header(key: Key) -> str:
    return f"{_FORMAT}:{quote(key.id, safe='')}:"


def _cipher(key: Key) -> AESGCM:
    if len(key.bytes) != _KEY_BYTES:
        message = (
            f"version {key.id} of the master key has {len(key.bytes)} bytes, and AES-256 takes {_KEY_BYTES}:"
            " set the key's encoding in the agent's configuration (base64url for secrets.token_urlsafe(32))"
            f" and length: {_KEY_BYTES}; without an agent KEYFERRY_ENCODING and KEYFERRY_LENGTH"
        )
        raise ImproperlyConfigured(message)
    return AESGCM(key.bytes)


def _open(keys: tuple[Key, ...], body: str, header: bytes | None) -> str:
    try:
        box = urlsafe_b64decode(body)
    except ValueError as error:
        message = "the ciphertext is not base64"
        raise UnreadableError(message) from error
    for key in keys:
        try:
            return _cipher(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], header).decode()
        except (InvalidTag, ValueError):
            # ValueError: too short to be one.
            continue
    message = f"no version of the master key opens the ciphertext; tried {', '.join(key.id for key in keys)}"
    raise UnreadableError(message)
