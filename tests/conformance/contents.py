# SPDX-License-Identifier: Apache-2.0
"""What readers must get right about one generation: its document, its material, and where it lies."""

import base64
import secrets
from collections.abc import Iterator
from typing import Any

from tests.adapter.volume import keyring, version, withdrawn
from tests.conformance.case import BROKEN, NOT_PUBLISHED, Case, Step, generation, ok, one


def documents() -> Iterator[tuple[str, Case]]:
    old, odd = version("1"), version("2")
    good = generation(old)
    found = ok("active", of=[old])
    # Some parsers do not tell upper from lower case in the names of fields.
    more: dict[str, Any] = {"Schema": "keyferry/v2", "KEYS": {}, "future": {"a": [1]}, "Published_At": "x"}
    fields = keyring(
        version("1", material=old["material"], Material="x", MATERIAL=1, Binary=True, Activates_at="x"),
        Length=1,
        Encoding="hex",
        future=None,
    )
    document = generation(keys={"master": fields, "other": withdrawn()}, **more)
    yield "unknown-fields", one("What this reader does not know is ignored", document, found)
    name = "key #2 \"of\" 'all': ü"
    strange = generation(version(name, material=old["material"]))
    yield "strange-id", one("An id is any text", strange, ok("active", of=[{**old, "id": name}]))
    yield "other-key", one("Other keys are there, this one is not", good, NOT_PUBLISHED, key="other")
    yield "inherited-name", one("Not a key, in any language", good, NOT_PUBLISHED, key="toString")
    for name, about, data in [
        ("newer-major", "Another major version", generation(old, schema="keyferry/v2")),
        ("newer-major-10", "Not 1, though it begins with it", generation(old, schema="keyferry/v10")),
        ("no-keyferry", "Another document", generation(old, schema="kubernetes/v1")),
        ("truncated", "Half a file", good[: len(good) // 2]),
        ("empty", "No file at all", b""),
        ("twice", "Two documents", good + good),
        ("no-utf-8", "Not UTF-8", good.replace(b'"vault"', b'"v\xffult"')),
        ("list", "No object", b"[1]"),
        ("no-versions", "No version", generation()),
        ("none-ever", "None that may ever be active", generation(version("1", activates_at=None))),
        ("no-material", "A version without material", generation({**odd, "material": None})),
        ("no-time", "A time that is none", generation({**odd, "activates_at": "tomorrow"})),
    ]:
        yield f"document-{name}", one(about, data, BROKEN)


def encodings() -> Iterator[tuple[str, Case]]:
    raw = secrets.token_bytes(30) + b"\xfb\xf0"
    url, standard = base64.urlsafe_b64encode(raw).decode(), base64.b64encode(raw).decode()
    half = base64.b64encode(raw[:31]).decode()[:-1]
    short = base64.urlsafe_b64encode(raw[:31]).decode()
    text = "pässword of many characters\n"

    def case(about: str, material: str, encoding: str, decoded: bytes | None, **more: object) -> Case:
        entry = version("1", material=material, **({"binary": True} if more.pop("binary", None) else {}))
        ring = keyring(entry, **{"encoding": encoding, "length": 32, **more})
        answer = BROKEN if decoded is None else ok("active", of=[entry], decode=lambda _: decoded)
        return one(about, generation(keys={"master": ring}), answer)

    yield "base64url", case("Without padding", url.rstrip("="), "base64url", raw)
    yield "base64url-padded", case("With padding", url, "base64url", raw)
    yield "base64", case("The standard alphabet, padded", standard, "base64", raw)
    yield "hex", case("Lower case", raw.hex(), "hex", raw)
    yield "hex-upper", case("Upper case", raw.hex().upper(), "hex", raw)
    yield "text", case("UTF-8, its newline included", text, "text", text.encode(), length=None)
    yield "binary", case("Bytes that are no text", standard, "binary", raw, binary=True)
    for name, about, material, encoding in [
        ("url-alphabet", "base64 has no - and _", url, "base64"),
        ("standard-alphabet", "base64url has no + and /", standard, "base64url"),
        ("unpadded", "base64 wants its padding", standard.rstrip("="), "base64"),
        ("half-padded", "Two are missing, and one is there", half, "base64"),
        ("overpadded", "One too many", url + "=", "base64url"),
        ("bits", "Left-over bits", _with_spare_bits(url.rstrip("=")), "base64url"),
        ("newline", "A newline is no part of it", url.rstrip("=") + "\n", "base64url"),
        ("hex-newline", "A newline is no part of it", raw.hex() + "\n", "hex"),
        ("nul", "Nor is what a shell drops", url.rstrip("=") + "\0", "base64url"),
        ("hex-odd", "Half a byte", raw.hex()[:-1], "hex"),
        ("hex-digit", "No hex digit", "g" + raw.hex()[1:], "hex"),
        ("short", "31 bytes are not 32", short.rstrip("="), "base64url"),
        ("zero", "No key is all zero", "A" * 43, "base64url"),
        ("nothing", "No key is empty", "", "base64url"),
        ("rot13", "A word that is not in v1", url, "rot13"),
    ]:
        length = None if name == "half-padded" else 32
        yield f"refused-{name}", case(about, material, encoding, None, length=length)
    yield "refused-binary", case("Bytes where text is expected", standard, "base64", None, binary=True)
    # One unusable version is as bad as all: a reader that skips it would encrypt with an earlier one.
    old, bad = version("1"), version("2", material="too short")
    yield "refused-one", one("One bad version", generation(old, bad), BROKEN)


def _with_spare_bits(text: str) -> str:
    """Return a text that a lenient decoder takes for the same bytes: 32 bytes leave two bits over."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + digits[digits.index(text[-1]) + 1]


def places() -> Iterator[tuple[str, Case]]:
    data = generation(version("1"))
    for name, about, link in [
        ("outside", "Out of the volume", "../elsewhere"),
        ("absolute", "Out of the volume", "/etc"),
        ("below", "Not in the root, though it begins like a generation", "..gen-000007.a/../draft"),
        ("other-name", "Not a generation's name", "draft"),
    ]:
        yield (
            f"link-{name}",
            Case(about, {"..gen-000007.a": data, "draft": data}, [Step(link, BROKEN)]),
        )
    for strange, about in [
        ("linked-file", "keyring.json is a link"),
        ("linked-directory", "The generation is a link"),
        ("directory", "keyring.json is a directory"),
        ("fifo", "keyring.json is a pipe, and nobody may be held by it"),
        ("file", "The generation is a file"),
    ]:
        yield f"strange-{strange}", one(about, strange, BROKEN)
