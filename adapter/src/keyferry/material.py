# SPDX-License-Identifier: Apache-2.0
"""The secret itself, how its text is decoded, and the one thing that may be shown of it.

Rules:

- Material never shows itself: ``repr``, ``str`` and ``format`` are censored, pickling is refused.
- Decoding is strict and total. Whatever is not exactly the declared encoding is an error and no character is
  ever dropped: texts that decode to the same bytes differ in padding or in the case of hex digits at most.
- An error says what is wrong and where, never what the text is. No frame that it passed holds the value
  either, since some error reporters upload the variables of every frame.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final, Literal, NoReturn, get_args

from keyferry.errors import KeyferryError

Encoding = Literal["text", "base64", "base64url", "hex", "binary"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

NO_FINGERPRINT: Final = "sha256:-"
# Below this size a secret may be guessable, and any digest of it would let a reader of logs test guesses.
FINGERPRINT_MIN_BYTES: Final = 16
_FINGERPRINT_DOMAIN: Final = b"keyferry-fingerprint-v1\0"


class InvalidMaterialError(KeyferryError, ValueError):
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
    try:
        return _checked(_decoded(material, encoding), encoding, length)
    except InvalidMaterialError as error:
        problem = str(error)
    # A new error, raised out here: the old one's frames hold the value.
    raise InvalidMaterialError(problem)


def fingerprint(material: Material, decoded_size: int) -> str:
    """Return ``sha256:`` and 16 hex digits that identify the material without telling it.

    Material of fewer than 16 decoded bytes has no fingerprint (``sha256:-``).
    """
    if decoded_size < FINGERPRINT_MIN_BYTES:
        return NO_FINGERPRINT
    return "sha256:" + hashlib.sha256(_FINGERPRINT_DOMAIN + material.raw).hexdigest()[:16]


def _checked(decoded: bytes, encoding: Encoding, length: int | None) -> bytes:
    if not decoded:
        message = "the value is empty"
    elif not any(decoded):
        message = f"the value is {len(decoded)} zero bytes, which is no key"
    elif length is not None and len(decoded) != length:
        message = f"the value is {len(decoded)} bytes long after decoding as {encoding}, not {length}"
    else:
        return decoded
    raise InvalidMaterialError(message)


def _decoded(material: Material, encoding: Encoding) -> bytes:
    if encoding == "binary":
        return material.raw
    if material.binary:
        message = f"the provider's value is binary, but the encoding is {encoding}; use encoding: binary"
        raise InvalidMaterialError(message)
    if encoding == "text":
        return material.raw
    text = material.text
    if text != text.strip():
        message = f"white space around the value; {encoding} has none (was it written with a newline?)"
        raise InvalidMaterialError(message)
    try:
        return binascii.unhexlify(text) if encoding == "hex" else _decode_base64(text, encoding)
    except InvalidMaterialError:
        raise
    except ValueError:
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
