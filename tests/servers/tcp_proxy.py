# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on loopback that can be told to misbehave, between a client and a real server.

    with TcpProxy(bao.port) as proxy:
        proxy.behave("stall")     # also cuts the connections that there are

It works on bytes, so TLS passes through it untouched.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Literal, Self

Behaviour = Literal["pass", "refuse", "reset", "stall"]


class TcpProxy:
    """Listens on ``port`` and forwards to ``upstream`` as long as it behaves.

    ``refuse`` closes the listener's new connections at once, ``reset`` does so with a TCP reset, ``stall``
    takes them and everything that is sent, and never answers.
    """

    def __init__(self, upstream: int, host: str = "127.0.0.1") -> None:
        """Keep the port of ``host`` to forward to."""
        self._upstream = (host, upstream)
        self._behaviour: Behaviour = "pass"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="tcp-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes the thread in accept; close alone would leave it there.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    def behave(self, behaviour: Behaviour) -> None:
        """Cut what is connected, and treat every new connection so."""
        self._behaviour = behaviour
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,), name="tcp-proxy-pump", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._tracked(client), contextlib.suppress(OSError):
            match self._behaviour:
                case "pass":
                    with socket.create_connection(self._upstream) as server, self._tracked(server):
                        _pump(client, server)
                case "stall":
                    while client.recv(1 << 16):
                        pass
                case "reset":
                    # Lingering for 0 seconds makes close send a reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                case "refuse":
                    pass

    @contextlib.contextmanager
    def _tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


def _pump(one: socket.socket, other: socket.socket) -> None:
    peers = {one: other, other: one}
    while True:
        for ready in select.select(list(peers), [], [])[0]:
            data = ready.recv(1 << 16)
            if not data:
                return
            peers[ready].sendall(data)
