# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoints, over real sockets on loopback."""

import http.client
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from agent.errors import ConfigError
from agent.metrics import Metrics
from agent.overview import Overview
from agent.settings import HttpSettings
from agent.web import CONNECTIONS, Server, _is_loopback
from tests.daemon.agent_process import Reply, eventually
from tests.unit.scenes import key_status, keyring, overview, version

Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that serves an overview on a free port and returns the port."""
    with ExitStack() as stack:

        def start(shown: Overview | None, host: str = "127.0.0.1") -> int:
            server = Server(HttpSettings(host=host, port=0), lambda: shown, Metrics(lambda: shown))
            address = server.start()
            stack.callback(server.stop)
            assert address is not None
            return int(address.rpartition(":")[2])

        yield start


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", body: str | None = None) -> Reply:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return Reply(response.status, response.read().decode(), dict(response.getheaders()))
    finally:
        connection.close()


def own_address() -> str:
    """Return an address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
        return address


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/status", 200),
        ("GET", "/livez?verbose", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/", 404),
        ("GET", "/livez/", 404),
        ("GET", "/LIVEZ", 404),
        ("GET", "/metrics/../status", 404),
        ("GET", "/%6civez", 404),
        ("HEAD", "/nothing", 404),
        ("POST", "/livez", 405),
        ("PUT", "/status", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/metrics", 405),
        ("NONSENSE", "/livez", 405),
    ],
)
def test_paths_and_methods(serve: Serve, method: str, path: str, status: int) -> None:
    port = serve(overview({"master": key_status(1.0)}))
    reply = ask(port, path, method, body="x=1" if method == "POST" else None)
    assert reply.status == status
    assert reply.headers["Cache-Control"] == "no-store"
    assert (reply.body == "") == (method == "HEAD")
    assert reply.headers.get("Allow") == ("GET, HEAD" if status == 405 else None)
    assert "nothing" not in reply.body


def test_what_the_client_sent_does_not_come_back(serve: Serve) -> None:
    port = serve(overview())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"<script>alert(1)</script>\r\n\r\n")
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
    assert b"script" not in answer


def test_dual_stack(serve: Serve) -> None:
    """Without a host, probes may come by IPv4 and IPv6."""
    port = serve(overview(), host="")
    assert ask(port, "/livez", host="127.0.0.1").status == 200
    assert ask(port, "/livez", host="::1").status == 200


def test_names_and_reasons_are_for_the_loopback(serve: Serve) -> None:
    port = serve(
        overview({"stale-key": key_status(99.0, freshness="stale")}, unready=(("hidden", "a reason"),)),
        host="",
    )
    assert ask(port, "/readyz").body == "not ready\nhidden: a reason\nstale-key: stale\n"
    assert ask(port, "/readyz", host="::1").body.count("\n") == 3
    assert json.loads(ask(port, "/status").body)["unready"] == {"hidden": "a reason"}

    address = own_address()
    remote = ask(port, "/readyz", host=address)
    assert (remote.status, remote.body) == (503, "not ready\n")
    refused = ask(port, "/status", host=address)
    assert (refused.status, refused.body) == (403, "/status is for the loopback only\n")


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("2001:db8::1", False),
        ("0.0.0.0", False),  # noqa: S104 - it is compared, not bound
        ("::", False),
    ],
)
def test_is_loopback(address: str, is_loopback: bool) -> None:
    assert _is_loopback(address) == is_loopback


class TestVerdicts:
    @pytest.mark.parametrize(
        ("turned_ago", "status"), [(0.0, 200), (29.0, 200), (31.0, 503)], ids=["busy", "quiet", "stuck"]
    )
    def test_livez(self, serve: Serve, turned_ago: float, status: int) -> None:
        port = serve(overview(turned_ago=turned_ago))
        assert ask(port, "/livez").status == status
        assert ask(port, "/readyz").status == 200

    def test_before_the_first_turn(self, serve: Serve) -> None:
        port = serve(None)
        assert ask(port, "/livez").status == 200
        assert ask(port, "/readyz").status == 503
        assert ask(port, "/status").status == 404
        assert ask(port, "/metrics").status == 200

    @pytest.mark.parametrize("freshness", ["stale", "expired"])
    def test_staleness_is_a_reason_and_no_failure(self, serve: Serve, freshness: str) -> None:
        """Every pod of a fleet grows stale at the same moment; none may leave the service for it."""
        port = serve(overview({"master": key_status(9e9, freshness=freshness, reason="no answer")}))
        reply = ask(port, "/readyz")
        assert (reply.status, reply.body) == (200, f"ok\nmaster: {freshness} (no answer)\n")


def test_no_body_holds_a_secret(serve: Serve) -> None:
    secret = secrets.token_urlsafe(32)
    port = serve(overview({"master": key_status(1.0)}, {"master": keyring(version("5", 0.0, secret))}))
    for path in ("/livez", "/readyz", "/metrics", "/status", "/"):
        assert secret not in ask(port, path).body


def test_a_slow_client_does_not_hold_up_the_others(serve: Serve) -> None:
    port = serve(overview())
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(b"GET /livez HT")
        began = time.monotonic()
        assert ask(port, "/livez").status == 200
        assert time.monotonic() - began < 4  # a slow one is given up after 5


def test_too_many_clients_take_no_probes_place(serve: Serve) -> None:
    """The oldest are hung up on, and all together cost no more than so many threads."""
    port = serve(overview())
    with ExitStack() as stack:
        clients = []
        for _ in range(CONNECTIONS + 50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(b"GET /livez HT")
            clients.append(client)
        assert clients[0].recv(1) == b""
        assert ask(port, "/livez").status == 200
        eventually(lambda: len(_serving()) <= CONNECTIONS)


def _serving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_off() -> None:
    server = Server(HttpSettings(port=None), lambda: None, Metrics(lambda: None))
    assert server.start() is None
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", ""], ids=["one address", "all addresses"])
def test_port_in_use(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = Server(HttpSettings(host=host, port=port), lambda: None, Metrics(lambda: None))
        with pytest.raises(ConfigError) as raised:
            server.start()
    assert str(raised.value) == (
        f"http.listen: cannot listen on {host or '*'}:{port} (Address already in use); "
        'choose another port, or "off"'
    )
    server.stop()


def test_stops_at_once(serve: Serve) -> None:
    server = Server(HttpSettings(host="127.0.0.1", port=0), overview, Metrics(lambda: None))
    server.start()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5  # nobody looks for it in between
