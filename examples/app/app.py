# SPDX-License-Identifier: Apache-2.0
"""The smallest app: encrypts with the active version, and writes its id in front of the ciphertext."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyferry import FileAdapter

keys = FileAdapter()


def encrypt(plaintext: bytes) -> bytes:
    key, nonce = keys.active, os.urandom(12)
    return b":".join([key.id.encode(), nonce + AESGCM(key.bytes).encrypt(nonce, plaintext, None)])


def decrypt(record: bytes) -> bytes:
    version_id, _, sealed = record.partition(b":")
    key = keys.get(version_id.decode())
    return AESGCM(key.bytes).decrypt(sealed[:12], sealed[12:], None)


if __name__ == "__main__":
    print(decrypt(encrypt(b"it works")).decode())
