# SPDX-License-Identifier: Apache-2.0
"""What the agent says about a volume before it trusts it with a key, on real mounts."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from agent.settings import VolumeSettings
from agent.volume import Inspection, inspect, mount_of
from tests.publisher.conftest import needs_root
from tests.publisher.scene import Namespace, user

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys; from pathlib import Path
from agent.settings import VolumeSettings; from agent.volume import inspect
print(json.dumps(inspect(VolumeSettings(path=Path(sys.argv[1]), **json.loads(sys.argv[2])))._asdict()))
"""

MOUNT_ONE = "mount an emptyDir with medium: Memory there"
NOT_TMPFS = (
    "volume.path: {path} is {kind}, not a tmpfs: keys could reach a disk. "
    "Mount an emptyDir with medium: Memory, or set volume.require_tmpfs: false if you accept that"
)
NOT_WRITABLE = (
    "volume.path: {path} is not writable for uid {uid}, gid {gid}; "
    "set the pod's fsGroup or mount it without readOnly for the agent"
)
SWAP = "{path} may be swapped to disk: this node has swap and the tmpfs is mounted without noswap"
PART = "{path} is part of a larger volume (a subPath or bind mount); the app must mount the same part"

NODE_HAS_SWAP = "printf 'Filename\\n/dev/sdb\\n' >swaps; mount --bind swaps /proc/swaps; "
NODE_HAS_NO_SWAP = "printf 'Filename\\n' >swaps; mount --bind swaps /proc/swaps; "
TMPFS = "mount -t tmpfs -o mode=770,size=1m none volume; "

ODD = "odd - \\ name\nm\N{LATIN SMALL LETTER U WITH DIAERESIS}"

CLEAN = Inspection((), ())


def refused(problem: str) -> Inspection:
    return Inspection((problem,), ())


def warned(warning: str) -> Inspection:
    return Inspection((), (warning,))


def inspected(namespace: Namespace, path: Path, **settings: object) -> Inspection:
    """Return what a process in ``namespace`` says about ``path``."""
    arguments = shlex.join([sys.executable, "-c", PROGRAM, str(path), json.dumps(settings)])
    found = json.loads(namespace.run(f"cd {shlex.quote(str(ROOT))}; {arguments}"))
    return Inspection(tuple(found["problems"]), tuple(found["warnings"]))


@pytest.mark.parametrize(
    ("script", "settings", "expected"),
    [
        pytest.param(NODE_HAS_NO_SWAP + TMPFS, {}, CLEAN, id="tmpfs"),
        pytest.param(NODE_HAS_SWAP + TMPFS, {}, warned(SWAP), id="tmpfs on a node with swap"),
        pytest.param(
            NODE_HAS_SWAP + TMPFS.replace("size", "noswap,size"), {}, CLEAN, id="tmpfs with noswap"
        ),
        pytest.param(NODE_HAS_SWAP + "mount -t ramfs none volume", {}, CLEAN, id="ramfs is never swapped"),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + "chmod 777 volume", {}, CLEAN, id="an emptyDir is open to everybody"
        ),
        pytest.param("", {}, refused(NOT_TMPFS), id="disk"),
        pytest.param("", {"require_tmpfs": False}, CLEAN, id="disk, accepted"),
        pytest.param(
            "chmod 777 volume", {"require_tmpfs": False},
            warned("{path} is writable for everybody (mode 0777)"), id="disk, open to everybody",
        ),
        pytest.param(
            TMPFS + "mount -o remount,ro volume", {}, refused(NOT_WRITABLE), id="read-only",
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + "mkdir whole; mount -t tmpfs none whole; mkdir -m 770 whole/part; "
            "mount --bind whole/part volume",
            {}, warned(PART), id="subPath",
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + "mount --bind volume volume", {}, CLEAN, id="all of it, bound again",
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + "mkdir -m 770 volume/part; mount --bind volume/part volume",
            {}, warned(PART), id="a part of it bound over it",
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + "mount -t tmpfs -o mode=770 over volume", {}, CLEAN, id="mounted over"
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + "chown 1234 volume", {},
            warned("{path} belongs to uid 1234, neither root nor the agent's uid {uid}"),
            id="of somebody else", marks=needs_root,
        ),
        pytest.param(
            "mount -t tmpfs none /proc", {},
            refused(NOT_TMPFS.replace("{kind}", "of an unknown kind")), id="a system that does not tell",
        ),
        pytest.param(
            TMPFS + "cat /proc/self/mountinfo >mountinfo; mount -t tmpfs none /proc; mkdir /proc/self; "
            "mv mountinfo /proc/self",
            {}, CLEAN, id="a kernel without swap",
        ),
        pytest.param(
            NODE_HAS_NO_SWAP + TMPFS + f"mount -t tmpfs none '{ODD}'",
            {}, CLEAN, id="odd names beside it",
        ),
    ],
)  # fmt: skip
def test_mounts(
    namespace: Namespace, tmp_path: Path, script: str, settings: dict[str, object], expected: Inspection
) -> None:
    """What is mounted is real, and so is what is said about it."""
    path = tmp_path / "volume"
    path.mkdir(mode=0o770)
    (tmp_path / ODD).mkdir()
    disk = mount_of(path)
    assert disk is not None
    words = {"path": path, "uid": os.geteuid(), "gid": os.getegid(), "kind": f"on {disk.file_system}"}
    namespace.run(f"cd {shlex.quote(str(tmp_path))}; {script}")
    assert inspected(namespace, path, **settings) == Inspection(
        tuple(text.format(**words) for text in expected.problems),
        tuple(text.format(**words) for text in expected.warnings),
    )


