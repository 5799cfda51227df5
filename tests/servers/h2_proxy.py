# SPDX-License-Identifier: Apache-2.0
"""A proxy on loopback that forbids everything: over TLS and HTTP/2, with a page and no word of gRPC."""

import socketserver
import ssl
import threading
from contextlib import suppress
from typing import Final, Self

_HEADER_BYTES: Final = 9
_PREFACE_BYTES: Final = 24
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK = _END_STREAM = 1
_END_HEADERS = 4
# HPACK's literals (RFC 7541): `:status: 403` and `content-type: text/html`.
_FORBIDDEN: Final = b"\x08\x03403\x0f\x10\x09text/html"


class ForbiddingProxy:
    """Answers each HTTP/2 request with 403 and a page; ``calls`` counts them."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        """Take the certificate from ``tls``."""
        tls.set_alpn_protocols(["h2"])
        self.calls = 0
        self._tls = tls
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """The server's URL."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        serve = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="h2-proxy", daemon=True
        )
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), proxy._tls.wrap_socket(self.request, server_side=True) as client:
                    proxy._serve(client)

        return Handler

    def _serve(self, client: ssl.SSLSocket) -> None:
        with client.makefile("rb") as sent:
            sent.read(_PREFACE_BYTES)
            client.sendall(_frame(_SETTINGS))
            while len(header := sent.read(_HEADER_BYTES)) == _HEADER_BYTES:
                payload = sent.read(int.from_bytes(header[:3], "big"))
                kind, flags, stream = header[3], header[4], int.from_bytes(header[5:], "big")
                if kind == _HEADERS:
                    self.calls += 1
                    page = _frame(_DATA, _END_STREAM, stream, b"<html>Blocked</html>")
                    client.sendall(_frame(_HEADERS, _END_HEADERS, stream, _FORBIDDEN) + page)
                elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                    client.sendall(_frame(kind, _ACK, payload=payload if kind == _PING else b""))


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
