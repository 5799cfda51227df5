# SPDX-License-Identifier: Apache-2.0
"""The watcher on real directories."""

import errno
import os
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.events import Event, Events
from agent.filestate import file_state
from agent.loading import Loaded
from agent.services import Services
from agent.settings import HttpSettings, KeySettings, Settings, VolumeSettings
from agent.sources.file import FileSource
from agent.watcher import Watcher
from tests.daemon.agent_process import eventually

Message = tuple[set[Path], bool]


class Scene:
    """A watcher of two files and a volume."""

    def __init__(self, home: Path) -> None:
        self.volume = home / "volume"
        self.file = home / "watched" / "file"
        self.other = home / "watched" / "other"
        for directory in (self.volume / "..status", self.volume / "..gen", self.file.parent):
            directory.mkdir(parents=True)
        self.file.write_text("1")
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.warnings: list[str] = []
        self.watcher = Watcher(self.volume, notify=self._notify, warn=self.warnings.append)

    def _notify(self, files: Collection[Path], volume: bool) -> None:
        self.messages.put((set(files), volume))

    def next(self) -> Message:
        return self.messages.get(timeout=5)

    @property
    def quiet(self) -> bool:
        """Tell whether nothing comes for a moment."""
        with suppress(queue.Empty):
            self.messages.get(timeout=0.3)
            return False
        return True


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    found.watcher.start([found.file, found.other])
    yield found
    found.watcher.stop()


def _write(scene: Scene) -> None:
    scene.file.write_text("22")


def _rename(scene: Scene) -> None:
    new = scene.file.with_name("new")
    new.write_text("1")
    new.rename(scene.file)


def _unlink(scene: Scene) -> None:
    scene.file.unlink()


def _chmod(scene: Scene) -> None:
    scene.file.chmod(0o400)


def _link(scene: Scene) -> None:
    target = scene.file.with_name("target")
    target.write_text("1")
    scene.file.unlink()
    scene.file.symlink_to("target")


@pytest.mark.parametrize("change", [_write, _rename, _unlink, _chmod, _link])
def test_another_file_behind_the_name(scene: Scene, change: Callable[[Scene], None]) -> None:
    change(scene)
    files, volume = scene.next()
    assert files == {scene.file}
    assert not volume


def test_a_file_that_appears(scene: Scene) -> None:
    scene.other.write_text("1")
    assert scene.next() == ({scene.other}, False)


def test_neighbours_are_nobodys_business(scene: Scene) -> None:
    scene.file.with_name("neighbour").write_text("1")
    scene.file.read_text()
    assert scene.quiet


def test_a_burst_is_few_messages(scene: Scene) -> None:
    """One, unless whoever writes is held up in the middle."""
    writes = 50
    for number in range(writes):
        scene.file.write_text(str(number))
    assert scene.next() == ({scene.file}, False)
    messages = 1
    while not scene.quiet:
        messages += 1
    assert messages < writes / 5


