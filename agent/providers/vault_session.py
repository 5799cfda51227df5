# SPDX-License-Identifier: Apache-2.0
"""A login at Vault: how a token is got, kept alive and replaced.

Rules:

- Credential files are read at each login, never kept: what rotates them writes the file.
- A token is renewed, inside a fetch, when two thirds of its life are over; one that cannot be renewed is
  replaced by a fresh login. Trouble with either is no trouble while the token still works.
- A refused login is unavailable, not denied. Vault refuses logins also while the cluster's TokenReview is
  down, a clock is off or a JWT was not rotated in time, and the kill switch must not fire for these. Denied
  is the refusal of the value itself. A plain token has no login, so its refusal comes with the value: it is
  unavailable where the token may not even look itself up.
"""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import DeniedError, RefreshError, UnavailableError
from agent.offer import Offer
from agent.providers.vault_http import Answer, VaultHTTP
from agent.sources.vault import VaultServer
from keyferry.document import DocumentError, Fields

_RENEW_AFTER: Final = 2 / 3
_CLAIMS: Final = "the role, its bound claims and the token's age"
_SUSPECTS: Final = {
    "approle": "the role id, and the secret id's age and uses",
    "kubernetes": _CLAIMS,
    "jwt": _CLAIMS,
}


@dataclass(frozen=True, slots=True)
class _Token:
    """A token and when (monotonic seconds) to renew it; ``None`` is never."""

    text: str = field(repr=False)
    renewable: bool = False
    renew_at: float | None = None


