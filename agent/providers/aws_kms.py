# SPDX-License-Identifier: Apache-2.0
"""A wrapped keyring (agent.providers.wrapped) that a key in AWS KMS unwraps.

Rules:

- The KMS key is pinned: a ciphertext of another key is refused, whoever may use that.
- The encryption context is what the keyring binds, key name and version id, and what is configured.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from agent.offer import Known, Offer
from agent.providers.aws import AwsSession
from agent.providers.wrapped import Ciphertext, WrappedKeyring
from agent.settings import KeySettings
from agent.sources.aws import AwsKmsSource


class AwsKmsProvider:
    """One key whose versions AWS KMS unwraps."""

    def __init__(self, key: KeySettings, source: AwsKmsSource, timeout: float) -> None:
        """Keep where the keyring of ``key`` is, and what unwraps it; nothing is read or contacted yet."""
        self._source = source
        self._session = AwsSession(source, "kms", timeout)
        self._keyring = WrappedKeyring(key, source)

    def fetch(self, known: Known) -> Offer:
        """Return the keyring's versions."""
        self._session.begin()
        return self._keyring.fetch(known, self._unwrap)

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()

    def wrap(self, plain: bytes, binding: Mapping[str, str]) -> str:
        """Return the ciphertext of ``plain`` in base64."""
        self._session.begin()
        return b64encode(self._call("Encrypt", binding, Plaintext=plain)["CiphertextBlob"]).decode()

    def _unwrap(self, ciphertext: Ciphertext) -> bytes:
        answer = self._call("Decrypt", ciphertext.binding, CiphertextBlob=ciphertext.decoded())
        plain: bytes = answer["Plaintext"]
        return plain

    def _call(self, operation: str, binding: Mapping[str, str], **data: bytes) -> Mapping[str, Any]:
        source = self._source
        context = {**dict(source.encryption_context or ()), **binding}
        parameters = {"KeyId": source.key_id, "EncryptionContext": context, **data}
        return self._session.call(operation, f"KMS key {source.key_id} in {source.region}", parameters)
