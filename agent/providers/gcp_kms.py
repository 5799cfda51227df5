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
from typing import Any, Final, Literal, TypeVar

# Before grpc is imported: its own log lines would stand between the agent's on standard error.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.api_core import exceptions
from google.cloud.kms_v1 import DecryptRequest, EncryptRequest, KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.rpc.error_details_pb2 import PreconditionFailure, RetryInfo

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer
from agent.providers.base import IDLE_LIMIT_SECONDS
from agent.providers.crc32c import crc32c
from agent.providers.gcp_login import GoogleLogin
from agent.providers.wrapped import Ciphertext, WrappedKeyring, aad_of
from agent.settings import KeySettings
from agent.sources.gcp import GcpKmsSource

T = TypeVar("T")

_CHANNEL_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.client_idle_timeout_ms", round(IDLE_LIMIT_SECONDS * 1000)),
    # The process's shared pool would hand a dropped connection, with its backoff, to the next channel.
    ("grpc.use_local_subchannel_pool", 1),
)
# Google's words for a version's state, in the violations of a failed precondition.
_DISABLED: Final = "KEY_DISABLED"
_GONE: Final = frozenset({"KEY_DESTROYED", "KEY_DESTROY_SCHEDULED"})
# IAM's refusal, in an error's own reason. Any other one is about the project or its network, and none at all
# is what gRPC makes of a proxy's 403.
_REFUSED: Final = "IAM_PERMISSION_DENIED"
_PERIMETER: Final = "SECURITY_POLICY_VIOLATED"
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
            version = f"the primary version of KMS key {self._source.key_name}"
            raise self._failure(error, "encrypt", version) from error
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
        except exceptions.InvalidArgument as error:
            message = (
                f"{ciphertext.place} does not decrypt with {self._source.key_name}: another key wrapped it, "
                "or it was made for another key name or version id, or changed since; wrap the key anew"
            )
            raise MalformedError(message) from error
        except exceptions.GoogleAPICallError as error:
            version = f"the KMS key version that wrapped {ciphertext.place}"
            raise self._failure(error, "decrypt", version) from error
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

    def _failure(
        self, error: exceptions.GoogleAPICallError, verb: Literal["decrypt", "encrypt"], version: str
    ) -> RefreshError:
        """Return what a failed call means for the key; ``version`` names the KMS key version it is about."""
        key_name = self._source.key_name
        states = _violations(error)
        match error:
            case exceptions.Forbidden() if error.reason == _REFUSED:
                role = f"roles/cloudkms.cryptoKey{verb.capitalize()}er"
                return DeniedError(
                    f"Cloud KMS refuses to {verb} with {key_name}, or there is no such key; check key_name, "
                    f"and grant {role} on it to the account of {self._login}"
                )
            case exceptions.NotFound():
                return MissingError(f"Cloud KMS has no key {key_name}; check key_name")
            case exceptions.FailedPrecondition() if states & _GONE:
                return MissingError(
                    f"{version} is destroyed, or scheduled to be; before that day, restore and enable it"
                )
            case exceptions.FailedPrecondition() if _DISABLED in states:
                return DeniedError(f"{version} is disabled; enable it")
            case exceptions.FailedPrecondition():
                trouble = f"cannot use {version}; check its state, or the external manager that holds it"
            case _:
                trouble = self._trouble(error)
        return UnavailableError(self._about(trouble), retry_after_seconds=_wish(error))

    def _trouble(self, error: exceptions.GoogleAPICallError) -> str:
        """Say what is in the way of an answer about the key."""
        match error:
            case exceptions.Forbidden():
                return _withheld(error.reason)
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


def _withheld(reason: str | None) -> str:
    """Say why a call is forbidden, if not by IAM."""
    if reason is None:
        return "refuses the call without a reason, as a proxy does; check endpoint and the proxies"
    if reason == _PERIMETER:
        return (
            f"is kept from the agent by VPC Service Controls ({reason}); let the agent's network or account "
            "into the project's perimeter"
        )
    return f"does not serve the project ({reason}); check its billing and that the API is on"


def _violations(error: exceptions.GoogleAPICallError) -> set[str]:
    """Return the types of what a failed precondition names."""
    details = [detail for detail in error.details if isinstance(detail, PreconditionFailure)]
    return {violation.type for detail in details for violation in detail.violations}


def _wish(error: exceptions.GoogleAPICallError) -> float | None:
    """Return in how many seconds the service wants to be asked again, where it says so."""
    delays = [detail.retry_delay for detail in error.details if isinstance(detail, RetryInfo)]
    return delays[0].ToTimedelta().total_seconds() if delays else None
