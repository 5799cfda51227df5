# SPDX-License-Identifier: Apache-2.0
"""What a file may look like and what it may not, and how it is read while it is swapped."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Offer
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.settings import KeySettings
from agent.sources.file import FileSource
from keyferry.material import Encoding, Material
from tests.providers.drivers import new_value

JSON = {"format": "json", "field": "k"}
STAGED = "format: keyring can show the next version before it is used"


def fetch_file(
    path: Path, encoding: Encoding = "base64url", length: int | None = 32, **source: object
) -> Offer:
    settings = FileSource(path=path, **source)  # type: ignore[arg-type]
    key = KeySettings(name="master", provider="file", source=settings, encoding=encoding, length=length)
    return fetch(open_provider(key, timeout=5.0), {})


def failure(path: Path, encoding: Encoding = "base64url", **source: Any) -> RefreshError:
    with pytest.raises(RefreshError) as error:
        fetch_file(path, encoding, **source)
    return error.value


@pytest.mark.parametrize(
    ("ending", "kept"), [("", ""), ("\n", ""), ("\r\n", ""), ("\n\n", "\n"), ("\r", "\r")]
)
def test_one_newline_is_not_the_keys(tmp_path: Path, ending: str, kept: str) -> None:
    secret = new_value()
    path = tmp_path / "key"
    path.write_bytes(f"{secret}{ending}".encode())
    offer = fetch_file(path, "text", None)
    assert offer.versions[0].material == Material(f"{secret}{kept}".encode())
    assert offer.unstaged == f"a raw file has no history; {STAGED}"


def test_binary_is_verbatim(tmp_path: Path) -> None:
    raw = bytes([0xFF, *os.urandom(30), 0x0A])
    path = tmp_path / "key"
    path.write_bytes(raw)
    assert fetch_file(path, "binary").versions[0].material == Material(raw, binary=True)


def test_json_field(tmp_path: Path) -> None:
    secret = new_value()
    path = tmp_path / "key"
    path.write_text(json.dumps({"k": secret, "other": 1}))
    offer = fetch_file(path, format="json", field="k")
    assert offer.versions[0].material == Material(secret.encode())
    assert offer.unstaged == f"a json file has no history; {STAGED}"


AN_OBJECT = "write an object that has the field, or remove the key's field setting"


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        (b"", {}, "file {path}: the value is empty (key 'master'; check its encoding and length)"),
        (b"\n", {}, "file {path}: the value is empty (key 'master'; check its encoding and length)"),
        (b"\xff" * 32, {}, "file {path} is not UTF-8 text (byte 0); use encoding: binary for binary values"),
        (b"x" * ((1 << 20) + 1), {}, "file {path} is larger than 1 MiB, which is no key"),
        (b"{", JSON, f"file {{path}} is not JSON; {AN_OBJECT}"),
        (b"[" * 100_000, JSON, f"file {{path}} is not JSON; {AN_OBJECT}"),
        (b"[1]", JSON, f"file {{path}} is not a JSON object; {AN_OBJECT}"),
        (
            b'{"a": "x", "b": "y"}',
            JSON,
            "file {path} has no field 'k' (it has 2 other fields); check the key's field setting",
        ),
        (b'{"k": 7}', JSON, "field 'k' of file {path} is a number, not a string"),
    ],
    ids=["empty", "a newline", "binary", "large", "cut JSON", "deep JSON", "a list", "no field", "a number"],
)
def test_malformed(tmp_path: Path, content: bytes, source: dict[str, Any], message: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    error = failure(path, **source)
    assert type(error) is MalformedError
    assert error.reason == message.format(path=path)


def test_short_value_has_no_id(tmp_path: Path) -> None:
    """Where the fingerprint is the version's id, a value that may be guessed cannot have one."""
    path = tmp_path / "key"
    path.write_text("fifteen letters")
    with pytest.raises(MalformedError) as error:
        fetch_file(path, "text", None)
    assert error.value.reason == (
        f"file {path}: the value is 15 bytes long after decoding; without version ids a version is named by "
        "its fingerprint, and one of fewer than 16 bytes has none, since it would let readers of logs test "
        "guesses: use a longer key"
    )


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Path.mkdir, id="directory"),
        pytest.param(os.mkfifo, id="fifo"),
        pytest.param(_bind, id="socket"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="device"),
    ],
)
def test_not_a_regular_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Nothing but a file is read, and nothing else can make the agent wait."""
    path = tmp_path / "key"
    make(path)
    error = failure(path)
    assert type(error) is MalformedError
    assert error.reason == f"{path} is not a regular file; name the file that holds the key"


@pytest.mark.parametrize("name", ["none", "file/below"])
def test_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    error = failure(tmp_path / name)
    assert type(error) is MissingError
    assert error.reason == (
        f"file {tmp_path / name} does not exist; create it, or check the volume's mount and the key's path"
    )


def test_loop_of_links(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.symlink_to(path)
    error = failure(path)
    assert type(error) is UnavailableError
    assert error.reason == f"cannot read file {path}: Too many levels of symbolic links"


def test_permission(tmp_path: Path) -> None:
    """A file that the agent's user may not read is unavailable, and the error says who the agent is."""
    path = tmp_path / "key"
    path.touch(mode=0o400)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path; from agent.errors import RefreshError\n"
        "from agent.providers.files import read_file\n"
        "os.setgroups([]); os.setgid(4711); os.setuid(4711)\n"
        "try: read_file(Path(sys.argv[1]))\n"
        "except RefreshError as error: print(error.outcome, error.reason)"
    )
    if os.geteuid() != 0:
        pytest.skip("another user takes root")
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert (
        result.stdout
        == f"unavailable cannot read file {path}: Permission denied; the agent runs as uid 4711\n"
    )


def test_swaps_never_show(tmp_path: Path) -> None:
    """While a ConfigMap-style volume is swapped, each fetch reads one of its keys, whole."""
    secrets = [new_value(), new_value()]
    stop = threading.Event()

    def publish(number: int) -> None:
        directory = tmp_path / f"..{number}"
        directory.mkdir()
        (directory / "key").write_text(secrets[number % 2])
        (tmp_path / "..data_tmp").symlink_to(directory.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if number:
            (tmp_path / f"..{number - 1}" / "key").unlink()
            (tmp_path / f"..{number - 1}").rmdir()

    def swap() -> None:
        number = 1
        while not stop.is_set():
            publish(number)
            number += 1

    publish(0)
    (tmp_path / "key").symlink_to("..data/key")
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = {fetch_file(tmp_path / "key").versions[0].id for _ in range(300)}
    finally:
        stop.set()
        swapper.join()
    assert len(seen) == 2
