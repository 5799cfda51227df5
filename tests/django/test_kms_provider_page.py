# SPDX-License-Identifier: Apache-2.0
"""docs/coming-from-kms-provider.md: its code is run, and what it says of the mistakes is true."""

import base64
import re
import secrets
from pathlib import Path
from typing import Any

import pytest

from agent import environment
from agent.loading import load
from agent.sources.vault import VaultSource
from keyferry import FileAdapter, ReadOnlyKeyError
from tests.adapter.volume import Volume, version
from tests.django.rows import legacy

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-kms-provider.md").read_text()


def key_manager(number: int, adapter: FileAdapter) -> Any:
    """Return the page's KeyManager: 0 is that of before, 1 that of after."""
    namespace: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number], namespace)  # noqa: S102 -- our own page
    return namespace["KeyManager"](adapter)


@pytest.fixture
def adapter(volume: Volume) -> FileAdapter:
    return FileAdapter(volume.path, check_interval=0)


def material(*, with_marks: bool) -> str:
    while True:
        text = secrets.token_urlsafe(32)
        if bool({"-", "_"} & set(text)) == with_marks:
            return text


def test_the_code_of_before_works_until_it_does_not(volume: Volume, adapter: FileAdapter) -> None:
    old = version("1", material=material(with_marks=False))
    volume.publish(old)
    before = key_manager(0, adapter)
    after = key_manager(1, adapter)
    volume.publish(old, version("2", material=material(with_marks=True)))
    assert after.decrypt(before.encrypt("kept for ever")) == "kept for ever"
    assert adapter.active.id == "2"
    with pytest.raises(ValueError, match=r"AESGCM key must be|Invalid base64|Incorrect padding"):
        key_manager(0, adapter).encrypt("with the new key")


def test_the_code_of_after_outlives_rotations(volume: Volume, adapter: FileAdapter) -> None:
    one, two = (version(id_, material=material(with_marks=True)) for id_ in ("1", "sha256:2"))
    volume.publish(one)
    keys = key_manager(1, adapter)
    first, oldest = keys.encrypt("first"), legacy(adapter.active, "oldest")
    volume.publish(one, two)
    second = keys.encrypt("second")
    assert (first.partition(":")[2], second.partition(":")[2]) == ("1", "sha256:2")
    assert [keys.decrypt(text) for text in (oldest, first, second)] == ["oldest", "first", "second"]
    same = version("3", material=two["material"])
    volume.publish(one, two, same)
    with pytest.raises(ValueError, match=r"^no version of the master key opens this$"):
        keys.decrypt(second.replace(":sha256:2", ":3"))
    volume.publish(two)
    with pytest.raises(ValueError, match=r"^no version of the master key opens this$"):
        keys.decrypt(oldest)
    with pytest.raises(ReadOnlyKeyError):
        adapter.rotate_key()
    assert adapter.get_master_key() == two["material"]


def test_the_code_of_after_reads_what_another_store_s_id_names(volume: Volume, adapter: FileAdapter) -> None:
    value = version("1")
    volume.publish({**value, "id": value["fingerprint"]})
    keys = key_manager(1, adapter)
    ciphertext = keys.encrypt("before the move")
    volume.publish(value, version("2"))
    assert keys.decrypt(ciphertext) == "before the move"


def test_three_keys_of_four_have_a_character_that_b64decode_skips() -> None:
    keys = [secrets.token_urlsafe(32) for _ in range(4000)]
    marked = [key for key in keys if {"-", "_"} & set(key)]
    # The page's number; so far off is six standard deviations.
    assert abs(len(marked) / len(keys) - 0.74) < 0.045
    assert {len(key) for key in keys} == {43}
    for key in keys:
        right = base64.urlsafe_b64decode(key + "=")
        assert lenient(key) != right
        assert (lenient(key + "==") == right) == (key not in marked)


def lenient(text: str) -> bytes | None:
    try:
        return base64.b64decode(text)
    except ValueError:
        return None


def test_the_variables_are_the_agent_s(tmp_path: Path) -> None:
    everywhere = {*environment.COMMON, "KMS_PROVIDER", "KEYFERRY_DIR", "MASTER_ENCRYPTION_KEY"}
    known = everywhere.union(*environment.OF_PROVIDER.values())
    table = PAGE[PAGE.index("## The variables") : PAGE.index("## The order")]
    named = set(re.findall(r"`((?:[A-Z]+_)+[A-Z]+)\b", table))
    assert len(named) > 8
    assert named <= known
    environ = {"KMS_PROVIDER": "vault", "VAULT_ADDR": "https://127.0.0.1:8200", "VAULT_TOKEN": "none"}
    environ |= {"KEYFERRY_ENCODING": "base64url", "KEYFERRY_LENGTH": "32"}
    key = load(None, environ).settings.keys["master"]
    assert isinstance(key.source, VaultSource)
    assert (key.source.field, key.encoding, key.length) == ("key", "base64url", 32)
    config = tmp_path / "agent.yaml"
    config.write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    assert load(config, {}).settings.keys["master"].length == 32
