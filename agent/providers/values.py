# SPDX-License-Identifier: Apache-2.0
"""How a provider turns what it read into material, and what it shows when its store has no versions.

Rules:

- A value is taken verbatim or refused. Nothing is converted: a JSON number is not a key.
- No message holds a value or the name of a field that was not configured.
- A store without version ids has one version, named by its fingerprint.
"""

import json
from collections.abc import Mapping

from agent.errors import MalformedError
from agent.offer import Offer, Offered
from agent.settings import KeySettings
from keyferry.document import DocumentError, parse_object
from keyferry.material import (
    FINGERPRINT_MIN_BYTES,
    NO_FINGERPRINT,
    InvalidMaterialError,
    Material,
    decode,
    fingerprint,
)

_JSON_NAMES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}


def json_object(data: bytes, place: str) -> Mapping[str, object]:
    """Return the JSON object in ``data``; ``MalformedError`` if it is none."""
    try:
        return parse_object(data, place).document
    except DocumentError as error:
        message = f"{error}; write an object that has the field, or remove the key's field setting"
        raise MalformedError(message) from None


def field_material(document: Mapping[str, object], field: str, place: str) -> Material:
    """Return the string in ``field`` of ``document`` as material; ``MalformedError`` if there is none."""
    if field not in document:
        others = f"{len(document)} other field{'' if len(document) == 1 else 's'}"
        message = f"{place} has no field {field!r} (it has {others}); check the key's field setting"
        raise MalformedError(message)
    value = document[field]
    if not isinstance(value, str):
        message = f"field {field!r} of {place} is {_JSON_NAMES.get(type(value), 'null')}, not a string"
        raise MalformedError(message)
    try:
        return Material(value.encode())
    except UnicodeEncodeError:
        # `from None`: a UnicodeEncodeError carries the text.
        message = f"field {field!r} of {place} is not Unicode text: it has half of a surrogate pair"
        raise MalformedError(message) from None


def replaced_field(data: bytes, field: str, value: str, place: str) -> bytes:
    """Return the JSON object in ``data`` with the string in ``field`` replaced, and not a byte of the rest.

    Parsed and written anew, 1.10 would become 1.1, and a number too long for a float another one.
    """
    field_material(json_object(data, place), field, place)
    text, decoder = data.decode(), json.JSONDecoder()
    at = text.index("{") + 1
    while True:
        # Names and values in turn, each with what JSON allows before it.
        name, at = decoder.raw_decode(text, _skipped(text, at))
        begin = _skipped(text, at)
        _, at = decoder.raw_decode(text, begin)
        if name == field:
            return f"{text[:begin]}{json.dumps(value)}{text[at:]}".encode()


def _skipped(text: str, at: int) -> int:
    while text[at] in " \t\n\r:,":
        at += 1
    return at


def raw_material(data: bytes, place: str, *, binary: bool) -> Material:
    """Return ``data`` as material; ``MalformedError`` if it should be text and is not UTF-8."""
    try:
        return Material(data, binary=binary)
    except InvalidMaterialError as error:
        message = f"{place} is {error}"
        raise MalformedError(message) from None


def unversioned(
    material: Material,
    key: KeySettings,
    place: str,
    *,
    unstaged: str,
    ttl_seconds: float | None = None,
) -> Offer:
    """Return what a store without history shows: ``material`` alone, its fingerprint as the version's id."""
    try:
        size = len(decode(material, key.encoding, key.length))
    except InvalidMaterialError as error:
        message = f"{place}: {error} (key {key.name!r}; check its encoding and length)"
        raise MalformedError(message) from None
    version_id = fingerprint(material, size)
    if version_id == NO_FINGERPRINT:
        message = (
            f"{place}: the value is {size} bytes long after decoding; without version ids a version is named "
            f"by its fingerprint, and one of fewer than {FINGERPRINT_MIN_BYTES} bytes has none, since it "
            "would let readers of logs test guesses: use a longer key"
        )
        raise MalformedError(message)
    return Offer((Offered(version_id, None, material),), unstaged=unstaged, ttl_seconds=ttl_seconds)
