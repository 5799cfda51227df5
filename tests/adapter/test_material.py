# SPDX-License-Identifier: Apache-2.0
import base64
import copy
import pickle
import secrets
import string
import traceback

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyferry.errors import KeyferryError
from keyferry.material import Encoding, InvalidMaterialError, Material, decode, fingerprint
from tests.adapter.strategies import secret_bytes, write

BASE64URL = string.ascii_letters + string.digits + "-_"


def test_material_never_shows_itself() -> None:
    """Neither repr, str, format nor pickling gives the value away."""
    text = secrets.token_urlsafe(32)
    material = Material(text.encode())
    assert [repr(material), str(material), f"{material}", f"{material!r:>5}"] == ["Material(<censored>)"] * 4
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^material is never pickled: a copy would leave the process"):
            attempt(material)
    assert material.text == text


def test_material_compares_by_value_and_kind() -> None:
    assert Material(b"x") == Material(b"x")
    assert hash(Material(b"x")) == hash(Material(b"x"))
    assert Material(b"x") != Material(b"y")
    assert Material(b"x") != Material(b"x", binary=True)
    assert Material(b"x") != b"x"


def test_text_must_be_utf_8() -> None:
    with pytest.raises(InvalidMaterialError) as caught:
        Material(b"abc\xff")
    assert str(caught.value) == "not UTF-8 text (byte 3); use encoding: binary for binary values"


def test_binary_material_has_no_text() -> None:
    with pytest.raises(InvalidMaterialError, match=r"^this key is binary: it has no text, use its bytes$"):
        _ = Material(b"\xff", binary=True).text


@pytest.mark.parametrize(
    ("material", "encoding", "expected"),
    [
        pytest.param(b"correct horse\n", "text", b"correct horse\n", id="text is verbatim"),
        pytest.param(b"AQID", "base64", b"\1\2\3", id="base64"),
        pytest.param(b"AQI=", "base64", b"\1\2", id="base64, padded"),
        pytest.param(b"-_8", "base64url", b"\xfb\xff", id="base64url without padding"),
        pytest.param(b"-_8=", "base64url", b"\xfb\xff", id="base64url with padding"),
        pytest.param(b"0aFf", "hex", b"\x0a\xff", id="hex in either case"),
        pytest.param(b"text", "binary", b"text", id="text taken as bytes"),
    ],
)
def test_decode(material: bytes, encoding: Encoding, expected: bytes) -> None:
    assert decode(Material(material), encoding, len(expected)) == expected


def test_decode_takes_binary_as_it_is() -> None:
    assert decode(Material(b"\0\xff", binary=True), "binary", 2) == b"\0\xff"


@pytest.mark.parametrize(
    ("material", "encoding", "length", "problem"),
    [
        pytest.param(b"", "text", None, "the value is empty", id="empty text"),
        pytest.param(b"", "base64url", None, "the value is empty", id="empty base64url"),
        pytest.param(b"AAAA", "base64", None, "the value is 3 zero bytes, which is no key", id="all zero"),
        pytest.param(
            b"AQID",
            "base64",
            32,
            "the value is 3 bytes long after decoding as base64, not 32",
            id="wrong length",
        ),
        pytest.param(
            b"AQID\n",
            "base64",
            None,
            "white space around the value; base64 has none (was it written with a newline?)",
            id="newline",
        ),
        pytest.param(b"AQI", "base64", None, "not valid base64: the padding is wrong", id="padding missing"),
        pytest.param(
            b"AQI==", "base64", None, "not valid base64: the padding is wrong", id="padding too long"
        ),
        pytest.param(
            b"AQI==", "base64url", None, "not valid base64url: the padding is wrong", id="url padding"
        ),
        pytest.param(
            b"AQID=", "base64url", None, "not valid base64url: the padding is wrong", id="padding extra"
        ),
        pytest.param(b"AQIDB", "base64url", None, "not valid base64url", id="impossible length"),
        pytest.param(b"AQ D", "base64", None, "not valid base64", id="space inside"),
        pytest.param(b"A=QD", "base64url", None, "not valid base64url", id="padding inside"),
        pytest.param("AQÏD".encode(), "base64url", None, "not valid base64url", id="not ASCII"),
        pytest.param(
            b"+/8",
            "base64url",
            None,
            "not valid base64url: characters outside the alphabet or left-over bits",
            id="the other alphabet",
        ),
        pytest.param(
            b"AQJ",
            "base64url",
            None,
            "not valid base64url: characters outside the alphabet or left-over bits",
            id="left-over bits",
        ),
        pytest.param(b"0a0", "hex", None, "not valid hex", id="half a byte"),
        pytest.param(b"0g", "hex", None, "not valid hex", id="not hex"),
        pytest.param("0ä".encode(), "hex", None, "not valid hex", id="hex that is not ASCII"),
    ],
)
def test_decode_refuses(material: bytes, encoding: Encoding, length: int | None, problem: str) -> None:
    with pytest.raises(InvalidMaterialError) as caught:
        decode(Material(material), encoding, length)
    assert str(caught.value) == problem
    assert isinstance(caught.value, KeyferryError)