class VaultSession:
    """Reads from Vault with a token that it looks after: what a fetch asks stands within ``fetching``.

    ``fresh`` tells whether this fetch logged in.
    """

    def __init__(self, source: VaultServer, timeout: float) -> None:
        """Keep how to log in; nothing is contacted yet."""
        self._address = source.address
        self._within = source.in_namespace
        self._auth = source.auth
        self._http = VaultHTTP(source, timeout)
        self._token: _Token | None = None
        self._unwrapped: tuple[str, str] | None = None
        self._warnings: dict[str, str] = {}
        self.fresh = False
        self._doubt = ""

    @property
    def _renewal_seconds(self) -> float | None:
        """How soon to come back to keep a token alive that no login could replace."""
        token = self._token
        irreplaceable = self._auth.method == "token" or self._auth.secret_id_wrapped
        if not irreplaceable or token is None or token.renew_at is None or not token.renewable:
            return None
        return max(1.0, token.renew_at - time.monotonic())

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Hold one fetch: with a live token as far as one can know; ``fresh`` tells whether it is new.

        What turns out to be no answer of Vault's is raised as ``UnavailableError``.
        """
        try:
            self._begin()
            yield
        except DocumentError as error:
            message = f"{error}; Vault at {self._address} does not answer as Vault and OpenBao do"
            raise UnavailableError(message) from None

    def told(self, offer: Offer) -> Offer:
        """Return ``offer`` with what there is to tell of the credentials: warnings, and when to come back."""
        wishes = [wish for wish in (offer.ttl_seconds, self._renewal_seconds) if wish is not None]
        warnings = (*offer.warnings, *self._warnings.values())
        return offer._replace(ttl_seconds=min(wishes, default=None), warnings=warnings)

    def _begin(self) -> None:
        self._http.begin()
        self.fresh = False
        if self._token is None:
            self.log_in()
        elif self._token.renew_at is not None and self._token.renew_at <= time.monotonic():
            with suppress(UnavailableError):
                self._prolong(self._token)

    def read(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Return Vault's answer to a GET of ``path``."""
        return self._http.call("GET", path, token=self._token.text if self._token else None, query=query)

    def write(self, path: str, body: Mapping[str, object]) -> Answer:
        """Return Vault's answer to a POST of ``body`` to ``path``."""
        return self._http.call("POST", path, token=self._token.text if self._token else None, body=body)

    def patch(self, path: str, body: Mapping[str, object]) -> Answer:
        """Return Vault's answer to a PATCH, which merges ``body`` into what is at ``path`` (RFC 7396)."""
        return self._http.call("PATCH", path, token=self._token.text if self._token else None, body=body)

    def refusal(self, sentence: str) -> RefreshError:
        """Return what it means that the value was refused, as ``sentence`` says."""
        # Without a fresh login it says nothing yet: the file may have another token by now.
        if self.fresh and self._doubt:
            return UnavailableError(f"{sentence}{self._doubt}")
        return DeniedError(sentence)

    def log_in(self) -> None:
        """Get a new token with credentials read anew."""
        self._http.close()  # so that the CA file is read anew as well
        self._doubt = ""
        auth = self._auth
        match auth.method:
            case "token":
                self._token = self._looked_up(self._secret(auth.token, auth.token_file, "token"))
            case "approle":
                role_id = self._secret(auth.role_id, auth.role_id_file, "role_id")
                self._log_in_with({"role_id": role_id} | self._secret_id())
            case "kubernetes" | "jwt":
                jwt = self._secret(None, auth.jwt_file, "jwt")
                self._log_in_with({"role": auth.role, "jwt": jwt})
        self.fresh = True

    def close(self) -> None:
        """Drop the connection. The token is left to expire: other replicas may share it."""
        self._http.close()

    def _log_in_with(self, credentials: Mapping[str, object]) -> None:
        path = f"auth/{(self._auth.mount or self._auth.method).strip('/')}/login"
        answer = self._http.call("POST", path, token=None, body=credentials)
        if not answer.ok:
            message = (
                f"Vault refuses the {self._auth.method} login at {path}{self._within} ({answer.status}); "
                f"check auth.mount, {_SUSPECTS[self._auth.method]}"
            )
            raise UnavailableError(message)
        self._token = _granted(answer)

    def _prolong(self, token: _Token) -> None:
        if token.renewable:
            answer = self._http.call("POST", "auth/token/renew-self", token=token.text, body={})
            if answer.ok:
                self._token = _granted(answer)
                return
        self.log_in()

    def _looked_up(self, text: str) -> _Token:
        """Return the given token with its remaining life, where its policy lets one ask."""
        answer = self._http.call("GET", "auth/token/lookup-self", token=text)
        if answer.ok:
            return _token(text, answer.data, "ttl")
        if answer.refused:
            # Vault says the same of a token that it does not know, and most may look themselves up.
            self._doubt = "; or the token has expired or was revoked: it may not even look itself up"
        return _Token(text)

    def _secret_id(self) -> dict[str, str]:
        auth = self._auth
        text = self._secret(auth.secret_id, auth.secret_id_file, "secret_id")
        if not auth.secret_id_wrapped:
            return {"secret_id": text}
        # A wrapping token works once, the secret_id in it perhaps more often: it is kept for later logins.
        if self._unwrapped is None or self._unwrapped[0] != text:
            answer = self._http.call("POST", "sys/wrapping/unwrap", token=text, body={})
            if not answer.ok:
                message = (
                    "Vault refuses to unwrap the secret_id: its wrapping token has expired or was used "
                    "before, and if not by this agent then by somebody else; deliver a new one"
                )
                raise UnavailableError(message)
            self._unwrapped = text, answer.data.text("secret_id")
        return {"secret_id": self._unwrapped[1]}

    def _secret(self, literal: str | None, path: Path | None, name: str) -> str:
        if literal is not None:
            return _one_line(literal, f"auth.{name}")
        if path is None:
            message = f"auth.{name} and auth.{name}_file are both missing; set one"
            raise UnavailableError(message)
        try:
            with path.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read().strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            message = f"cannot read auth.{name}_file {path}: {reason}"
            raise UnavailableError(message) from None
        if not text:
            message = f"auth.{name}_file {path} is empty"
            raise UnavailableError(message)
        self._warn_if_open(name, path, mode)
        return _one_line(text, f"auth.{name}_file {path}")

    def _warn_if_open(self, name: str, path: Path, mode: int) -> None:
        # Not for a service account's JWT: the kubelet chooses its mode, and it expires within the hour.
        self._warnings.pop(name, None)
        if name in ("token", "secret_id") and mode & 0o007:
            self._warnings[name] = (
                f"auth.{name}_file {path} is open to every user (mode {mode:04o}); set 0440 or 0400"
            )


def _one_line(text: str, place: str) -> str:
    # What cannot stand in a header is quoted in the standard library's complaint.
    if not (text.isascii() and text.isprintable()):
        message = f"{place} is not one line of printable ASCII; write nothing else into it"
        raise UnavailableError(message)
    return text


def _granted(answer: Answer) -> _Token:
    auth = Fields(answer.document, "Vault's answer: login").object("auth")
    return _token(auth.text("client_token"), auth, "lease_duration")


def _token(text: str, fields: Fields, ttl_field: str) -> _Token:
    ttl = fields.integer(ttl_field)  # 0: never expires
    renewable = fields.optional("renewable", fields.flag) or False  # a root token's answer does not say
    return _Token(text, renewable, time.monotonic() + ttl * _RENEW_AFTER if ttl else None)
