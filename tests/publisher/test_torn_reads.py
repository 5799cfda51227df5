# SPDX-License-Identifier: Apache-2.0
"""Five readers in processes of their own never see half of a publication, nothing, or something older."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from keyferry.layout import Keyring, Version
from keyferry.material import NO_FINGERPRINT, Material
from tests.publisher.readers import KEYS, Tally, documented, value
from tests.publisher.scene import NOW, Namespace, publisher_on

ROOT = Path(__file__).parents[2]
WAYS = ("reader", "adapter", "documented", "plain", "keyring_file")


def keys(number: int) -> dict[str, Keyring]:
    """Return three keys of two versions, all with the value of this publication."""
    versions = tuple(
        Version(id_, NOW, NOW - 10, NO_FINGERPRINT, Material(value(number))) for id_ in ("1", "2")
    )
    return {name: Keyring("env", "sha256:1", "text", None, versions) for name in KEYS}


@contextmanager
def reading(way: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a reader at work."""
    command = [sys.executable, "-m", "tests.publisher.readers", way, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "publications",
    [
        pytest.param(1_000, id="1000"),
        pytest.param(10_000, id="10000", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_no_torn_reads(namespace: Namespace, tmp_path: Path, publications: int) -> None:
    """Also while old generations go, five seconds after they were replaced as everywhere."""
    namespace.run(f"mount -t tmpfs -o size=1g none {shlex.quote(str(tmp_path))}")
    root = namespace.path(tmp_path)
    publisher = publisher_on(root)
    publisher.open(time.clock_gettime(time.CLOCK_BOOTTIME))
    publisher.publish(keys(1), now=NOW, boot=time.clock_gettime(time.CLOCK_BOOTTIME))
    with ExitStack() as stack:
        readers = {way: stack.enter_context(reading(way, root)) for way in WAYS}
        for number in range(2, publications + 1):
            boot = time.clock_gettime(time.CLOCK_BOOTTIME)
            assert publisher.publish(keys(number), now=NOW, boot=boot) is not None
            publisher.retire(boot)
        found = {}
        for way, process in readers.items():
            process.send_signal(signal.SIGTERM)
            found[way] = json.loads(process.communicate()[0])
    publisher.close()
    wrong = {way: (result["torn"], result["missing"], result["older"]) for way, result in found.items()}
    assert wrong == dict.fromkeys(WAYS, (0, 0, 0))
    assert {way: result["newest"] for way, result in found.items()} == dict.fromkeys(WAYS, publications)
    # They were at it while it happened, not only before and after.
    assert all(result["seen"] >= 10 for result in found.values()), found


def test_the_readers_see_what_is_wrong(root: Path) -> None:
    """Or the test above could not fail: here somebody writes files as one should not."""
    publisher = publisher_on(root)
    publisher.open(0)
    publisher.publish(keys(7), now=NOW, boot=0)
    tally, file = Tally(), (root / "b").resolve()

    def count() -> tuple[int, int, int]:
        tally.count(documented, str(root))
        return tally.torn, tally.missing, tally.older

    assert count() == (0, 0, 0)
    file.write_bytes(value(6))
    assert count() == (1, 0, 1), "a file of another generation"
    file.write_bytes(value(7)[:-1])
    assert count() == (2, 0, 1), "half a file"
    file.unlink()
    assert count() == (2, 1, 1), "no file"
    publisher.publish(keys(6), now=NOW, boot=0)
    assert count() == (2, 1, 2), "an older generation"
    publisher.close()
