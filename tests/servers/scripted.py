# SPDX-License-Identifier: Apache-2.0
"""An HTTP server on loopback that answers what a test tells it: what no real server can be made to say."""

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class ScriptedServer:
    """Answers each request with what ``answer`` returns for it, and keeps the ``requests``."""

    def __init__(self, answer: Callable[[Request], Response], tls: ssl.SSLContext | None = None) -> None:
        """Keep the script; ``tls`` makes it https."""
        self.answer = answer
        self.requests: list[Request] = []
        self._scheme = "http" if tls is None else "https"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that it listens on."""
        return self._server.server_port

    @property
    def address(self) -> str:
        """The server's URL."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # Not the default poll of 0.5 s: each test would wait for it at its end.
        serve = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="scripted", daemon=True
        )
        serve.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes: the second would wait for the first one to be acknowledged.
            disable_nagle_algorithm = True

            def _respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, dict(self.headers), body)
                script.requests.append(request)
                response = script.answer(request)
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            do_GET = do_POST = do_PUT = _respond  # noqa: N815 - the base's naming

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay silent: standard error is asserted on."""

        return Handler
