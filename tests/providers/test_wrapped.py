# SPDX-License-Identifier: Apache-2.0
"""What all wrapped keyrings have in common, unwrapped by a function in the test."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, UnavailableError
from agent.offer import Known, Offer
from agent.providers.wrapped import Ciphertext, WrappedKeyring
from agent.settings import KeySettings
from agent.sources.aws import AwsKmsSource
from keyferry.material import Encoding, Material
from keyferry.times import format_time

NOW = time.time()


class Store:
    """Unwraps by turning a text around; ``failures`` are raised for the ciphertexts that they name."""

    def __init__(self) -> None:
        self.asked: list[Ciphertext] = []
        self.failures: dict[str, Exception] = {}

    def unwrap(self, ciphertext: Ciphertext) -> bytes:
        self.asked.append(ciphertext)
        if ciphertext.text in self.failures:
            raise self.failures[ciphertext.text]
        return ciphertext.text[::-1].encode()

    def asked_since(self) -> list[str]:
        """Return the texts that were unwrapped since the last question."""
        texts = [ciphertext.text for ciphertext in self.asked]
        self.asked.clear()
        return texts


def entry(number: int, **fields: object) -> dict[str, object]:
    created_at = format_time(1_700_000_000.0 + number)
    return {"id": str(number), "created_at": created_at, "ciphertext": f"wrapped-{number}", **fields}


def document(*entries: object, **fields: object) -> str:
    return json.dumps({"schema": "keyferry-keyring/v1", "key": "master", "versions": entries, **fields})


def keyring(source: Path | str, encoding: Encoding = "text") -> WrappedKeyring:
    settings = AwsKmsSource(key_id="alias/app", keyring=source)
    return WrappedKeyring(
        KeySettings(name="master", provider="aws-kms", source=settings, encoding=encoding), settings
    )


def known(offer: Offer) -> Known:
    return {version.id: version.created_at for version in offer.versions}


def test_key_name_and_version_id_are_bound() -> None:
    store = Store()
    offer = keyring(document(entry(1), entry(2))).fetch({}, store.unwrap)
    assert [version.material for version in offer.versions] == [
        Material(b"1-depparw"),
        Material(b"2-depparw"),
    ]
    assert [ciphertext.binding for ciphertext in store.asked] == [
        {"keyferry:key": "master", "keyferry:version": "2"},
        {"keyferry:key": "master", "keyferry:version": "1"},
    ]
    assert store.asked[1].aad == b'{"keyferry:key":"master","keyferry:version":"1"}'
    assert store.asked[1].place == "version 1 in the configured keyring"


@pytest.mark.parametrize(
    ("times", "again"),
    [
        pytest.param([None, None, None], [3], id="the newest"),
        pytest.param([None, None, NOW + 1000], [3, 2], id="and the one that is active until then"),
        pytest.param([None, NOW - 1000, NOW + 1000], [3, 2], id="by the times that the keyring states"),
        pytest.param([NOW + 1, NOW + 1000, NOW + 2000], [3, 1], id="or the first, if no time has come"),
    ],
)
def test_what_is_in_use_is_unwrapped_each_time(times: list[float | None], again: list[int]) -> None:
    entries = [entry(number, activates_at=at and format_time(at)) for number, at in enumerate(times, start=1)]
    ring, store = keyring(document(*entries)), Store()
    held = known(ring.fetch({}, store.unwrap))
    assert store.asked_since() == ["wrapped-3", "wrapped-2", "wrapped-1"]
    offer = ring.fetch(held, store.unwrap)
    assert store.asked_since() == [f"wrapped-{number}" for number in again]
    assert known(offer) == held


def test_a_denial_brings_everything_into_doubt() -> None:
    """Which version is active is not the provider's to know, and one key unwraps them all."""
    ring, store = keyring(document(entry(1), entry(2), entry(3))), Store()
    held = known(ring.fetch({}, store.unwrap))
    denial = DeniedError("disabled")
    store.failures = dict.fromkeys(["wrapped-1", "wrapped-2", "wrapped-3"], denial)
    offer = ring.fetch(held, store.unwrap)
    assert [version.material for version in offer.versions] == [denial, denial, denial]


def test_a_ciphertext_that_was_replaced_in_place_is_unwrapped(tmp_path: Path) -> None:
    """By id and time it is the version that the agent holds: only its value tells that it is not."""
    file = tmp_path / "keyring.json"
    file.write_text(document(entry(1), entry(2)))
    ring, store = keyring(file), Store()
    held = known(ring.fetch({}, store.unwrap))
    file.write_text(document(entry(1, ciphertext="another"), entry(2)))
    offer = ring.fetch(held, store.unwrap)
    assert offer.versions[0].material == Material(b"rehtona")


def test_after_a_restart_everything_is_unwrapped_once() -> None:
    store = Store()
    held = known(keyring(document(entry(1), entry(2))).fetch({}, store.unwrap))
    store.asked.clear()
    keyring(document(entry(1), entry(2))).fetch(held, store.unwrap)
    assert store.asked_since() == ["wrapped-2", "wrapped-1"]


