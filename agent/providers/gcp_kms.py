# SPDX-License-Identifier: Apache-2.0
"""A wrapped keyring that Google Cloud KMS unwraps, over gRPC. It alone imports Google's KMS library.

Rules:

- Each ciphertext is decrypted with the configured key and no other. Key name and version id are its
  additional authenticated data (agent.providers.wrapped), so that an entry cannot be relabelled.
- Checksums cover both ways: what is sent carries its CRC32C, and an answer whose own does not fit counts as
  unavailable, since the next one may be whole.
- A refusal leads to one fresh login and one more try, a kept connection that fails to a new one: a balancer
  may have closed it while the call was on its way. Nothing else is retried, and one deadline holds for all
  calls of a fetch.
- After a failure the connection is dropped, and so it is when it idles: the next call makes one, with the CA
  file read anew.
- Classes come from the library's exception types and Google's typed error details, never from texts.
"""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

# Before grpc is imported: its own log lines would stand between the agent's on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.api_core import exceptions
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest, KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.rpc.error_details_pb2 import PreconditionFailure, RetryInfo

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer
from agent.providers.crc32c import crc32c
from agent.providers.gcp_login import GoogleLogin
from agent.providers.wrapped import Ciphertext, WrappedKeyring, aad_of
from agent.settings import KeySettings
from agent.sources.gcp import GcpKmsSource

T = TypeVar("T")

_CHANNEL_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    # Balancers and NATs forget idle connections without a word, some after a minute.
    ("grpc.client_idle_timeout_ms", 30_000),
    # The process's shared pool would hand a dropped connection, with its backoff, to the next channel.
    ("grpc.use_local_subchannel_pool", 1),
)
# Google's words for a version that is gone, in the violations of a failed precondition: KEY_ and its state.
_GONE: Final = frozenset({"KEY_DESTROYED", "KEY_DESTROY_SCHEDULED"})
# Why IAM refuses, in an error's own reason. Any other reason is about the project: its billing, its APIs.
_REFUSED: Final = frozenset({None, "IAM_PERMISSION_DENIED"})
_CORRUPTED: Final = "sent an answer that does not fit its checksum"


