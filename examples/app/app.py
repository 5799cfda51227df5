# SPDX-License-Identifier: Apache-2.0
"""The smallest app: encrypts with the active version, and writes its id in front of the ciphertext."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyferry import FileAdapter

keys = FileAdapter()


def encrypt(plaintext: bytes) -> bytes:
    """Seal with the active version; its id goes in front, in the clear."""
    key, nonce = keys.active, os.urandom(12)
    sealed = AESGCM(key.bytes).encrypt(nonce, plaintext, None)
    return key.id.encode() + b":" + nonce + sealed


def decrypt(record: bytes) -> bytes:
    """Open with the version that the record names, however old it is."""
    version_id, _, sealed = record.partition(b":")
    key = keys.get(version_id.decode())
    return AESGCM(key.bytes).decrypt(sealed[:12], sealed[12:], None)


if __name__ == "__main__":
    print(decrypt(encrypt(b"it works")).decode())
