# SPDX-License-Identifier: Apache-2.0
"""The demo's parts one by one: what it would not show if they were wrong."""

import io
import os
import stat
from pathlib import Path
from queue import SimpleQueue

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from examples.demo import workplace
from examples.demo.app import App, Row, Tally, content_of
from examples.demo.console import Console
from examples.demo.pod import environment
from examples.demo.store import FileStore, Notice
from examples.demo.story import DemoError, Story
from examples.demo.timeline import Sighting, Timeline
from tests.adapter.volume import Volume, version
from tests.demo.runs import BEGAN, run


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


# The app: a failure must not go unseen


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    Volume(tmp_path / "volume").publish(version("1"), version("2"))
    monkeypatch.setenv("KEYFERRY_DIR", str(tmp_path / "volume"))
    return App("a", str(tmp_path / "records.sqlite"))


def sealed(app: App, version_id: str = "2") -> Row:
    """Return record a-0 as the app stores it."""
    nonce = os.urandom(12)
    cipher = AESGCM(app.keys.get(version_id).bytes)
    return 1, "a-0", version_id, nonce, cipher.encrypt(nonce, content_of("a-0"), version_id.encode())


def test_the_app_opens_what_it_sealed(app: App) -> None:
    tally = Tally()
    app.decrypt(sealed(app, version_id="1"), tally)
    app.decrypt(sealed(app, version_id="2"), tally)
    assert tally == Tally(decrypted=2)


@pytest.mark.parametrize(
    ("name", "version_id", "added", "failure"),
    [
        pytest.param(
            "a-0", "9", b"", "key 'master' has no version '9', only: 1, 2.", id="an unknown version"
        ),
        pytest.param("a-0", "1", b"", "record a-0 of version 1: InvalidTag", id="another version"),
        pytest.param("a-0", "2", b"!", "record a-0 of version 2: InvalidTag", id="a changed ciphertext"),
        pytest.param(
            "b-0", "2", b"", "record b-0 of version 2: it holds something else", id="another record"
        ),
    ],
)
def test_the_app_counts_what_it_cannot_open(
    app: App, name: str, version_id: str, added: bytes, failure: str
) -> None:
    row, _, _, nonce, ciphertext = sealed(app)
    tally = Tally()
    app.decrypt((row, name, version_id, nonce, ciphertext + added), tally)
    assert (tally.decrypted, tally.failures) == (0, 1)
    assert failure in str(tally.failure)


# The story: a failure must not end well


def judged(timeline: Timeline, home: Path) -> str:
    """Return why the story fails."""
    story = Story(FileStore(home), [], SimpleQueue(), timeline, Console(io.StringIO(), timeline))
    with pytest.raises(DemoError) as caught:
        story.judge()
    return str(caught.value)


def test_a_failed_decrypt_fails_the_demo(tmp_path: Path) -> None:
    assert judged(run(failure="record a-7 of version 2: InvalidTag"), tmp_path) == (
        "2 decrypts failed so far; the first: record a-7 of version 2: InvalidTag"
    )


def test_an_idle_app_fails_the_demo(tmp_path: Path) -> None:
    timeline = run()
    timeline.samples["b"] = [timeline.samples["b"][0]]
    assert judged(timeline, tmp_path) == "the app of pod b decrypted nothing at all"


# The file store: how a rotation is noticed is what it claims


def changes(directory: Path) -> tuple[int, list[Path]]:
    """Return what a watch on ``directory`` would react to."""
    return directory.stat().st_mtime_ns, sorted(entry.readlink() for entry in directory.iterdir())


@pytest.mark.parametrize(("notice", "noticed"), [("timer", False), ("signal", False), ("file", True)])
def test_only_a_file_event_touches_the_watched_directory(
    tmp_path: Path, notice: Notice, noticed: bool
) -> None:
    store = FileStore(tmp_path)
    before, content = changes(tmp_path / "store"), (tmp_path / "store/keyring.json").read_bytes()
    store.rotate(notice)
    assert (changes(tmp_path / "store") != before) is noticed
    assert (tmp_path / "store/keyring.json").read_bytes() != content


def test_nobody_else_can_read_the_file_store(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.rotate("timer")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("*.json")}
    assert modes == {0o600}


def test_a_file_store_that_was_away_is_as_it_was(tmp_path: Path) -> None:
    store, file = FileStore(tmp_path), tmp_path / "store/keyring.json"
    content = file.read_bytes()
    store.go_away()
    assert not file.exists()
    store.come_back()
    assert file.read_bytes() == content


# The terminal


def shown(stream: io.StringIO) -> str:
    timeline = run()
    console = Console(stream, timeline)
    console.title("/dev/shm/keyferry-demo-12345678")
    console.row("store", "version 2 written, nobody is told", at=BEGAN + 2)
    console.sightings([Sighting(BEGAN + 2.5, "a", "2", "pre-active")])
    console.sightings(
        [Sighting(BEGAN + 6.5, "a", "1", "deactivated"), Sighting(BEGAN + 6.5, "a", "2", "active")]
    )
    console.end()
    return stream.getvalue()


def test_plain_output_is_plain_and_narrow() -> None:
    lines = shown(io.StringIO()).splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if "\x1b" in line or "\r" in line]
    row = "  6.5 s  pod a    2  2 active  3.0 ms after its time   1 deactivated "
    assert [line for line in lines if line.startswith(row)]


def test_a_terminal_gets_colour_unless_it_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mpre-active\x1b[0m" in shown(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown(Terminal())


# Where it works, and what its children get


def test_without_a_tmpfs_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace, "PLACES", ("/proc", "/does/not/exist"))
    with pytest.raises(workplace.NoTmpfsError) as caught:
        workplace.find_tmpfs()
    assert str(caught.value) == (
        "no tmpfs that you may write to (/proc, /does/not/exist); mount one "
        "(mount -t tmpfs tmpfs /dev/shm), or accept that the demo's throw-away keys reach a disk: --no-tmpfs"
    )


def test_children_get_no_foreign_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own VAULT_TOKEN must not reach the demo's agents."""
    for name in ("VAULT_TOKEN", "BAO_ADDR", "KEYFERRY_DIR", "KMS_PROVIDER", "MASTER_ENCRYPTION_KEY"):
        monkeypatch.setenv(name, "a developer's own")
    assert "a developer's own" not in environment(KEYFERRY_DIR="/here").values()
    assert environment(KEYFERRY_DIR="/here")["KEYFERRY_DIR"] == "/here"
