# SPDX-License-Identifier: Apache-2.0
"""A double of Google Cloud KMS on loopback: gRPC and TLS, made from the library's own messages.

    with CloudKms(ca, authorize=identity.accepts) as kms:
        kms.create_key(name)
        ciphertext = kms.encrypt(name, plaintext, aad)

What it does as the real one: the encryption (AES-GCM with additional data; the key's version stands in the
ciphertext), the checks of checksums, and the status codes with their typed details. What Google does not
document it does not make up.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, Final, Self

import google_crc32c
import grpc
import trustme
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import (
    CryptoKeyVersion,
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
)
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

State = CryptoKeyVersion.CryptoKeyVersionState

_SERVICE: Final = "google.cloud.kms.v1.KeyManagementService"
_NONCE_BYTES: Final = 12


class RefusalError(Exception):
    """What the service answers instead: a status code and typed details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.status = Status(code=code.value[0], message=message)
        for detail in details:
            packed = Packed()
            packed.Pack(detail)
            self.status.details.append(packed)


def denied(reason: str = "IAM_PERMISSION_DENIED") -> RefusalError:
    """Return IAM's refusal, or another one of the project."""
    info = ErrorInfo(reason=reason, domain="googleapis.com")
    return RefusalError(grpc.StatusCode.PERMISSION_DENIED, "Permission denied (or it may not exist).", info)


def unusable(*violations: str) -> RefusalError:
    """Return a failed precondition with violations of these types."""
    detail = PreconditionFailure(
        violations=[PreconditionFailure.Violation(type=type_) for type_ in violations]
    )
    return RefusalError(grpc.StatusCode.FAILED_PRECONDITION, "made up by a test", detail)


def throttled(seconds: int) -> RefusalError:
    """Return a quota's answer, with a wish when to come back."""
    wish = RetryInfo(retry_delay=Duration(seconds=seconds))
    return RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.", wish)


def failed(code: grpc.StatusCode) -> RefusalError:
    """Return a failure without details."""
    return RefusalError(code, "made up by a test")


@dataclass
class _Version:
    secret: bytes = field(repr=False)
    state: int = State.ENABLED


