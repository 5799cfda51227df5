# SPDX-License-Identifier: Apache-2.0
"""The secret itself, how its text is decoded, and the one thing that may be shown of it.

Rules:

- Material never shows itself: ``repr``, ``str`` and ``format`` are censored, pickling is refused.
- Decoding is strict and total. Whatever is not exactly the declared encoding is an error; no character is
  ever dropped, so two different texts never decode to the same bytes.
- An error says what is wrong and where, never what the text is.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final, Literal, NoReturn, get_args

Encoding = Literal["text", "base64", "base64url", "hex", "binary"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

NO_FINGERPRINT: Final = "sha256:-"
# Below this size a secret may be guessable, and any digest of it would let a reader of logs test guesses.
FINGERPRINT_MIN_BYTES: Final = 16
_FINGERPRINT_DOMAIN: Final = b"keyferry-fingerprint-v1\0"


class InvalidMaterialError(ValueError):
    """The value is not what its encoding or length says. The message never holds the value."""


class Material:
    """A secret value, exactly as the provider gave it.

    ``raw`` holds the bytes: UTF-8 for text, anything if ``binary``. Comparison takes constant time.
    """

    __slots__ = ("_raw", "binary")

    def __init__(self, raw: bytes, *, binary: bool = False) -> None:
        """Hold ``raw``; raise ``InvalidMaterialError`` if it should be text and is not UTF-8."""
        if not binary:
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                # `from None`: a UnicodeDecodeError carries the bytes themselves.
                message = f"not UTF-8 text (byte {error.start}); use encoding: binary for binary values"
                raise InvalidMaterialError(message) from None
        self._raw = raw
        self.binary = binary

    @property
    def raw(self) -> bytes:
        """The value's bytes, not decoded."""
        return self._raw

    @property
    def text(self) -> str:
        """The value as text, verbatim; ``InvalidMaterialError`` for binary material."""
        if self.binary:
            message = "this key is binary: it has no text, use its bytes"
            raise InvalidMaterialError(message)
        return self._raw.decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Material):
            return NotImplemented
        return self.binary == other.binary and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash((self._raw, self.binary))

    def __repr__(self) -> str:
        return "Material(<censored>)"

    def __reduce__(self) -> NoReturn:
        message = "material is never pickled: a copy would leave the process unnoticed"
        raise TypeError(message)


def decode(material: Material, encoding: Encoding, length: int | None = None) -> bytes:
    """Return the key's bytes, strictly decoded.

    ``base64url`` is RFC 4648 section 5, with or without padding, as ``secrets.token_urlsafe`` writes it;
    ``base64`` is section 4 and wants its padding; ``text`` is UTF-8; ``length`` counts decoded bytes.
    Raises ``InvalidMaterialError`` for anything else, for an empty value and for one of zero bytes only.
    """
    if encoding == "binary" or material.binary:
        if encoding != "binary":
            message = f"the provider's value is binary, but the encoding is {encoding}; use encoding: binary"
            raise InvalidMaterialError(message)
        decoded = material.raw
    else:
        decoded = _decode_text(material.text, encoding)
    if not decoded:
        message = "the value is empty"
        raise InvalidMaterialError(message)
    if not any(decoded):
        message = f"the value is {len(decoded)} zero bytes, which is no key"
        raise InvalidMaterialError(message)
    if length is not None and len(decoded) != length:
        message = f"the value is {len(decoded)} bytes long after decoding as {encoding}, not {length}"
        raise InvalidMaterialError(message)
    return decoded


def fingerprint(material: Material, decoded_size: int) -> str:
    """Return ``sha256:`` and 16 hex digits that identify the material without telling it.

    Material of fewer than 16 decoded bytes has no fingerprint (``sha256:-``).
    """
    if decoded_size < FINGERPRINT_MIN_BYTES:
        return NO_FINGERPRINT
    return "sha256:" + hashlib.sha256(_FINGERPRINT_DOMAIN + material.raw).hexdigest()[:16]


def _decode_text(text: str, encoding: Encoding) -> bytes:
    if encoding == "text":
        return text.encode()
    if text != text.strip():
        message = f"white space around the value; {encoding} has none (was it written with a newline?)"
        raise InvalidMaterialError(message)
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        return _decode_base64(text, encoding)
    except ValueError as error:
        if isinstance(error, InvalidMaterialError):
            raise
        # `from None`: the library's error may quote the text.
        message = f"not valid {encoding}"
        raise InvalidMaterialError(message) from None


def _decode_base64(text: str, encoding: Encoding) -> bytes:
    altchars = b"-_" if encoding == "base64url" else b"+/"
    digits = text.rstrip("=")
    missing = "=" * (-len(digits) % 4)
    padding = text[len(digits) :]
    if padding != missing and (padding or encoding == "base64"):
        message = f"not valid {encoding}: the padding is wrong"
        raise InvalidMaterialError(message)
    decoded = base64.b64decode(digits + missing, altchars=altchars, validate=True)
    # Re-encoding proves that nothing was dropped: neither a foreign character nor trailing bits.
    if base64.b64encode(decoded, altchars=altchars).decode().rstrip("=") != digits:
        message = f"not valid {encoding}: characters outside the alphabet or left-over bits"
        raise InvalidMaterialError(message)
    return decoded
