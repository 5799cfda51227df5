# SPDX-License-Identifier: Apache-2.0
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lifecycle.stores import STORES, SecretsManager, Store, VaultKv
from tests.providers.conftest import bao, moto

__all__ = ["bao", "moto"]

S = TypeVar("S", bound=Store)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory in memory, since a volume on a disk is refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyferry-test-") as directory:
        yield Path(directory)


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[type[S]], S]]:
    """Return what opens a store of a class; its servers end with the test."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "VAULT_", "KEYFERRY_"))]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:

        def open_one(kind: type[S]) -> S:
            store = kind(stack, home, lambda: request.getfixturevalue(kind.server))
            for name, value in store.environment.items():
                monkeypatch.setenv(name, value)
            return store

        yield open_one


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, opened: Callable[[type[Store]], Store]) -> Store:
    """Return each store in turn."""
    return opened(STORES[request.param])


@pytest.fixture
def vault(opened: Callable[[type[VaultKv]], VaultKv]) -> VaultKv:
    return opened(VaultKv)


@pytest.fixture
def secrets_manager(opened: Callable[[type[SecretsManager]], SecretsManager]) -> SecretsManager:
    return opened(SecretsManager)
