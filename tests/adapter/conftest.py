# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyferry import FileAdapter
from tests.adapter.volume import Volume

Connect = Callable[..., FileAdapter]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


@pytest.fixture
def connect(volume: Volume) -> Iterator[Connect]:
    """Make adapters of the volume that look at each use, unless told otherwise."""
    made: list[FileAdapter] = []

    def make(key: str = "master", check_interval: float = 0.0) -> FileAdapter:
        made.append(FileAdapter(volume.path, key=key, check_interval=check_interval))
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()
