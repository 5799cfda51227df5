# SPDX-License-Identifier: Apache-2.0
"""Calls to Vault or OpenBao: one request, one classified answer. The only module that imports hvac.

Rules:

- What comes back to the caller is Vault's own word: success, or 4xx in Vault's JSON. Everything else (no
  connection, TLS trouble, 429, 5xx, sealed, a proxy's page) is raised as ``UnavailableError``.
- Nothing is retried and no redirect is followed: a token goes to the configured address only.
- The environment has no say: no proxies, no VAULT_ variables, no other CA bundle than the configured one.
- One fetch has one deadline, shared by all its calls.
- No message holds a body, a token or a query. Classes come from types and status codes.
"""

import json
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import quote

import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from agent.errors import UnavailableError
from agent.settings import VaultServer
from keyferry.document import Fields

SIZE_LIMIT: Final = 4 << 20
# Balancers and NATs forget idle connections without a word, some after a minute. A forgotten one costs a
# whole timeout, a new one a few milliseconds.
IDLE_LIMIT_SECONDS: Final = 30.0

_VERDICTS: Final = frozenset({200, 204, 400, 401, 403, 404, 405})
_TROUBLES: Final = {
    429: "asks to slow down (429)",
    501: "is not initialised (501)",
    503: "is sealed or out of service (503)",
}


class Answer(NamedTuple):
    """What Vault said: a status of 200, 204, 400, 401, 403, 404 or 405 and its JSON object."""

    status: int
    document: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether Vault did what it was asked."""
        return self.status < 300  # noqa: PLR2004 - HTTP's own classes

    @property
    def refused(self) -> bool:
        """Whether Vault says that this token may not."""
        return self.status in (401, 403)

    @property
    def data(self) -> Fields:
        """The answer's ``data`` object."""
        return Fields(self.document.get("data"), "Vault's answer: data")


class VaultHTTP:
    """The connection to one Vault address."""

    def __init__(self, source: VaultServer, timeout: float) -> None:
        """Keep where to connect to; ``timeout`` seconds bound everything after one ``begin``."""
        self._source = source
        self._timeout = timeout
        self._adapter: RawAdapter | None = None
        self._deadline = 0.0
        self._last_used = 0.0

    def begin(self) -> None:
        """Start the clock of one fetch."""
        now = time.monotonic()
        self._deadline = now + self._timeout
        if now - self._last_used > IDLE_LIMIT_SECONDS:
            self.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return Vault's answer to ``method`` on ``path`` (without ``v1/``), else ``UnavailableError``."""
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            self._fail(f"gave no complete answer within {self._timeout:g} s")
        adapter = self._adapter = self._adapter or self._connect()
        adapter.token = token
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        try:
            response = adapter.request(
                method,
                f"/v1/{quote(path)}",
                headers=headers,
                json=body,
                params=query,
                timeout=remaining,
                stream=True,
            )
            with response:
                data = self._body(response)
        except OSError as error:
            self.close()
            raise UnavailableError(self._about(self._trouble(error))) from error
        self._last_used = time.monotonic()
        return self._classified(response, data)

    def close(self) -> None:
        """Drop the connection; the next call makes one, and reads the CA file again."""
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None

    def _connect(self) -> RawAdapter:
        session = requests.Session()
        session.trust_env = False
        session.verify = True if self._source.ca_file is None else _checked(self._source.ca_file)
        session.headers["Accept"] = "application/json"
        if self._source.tls_server_name is not None:
            session.mount("https://", _NamedServer(self._source.tls_server_name))
        return RawAdapter(
            base_uri=self._source.address,
            session=session,
            namespace=self._source.namespace,
            allow_redirects=False,
            ignore_exceptions=True,
        )

    def _body(self, response: requests.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_content(1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > SIZE_LIMIT:
                self._fail("sent more than 4 MiB")
            if time.monotonic() > self._deadline:
                self._fail(f"gave no complete answer within {self._timeout:g} s")
        return b"".join(chunks)

    def _classified(self, response: requests.Response, data: bytes) -> Answer:
        status = response.status_code
        retry_after = response.headers.get("Retry-After", "")
        wait = float(retry_after) if retry_after.isdecimal() else None
        if response.is_redirect:
            self._fail(f"redirects ({status}); set address to the one it redirects to", wait)
        if status not in _VERDICTS:
            self._fail(_TROUBLES.get(status, f"answers {status}"), wait)
        document = _vault_json(data) if data else {}
        # A proxy or a login page in between can answer anything; only Vault's own shape is its word.
        if document is None or not (data or status == 204):  # noqa: PLR2004 - No Content
            self._fail(f"did not answer, something else did ({status}, not Vault's JSON)", wait)
        return Answer(status, document)

    def _fail(self, what: str, retry_after_seconds: float | None = None) -> NoReturn:
        raise UnavailableError(self._about(what), retry_after_seconds=retry_after_seconds)

    def _about(self, what: str) -> str:
        return f"Vault at {self._source.address} {what}"

    def _trouble(self, error: BaseException) -> str:
        """Say what a failed request failed of: the innermost cause knows, the layers around it only wrap."""
        cause: BaseException | None = error
        known = "cannot be reached"
        while cause is not None:
            match cause:
                case ssl.SSLCertVerificationError():
                    problem = cause.verify_message.rstrip(".")
                    return f"has a certificate that is not trusted: {problem}; check ca_file"
                case ssl.SSLError():
                    return f"failed the TLS handshake: {cause.reason}"
                case socket.gaierror():
                    return "has a name that does not resolve"
                case requests.Timeout() | TimeoutError():
                    return f"gave no complete answer within {self._timeout:g} s"
                case OSError(strerror=str(reason)):
                    known = f"cannot be reached: {reason}"
            cause = cause.__cause__ or cause.__context__
        return known


class _NamedServer(HTTPAdapter):
    """Expects the certificate of ``name`` whatever the address says."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base's signature
        super().init_poolmanager(*args, **kwargs, server_hostname=self._name)


def _checked(ca_file: Path) -> str:
    # requests would read it as well, but blame the server for what is wrong with the file.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except ssl.SSLError as error:
        message = f"ca_file {ca_file} holds no PEM certificate"
        raise UnavailableError(message) from error
    except OSError as error:
        message = f"cannot read ca_file {ca_file}: {error.strerror}"
        raise UnavailableError(message) from error
    return str(ca_file)


def _vault_json(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and (isinstance(document.get("errors"), list) or "request_id" in document):
        return document
    return None
