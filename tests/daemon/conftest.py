# SPDX-License-Identifier: Apache-2.0
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.agent_process import AgentProcess


def new_key() -> str:
    return secrets.token_urlsafe(32)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory in memory, since a volume on a disk is refused."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyferry-test-") as directory:
        yield Path(directory)


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture
def agent(home: Path, key: str) -> Iterator[AgentProcess]:
    """Return an agent that is configured for one file, which holds ``key``, and not started yet."""
    with AgentProcess(home) as process:
        process.write_key(key)
        yield process


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Return the address of a server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
