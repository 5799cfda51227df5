# SPDX-License-Identifier: Apache-2.0
"""The smallest app: encrypts with the active version, and writes its id in front of the ciphertext."""

import os
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyferry import FileAdapter

keys = FileAdapter()


def encrypt(plaintext: bytes) -> bytes:
    """Seal with the active version; its id goes in front, in the clear, and is authenticated."""
    key, nonce = keys.active, os.urandom(12)
    # An id is any text, and may have the colon that ends it here.
    header = quote(key.id, safe="").encode()
    return header + b":" + nonce + AESGCM(key.bytes).encrypt(nonce, plaintext, header)


def decrypt(record: bytes) -> bytes:
    """Open with the version that the record names, however old it is."""
    header, _, sealed = record.partition(b":")
    key = keys.get(unquote(header.decode()))
    return AESGCM(key.bytes).decrypt(sealed[:12], sealed[12:], header)


if __name__ == "__main__":
    print(decrypt(encrypt(b"it works")).decode())
