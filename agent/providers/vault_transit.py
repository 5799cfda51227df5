# SPDX-License-Identifier: Apache-2.0
"""A wrapped keyring that the transit engine of HashiCorp Vault or OpenBao unwraps.

Rules:

- Each ciphertext is decrypted with the configured key and no other. Key name and version id are its
  associated data (agent.providers.wrapped), so that an entry cannot be relabelled. They are sent as the
  context too, which a derived key asks for and any other ignores.
- A refusal leads to one fresh login and one more try; then it is denied, unless the token may be dead.
- The engine answers 400 to everything that does not decrypt. What it is, the key's own settings tell: no such
  key, or a ciphertext below ``min_decryption_version``, is missing; the rest is malformed, and so is
  everything where the policy does not let the key be read.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

from agent.errors import MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer
from agent.providers.vault_http import Answer
from agent.providers.vault_session import VaultSession
from agent.providers.wrapped import Ciphertext, WrappedKeyring, aad_of
from agent.settings import KeySettings
from agent.sources.vault import VaultTransitSource
from keyferry.document import Fields

# The types that take associated data.
_AEAD: Final = frozenset(
    {"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "managed_key"}
)


class VaultTransitProvider:
    """One wrapped keyring and the transit key that unwraps it."""

    def __init__(self, key: KeySettings, source: VaultTransitSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        self._mount = source.mount.strip("/")
        self._key_name = source.key_name
        self._within = source.in_namespace
        self._keyring = WrappedKeyring(key, source)
        self._session = VaultSession(source, timeout)

    def fetch(self, known: Known) -> Offer:
        """Return the keyring's versions, decrypted where they are not known."""
        with self._session.fetching():
            return self._session.told(self._keyring.fetch(known, self._unwrap))

    def close(self) -> None:
        """Drop the connection."""
        self._session.close()

    def wrap(self, plain: bytes, binding: Mapping[str, str]) -> str:
        """Return the ciphertext of ``plain`` by the transit key's newest version."""
        bound = b64encode(aad_of(binding)).decode()
        body = {"plaintext": b64encode(plain).decode(), "associated_data": bound, "context": bound}
        with self._session.fetching():
            # Whoever may do everything would make a key of a misspelt name by encrypting with it.
            key = self._session.read(self._path("keys"))
            if key.status == 404:  # noqa: PLR2004 - Not Found
                raise self._no_key()
            if key.ok:
                self._check_type(key.data)
            answer = self._session.write(self._path("encrypt"), body)
            if answer.refused:
                grant = _grant(self._path("encrypt"), "update")
                message = f"Vault refuses to encrypt with {self}; the token's policy needs: {grant}"
                raise self._session.refusal(message)
            if not answer.ok:
                message = f"Vault answers {answer.status} to encrypting with {self}"
                raise UnavailableError(message)
            return answer.data.text("ciphertext")

    def _unwrap(self, ciphertext: Ciphertext) -> bytes:
        answer = self._decrypt(ciphertext)
        if answer.refused and not self._session.fresh:
            self._session.log_in()
            answer = self._decrypt(ciphertext)
        if not answer.ok:
            raise self._failure(answer, ciphertext)
        text = answer.data.text("plaintext")
        try:
            return b64decode(text, validate=True)
        except ValueError:
            answer.data.fail("plaintext", "is not base64")

    def _decrypt(self, ciphertext: Ciphertext) -> Answer:
        body = {"ciphertext": ciphertext.text}
        if ciphertext.aad:
            body["associated_data"] = body["context"] = b64encode(ciphertext.aad).decode()
        return self._session.write(self._path("decrypt"), body)

    def _failure(self, answer: Answer, ciphertext: Ciphertext) -> RefreshError:
        """Return what an answer that is no success means for ``ciphertext``."""
        if answer.refused:
            needed = f"the token's policy needs: {_grant(self._path('decrypt'), 'update')}"
            return self._session.refusal(f"Vault refuses to decrypt with {self}; {needed}")
        if answer.status == 404:  # noqa: PLR2004 - Not Found
            return MissingError(
                f"Vault has no engine at {self._mount}/{self._within}; check mount, or enable the engine"
            )
        if answer.status != 400:  # noqa: PLR2004 - Bad Request
            return UnavailableError(f"Vault answers {answer.status} to decrypting with {self}")
        return self._undecryptable(ciphertext)

    def _check_type(self, settings: Fields) -> None:
        kind = settings.text("type")
        if kind not in _AEAD:
            message = (
                f"{self} is of type {kind}, which takes no associated data; make one of type aes256-gcm96, "
                "and wrap the key with that"
            )
            raise MalformedError(message)

    def _undecryptable(self, ciphertext: Ciphertext) -> RefreshError:
        path = self._path("keys")
        answer = self._session.read(path)
        if answer.status == 404:  # noqa: PLR2004 - Not Found
            return self._no_key()
        hint = "wrap the key anew"
        if answer.ok:
            if ciphertext.aad:
                self._check_type(answer.data)
            least, wrapped_by = answer.data.integer("min_decryption_version"), _number(ciphertext.text)
            if wrapped_by < least:
                return MissingError(
                    f"{ciphertext.place} was wrapped by version {wrapped_by} of {self}, below its "
                    f"min_decryption_version {least}; lower that, or wrap the key anew before raising it"
                )
        else:
            hint += f"; the policy line {_grant(path, 'read')} would let the agent tell more"
        return MalformedError(
            f"{ciphertext.place} does not decrypt with {self}: another key wrapped it, or it was made for "
            f"another key name or version id, or changed since; {hint}"
        )

    def _no_key(self) -> MissingError:
        return MissingError(
            f"Vault has no {self}{self._within}; check key_name, or restore the key from its backup"
        )

    def _path(self, operation: str) -> str:
        return f"{self._mount}/{operation}/{self._key_name}"

    def __str__(self) -> str:
        return f"transit key {self._mount}/{self._key_name}"


def _grant(path: str, capability: str) -> str:
    return f'path "{path}" {{ capabilities = ["{capability}"] }}'


def _number(ciphertext: str) -> float:
    """Return the version of the transit key in a ciphertext's prefix, or more than any where it has none."""
    match = re.match(r"vault:v([0-9]+):", ciphertext)
    return int(match[1]) if match else float("inf")
