# SPDX-License-Identifier: Apache-2.0
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
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


@pytest.fixture
def dripping() -> Iterator[str]:
    """Return the address of a server whose answer never ends, a byte at a time: no read of it times out."""
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not over.wait(0.05):
                client.sendall(b"x")

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