def test_what_changed_before_it_was_watched(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.other.write_text("1")
    seen = {file: file_state(file) for file in (scene.file, scene.other)}
    _write(scene)
    scene.watcher.start(seen, seen)
    try:
        assert scene.next() == ({scene.file}, False)
        assert scene.quiet
    finally:
        scene.watcher.stop()


@pytest.mark.parametrize("name", ["planted", "..gen/planted"])
def test_the_volume(scene: Scene, name: str) -> None:
    (scene.volume / name).write_text("x")
    assert scene.next() == (set(), True)


def test_the_heartbeat_is_not_heard(scene: Scene) -> None:
    temporary = scene.volume / "..status" / "..tmp"
    temporary.write_text("{}")
    temporary.rename(scene.volume / "..status" / "status.json")
    assert scene.quiet


def test_other_files_from_now_on(scene: Scene, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere" / "file"
    second.parent.mkdir()
    scene.watcher.watch([second])
    second.write_text("1")
    assert scene.next() == ({second}, False)
    scene.file.write_text("22")
    assert scene.quiet


def test_a_directory_that_does_not_exist(scene: Scene, tmp_path: Path) -> None:
    scene.watcher.watch([scene.file, tmp_path / "nowhere" / "file"])
    _write(scene)
    assert scene.next() == ({scene.file}, False)
    assert scene.warnings == []


@pytest.mark.parametrize("through", ["volume", "file"])
def test_through_a_link(tmp_path: Path, through: str) -> None:
    """What is behind a link is watched, not the link."""
    scene = Scene(tmp_path)
    linked = tmp_path / "linked"
    linked.symlink_to(scene.volume if through == "volume" else scene.file.parent)
    volume = linked if through == "volume" else scene.volume
    watcher = Watcher(volume, notify=scene._notify, warn=scene.warnings.append)
    watcher.start([linked / "file"] if through == "file" else [])
    try:
        if through == "volume":
            (linked / "..status" / "status.json").write_text("{}")
            assert scene.quiet
            (scene.volume / "planted").write_text("x")
            assert scene.next() == (set(), True)
        else:
            _write(scene)
            assert scene.next() == ({linked / "file"}, False)
    finally:
        watcher.stop()


def test_what_cannot_be_watched_is_told_and_the_rest_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with no more watches, or a directory that the agent may enter but not read."""
    scene = Scene(tmp_path)
    closed = tmp_path / "closed"
    monkeypatch.setattr(Path, "is_dir", lambda path: path == closed or path.exists())
    scene.watcher.start([scene.file, closed / "file"])
    try:
        (warning,) = scene.warnings
        assert warning == (
            f"cannot watch {closed} (No such file or directory): changes there are noticed within 30 s, not "
            "at once"
        )
        _write(scene)
        assert scene.next() == ({scene.file}, False)
    finally:
        scene.watcher.stop()


@pytest.mark.parametrize("behind_a_link", [False, True])
def test_without_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_a_link: bool) -> None:
    """No watch at all, or one beside a link whose target lies elsewhere: it is looked at all the same."""
    scene = Scene(tmp_path)
    monkeypatch.setattr("agent.watcher.LOOK_EVERY_SECONDS", 0.05)
    link = tmp_path / "link"
    link.symlink_to(scene.file)
    watched = link if behind_a_link else scene.file
    if not behind_a_link:
        monkeypatch.setattr("agent.watcher.Observer", _no_instances_left)
    scene.watcher.start([watched])
    try:
        assert scene.next() == (set(), True)
        _write(scene)
        while not (message := scene.next())[0]:
            pass
        assert message == ({watched}, True)
        assert not scene.watcher.broken
    finally:
        scene.watcher.stop()


def _no_instances_left() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watcher_that_ends_is_told_once(tmp_path: Path) -> None:
    """A thread that must not end is guarded; the agent goes on without it."""
    volume = tmp_path / "volume"
    volume.mkdir()
    key = KeySettings(name="master", provider="file", source=FileSource(path=tmp_path / "key"))
    settings = Settings(
        volume=VolumeSettings(path=volume), http=HttpSettings(port=None), keys={"master": key}
    )
    told: list[Event] = []
    events = Events(lambda: 0.0)
    failed = threading.Event()

    def changed(files: Collection[Path], volume: bool) -> None:
        if (tmp_path / "key").exists():
            failed.set()
            raise SystemExit  # ends a thread without a word

    services = Services(Loaded(settings), events=events, overview=lambda: None, changed=changed)
    services.start()
    events.attach(told.append)
    try:
        services.check()
        assert told == []
        (tmp_path / "key").write_text("x")
        assert failed.wait(5)

        def look() -> list[Event]:
            services.check()
            return told

        eventually(look)
        services.check()
        assert [event.fields["reason"] for event in told] == [
            "the watcher has ended: changes are seen by the timer and by SIGHUP only"
        ]
        services.configure(Loaded(settings))
    finally:
        services.stop()
