# SPDX-License-Identifier: Apache-2.0
"""What Vault's answers mean, those that no real server can be made to give among them; and what they leak."""

import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from agent.errors import MalformedError, MissingError, RefreshError, UnavailableError
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.providers.vault_connection import SIZE_LIMIT
from agent.sources.vault import VaultAuth, VaultSource
from keyferry.material import Material
from tests.providers.drivers import key, new_value
from tests.servers.scripted import Request, Response, ScriptedServer

TOKEN = "token-for-this-test"
CREATED = "2026-01-31T08:15:00.123456789Z"

Script = Callable[[Request], Response]


def vault(status: int, data: object = None, **headers: str) -> Response:
    """Return an answer of Vault's own shape."""
    document = {"errors": ["a sentence"]} if data is None else {"request_id": "1", "data": data}
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})


def fetch_from(script: Script, **settings: object) -> tuple[list[Request], object]:
    """Fetch once from a server that answers by ``script``; return the requests and the offer or the error."""
    with ScriptedServer(script) as server:
        source = VaultSource(
            **{
                "address": server.address,
                "path": "secret/app/key",
                "auth": VaultAuth(token=TOKEN),
                **settings,
            }  # type: ignore[arg-type]
        )
        provider = open_provider(key(source, "vault"), timeout=2.0)
        try:
            return server.requests, fetch(provider, {})
        except RefreshError as error:
            return server.requests, error
        finally:
            provider.close()


def after_login(answer: Response) -> Script:
    """Give ``answer`` to whatever is not the look at the token."""
    return lambda request: vault(403) if request.path == "/v1/auth/token/lookup-self" else answer


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        pytest.param(vault(500), UnavailableError, "answers 500", id="internal error"),
        pytest.param(vault(502), UnavailableError, "answers 502", id="bad gateway"),
        pytest.param(vault(503), UnavailableError, "is sealed or out of service (503)", id="sealed"),
        pytest.param(vault(501), UnavailableError, "is not initialised (501)", id="not initialised"),
        pytest.param(vault(429), UnavailableError, "asks to slow down (429)", id="throttled"),
        pytest.param(vault(412), UnavailableError, "answers 412", id="a replica that lags"),
        pytest.param(
            vault(307, Location="http://127.0.0.1:1/"),
            UnavailableError,
            "redirects (307); set address to the one it redirects to",
            id="a standby that redirects",
        ),
        pytest.param(
            Response(403, b"<html>Blocked</html>"),
            UnavailableError,
            "did not answer, something else did (403, not Vault's JSON)",
            id="a proxy's 403",
        ),
        pytest.param(
            Response(400, b"Client sent an HTTP request to an HTTPS server.\n"),
            UnavailableError,
            "did not answer, something else did (400, not Vault's JSON); if it speaks TLS, address begins "
            "with https",
            id="a server that speaks TLS",
        ),
        pytest.param(
            Response(403, b'{"error": "forbidden"}'),
            UnavailableError,
            "did not answer, something else did (403, not Vault's JSON)",
            id="another API's 403",
        ),
        pytest.param(
            Response(404, b"no route"),
            UnavailableError,
            "did not answer, something else did (404, not Vault's JSON)",
            id="an ingress without a backend",
        ),
        pytest.param(
            Response(200, b"<html>Please log in</html>"),
            UnavailableError,
            "did not answer, something else did (200, not Vault's JSON)",
            id="a login page",
        ),
        pytest.param(
            Response(200),
            UnavailableError,
            "did not answer, something else did (200, not Vault's JSON)",
            id="an empty answer",
        ),
        pytest.param(
            Response(200, b"[" * 100_000),
            UnavailableError,
            "did not answer, something else did (200, not Vault's JSON)",
            id="JSON that is too deep",
        ),
        pytest.param(
            Response(200, b" " * (SIZE_LIMIT + 1)), UnavailableError, "sent more than 4 MiB", id="too large"
        ),
    ],
)
def test_trouble(answer: Response, kind: type[RefreshError], message: str) -> None:
    """Trouble is unavailable, whatever its body says, and names the address and the status."""
    requests, error = fetch_from(after_login(answer))
    assert type(error) is kind
    assert isinstance(error, RefreshError)
    address = f"http://{requests[0].headers['Host']}"
    assert error.reason == f"Vault at {address} {message}"


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("17", 17.0), ("Fri, 31 Dec 2027 23:59:59 GMT", None), ("-1", None), ("", None)],
)
def test_retry_after(retry_after: str, seconds: float | None) -> None:
    """Seconds are passed on; a date is not worth trusting two clocks for."""
    _, error = fetch_from(after_login(vault(503, **{"Retry-After": retry_after})))
    assert isinstance(error, UnavailableError)
    assert error.retry_after_seconds == seconds


