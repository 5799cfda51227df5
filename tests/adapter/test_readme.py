# SPDX-License-Identifier: Apache-2.0
"""What the package's page promises is run."""

import re
from pathlib import Path
from typing import Any

import pytest

import keyferry
from tests.adapter.volume import Volume, version

README = (Path(__file__).parents[2] / "adapter" / "README.md").read_text()


def test_the_example_encrypts_across_a_rotation(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = version("1"), version("2")
    volume.publish(one)
    monkeypatch.setenv("KEYFERRY_DIR", str(volume.path))
    example: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], example)  # noqa: S102 -- our own page
    old = example["encrypt"](b"before")
    volume.publish(one, two)
    assert example["keys"].get("2").state == "active"
    new = example["encrypt"](b"after")
    assert (old[0], new[0]) == ("1", "2")
    assert (example["decrypt"](*old), example["decrypt"](*new)) == (b"before", b"after")


def test_the_table_of_errors_is_complete() -> None:
    listed = set(re.findall(r"^\| (?:\.\.\. )?`(\w+Error)`", README, re.MULTILINE))
    public = {name for name in keyferry.__all__ if name.endswith("Error")} - {"KeyferryError"}
    assert listed == public
