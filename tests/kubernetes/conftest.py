# SPDX-License-Identifier: Apache-2.0
"""What more than one file of tests here asks for."""

from collections.abc import Iterator

import pytest

from tests.servers.apiserver import ApiServer


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Return an API server that is shared: what its tests make has names of its own."""
    with ApiServer(tmp_path_factory.mktemp("cluster")) as server:
        yield server