_REFUSED = (
    "Vault refuses to read secret secret/app/key; the token's policy needs: "
    'path "secret/data/app/key" { capabilities = ["read"] }; '
    "if its engine is not mounted at secret/, set mount; "
    "or the token has expired or was revoked: it may not even look itself up"
)
_MISSING = (
    "Vault has no secret secret/app/key in a KV version 2 engine; check the key's path, or create it; "
    "if its engine is not mounted at secret/, set mount"
)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, UnavailableError, _REFUSED),
        (403, UnavailableError, _REFUSED),
        (404, MissingError, _MISSING),
        (400, UnavailableError, "Vault answers 400 to a read of secret secret/app/key"),
        (405, UnavailableError, "Vault answers 405 to a read of secret secret/app/key"),
    ],
)
def test_refusal(status: int, kind: type[RefreshError], message: str) -> None:
    """Vault's own refusals follow from the status; where nobody may ask for the mount, version 2 is told."""
    _, error = fetch_from(lambda _: vault(status))
    assert type(error) is kind
    assert isinstance(error, RefreshError)
    assert error.reason == message


V1_SECRET = {"key": new_value()}
V2_METADATA = {"destroyed": False, "deletion_time": "", "created_time": CREATED, "version": 1}


def _v1_only(request: Request) -> Response:
    return vault(200, V1_SECRET) if request.path == "/v1/secret/app/key" else vault(403)


def _v2_only(request: Request) -> Response:
    if request.path.startswith("/v1/secret/data/app/key"):
        return vault(200, {"data": V1_SECRET, "metadata": V2_METADATA})
    return vault(403)


@pytest.mark.parametrize("kv_version", [None, 1])
def test_mount_not_told_version_1(kv_version: int | None) -> None:
    """Where nobody may ask for the mount, version 1 is found by trying."""
    _, offer = fetch_from(_v1_only, kv_version=kv_version)
    assert [v.material for v in offer.versions] == [Material(V1_SECRET["key"].encode())]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("lease", "ttl"),
    [
        (60, 60.0),
        (0, None),
        (-1, None),
        (True, "not a number"),
        ("abc", "not a number"),
        (10**400, "too large a number"),
    ],
    ids=["a minute", "none", "negative", "true", "a text", "huge"],
)
def test_a_ttl_beside_the_value(lease: object, ttl: object) -> None:
    """Of a proxy's making or not: what is no number of seconds is no answer of Vault's."""
    secret = {**V1_SECRET, "ttl": "1m"}
    document = json.dumps({"request_id": "1", "data": secret, "lease_duration": lease}).encode()
    answer = Response(200, document, {"Content-Type": "application/json"})
    _, offer = fetch_from(lambda r: answer if r.path == "/v1/secret/app/key" else vault(403), kv_version=1)
    if isinstance(ttl, str):
        assert isinstance(offer, UnavailableError)
        assert f"Vault's answer: lease_duration is {ttl}; Vault at " in offer.reason
    else:
        assert offer.ttl_seconds == ttl  # type: ignore[attr-defined]


def test_answers_that_end_with_their_connection() -> None:
    """Proxies, and a Vault that goes down, close behind an answer: what is on its way by then is read."""
    secret = {**V1_SECRET, "another": "x" * (1 << 20)}

    def script(request: Request) -> Response:
        return vault(200 if request.path == "/v1/secret/app/key" else 403, secret, Connection="close")

    _, offer = fetch_from(script, kv_version=1)
    assert [v.material for v in offer.versions] == [Material(V1_SECRET["key"].encode())]  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["secret/app/key", "secret/data/app/key"])
@pytest.mark.parametrize("kv_version", [None, 2])
def test_mount_not_told_version_2(kv_version: int | None, path: str) -> None:
    """Where nobody may ask for the mount, version 2 is found by trying."""
    requests, offer = fetch_from(_v2_only, path=path, kv_version=kv_version)
    assert [v.id for v in offer.versions] == ["1"]  # type: ignore[attr-defined]
    assert "/v1/secret/app/key" not in [request.path for request in requests]


@pytest.mark.parametrize(
    ("mounts", "kind", "message"),
    [
        pytest.param(
            {"path": "secret/", "type": "transit"},
            MalformedError,
            "secret/ is a transit engine, not KV; check the key's path",
            id="another engine",
        ),
        pytest.param(
            {"path": "secret/app/key/", "type": "kv", "options": {"version": "2"}},
            MalformedError,
            "path 'secret/app/key' names only the mount; add the secret's path below it",
            id="nothing below the mount",
        ),
        pytest.param(
            {"path": 7},
            UnavailableError,
            "Vault's answer: data.path is not a string; "
            "Vault at {address} does not answer as Vault and OpenBao do",
            id="not what Vault answers",
        ),
    ],
)
def test_mount(mounts: dict[str, object], kind: type[RefreshError], message: str) -> None:
    requests, error = fetch_from(after_login(vault(200, mounts)))
    assert type(error) is kind
    assert isinstance(error, RefreshError)
    assert error.reason == message.format(address=f"http://{requests[0].headers['Host']}")


