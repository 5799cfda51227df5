# SPDX-License-Identifier: Apache-2.0
"""docs/applications.md is run, from its first line of code to its last."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import REGISTRY, generate_latest

from keyferry import KeyWithdrawnError, UnknownVersionError
from tests.adapter.volume import Volume, version, withdrawn

PAGE = (Path(__file__).parents[2] / "docs" / "applications.md").read_text()
ONE, TWO = version("1"), version("2")

Page = dict[str, Any]


@pytest.fixture
def page(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Return the names of all the page's code, on a volume with version 1."""
    volume.publish(ONE)
    monkeypatch.setenv("KEYFERRY_DIR", str(volume.path))
    names: Page = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)  # noqa: S102 -- our own page
    names["keys"].check_interval = 0
    yield names
    names["keys"].close()
    REGISTRY.unregister(names["applied"])


def test_ciphertexts_with_an_id_outlive_a_rotation(page: Page, volume: Volume) -> None:
    old = page["encrypt"](b"before")
    volume.publish(ONE, TWO)
    page["keys"].get("2")
    new = page["encrypt"](b"after")
    assert (old[0], new[0]) == ("1", "2")
    assert (page["decrypt"](*old), page["decrypt"](*new)) == (b"before", b"after")


def test_ciphertexts_without_one_too(page: Page, volume: Volume) -> None:
    nonce = os.urandom(12)
    box = nonce + AESGCM(page["keys"].active.bytes).encrypt(nonce, b"old", None)
    volume.publish(ONE, TWO)
    page["keys"].get("2")
    assert page["decrypt_old"](box) == b"old"
    with pytest.raises(ValueError, match=r"^no version of the key opens this$"):
        page["decrypt_old"](bytes(40))


def test_a_key_that_moved_to_another_store_has_another_id(page: Page, volume: Volume) -> None:
    first = page["encrypt"](b"before the move")
    moved = {**ONE, "id": "moved"}
    volume.publish(moved, TWO)
    page["keys"].get("2")
    assert page["decrypt_moved"](*first) == b"before the move"
    volume.publish(TWO)
    page["keys"].wait(0)
    with pytest.raises(UnknownVersionError, match=r"has no version '1', only: 2\."):
        page["decrypt_moved"](*first)


def test_derived_keys_follow(page: Page, volume: Volume) -> None:
    first = page["tokens_key"]()
    assert first == page["tokens_key"]()
    volume.publish(TWO)
    page["keys"].get("2")
    assert page["tokens_key"]()[0] == "2"
    deadline = time.monotonic() + 20
    while page["subkeys"].keys() != {"2"}:
        assert time.monotonic() < deadline, "what was derived from version 1 is still there"
        time.sleep(0.005)


def test_asyncio_waits_in_a_thread(page: Page, volume: Volume) -> None:
    async def wait() -> str:
        waiting = asyncio.create_task(asyncio.to_thread(page["keys"].get, "2", 20.0))
        await asyncio.sleep(0)
        volume.publish(ONE, TWO)
        return str((await waiting).id)

    assert asyncio.run(wait()) == "2"
    with pytest.raises(UnknownVersionError):
        page["keys"].get("3")


def test_what_is_applied_is_a_metric(page: Page, volume: Volume) -> None:
    def scraped() -> list[str]:
        return re.findall(r"^fedha_keyring_generation (\S+)$", generate_latest().decode(), re.MULTILINE)

    assert scraped() == ["1.0"]
    volume.publish(ONE, TWO)
    page["keys"].get("2")
    assert scraped() == ["2.0"]
    volume.publish(master=withdrawn())
    # A scrape does not wait for the callbacks' thread where that is looking already; this does.
    with pytest.raises(KeyWithdrawnError):
        page["keys"].wait(0)
    assert scraped() == ["0.0"], "no key is no reason to have no metrics"
