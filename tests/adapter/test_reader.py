# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyferry import mounts
from keyferry.errors import (
    ContractError,
    NotPublishedError,
    SubPathError,
    VolumeAccessError,
    VolumeMissingError,
)
from keyferry.reader import pinned_mount, read_link, read_status, read_volume
from tests.adapter.volume import Volume, status, version

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else or mount")


def test_read_volume(volume: Volume) -> None:
    link = volume.publish(version("1"), version("2"))
    published = read_volume(str(volume.path))
    assert published.link == link == read_link(str(volume.path))
    assert published.generation.number == 1
    assert [found.id for found in published.generation.keys["master"].versions] == ["1", "2"]


def test_a_large_keyring_is_read_whole(volume: Volume) -> None:
    volume.publish(*(version(str(number)) for number in range(2000)))
    assert len(read_volume(str(volume.path)).generation.keys["master"].versions) == 2000


def test_the_volume_is_missing(tmp_path: Path) -> None:
    with pytest.raises(VolumeMissingError, match=r"/nowhere does not exist: mount the volume"):
        read_volume(str(tmp_path / "nowhere"))


def test_the_volume_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "master"
    path.write_text("x")
    with pytest.raises(VolumeMissingError, match=r"/master is not a directory: mount the volume"):
        read_volume(str(path))


def test_nothing_is_published(volume: Volume) -> None:
    with pytest.raises(NotPublishedError, match=r"^nothing is published in .*/volume yet: wait for it"):
        read_volume(str(volume.path))


def test_no_proc(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside Linux nobody can tell a subPath mount; the rest stays true."""
    monkeypatch.setattr(mounts, "_MOUNTINFO", "/nowhere/mountinfo")
    with pytest.raises(NotPublishedError, match=r"^nothing is published"):
        read_volume(str(volume.path))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/etc", "'/etc'"),
        ("../elsewhere", "'../elsewhere'"),
        ("..gen-1/../..", "'..gen-1/../..'"),
        ("x", "'x'"),
    ],
)
def test_a_link_that_leads_elsewhere(volume: Volume, target: str, shown: str) -> None:
    volume.point_to(target)
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem == f"..data points to {shown}, not to a ..gen-* directory in it"


def test_data_is_no_link(volume: Volume) -> None:
    (volume.path / "..data").mkdir()
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem == "..data is not what it should be (Invalid argument)"


def test_a_dangling_link(volume: Volume) -> None:
    link = volume.publish(version("1"))
    volume.retire(link)
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem == f"..data points to {link}, which has no keyring.json"


def test_a_generation_retired_under_the_reader(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was replaced before it went, so looking again finds the next one."""
    old = volume.publish(version("1"))
    readlink = os.readlink

    def late(path: str) -> str:
        link = readlink(path)
        if link == old:
            volume.publish(version("2"))
            volume.retire(old)
        return link

    monkeypatch.setattr(os, "readlink", late)
    assert read_volume(str(volume.path)).generation.number == 2


Plant = Callable[[Path], object]


def link_out(file: Path) -> None:
    secret = file.parent.parent / "elsewhere.json"
    file.rename(secret)
    file.symlink_to(secret)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("plant", "problem"),
    [
        pytest.param(
            link_out, "{}/keyring.json is not what it should be (Too many levels of symbolic", id="link"
        ),
        pytest.param(directory, "{}/keyring.json is not what it should be (Is a directory)", id="directory"),
        pytest.param(pipe, "keyring.json is not JSON", id="a FIFO does not hold the reader"),
        pytest.param(lambda file: file.write_bytes(b""), "keyring.json is not JSON", id="empty"),
        pytest.param(
            lambda file: file.write_bytes(b"{}"), "keyring.json: schema is missing", id="empty object"
        ),
    ],
)
def test_something_else_as_keyring_json(volume: Volume, plant: Plant, problem: str) -> None:
    link = volume.publish(version("1"))
    plant(volume.path / link / "keyring.json")
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem.startswith(problem.format(link))


def test_a_generation_that_is_a_link(volume: Volume, tmp_path: Path) -> None:
    link = volume.publish(version("1"))
    shutil.move(volume.path / link, tmp_path / "elsewhere")
    (volume.path / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem == f"{link}/keyring.json is not what it should be (Not a directory)"


def test_no_frame_of_an_error_holds_material(volume: Volume) -> None:
    """Some error reporters upload the variables of every frame that an exception passed."""
    secret = secrets.token_urlsafe(32)
    volume.publish(version("1", material=secret, fingerprint=None))
    with pytest.raises(ContractError) as caught:
        read_volume(str(volume.path))
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert caught.value.__context__ is None
    assert secret not in str([frame.locals for frame in shown.stack if "keyferry" in frame.filename])


def test_the_system_runs_out(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    volume.publish(version("1"))

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(VolumeAccessError) as caught:
        read_volume(str(volume.path))
    assert caught.value.problem == "Too many open files; the node or its limits need a look"


@contextlib.contextmanager
def somebody(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """Be another user for a while, as far as file access goes."""
    mine = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(mine)


@pytest.fixture
def shared() -> Iterator[Volume]:
    """Make a volume that others can reach: pytest's own directories are private."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        volume = Volume(Path(directory) / "volume")
        volume.path.chmod(0o755)
        yield volume


@needs_root
@pytest.mark.parametrize(
    ("denied", "owner", "groups", "problem"),
    [
        pytest.param(
            "{link}/keyring.json",
            (3000, 0o440),
            [],
            """permission denied. This process has uid 1000 and groups 1000; it belongs to uid 0, group 3000,
            mode 0440. Give the pod that group: securityContext.fsGroup: 3000 (or supplementalGroups)""",
            id="file of another group",
        ),
        pytest.param(
            "{link}",
            (3000, 0o2750),
            [],
            """permission denied. This process has uid 1000 and groups 1000; it belongs to uid 0, group 3000,
            mode 2750. Give the pod that group: securityContext.fsGroup: 3000 (or supplementalGroups)""",
            id="directory of another group",
        ),
        pytest.param(
            "{link}/keyring.json",
            (3000, 0o400),
            [3000],
            """permission denied. This process has uid 1000 and groups 1000, 3000; it belongs to uid 0, group
            3000, mode 0400. Let the group read: volume.mode "0440" in the agent's configuration""",
            id="the group may not read",
        ),
        pytest.param(
            "",
            (0, 0o750),
            [],
            """permission denied. This process has uid 1000 and groups 1000; it belongs to uid 0, group 0,
            mode 0750. Give the pod that group: securityContext.fsGroup: 0 (or supplementalGroups)""",
            id="the root",
        ),
    ],
)
def test_permission_denied(
    shared: Volume, denied: str, owner: tuple[int, int], groups: list[int], problem: str
) -> None:
    link = shared.publish(version("1"))
    group, mode = owner
    place = shared.path / denied.format(link=link)
    os.chown(place, -1, group)
    place.chmod(mode)
    with somebody(1000, 1000, groups), pytest.raises(VolumeAccessError) as caught:
        read_volume(str(shared.path))
    assert caught.value.path.rstrip("/") == str(place)
    assert caught.value.problem == " ".join(problem.split())


