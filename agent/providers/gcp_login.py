# SPDX-License-Identifier: Apache-2.0
"""A login at Google Cloud: how an access token is got, kept and replaced. It alone imports google.auth.

Rules:

- The credentials file is read at each login, never kept: what rotates it writes the file. Without one the
  metadata server is asked, which is also how GKE's Workload Identity answers.
- A service account's key signs its tokens itself: no request, and nothing to be down.
- A token is replaced shortly before it expires; trouble with that is no trouble while it still works.
- A refused login is unavailable, not denied, as it is with every provider: a clock that is off or a
  federation that is misconfigured must not fire the kill switch.
- The library's retries and long timeouts are cut off: a request that fails raises ``UnavailableError``, which
  it does not catch, and all requests share the deadline of one fetch. No message holds an answer's body.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

import requests
from google.auth import compute_engine, credentials, exceptions, identity_pool
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from agent.errors import UnavailableError

SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"

_METADATA: Final = "the metadata server"


class GoogleLogin:
    """An access token for Cloud KMS, looked after."""

    def __init__(self, credentials_file: Path | None, ca_file: Path | None) -> None:
        """Keep where credentials are; nothing is read yet."""
        self._credentials_file = credentials_file
        self._ca_file = ca_file
        self._credentials: credentials.Credentials | None = None
        self._deadline = 0.0
        self.fresh = False

    def __str__(self) -> str:
        return _METADATA if self._credentials_file is None else f"credentials_file {self._credentials_file}"

    def begin(self, deadline: float) -> None:
        """Start one fetch, which ends at ``deadline`` (monotonic); ``fresh`` tells whether it logged in."""
        self._deadline = deadline
        self.fresh = False

    def headers(self) -> list[tuple[str, str]]:
        """Return a request's headers with a live token as far as one can know."""
        held = self._credentials
        if held is None or held.token_state is not credentials.TokenState.FRESH:
            try:
                self.log_in()
            except UnavailableError:
                if held is None or held.token_state is credentials.TokenState.INVALID:
                    raise
        headers: dict[str, str] = {}
        # Not before_request: it starts a thread that asks Google for more than a token.
        (self._credentials or held).apply(headers)  # type: ignore[union-attr]
        return [(name.lower(), value) for name, value in headers.items()]

    def log_in(self) -> None:
        """Get a new token with credentials read anew."""
        found = self._read()
        with requests.Session() as session:
            try:
                found.refresh(_Bounded(session, self._deadline, self._ca_file, self._silence()))
            except (exceptions.GoogleAuthError, ValueError):
                # `from None`: the library's texts hold answers' bodies.
                message = f"Google gives no token for {self}; {self._advice()}"
                raise UnavailableError(message) from None
        self._credentials = found
        self.fresh = True

    def _read(self) -> credentials.Credentials:
        path = self._credentials_file
        if path is None:
            return compute_engine.Credentials(scopes=[SCOPE])
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            message = f"cannot read {self}: {error.strerror}"
            raise UnavailableError(message) from None
        except (ValueError, RecursionError):
            message = f"{self} is not JSON; write the file as Google made it"
            raise UnavailableError(message) from None
        try:
            match document:
                case {"type": "service_account"}:
                    key = service_account.Credentials.from_service_account_info(document, scopes=[SCOPE])
                    return key.with_always_use_jwt_access(True)  # noqa: FBT003 - the library's signature
                case {"type": "external_account", "credential_source": {"file": _} | {"url": _}}:
                    return identity_pool.Credentials.from_info(document, scopes=[SCOPE])
        except (exceptions.GoogleAuthError, ValueError, KeyError, TypeError):
            # `from None`: it may quote the private key.
            message = f"{self} is not complete; write the file as Google made it"
            raise UnavailableError(message) from None
        message = (
            f"{self} holds no credentials that keyferry takes: a service_account's key, or an "
            "external_account whose credential_source is a file or a url"
        )
        raise UnavailableError(message)

    def _silence(self) -> str:
        if self._credentials_file is None:
            return f"{_METADATA} gives no answer; outside Google Cloud, set credentials_file"
        return "the login at Google got no answer; check the network policy, the proxy and ca_file"

    def _advice(self) -> str:
        if self._credentials_file is None:
            return "bind the pod's service account to Google's (Workload Identity), or set credentials_file"
        return "check the federation's audience and conditions, and the age of its subject token"


class _Bounded:
    """Makes the library's requests, each once and by the deadline, and raises what is no answer."""

    def __init__(
        self, session: requests.Session, deadline: float, ca_file: Path | None, silence: str
    ) -> None:
        self._request = Request(session)
        self._deadline = deadline
        self._silence = silence
        # For each request and not for the session, whose own is overruled by REQUESTS_CA_BUNDLE.
        self._verify = True if ca_file is None else str(ca_file)

    def __call__(self, url: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the library's signature
        kwargs["timeout"] = max(self._deadline - time.monotonic(), 0.001)
        try:
            # A redirect would carry a credential to a place that nobody configured.
            response = self._request(url, *args, **kwargs, verify=self._verify, allow_redirects=False)
        except exceptions.TransportError:
            raise UnavailableError(self._silence) from None
        if response.status == 429 or response.status >= 500:  # noqa: PLR2004 - HTTP's own numbers
            message = f"the login at Google is out of service for the moment ({response.status})"
            raise UnavailableError(message)
        return response
