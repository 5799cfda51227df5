# SPDX-License-Identifier: Apache-2.0
"""What AWS's codes mean for the key, without AWS."""

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.providers.aws_errors import THROTTLED_SECONDS, Refusal, RejectedLoginError, classified

SECRET = "secret app/key in eu-west-1"
KEY = "KMS key alias/app in eu-west-1"
READ = "secretsmanager:GetSecretValue"
DECRYPT = "kms:Decrypt"


@pytest.mark.parametrize(
    ("action", "thing", "code", "kind", "reason"),
    [
        pytest.param(
            READ,
            SECRET,
            "AccessDeniedException",
            DeniedError,
            "AWS refuses secretsmanager:GetSecretValue on secret app/key in eu-west-1; allow it in the "
            "role's policy and the KMS key's (AccessDeniedException)",
            id="the policy forbids",
        ),
        pytest.param(
            READ,
            SECRET,
            "DecryptionFailure",
            DeniedError,
            "Secrets Manager cannot decrypt secret app/key in eu-west-1; enable its KMS key and allow "
            "kms:Decrypt (DecryptionFailure)",
            id="the secret's KMS key does not work",
        ),
        pytest.param(
            DECRYPT,
            KEY,
            "DisabledException",
            DeniedError,
            "KMS key alias/app in eu-west-1 is disabled; enable it (DisabledException)",
            id="a disabled KMS key",
        ),
        pytest.param(
            DECRYPT,
            KEY,
            "KMSInvalidStateException",
            UnavailableError,
            "KMS key alias/app in eu-west-1 cannot be used in its state: it is pending deletion, which "
            "`cancel-key-deletion` undoes, or its custom key store is disconnected or in trouble "
            "(KMSInvalidStateException)",
            id="a KMS key that is about to be deleted, or whose store is away",
        ),
        pytest.param(
            READ,
            SECRET,
            "ResourceNotFoundException",
            MissingError,
            "AWS has no secret app/key in eu-west-1; check its name and region, or create it "
            "(ResourceNotFoundException)",
            id="no such secret, or another region",
        ),
        pytest.param(
            READ,
            SECRET,
            "InvalidRequestException",
            MissingError,
            "secret app/key in eu-west-1 does not allow secretsmanager:GetSecretValue as it is: it is "
            "scheduled for deletion, which `restore-secret` undoes, or another service of AWS manages it "
            "(InvalidRequestException)",
            id="a secret that is about to be deleted",
        ),
        pytest.param(
            DECRYPT,
            KEY,
            "NotFoundException",
            MissingError,
            "AWS has no KMS key alias/app in eu-west-1; check its id and region (NotFoundException)",
            id="no such KMS key",
        ),
        pytest.param(
            DECRYPT,
            KEY,
            "InvalidCiphertextException",
            MalformedError,
            "the ciphertext is damaged, or was made with another key name, version id or encryption context "
            "than KMS key alias/app in eu-west-1 is given now (InvalidCiphertextException)",
            id="a relabelled entry",
        ),
        pytest.param(
            DECRYPT,
            KEY,
            "IncorrectKeyException",
            MalformedError,
            "the ciphertext was made by another KMS key than KMS key alias/app in eu-west-1; wrap the "
            "version anew (IncorrectKeyException)",
            id="another KMS key's ciphertext",
        ),
        pytest.param(
            READ,
            SECRET,
            "ExpiredTokenException",
            RejectedLoginError,
            "AWS answers 400 (ExpiredTokenException) to secretsmanager:GetSecretValue: the credentials have "
            "expired; renew them, or give the pod a role (IRSA, Pod Identity)",
            id="expired credentials",
        ),
        pytest.param(
            READ,
            SECRET,
            "InvalidSignatureException",
            RejectedLoginError,
            "AWS answers 400 (InvalidSignatureException) to secretsmanager:GetSecretValue: the signature is "
            "wrong or expired; check the secret access key and this node's clock",
            id="a clock that is off",
        ),
        pytest.param(
            "secretsmanager:PutSecretValue",
            SECRET,
            "LimitExceededException",
            UnavailableError,
            "AWS answers 400 (LimitExceededException) to secretsmanager:PutSecretValue: a quota is used up; "
            "have it raised",
            id="a quota of things, not of calls",
        ),
        pytest.param(
            READ,
            SECRET,
            "403",
            UnavailableError,
            "AWS answers 400 (403) to secretsmanager:GetSecretValue",
            id="a proxy's own word",
        ),
        pytest.param(
            READ,
            SECRET,
            "<b>no</b>",
            UnavailableError,
            "AWS answers 400 (an unknown code) to secretsmanager:GetSecretValue",
            id="no code at all",
        ),
    ],
)
def test_code(action: str, thing: str, code: str, kind: type[RefreshError], reason: str) -> None:
    error = classified(Refusal(action, thing, code, 400))
    assert type(error) is kind
    assert error.reason == reason


@pytest.mark.parametrize(
    "code",
    ["AccessDeniedException", "ResourceNotFoundException", "InternalServiceError", "NotFoundException"],
)
def test_a_server_error_is_unavailable_whatever_its_code(code: str) -> None:
    error = classified(Refusal(READ, SECRET, code, 500))
    assert type(error) is UnavailableError
    assert error.reason == f"AWS answers 500 ({code}) to secretsmanager:GetSecretValue"


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredTokenException", "InvalidIdentityToken"])
def test_a_refused_login_is_never_denied(code: str) -> None:
    error = classified(Refusal("sts:AssumeRole", SECRET, code, 403, login=True))
    assert type(error) is RejectedLoginError
    assert error.outcome == "unavailable"
    assert error.reason.startswith(f"AWS answers 403 ({code}) to sts:AssumeRole; ")


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("Throttling", 400, "AWS asks to slow down (Throttling) on sts:AssumeRole"),
        ("ServiceUnavailable", 503, "AWS answers 503 (ServiceUnavailable) to sts:AssumeRole"),
        ("IDPCommunicationError", 400, "AWS answers 400 (IDPCommunicationError) to sts:AssumeRole"),
    ],
)
def test_a_login_that_is_not_answered_is_no_refused_one(code: str, status: int, reason: str) -> None:
    """No trust policy cures it; waiting does, for as long as AWS says."""
    error = classified(Refusal("sts:AssumeRole", SECRET, code, status, 7.0, login=True))
    assert type(error) is UnavailableError
    assert (error.reason, error.retry_after_seconds) == (reason, 7.0)


@pytest.mark.parametrize(("stated", "wait"), [(None, THROTTLED_SECONDS), (7.0, 7.0)])
def test_throttling_says_when_to_come_back(stated: float | None, wait: float) -> None:
    error = classified(Refusal(READ, SECRET, "ThrottlingException", 400, retry_after_seconds=stated))
    assert type(error) is UnavailableError
    assert error.retry_after_seconds == wait
    assert error.reason == "AWS asks to slow down (ThrottlingException) on secretsmanager:GetSecretValue"