class CloudKms:
    """Keys by resource name. ``fault`` answers every call, ``corrupt`` breaks the answers' checksums."""

    def __init__(self, ca: trustme.CA, authorize: Callable[[str], bool]) -> None:
        """Take a certificate from ``ca``; ``authorize`` judges the bearer token of each call."""
        self.fault: RefusalError | None = None
        self.corrupt = False
        self.calls = 0
        self._authorize = authorize
        self._keys: dict[str, list[_Version]] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(4, "cloud-kms"))
        decrypt = grpc.unary_unary_rpc_method_handler(
            self._serving(self._decrypt), DecryptRequest.deserialize, DecryptResponse.serialize
        )
        encrypt = grpc.unary_unary_rpc_method_handler(
            self._serving(self._encrypt), EncryptRequest.deserialize, EncryptResponse.serialize
        )
        services = grpc.method_handlers_generic_handler(_SERVICE, {"Decrypt": decrypt, "Encrypt": encrypt})
        self._server.add_generic_rpc_handlers((services,))
        certificate = ca.issue_cert("127.0.0.1", "localhost")
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        self.port: int = self._server.add_secure_port("127.0.0.1:0", credentials)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def create_key(self, name: str) -> None:
        """Create a key with one version, which is its primary."""
        self._keys[name] = []
        self.rotate(name)

    def rotate(self, name: str) -> None:
        """Add a version and make it the primary."""
        self._keys[name].append(_Version(AESGCM.generate_key(256)))

    def set_state(self, name: str, number: int, state: int) -> None:
        """Enable, disable or destroy a version; they count from 1."""
        self._keys[name][number - 1].state = state

    def remove_key(self, name: str) -> None:
        """Forget a key. The real service cannot; a wrong name looks the same."""
        del self._keys[name]

    def encrypt(self, name: str, plaintext: bytes, aad: bytes = b"") -> str:
        """Return ``plaintext`` wrapped by the primary version, as base64."""
        number = len(self._keys[name])
        nonce = AESGCM.generate_key(128)[:_NONCE_BYTES]
        sealed = AESGCM(self._keys[name][-1].secret).encrypt(nonce, plaintext, aad)
        return b64encode(bytes([number]) + nonce + sealed).decode()

    def _serving(self, answer: Callable[[Any], Message]) -> Callable[[Any, Any], Message]:
        def serve(request: Any, context: Any) -> Message:
            self.calls += 1
            try:
                if self.fault is not None:
                    raise self.fault
                self._check_token(dict(context.invocation_metadata()))
                return answer(request)
            except RefusalError as refusal:
                context.abort_with_status(rpc_status.to_status(refusal.status))
                raise AssertionError from None

        return serve

    def _check_token(self, metadata: dict[str, str]) -> None:
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self._authorize(token):
            raise RefusalError(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")

    def _decrypt(self, request: DecryptRequest) -> DecryptResponse:
        _check_sum("ciphertext", request.ciphertext, request.ciphertext_crc32c)
        aad = request.additional_authenticated_data
        _check_sum("additional_authenticated_data", aad, request.additional_authenticated_data_crc32c)
        if request.name not in self._keys:
            raise RefusalError(grpc.StatusCode.NOT_FOUND, f"CryptoKey {request.name} not found.")
        wrong = RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed.")
        number, nonce = request.ciphertext[0], request.ciphertext[1 : _NONCE_BYTES + 1]
        try:
            version = self._keys[request.name][number - 1]
            opened = AESGCM(version.secret).decrypt(nonce, request.ciphertext[_NONCE_BYTES + 1 :], aad)
        except (IndexError, ValueError, InvalidTag):
            raise wrong from None
        if version.state != State.ENABLED:
            raise _not_enabled(request.name, number, version.state)
        return DecryptResponse(plaintext=opened, plaintext_crc32c=_crc32c(opened) ^ self.corrupt)

    def _encrypt(self, request: EncryptRequest) -> EncryptResponse:
        aad = request.additional_authenticated_data
        _check_sum("plaintext", request.plaintext, request.plaintext_crc32c)
        _check_sum("additional_authenticated_data", aad, request.additional_authenticated_data_crc32c)
        if request.name not in self._keys:
            raise RefusalError(grpc.StatusCode.NOT_FOUND, f"CryptoKey {request.name} not found.")
        number = len(self._keys[request.name])
        if (state := self._keys[request.name][-1].state) != State.ENABLED:
            raise _not_enabled(request.name, number, state)
        sealed = b64decode(self.encrypt(request.name, request.plaintext, aad))
        return EncryptResponse(
            name=f"{request.name}/cryptoKeyVersions/{number}",
            ciphertext=sealed,
            ciphertext_crc32c=_crc32c(sealed) ^ self.corrupt,
            verified_plaintext_crc32c=request.plaintext_crc32c is not None,
            verified_additional_authenticated_data_crc32c=True,
        )


def _not_enabled(key_name: str, number: int, state: int) -> RefusalError:
    name = f"{key_name}/cryptoKeyVersions/{number}"
    violation = PreconditionFailure.Violation(type=f"KEY_{State(state).name}", subject=name)
    message = f"{name} is not enabled, current state is: {State(state).name}."
    detail = PreconditionFailure(violations=[violation])
    return RefusalError(grpc.StatusCode.FAILED_PRECONDITION, message, detail)


def _check_sum(name: str, data: bytes, given: Any) -> None:
    if given is not None and given != _crc32c(data):
        message = f"The checksum in field {name}_crc32c did not match the data in field {name}."
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _crc32c(data: bytes) -> int:
    return int.from_bytes(google_crc32c.Checksum(data).digest(), "big")