_FIELD = "field 'key' of version 1 of secret secret/app/key"
_NO_FIELD = "version 1 of secret secret/app/key has no field 'key' (it has {}); check the key's field setting"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ({}, _NO_FIELD.format("0 other fields")),
        ({"kee": "x"}, _NO_FIELD.format("1 other field")),
        ({"key": 7}, f"{_FIELD} is a number, not a string"),
        ({"key": True}, f"{_FIELD} is true or false, not a string"),
        ({"key": {"a": 1}}, f"{_FIELD} is an object, not a string"),
        ({"key": ["a"]}, f"{_FIELD} is a list, not a string"),
        ({"key": None}, f"{_FIELD} is null, not a string"),
        ({"key": "abc\ud800"}, f"{_FIELD} is not Unicode text: it has half of a surrogate pair"),
    ],
)
def test_no_key_in_the_secret(secret: dict[str, object], message: str) -> None:
    answer = vault(200, {"data": secret, "metadata": V2_METADATA})
    _, offer = fetch_from(lambda request: answer if "/data/" in request.path else vault(403))
    error = offer.versions[0].material  # type: ignore[attr-defined]
    assert type(error) is MalformedError
    assert error.reason == message


def test_made_anew_while_being_read() -> None:
    """Metadata of one secret and a value of the next are never put together."""
    versions = {"1": {"created_time": CREATED, "deletion_time": "", "destroyed": False}}
    later = V2_METADATA | {"created_time": "2026-01-31T08:15:01Z"}

    def script(request: Request) -> Response:
        if "/metadata/" in request.path:
            return vault(200, {"versions": versions})
        return vault(200, {"data": V1_SECRET, "metadata": later}) if "/data/" in request.path else vault(403)

    _, error = fetch_from(script)
    assert type(error) is UnavailableError
    assert error.reason == (
        "secret secret/app/key was made anew while it was being read; the next refresh sees it whole"
    )


def test_gone_while_being_read() -> None:
    """A version that leaves between the two reads is missing; the fetch goes on."""
    versions = {"1": {"created_time": CREATED, "deletion_time": "", "destroyed": False}}

    def script(request: Request) -> Response:
        if "/metadata/" in request.path:
            return vault(200, {"versions": versions})
        return vault(404) if "/data/" in request.path else vault(403)

    _, offer = fetch_from(script)
    assert isinstance(offer.versions[0].material, MissingError)  # type: ignore[attr-defined]


def test_what_is_sent() -> None:
    """Each request is a plain one of Vault's API, with the token in its header and nowhere else."""
    requests, _ = fetch_from(_v2_only, namespace="team/a", path="secret/my app/k%y?ü#1")
    assert {request.headers["X-Vault-Token"] for request in requests} == {TOKEN}
    assert {request.headers["X-Vault-Request"] for request in requests} == {"true"}
    assert {request.headers["X-Vault-Namespace"] for request in requests} == {"team/a"}
    assert {request.headers["Accept"] for request in requests} == {"application/json"}
    assert not any(TOKEN in request.path for request in requests)
    assert "/v1/secret/metadata/my%20app/k%25y%3F%C3%BC%231" in [request.path for request in requests]


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither Vault's variables nor those of proxies and HTTP libraries reach the requests."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "VAULT_ADDR"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
    monkeypatch.setenv("VAULT_TOKEN", "another-token")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    requests, offer = fetch_from(_v2_only)
    assert offer.versions  # type: ignore[attr-defined]
    assert {request.headers["X-Vault-Token"] for request in requests} == {TOKEN}
    assert not any({"Authorization", "X-Vault-Namespace"} & set(request.headers) for request in requests)


@pytest.mark.parametrize("status", [s.value for s in HTTPStatus if s >= HTTPStatus.MULTIPLE_CHOICES])
def test_no_answer_leaks(status: int) -> None:
    """Whatever the status: the error tells neither the body, nor the token, nor a query."""
    secret = new_value()
    body = json.dumps({"errors": [secret], "key": secret}).encode()
    _, error = fetch_from(lambda _: Response(status, body))
    assert isinstance(error, RefreshError)
    assert secret not in error.reason
    assert TOKEN not in error.reason
    assert "version=" not in error.reason
