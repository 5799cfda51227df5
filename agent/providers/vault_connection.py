# SPDX-License-Identifier: Apache-2.0
"""One HTTP connection to one Vault, over the standard library.

docs/adr/0003-vault-without-an-sdk.md tells why.

Rules:

- One exchange at a time, and each ends by its deadline: also when the other side sends a byte now and then.
- The connection is kept for the next exchange. One that the other side has closed, or may have forgotten
  without a word, is replaced before it is used; nothing is sent twice.
- The environment has no say: no proxy, and no other CA bundle than the configured one or the system's.
- What goes wrong is an ``OSError`` or an ``HTTPException``; a ``ca_file`` that is of no use is told at once.
"""

import io
import select
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from agent.errors import UnavailableError
from agent.providers.base import IDLE_LIMIT_SECONDS

SIZE_LIMIT: Final = 4 << 20


class Response(NamedTuple):
    """An answer; a ``body`` of more than ``SIZE_LIMIT`` bytes is cut off there."""

    status: int
    retry_after: str
    body: bytes


class Connection:
    """An HTTP/1.1 connection to the server at ``address``, made when it is needed."""

    def __init__(self, address: str, *, ca_file: Path | None, server_name: str | None) -> None:
        """Keep whom to connect to; ``server_name`` is its certificate's where the address has another."""
        self._url = urlsplit(address)
        self._ca_file = ca_file
        self._server_name = server_name
        self._connection: HTTPConnection | None = None
        self._used = 0.0

    def exchange(
        self, method: str, target: str, *, body: bytes | None, headers: Mapping[str, str], deadline: float
    ) -> Response:
        """Return the answer to one request, by ``deadline`` (monotonic seconds)."""
        try:
            connection = self._open(deadline)
            connection.request(method, target, body, headers)
            connection.response_class = partial(_Answer, deadline=deadline)  # type: ignore[assignment]
            with connection.getresponse() as answer:
                data = answer.read(SIZE_LIMIT + 1)
        except BaseException:
            self.close()
            raise
        if answer.will_close or len(data) > SIZE_LIMIT:
            self.close()
        self._used = time.monotonic()
        return Response(answer.status, answer.getheader("Retry-After", ""), data)

    def close(self) -> None:
        """Drop the connection; the next exchange makes one, and reads the CA file again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, deadline: float) -> HTTPConnection:
        """Return the connection if it is still good, else a new one."""
        if self._connection is not None and self._is_gone(self._connection):
            self.close()
        remaining = _remaining(deadline)
        if self._connection is None:
            self._connection = self._new(remaining)
            self._connection.connect()
        self._connection.sock.settimeout(remaining)
        return self._connection

    def _is_gone(self, connection: HTTPConnection) -> bool:
        if time.monotonic() - self._used > IDLE_LIMIT_SECONDS:
            return True
        # Nothing may arrive between two requests: what makes the socket readable is the other side's goodbye.
        return bool(select.select([connection.sock], [], [], 0)[0])

    def _new(self, timeout: float) -> HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "http":
            return HTTPConnection(host, self._url.port, timeout=timeout)
        tls = _trusting(self._ca_file)
        return _TLSConnection(host, self._url.port, timeout=timeout, tls=tls, name=self._server_name or host)


class _TLSConnection(HTTPSConnection):
    """Expects a certificate of ``name``, whatever the address says."""

    def __init__(
        self, host: str, port: int | None, *, timeout: float, tls: ssl.SSLContext, name: str
    ) -> None:
        super().__init__(host, port, timeout=timeout, context=tls)
        self._tls = tls
        self._name = name

    def connect(self) -> None:
        HTTPConnection.connect(self)  # the base's own base: TCP alone
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class _Answer(HTTPResponse):
    """Reads with what is left until a deadline, instead of with a timeout that each byte starts anew."""

    def __init__(self, sock: socket.socket, *, method: str, deadline: float) -> None:
        super().__init__(sock, method=method)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp, deadline))


class _TimedReader(io.RawIOBase):
    """The bytes that come from ``sock`` until ``deadline``; closing it leaves the socket open.

    ``held`` is a file of the socket's. An answer that ends with its connection is read after getresponse()
    has closed that, and the open file is what keeps the socket until then.
    """

    def __init__(self, sock: socket.socket, held: io.BufferedIOBase, deadline: float) -> None:
        self._sock = sock
        self._held = held
        self._deadline = deadline

    def close(self) -> None:
        self._held.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the base's signature
        self._sock.settimeout(_remaining(self._deadline))
        return self._sock.recv_into(buffer)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        message = f"ca_file {ca_file} holds no PEM certificate"
        raise UnavailableError(message) from error
    except OSError as error:
        message = f"cannot read ca_file {ca_file}: {error.strerror}"
        raise UnavailableError(message) from error
