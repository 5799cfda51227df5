# SPDX-License-Identifier: Apache-2.0
"""The app that the README quotes, as a reader of the README runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from tests.adapter.volume import Volume, version

APP = Path(__file__).parents[2] / "examples" / "app" / "app.py"


def test_it_works_as_it_stands(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    volume.publish(version("1"))
    environ = os.environ | {"KEYFERRY_DIR": str(volume.path)}
    ran = subprocess.run([sys.executable, APP], env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "it works\n", "")


def test_its_records_outlive_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.app import app
    from keyferry import FileAdapter

    volume, old, new = Volume(tmp_path / "volume"), version("1"), version("2")
    volume.publish(old)
    monkeypatch.setattr(app, "keys", FileAdapter(volume.path, check_interval=0))
    before = app.encrypt(b"a record")
    volume.publish(old, new)
    after = app.encrypt(b"a record")
    assert (before.partition(b":")[0], after.partition(b":")[0]) == (b"1", b"2")
    assert {app.decrypt(before), app.decrypt(after)} == {b"a record"}


def test_an_id_may_be_a_fingerprint_and_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second version has the same value: only what is authenticated tells the two apart."""
    from examples.app import app
    from keyferry import FileAdapter

    volume, value = Volume(tmp_path / "volume"), version("1")
    volume.publish({**value, "id": value["fingerprint"]})
    monkeypatch.setattr(app, "keys", FileAdapter(volume.path, check_interval=0))
    record = app.encrypt(b"a record")
    assert record.startswith(b"sha256%3A")
    assert app.decrypt(record) == b"a record"
    volume.publish({**value, "id": value["fingerprint"]}, value)
    with pytest.raises(InvalidTag):
        app.decrypt(b"1:" + record.partition(b":")[2])