@pytest.mark.parametrize("name", ["with space", "tab\tand\nnewline", "b\\040ck", "\N{SNOWMAN} and space"])
def test_mount_points_have_any_name(namespace: Namespace, tmp_path: Path, name: str) -> None:
    """The system writes some characters in octal."""
    path = tmp_path / name
    path.mkdir()
    namespace.run(
        f"cd {shlex.quote(str(tmp_path))}; {NODE_HAS_NO_SWAP} mount -t tmpfs none {shlex.quote(name)}"
    )
    assert inspected(namespace, path) == Inspection((), ())


def test_the_link_to_a_mount_is_that_mount(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to("volume")
    namespace.run(f"cd {shlex.quote(str(tmp_path))}; {NODE_HAS_NO_SWAP} {TMPFS}")
    assert inspected(namespace, tmp_path / "link") == Inspection((), ())


def test_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    problem = f"volume.path: {path} does not exist; {MOUNT_ONE}"
    assert inspect(VolumeSettings(path=path)) == Inspection((problem,), ())


def test_a_file_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    problem = f"volume.path: {path} is not a directory; {MOUNT_ONE}"
    assert inspect(VolumeSettings(path=path)) == Inspection((problem,), ())


def test_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "volume"
    problem = f"volume.path: {path} cannot be looked at (Not a directory)"
    assert inspect(VolumeSettings(path=path)) == Inspection((problem,), ())


@needs_root
def test_an_agent_without_permissions(shared: Path) -> None:
    """Everything at once: a person who fixes one thing wants to know of the others."""
    shared.chmod(0o755)
    os.chown(shared, 1, 4000)
    with user(1234, 1235):
        found = inspect(VolumeSettings(path=shared, require_tmpfs=False))
    assert found == Inspection(
        (NOT_WRITABLE.format(path=shared, uid=1234, gid=1235),),
        (
            f"{shared} belongs to uid 1, neither root nor the agent's uid 1234",
            (
                "the agent (uid 1234) is not a member of group 4000, so it cannot give files to it; "
                "set fsGroup or supplementalGroups, or volume.group"
            ),
        ),
    )


@needs_root
def test_a_member_of_the_group(shared: Path) -> None:
    shared.chmod(0o775)
    with user(1234, 1235, 4000):
        assert inspect(VolumeSettings(path=shared, require_tmpfs=False)) == Inspection((), ())


def test_an_unknown_group_is_the_publishers_business(tmp_path: Path) -> None:
    """It refuses it; here it would be said twice."""
    settings = VolumeSettings(path=tmp_path, require_tmpfs=False, group="no-such-group")
    assert inspect(settings) == Inspection((), ())
