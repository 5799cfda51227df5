# SPDX-License-Identifier: Apache-2.0
"""Makes new keys: random bytes, written as the configuration wants them."""

import secrets
from base64 import b64encode
from typing import Final

from agent.settings import KeySettings
from keyferry.material import Material

DEFAULT_LENGTH_BYTES: Final = 32


def new_material(key: KeySettings) -> Material:
    """Return a new random key as the encoding and length of ``key`` want it; 32 bytes where no length is set.

    Texts are base64url without padding (RFC 4648 section 5); ``length`` counts the characters of
    ``encoding: text`` and the decoded bytes of all others.
    """
    size = key.length or DEFAULT_LENGTH_BYTES
    match key.encoding:
        case "binary":
            return Material(secrets.token_bytes(size), binary=True)
        case "hex":
            return Material(secrets.token_hex(size).encode())
        case "base64":
            return Material(b64encode(secrets.token_bytes(size)))
        case "base64url":
            return Material(secrets.token_urlsafe(size).encode())
        case "text":
            return Material(secrets.token_urlsafe(size)[: key.length].encode())
