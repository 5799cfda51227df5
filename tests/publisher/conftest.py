# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.publisher import Publisher
from tests.publisher.scene import BOOT, Namespace, Reports, publisher_on

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an empty volume."""
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


@pytest.fixture
def shared() -> Iterator[Path]:
    """Make an empty volume that other users reach as well, as a pod with fsGroup 4000 does."""
    directory = Path(tempfile.mkdtemp(prefix="keyferry-"))
    os.chown(directory, 0, 4000)
    directory.chmod(0o2777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as opened:
        yield opened


@pytest.fixture
def reports() -> Reports:
    """Collect what the publisher of this test reports."""
    return []


@pytest.fixture
def publisher(root: Path, reports: Reports) -> Iterator[Publisher]:
    """Open a publisher on the volume."""
    opened = publisher_on(root, reports)
    opened.open(BOOT)
    yield opened
    opened.close()
