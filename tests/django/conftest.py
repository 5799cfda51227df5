# SPDX-License-Identifier: Apache-2.0
"""The example's Django, set up once in this process, on a new database for each test."""

import os
import runpy
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from keyferry import FileAdapter
from tests.adapter.volume import Volume
from tests.servers.postgresql import PostgreSQL, installed

EXAMPLE = Path(__file__).parents[2] / "examples" / "django-fedha"

sys.path.insert(0, str(EXAMPLE))
_numbers = count()
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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Return a server. On a machine without it the test is skipped, but never in CI."""
    programs = installed()
    if programs is None and "CI" not in os.environ:
        pytest.skip("there is no PostgreSQL on this machine")
    assert programs is not None, "CI needs PostgreSQL; .ci/run installs it"
    with PostgreSQL(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Django use a new database, with its tables, here and in the processes that the test starts."""
    if request.param == "sqlite":
        variables = {"DATABASE_PATH": str(home / "db.sqlite3")}
    else:
        variables = request.getfixturevalue("postgresql").create_schema(f"test_{next(_numbers)}")
    for name in [name for name in os.environ if name.startswith(("DATABASE_", "PG"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    databases = runpy.run_path(str(EXAMPLE / "fedha" / "settings.py"))["DATABASES"]
    monkeypatch.setattr(connections, "settings", connections.configure_settings(databases))
    # Django made one when it was set up, with the settings of then.
    forget_connection()
    call_command("migrate", verbosity=0)
    yield
    forget_connection()


@pytest.fixture
def volume(home: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Return the volume that the app's adapter looks at, at each use."""
    volume = Volume(home / "volume")
    monkeypatch.setattr(settings, "KMS_ADAPTER", FileAdapter(volume.path, check_interval=0))
    return volume


def forget_connection() -> None:
    """Close this thread's connection, and let the next use make another."""
    connections["default"].close()
    del connections["default"]


def environment(volume: Path) -> dict[str, str]:
    """Return the environment of an app's process on the test's database."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "fedha.settings",
        "KEYFERRY_DIR": str(volume),
        "PYTHONPATH": str(EXAMPLE),
    }
