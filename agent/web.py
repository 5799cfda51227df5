# SPDX-License-Identifier: Apache-2.0
"""The agent's HTTP endpoints: /livez, /readyz, /metrics and /status.

Rules:

- Exact paths, GET and HEAD only; everything else is 404 or 405, and nothing that a client sent comes back.
- Nothing here holds a secret.
- /livez: the loop turns. /readyz: every key can be read; staleness never makes it fail, since every pod would
  leave the service at the same moment.
- What names keys or reasons (/status, and the details of /readyz) is told to the loopback only.
- One listener for both families: probes may come by IPv6.
- So many connections at a time and no more: whoever opens thousands must not cost the pod its memory. The
  oldest gives way, since who has been slow for the longest is no probe.
"""

import errno
import ipaddress
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from agent.clock import moment
from agent.errors import ConfigError
from agent.metrics import Metrics
from agent.overview import Overview
from agent.settings import HttpSettings
from keyferry.report import describe

# The loop turns every 5 s when nothing happens; six missed turns are no pause.
STUCK_AFTER_SECONDS: Final = 30.0
_REQUEST_SECONDS: Final = 5.0
# A node's probes and a scraper or two need a handful. So many slow clients cost about 8 MiB while they last.
CONNECTIONS: Final = 256
# `stop` wakes the listener itself, so nothing has to be looked for in between.
_POLL_SECONDS: Final = 3600.0
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

Answer = tuple[HTTPStatus, str, bytes]
# As socketserver has it: a listener may be one for datagrams.
Request = socket.socket | tuple[bytes, socket.socket]


class Server:
    """Serves what ``overview`` and ``metrics`` show, in threads of its own."""

    def __init__(
        self, settings: HttpSettings, overview: Callable[[], Overview | None], metrics: Metrics
    ) -> None:
        """Keep the arguments; ``start`` binds."""
        self._settings = settings
        self._overview = overview
        self._metrics = metrics
        self._server: _Listener | None = None

    def start(self) -> str | None:
        """Bind and serve; return the address that was bound, ``None`` if HTTP is off.

        Raises ``ConfigError`` if the address cannot be bound.
        """
        host, port = self._settings.host, self._settings.port
        if port is None:
            return None
        try:
            self._server = _Listener(host, port, self._answer)
        except OSError as error:
            message = (
                f"http.listen: cannot listen on {host or '*'}:{port} ({error.strerror}); "
                'choose another port, or "off"'
            )
            raise ConfigError(message) from error
        threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="http", daemon=True
        ).start()
        return f"{host or '*'}:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, path: str, *, local: bool) -> Answer:
        overview = self._overview()
        match path:
            case "/livez":
                return self._livez(overview)
            case "/readyz":
                return _readyz(overview, local=local)
            case "/metrics":
                return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self._metrics.render()
            case "/status" if local and overview is not None:
                return HTTPStatus.OK, "application/json", _describe(overview)
            case "/status" if overview is not None:
                return HTTPStatus.FORBIDDEN, "text/plain", b"/status is for the loopback only\n"
            case _:
                return HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"

    @staticmethod
    def _livez(overview: Overview | None) -> Answer:
        if overview is not None and moment().boot - overview.turned_boot > STUCK_AFTER_SECONDS:
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the loop is stuck\n"
        return HTTPStatus.OK, "text/plain", b"ok\n"


def _readyz(overview: Overview | None, *, local: bool) -> Answer:
    ready = overview is not None and not overview.unready
    lines = ["ok" if ready else "not ready"]
    if overview is not None and local:
        lines += [f"{name}: {reason}" for name, reason in overview.unready]
        lines += [
            f"{name}: {key.freshness}" + (f" ({key.reason})" if key.reason else "")
            for name, key in overview.status.keys.items()
            if key.freshness != "fresh" and name not in dict(overview.unready)
        ]
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "text/plain; charset=utf-8", ("\n".join(lines) + "\n").encode()


def _describe(overview: Overview) -> bytes:
    document = describe(overview.generation, overview.status, moment().now)
    document |= {"unready": dict(overview.unready)}
    return json.dumps(document, indent=1).encode() + b"\n"


class _Listener(ThreadingHTTPServer):
    """One socket for IPv4 and IPv6, or for the family of the configured host."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, answer: Callable[..., Answer]) -> None:
        self.answer = answer
        # The open connections, in the order in which they came.
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if not host or ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if host or error.errno not in _NO_IPV6:
                raise
            # No IPv6 on this node: IPv4 alone serves every probe that can come.
            self.address_family = socket.AF_INET
            super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer.server_bind: it asks the DNS for the host's name, and may wait for it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "keyferry", self.server_address[1]

    def process_request(self, request: Request, client_address: object) -> None:
        """Serve in a thread of its own; hang up on the oldest client if there are too many."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
                # Its thread reads the end, and closes it.
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Request) -> None:
        """End what ``process_request`` began, however it went."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away is no event, and a traceback has no place in the log."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    server_version = "keyferry"
    sys_version = ""
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        local = _is_loopback(self.client_address[0])
        self._send(*self.server.answer(self.path.partition("?")[0], local=local))

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse in one line; the base class would quote the request, and not know other methods."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, "text/plain", f"{status.phrase.lower()}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every second."""


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback
