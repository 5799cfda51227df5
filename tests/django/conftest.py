# SPDX-License-Identifier: Apache-2.0
"""The example's Django, set up once in this process, on a database in memory's file system for each test."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from keyferry import FileAdapter
from tests.adapter.volume import Volume

EXAMPLE = Path(__file__).parents[2] / "examples" / "django-fedha"

sys.path.insert(0, str(EXAMPLE))
with pytest.MonkeyPatch.context() as patch:
    for name in ("KEYFERRY_DIR", "KMS_PROVIDER"):
        patch.delenv(name, raising=False)
    patch.setenv("DJANGO_SETTINGS_MODULE", "fedha.settings")
    # Read once, here: what tests change, they change in the settings.
    django.setup()


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory in memory, since a volume on a disk is refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyferry-test-") as directory:
        yield Path(directory)


@pytest.fixture
def database(home: Path) -> Iterator[Path]:
    """Let Django use a new database, with its tables."""
    path = home / "db.sqlite3"
    connection.settings_dict["NAME"] = str(path)
    call_command("migrate", verbosity=0)
    yield path
    connection.close()


@pytest.fixture
def volume(home: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Return the volume that the app's adapter looks at, at each use."""
    volume = Volume(home / "volume")
    monkeypatch.setattr(settings, "KMS_ADAPTER", FileAdapter(volume.path, check_interval=0))
    return volume


def environment(database: Path, volume: Path) -> dict[str, str]:
    """Return the environment of an app's process."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "fedha.settings",
        "DATABASE_PATH": str(database),
        "KEYFERRY_DIR": str(volume),
        "PYTHONPATH": str(EXAMPLE),
    }