class GcpKmsProvider:
    """One wrapped keyring and the KMS key that unwraps it."""

    def __init__(self, key: KeySettings, source: GcpKmsSource, timeout: float) -> None:
        """Keep where ``key`` is; nothing is contacted yet."""
        self._source = source
        self._timeout = timeout
        self._keyring = WrappedKeyring(key, source)
        self._login = GoogleLogin(source.credentials_file, source.ca_file)
        self._channel: grpc.Channel | None = None
        self._client: KeyManagementServiceClient | None = None
        self._deadline = 0.0

    def fetch(self, known: Known) -> Offer:
        """Return the keyring's versions, decrypted where they are not known."""
        self._begin()
        try:
            return self._keyring.fetch(known, self._unwrap)
        except UnavailableError:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._client = None

    def wrap(self, plain: bytes, binding: Mapping[str, str]) -> str:
        """Return the ciphertext of ``plain`` by the key's primary version, in base64."""
        self._begin()
        aad = aad_of(binding)
        request = EncryptRequest(
            name=self._source.key_name,
            plaintext=plain,
            plaintext_crc32c=crc32c(plain),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=crc32c(aad),
        )
        try:
            response = self._answered(lambda: self._connected().encrypt(request, **self._options()))
        except exceptions.GoogleAPICallError as error:
            raise self._not_wrapped(error) from error
        verified = (
            response.verified_plaintext_crc32c and response.verified_additional_authenticated_data_crc32c
        )
        if not verified or response.ciphertext_crc32c != crc32c(response.ciphertext):
            raise UnavailableError(self._about(_CORRUPTED))
        return b64encode(response.ciphertext).decode()

    def _begin(self) -> None:
        self._deadline = time.monotonic() + self._timeout
        self._login.begin(self._deadline)

    def _unwrap(self, ciphertext: Ciphertext) -> bytes:
        data, aad = ciphertext.decoded(), ciphertext.aad
        request = DecryptRequest(
            name=self._source.key_name,
            ciphertext=data,
            ciphertext_crc32c=crc32c(data),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=crc32c(aad),
        )
        try:
            response = self._answered(lambda: self._connected().decrypt(request, **self._options()))
        except exceptions.GoogleAPICallError as error:
            raise self._failure(error, ciphertext) from error
        if response.plaintext_crc32c != crc32c(response.plaintext):
            raise UnavailableError(self._about(_CORRUPTED))
        return response.plaintext

    def _answered(self, call: Callable[[], T]) -> T:
        kept = self._client is not None
        try:
            return call()
        except (exceptions.Unauthorized, exceptions.Forbidden):
            if self._login.fresh:
                raise
            self._login.log_in()
        except exceptions.ServiceUnavailable:
            if not kept:
                raise
            self.close()
        return call()

    def _options(self) -> dict[str, Any]:
        headers = self._login.headers()
        remaining = max(self._deadline - time.monotonic(), 0.0)
        return {"metadata": headers, "timeout": remaining, "retry": None}

    def _connected(self) -> KeyManagementServiceClient:
        if self._client is not None:
            return self._client
        credentials = grpc.ssl_channel_credentials(self._authorities())
        target = self._source.endpoint.removeprefix("https://")
        self._channel = grpc.secure_channel(target, credentials, _CHANNEL_OPTIONS)
        # The token travels as a header of each call: gRPC's own way to log in knows no deadline.
        transport = KeyManagementServiceGrpcTransport(channel=self._channel)
        self._client = KeyManagementServiceClient(transport=transport)
        return self._client

    def _authorities(self) -> bytes | None:
        path = self._source.ca_file
        try:
            return None if path is None else path.read_bytes()
        except OSError as error:
            message = f"cannot read ca_file {path}: {error.strerror}"
            raise UnavailableError(message) from error

    def _failure(self, error: exceptions.GoogleAPICallError, ciphertext: Ciphertext) -> RefreshError:
        """Return what a failed call means for ``ciphertext``."""
        key_name = self._source.key_name
        match error:
            case exceptions.Forbidden() if error.reason in _REFUSED:
                return DeniedError(
                    f"Cloud KMS refuses to decrypt with {key_name}, or there is no such key; check key_name, "
                    f"and grant roles/cloudkms.cryptoKeyDecrypter on it to the account of {self._login}"
                )
            case exceptions.NotFound():
                return MissingError(f"Cloud KMS has no key {key_name}; check key_name")
            case exceptions.FailedPrecondition():
                return _unusable(error, ciphertext)
            case exceptions.BadRequest():
                return MalformedError(
                    f"{ciphertext.place} does not decrypt with {key_name}: another key wrapped it, or it was "
                    "made for another key name or version id, or changed since; wrap the key anew"
                )
        return UnavailableError(self._about(self._trouble(error)), retry_after_seconds=_wish(error))

    def _not_wrapped(self, error: exceptions.GoogleAPICallError) -> RefreshError:
        """Return what it means that the key does not wrap."""
        key_name = self._source.key_name
        match error:
            case exceptions.Forbidden() if error.reason in _REFUSED:
                return DeniedError(
                    f"Cloud KMS refuses to encrypt with {key_name}, or there is no such key; check key_name, "
                    f"and grant roles/cloudkms.cryptoKeyEncrypter on it to the account of {self._login}"
                )
            case exceptions.NotFound():
                return MissingError(f"Cloud KMS has no key {key_name}; check key_name")
            case exceptions.FailedPrecondition():
                return DeniedError(f"the primary version of KMS key {key_name} is not enabled; enable it")
        return UnavailableError(self._about(self._trouble(error)), retry_after_seconds=_wish(error))

    def _trouble(self, error: exceptions.GoogleAPICallError) -> str:
        """Say what is in the way of an answer about the ciphertext."""
        match error:
            case exceptions.Forbidden():
                return (
                    f"does not serve the project ({error.reason}); check its billing and that the API is on"
                )
            case exceptions.Unauthorized():
                return (
                    f"does not accept the token of {self._login}; check that the key or the account was not "
                    "disabled, and the clock of this machine"
                )
            case exceptions.TooManyRequests():
                return "asks to slow down"
            case exceptions.GatewayTimeout():
                return f"gave no complete answer within {self._timeout:g} s"
            case exceptions.ServiceUnavailable():
                return (
                    "cannot be reached or is out of service; check endpoint, ca_file and the network policy"
                )
        return f"answers {type(error).__name__}"

    def _about(self, what: str) -> str:
        return f"Cloud KMS at {self._source.endpoint} {what}"


def _unusable(error: exceptions.GoogleAPICallError, ciphertext: Ciphertext) -> RefreshError:
    details = [detail for detail in error.details if isinstance(detail, PreconditionFailure)]
    if any(violation.type in _GONE for detail in details for violation in detail.violations):
        return MissingError(
            f"the KMS key version that wrapped {ciphertext.place} is destroyed, or scheduled to be; before "
            "that day, restore and enable it"
        )
    return DeniedError(f"the KMS key version that wrapped {ciphertext.place} is disabled; enable it")


def _wish(error: exceptions.GoogleAPICallError) -> float | None:
    """Return in how many seconds the service wants to be asked again, where it says so."""
    delays = [detail.retry_delay for detail in error.details if isinstance(detail, RetryInfo)]
    return delays[0].ToTimedelta().total_seconds() if delays else None
