# SPDX-License-Identifier: Apache-2.0
"""Calls to Vault or OpenBao: one request, one classified answer.

Rules:

- What comes back to the caller is Vault's own word: success, or 4xx in Vault's JSON. Everything else (no
  connection, TLS trouble, 429, 5xx, sealed, a proxy's page) is raised as ``UnavailableError``.
- Nothing is retried and no redirect is followed: a token goes to the configured address only.
- One fetch has one deadline, shared by all its calls.
- No message holds a body, a token or a query. Classes come from types and status codes.
"""

import json
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import quote, urlencode

from agent.errors import UnavailableError
from agent.providers.base import causes
from agent.providers.vault_connection import SIZE_LIMIT, Connection, Response
from agent.sources.vault import VaultServer
from keyferry.document import Fields

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
        self._connection = Connection(
            source.address, ca_file=source.ca_file, server_name=source.tls_server_name
        )
        self._deadline = 0.0

    def begin(self) -> None:
        """Start the clock of one fetch."""
        self._deadline = time.monotonic() + self._timeout

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
        target = f"/v1/{quote(path)}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        try:
            response = self._connection.exchange(
                method, target, body=data, headers=self._headers(method, token), deadline=self._deadline
            )
        except (OSError, HTTPException) as error:
            raise UnavailableError(self._about(self._trouble(error))) from error
        return self._classified(response)

    def close(self) -> None:
        """Drop the connection; the next call makes one, and reads the CA file again."""
        self._connection.close()

    def _headers(self, method: str, token: str | None) -> Mapping[str, str]:
        headers = {"Accept": "application/json", "X-Vault-Request": "true"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        if token is not None:
            headers["X-Vault-Token"] = token
        if self._source.namespace is not None:
            headers["X-Vault-Namespace"] = self._source.namespace
        return headers

    def _classified(self, response: Response) -> Answer:
        status, data = response.status, response.body
        wait = float(response.retry_after) if response.retry_after.isdecimal() else None
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own classes
            self._fail(f"redirects ({status}); set address to the one it redirects to", wait)
        if status not in _VERDICTS:
            self._fail(_TROUBLES.get(status, f"answers {status}"), wait)
        if len(data) > SIZE_LIMIT:
            self._fail("sent more than 4 MiB")
        document = _vault_json(data) if data else {}
        # A proxy or a login page in between can answer anything; only Vault's own shape is its word.
        if document is None or not (data or status == 204):  # noqa: PLR2004 - No Content
            # What a server says in the clear to who does not begin with TLS.
            clear = status == 400 and self._source.address.startswith("http:")  # noqa: PLR2004 - Bad Request
            hint = "; if it speaks TLS, address begins with https" if clear else ""
            self._fail(f"did not answer, something else did ({status}, not Vault's JSON){hint}", wait)
        return Answer(status, document)

    def _fail(self, what: str, retry_after_seconds: float | None = None) -> NoReturn:
        raise UnavailableError(self._about(what), retry_after_seconds=retry_after_seconds)

    def _about(self, what: str) -> str:
        return f"Vault at {self._source.address} {what}"

    def _trouble(self, error: BaseException) -> str:
        """Say what a failed request failed of."""
        known = "cannot be reached"
        for cause in causes(error):
            match cause:
                case ssl.SSLCertVerificationError():
                    problem = cause.verify_message.rstrip(".")
                    return f"has a certificate that is not trusted: {problem}; check ca_file"
                case ssl.SSLError():
                    return f"failed the TLS handshake: {cause.reason}"
                case socket.gaierror():
                    return "has a name that does not resolve; check address"
                case TimeoutError():
                    return f"gave no complete answer within {self._timeout:g} s"
                case OSError(strerror=str(reason)):
                    known = f"cannot be reached: {reason}; check address and the network policy"
        return known


def _vault_json(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and (isinstance(document.get("errors"), list) or "request_id" in document):
        return document
    return None