@needs_root
def test_the_advice_about_groups_is_right(shared: Volume) -> None:
    link = shared.publish(version("1"))
    for place in (shared.path, shared.path / link, shared.path / link / "keyring.json"):
        os.chown(place, -1, 3000)
        place.chmod(0o440 if place.suffix == ".json" else 0o2750)
    with somebody(1000, 1000, [3000]):
        assert read_volume(str(shared.path)).link == link


@needs_root
def test_permission_denied_above_the_volume(shared: Volume) -> None:
    shared.path.parent.chmod(0o700)
    with somebody(1000, 1000, []), pytest.raises(VolumeAccessError) as caught:
        read_volume(str(shared.path))
    assert (
        caught.value.problem == "permission denied, and no permission to see why: check the directories above"
    )


@needs_root
def test_permission_denied_though_the_mode_allows_it(shared: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.publish(version("1"))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        VolumeAccessError, match=r"The mode allows it, so look for SELinux, AppArmor or a user"
    ):
        read_volume(str(shared.path))


MOUNTINFO = """\
1 0 254:0 / / rw,relatime - ext4 /dev/root rw
40 1 0:35 / /run/keyferry ro - tmpfs tmpfs rw
41 1 0:36 /..gen-000007.k3x9/master /run/keys/master ro - tmpfs tmpfs rw
42 1 0:36 /..gen-000007.k3x9 /run/pinned ro shared:1 - tmpfs tmpfs rw
43 1 0:36 /..gen-000007.k3x9/master//deleted /run/with\\040space/master ro - tmpfs tmpfs rw
44 1 0:36 /sub /run/below ro - tmpfs tmpfs rw
45 1 0:37 / /run/a\x0bb\u2028c\rd ro - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        pytest.param("/run/keyferry", None, id="the whole volume"),
        pytest.param("/run/keys", "/run/keys/master", id="a file in the directory"),
        pytest.param("/run/keys/master", "/run/keys/master", id="the file itself"),
        pytest.param("/run/pinned", "/run/pinned", id="one generation as the directory"),
        pytest.param("/run/with space", "/run/with space/master", id="escaped, and deleted since"),
        pytest.param("/run/below", None, id="a directory of the volume, shared with the agent"),
        pytest.param("/run/key", None, id="a name that only begins alike"),
    ],
)
def test_pinned_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, mount: str | None) -> None:
    """Whatever is mounted beside it: in the last line's name are the ends of other kinds of lines."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(MOUNTINFO.encode())
    monkeypatch.setattr(mounts, "_MOUNTINFO", str(mountinfo))
    assert pinned_mount(path) == mount


@needs_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
@pytest.mark.parametrize("sub_path", ["master", "..data"])
def test_a_real_sub_path_mount(volume: Volume, tmp_path: Path, sub_path: str) -> None:
    """What Kubernetes does for subPath: resolve the volume's links, then bind what they name."""
    link = volume.publish(version("1"))
    (volume.path / link / "master").write_text("x")
    (volume.path / "master").symlink_to("..data/master")
    app = tmp_path / "app"
    app.mkdir()
    target = app / "master" if sub_path == "master" else app
    if target != app:
        target.touch()
    script = (
        f"mount --bind $(readlink -f {volume.path}/{sub_path}) {target} && exec {sys.executable} -m keyferry"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{script} --dir {app}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(
        f"keyferry: {target} is a subPath mount: it stays at one generation for ever"
    )
    assert done.returncode == 2


def test_a_sub_path_mount_is_told(volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"41 1 0:36 /..gen-000007.k3x9/master {volume.path}/master ro - tmpfs tmpfs rw\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", str(mountinfo))
    with pytest.raises(SubPathError) as caught:
        read_volume(str(volume.path))
    assert caught.value.path == f"{volume.path}/master"


def test_read_status(volume: Volume) -> None:
    assert read_status(str(volume.path)) is None
    volume.write_status(status())
    found = read_status(str(volume.path))
    assert found is not None
    assert found.generation == 7
    volume.write_status([])
    assert read_status(str(volume.path)) is None
