# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.providers.drivers import Driver
from tests.providers.stores import DRIVERS
from tests.servers.moto_server import Moto
from tests.servers.openbao import OpenBao


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One real server for the whole session: tests keep apart by mounts and policies of their own."""
    with OpenBao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """One double of AWS for the whole session: tests keep apart by the names of secrets and keys."""
    with Moto() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each cell of the contract suite on each driver for which it means something."""
    if "driver" in metafunc.fixturenames:
        cell = metafunc.function.__name__.removeprefix("test_")
        names = [name for name, driver in DRIVERS.items() if cell not in driver.absent]
        metafunc.parametrize("driver", names, indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """Return the parameter's store, without a key yet. The server starts only for who needs it."""
    made = DRIVERS[request.param]
    with ExitStack() as stack:
        yield made(stack, tmp_path, lambda: request.getfixturevalue(made.server))
