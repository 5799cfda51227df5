# SPDX-License-Identifier: Apache-2.0
"""What an error code of AWS means for the key. Pure: a code and a status in, the error to raise out.

Rules:

- The class follows from the typed code. A code that is not here is unavailable: it may be a proxy's, or new.
- A KMS key in an invalid state is unavailable: its custom key store may have lost its connection.
- A login that is refused is unavailable, not denied: an expired token, a clock that is off or a trust policy
  under repair says nothing about the key, and the kill switch must not fire for it.
- A message names the IAM action that failed and never what AWS wrote: that text may quote anything.

Sources: "Common error types" of the AWS APIs, and the errors of each operation in the API references of
Secrets Manager, KMS and STS.
"""

import re
from typing import Final, NamedTuple

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError

# AWS seldom says how long to wait. Its token buckets fill again within seconds.
THROTTLED_SECONDS: Final = 5.0

_SERVER_ERRORS: Final = 500
_CODE: Final = r"[A-Za-z0-9.:#_-]{1,64}"


class RejectedLoginError(UnavailableError):
    """AWS does not accept who asks, whatever was asked."""


class TakenError(UnavailableError):
    """AWS has something else under the name or the version id that was to be made."""


class Refusal(NamedTuple):
    """What AWS refused: an IAM ``action`` on a ``thing``, such as ``secret app/key in eu-west-1``.

    ``login`` if the action was part of the login.
    """

    action: str
    thing: str
    code: str
    status: int
    retry_after_seconds: float | None = None
    login: bool = False


_EXPIRED: Final = "the credentials have expired; renew them, or give the pod a role (IRSA, Pod Identity)"
_UNKNOWN: Final = "the credentials are not known; check the access key, and that it was not deleted"
_SIGNATURE: Final = "the signature is wrong or expired; check the secret access key and this node's clock"
_REFUSED: Final = "AWS refuses {action} on {thing}; allow it in the role's policy and the KMS key's"
_WRONG_CIPHERTEXT: Final = (
    "the ciphertext is damaged, or was made with another key name, version id or encryption context than "
    "{thing} is given now"
)

_LOGIN: Final = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": "the request's signature has expired; is this node's clock right?",
    "RequestTimeTooSkewed": "this node's clock is too far off",
    "InvalidSignatureException": _SIGNATURE,
    "SignatureDoesNotMatch": _SIGNATURE,
    "IncompleteSignature": "the signature is incomplete; check the credentials",
    "IncompleteSignatureException": "the signature is incomplete; check the credentials",
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "InvalidAccessKeyId": _UNKNOWN,
    "MissingAuthenticationToken": "the request had no credentials",
    "MissingAuthenticationTokenException": "the request had no credentials",
    "OptInRequired": "the account is not signed up for this region; enable it, or correct region",
    "RegionDisabledException": "STS is not activated in this region; let the account's administrator do it",
}
_THROTTLED: Final = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
# STS's word that the token's issuer did not answer: a 400, and no fault of who asks.
_OUT_OF_SERVICE: Final = frozenset({"IDPCommunicationError"})
_TAKEN: Final = frozenset({"ResourceExistsException"})
_DENIED: Final = {
    "AccessDenied": _REFUSED,
    "AccessDeniedException": _REFUSED,
    "DecryptionFailure": "Secrets Manager cannot decrypt {thing}; enable its KMS key and allow kms:Decrypt",
    "DisabledException": "{thing} is disabled; enable it",
}
_UNAVAILABLE: Final = {
    "KMSInvalidStateException": (
        "{thing} cannot be used in its state: it is pending deletion, which `cancel-key-deletion` undoes, or "
        "its custom key store is disconnected or in trouble"
    ),
}
_MISSING: Final = {
    "InvalidRequestException": (
        "{thing} does not allow {action} as it is: it is scheduled for deletion, which `restore-secret` "
        "undoes, or another service of AWS manages it"
    ),
    "NotFoundException": "AWS has no {thing}; check its id and region",
    "ResourceNotFoundException": "AWS has no {thing}; check its name and region, or create it",
}
_MALFORMED: Final = {
    "IncorrectKeyException": "the ciphertext was made by another KMS key than {thing}; wrap the version anew",
    "InvalidArnException": "{thing} is no ARN that AWS knows; correct it",
    "InvalidCiphertextException": _WRONG_CIPHERTEXT,
    "InvalidKeyUsageException": "{thing} does not encrypt and decrypt; use a symmetric encryption key",
    "InvalidParameterException": "AWS takes the name of {thing} for invalid; correct it",
    "UnsupportedOperationException": "{thing} does not support {action}; use a symmetric encryption key",
    "ValidationException": "AWS takes the name of {thing} or the ciphertext for invalid; correct it",
}


def classified(refusal: Refusal) -> RefreshError:
    """Return what ``refusal`` means."""
    code = refusal.code
    shown = code if re.fullmatch(_CODE, code) else "an unknown code"
    trouble = f"AWS answers {refusal.status} ({shown}) to {refusal.action}"
    if code in _THROTTLED:
        wait = THROTTLED_SECONDS if refusal.retry_after_seconds is None else refusal.retry_after_seconds
        return UnavailableError(
            f"AWS asks to slow down ({shown}) on {refusal.action}", retry_after_seconds=wait
        )
    if code in _TAKEN:
        return TakenError(f"{trouble}: {refusal.thing} exists")
    if refusal.status < _SERVER_ERRORS and code not in _OUT_OF_SERVICE:
        if refusal.login:
            cure = "check the role's trust policy and the token's or external id's value"
            return RejectedLoginError(f"{trouble}; {_LOGIN.get(code, cure)}")
        if code in _LOGIN:
            return RejectedLoginError(f"{trouble}: {_LOGIN[code]}")
        for kind, sentences in (
            (DeniedError, _DENIED),
            (MissingError, _MISSING),
            (MalformedError, _MALFORMED),
            (UnavailableError, _UNAVAILABLE),
        ):
            if code in sentences:
                sentence = sentences[code].format(action=refusal.action, thing=refusal.thing)
                return kind(f"{sentence} ({shown})")
    # Not of calls, hence nothing that a wait cures.
    quota = ": a quota is used up; have it raised" if code == "LimitExceededException" else ""
    return UnavailableError(f"{trouble}{quota}", retry_after_seconds=refusal.retry_after_seconds)