@pytest.mark.parametrize("error", [MissingError("gone"), MalformedError("broken"), DeniedError("no")])
def test_what_is_wrong_with_one_version_is_its_own_problem(error: Exception) -> None:
    store = Store()
    store.failures = {"wrapped-2": error}
    offer = keyring(document(entry(1), entry(2), entry(3))).fetch({}, store.unwrap)
    assert [version.material for version in offer.versions] == [
        Material(b"1-depparw"),
        error,
        Material(b"3-depparw"),
    ]


def test_what_is_unavailable_ends_the_fetch() -> None:
    store = Store()
    store.failures = {"wrapped-2": UnavailableError("away")}
    with pytest.raises(UnavailableError, match="away"):
        keyring(document(entry(1), entry(2), entry(3))).fetch({}, store.unwrap)
    assert store.asked_since() == ["wrapped-3", "wrapped-2"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (
            {"material": "in the clear"},
            (
                "the configured keyring: versions[0].material holds the key in the clear; remove it, and "
                "rotate: whoever read it knows the key"
            ),
        ),
        (
            {"binary": "AAAA"},
            (
                "the configured keyring: versions[0].binary holds the key in the clear; remove it, and "
                "rotate: whoever read it knows the key"
            ),
        ),
        ({"ciphertext": None}, "the configured keyring: versions[0].ciphertext is missing"),
    ],
)
def test_only_a_ciphertext_is_taken(broken: dict[str, object], reason: str) -> None:
    offer = keyring(document(entry(1, **broken), entry(2))).fetch({}, Store().unwrap)
    assert isinstance(offer.versions[0].material, MalformedError)
    assert offer.versions[0].material.reason == reason
    assert offer.versions[1].material == Material(b"2-depparw")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(entry(1), entry(2))[:-20], "the configured keyring is not JSON"),
        (document(entry(1), entry(1)), "the configured keyring: versions has two with the same id"),
        (document(), "the configured keyring: versions is empty; a keyring has at least one"),
        (
            document(entry(1), key="other"),
            "the configured keyring: key is not 'master': this file was made for",
        ),
        (document(entry(1), schema="v2"), "the configured keyring: schema is not one of keyferry-keyring/v1"),
        (
            '{"schema": "keyferry-keyring/v1", "key": "master", "versions": [], "versions": []}',
            "the configured keyring is not JSON",
        ),
    ],
    ids=["truncated", "twice the same id", "empty", "another key's", "another schema", "a name twice"],
)
def test_a_keyring_that_is_not_whole_is_refused(text: str, reason: str) -> None:
    """A truncated or mixed-up list must never look like a shorter one."""
    with pytest.raises(MalformedError) as failure:
        keyring(text).fetch({}, Store().unwrap)
    assert failure.value.reason.startswith(reason)


def test_a_missing_file_is_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"keyring\.json does not exist; create it, or check the volume's"):
        keyring(tmp_path / "keyring.json").fetch({}, Store().unwrap)


def test_a_bare_ciphertext_has_no_binding_and_no_history(tmp_path: Path) -> None:
    file = tmp_path / "ciphertext"
    file.write_text("a-long-enough-ciphertext\n")
    store = Store()
    offer = keyring(file).fetch({}, store.unwrap)
    assert [version.material for version in offer.versions] == [Material(b"txetrehpic-hguone-gnol-a")]
    assert store.asked[0].text == "a-long-enough-ciphertext"
    assert (store.asked[0].binding, store.asked[0].aad) == ({}, b"")
    assert offer.unstaged == (
        "a bare ciphertext has no history; a wrapped keyring shows the next version before it is used"
    )


NEITHER = "is neither a keyring nor a ciphertext in text; write a binary one as base64"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x01\x02\xff", NEITHER),
        (document(entry(1)).encode()[5:], NEITHER),
        (document(entry(1)).encode("utf-16"), NEITHER),
        (b"", "is empty; write a keyring or a ciphertext into it"),
        (b" \n", "is empty; write a keyring or a ciphertext into it"),
        (document(entry(1)).encode("utf-8-sig"), "begins with a byte order mark; write it without one"),
    ],
    ids=["binary", "without its head", "UTF-16", "empty", "blank", "a byte order mark"],
)
def test_what_is_no_ciphertext(data: bytes, sentence: str, tmp_path: Path) -> None:
    """It is told as what it is, and no store is asked to unwrap it."""
    file, store = tmp_path / "ciphertext", Store()
    file.write_bytes(data)
    with pytest.raises(MalformedError) as caught:
        keyring(file).fetch({}, store.unwrap)
    assert caught.value.reason == f"file {file} {sentence}"
    assert store.asked == []


@pytest.mark.parametrize(
    ("encoding", "check"),
    [
        ("binary", lambda material: material == Material(b"\xff", binary=True)),
        ("text", lambda material: isinstance(material, MalformedError)),
    ],
)
def test_wrapped_bytes_are_binary_or_refused(encoding: Encoding, check: Callable[[object], bool]) -> None:
    offer = keyring(document(entry(1)), encoding).fetch({}, lambda _: b"\xff")
    assert check(offer.versions[0].material)


def test_base64_may_be_wrapped_into_lines() -> None:
    text = b64encode(b"x" * 60).decode()
    assert Ciphertext(f"{text[:40]}\n{text[40:]}", "it", {}).decoded() == b"x" * 60