def test_decode_refuses_binary_for_a_text_encoding() -> None:
    with pytest.raises(InvalidMaterialError) as caught:
        decode(Material(b"\1", binary=True), "hex")
    expected = "the provider's value is binary, but the encoding is hex; use encoding: binary"
    assert str(caught.value) == expected


@given(secret_bytes, st.sampled_from(["base64", "base64url", "hex", "binary"]))
def test_what_was_written_is_decoded(secret: bytes, encoding: Encoding) -> None:
    assert decode(write(secret, encoding), encoding, len(secret)) == secret


@given(st.text(BASE64URL + "+/= \n", max_size=44), st.text(BASE64URL + "+/= \n", max_size=44))
def test_no_two_base64url_texts_decode_to_the_same_bytes(one: str, other: str) -> None:
    """Up to padding: whatever is accepted is the one way to write its bytes."""
    assume(one.rstrip("=") != other.rstrip("="))
    decoded = []
    for text in (one, other):
        try:
            decoded.append(decode(Material(text.encode()), "base64url"))
        except InvalidMaterialError:
            return
    assert decoded[0] != decoded[1]


@given(secret_bytes, st.data())
def test_a_mutated_base64url_text_is_refused_or_decodes_differently(
    secret: bytes, data: st.DataObject
) -> None:
    """One character replaced, inserted or dropped is never overlooked."""
    text = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    place = data.draw(st.integers(0, len(text)))
    dropped = data.draw(st.integers(0, 1))
    inserted = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=1))
    mutant = text[:place] + inserted + text[place + dropped :]
    assume(mutant.rstrip("=") != text)
    try:
        decoded = decode(Material(mutant.encode()), "base64url")
    except InvalidMaterialError:
        return
    assert decoded != secret


@given(st.binary(max_size=40), st.sampled_from(["text", "base64", "base64url", "hex"]))
def test_decode_raises_nothing_else(raw: bytes, encoding: Encoding) -> None:
    try:
        decode(Material(raw), encoding)
    except InvalidMaterialError:
        return


@pytest.mark.parametrize("encoding", ["base64", "base64url", "hex"])
def test_no_frame_of_an_error_holds_the_value(encoding: Encoding) -> None:
    """Some error reporters upload the variables of every frame that an exception passed."""
    secret = secrets.token_urlsafe(32)
    with pytest.raises(InvalidMaterialError) as caught:
        decode(Material(f"{secret}!".encode()), encoding)
    assert caught.value.__context__ is None
    assert caught.traceback[-1].name == "decode"
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in shown.stack if frame.name == "decode"]
    assert frames
    assert secret not in str([frame.locals for frame in frames])


def test_a_fingerprint_depends_on_the_material_alone() -> None:
    assert fingerprint(Material(b"0123456789abcdef"), 16) == "sha256:b1b89cb7d63c24e4"
    assert fingerprint(Material(b"0123456789abcdeg"), 16) != fingerprint(Material(b"0123456789abcdef"), 16)


def test_a_short_secret_has_no_fingerprint() -> None:
    """A digest of something guessable would let a reader of logs test guesses."""
    assert fingerprint(Material(b"0123456789abcde"), 15) == "sha256:-"
