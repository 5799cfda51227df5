# SPDX-License-Identifier: Apache-2.0
"""Every login of the SDK's chain, seen from the access key that arrives at AWS."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.errors import UnavailableError
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.settings import KeySettings
from keyferry.times import format_time
from tests.providers.aws_drivers import SecretsManagerDriver, only_these_variables
from tests.providers.drivers import new_value
from tests.servers.aws_proxy import sts_refusal
from tests.servers.moto_server import ACCOUNT, REGION, Moto
from tests.servers.process import free_port
from tests.servers.scripted import Request, Response, ScriptedServer

ROLE = f"arn:aws:iam::{ACCOUNT}:role/keyferry"
IMDS_TOKEN = "imds-token"


@pytest.fixture
def secret(moto: Moto, tmp_path: Path) -> Iterator[SecretsManagerDriver]:
    with ExitStack() as stack:
        driver = SecretsManagerDriver(stack, tmp_path, lambda: moto)
        driver.put(new_value())
        yield driver


def opened(secret: SecretsManagerDriver, **settings: str) -> Provider:
    key = KeySettings(
        name="master",
        provider="aws-secrets-manager",
        source=secret.source(**settings),
        encoding="base64url",
        length=32,
    )
    provider = open_provider(key, timeout=5.0)
    secret.stack.callback(provider.close)
    return provider


def caller(secret: SecretsManagerDriver, provider: Provider) -> str:
    """Return the access key by which the secret was fetched."""
    assert len(fetch(provider, {}).versions) == 1
    return secret.aws.proxy.callers[-1]


class Credentials(ScriptedServer):
    """Gives credentials as EKS Pod Identity's agent and as the instance metadata service do."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.token = "first"
        self.given = 0

    def _answer(self, request: Request) -> Response:
        if request.path == "/pod":
            if request.headers.get("Authorization") != self.token:
                return Response(401)
            return self._credentials("ASIAPOD")
        if request.path == "/latest/api/token":
            return Response(200, IMDS_TOKEN.encode())
        if request.headers.get("x-aws-ec2-metadata-token") != IMDS_TOKEN:
            return Response(401)
        if request.path == "/latest/meta-data/iam/security-credentials/":
            return Response(200, b"node-role")
        return self._credentials("ASIANODE")

    def _credentials(self, name: str) -> Response:
        self.given += 1
        document = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": f"{name}{self.given}",
            "SecretAccessKey": "secret",
            "Token": "session",
            "LastUpdated": format_time(time.time()),
            "Expiration": format_time(time.time() + 3600),
        }
        return Response(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def credentials() -> Iterator[Credentials]:
    with Credentials() as server:
        yield server


def test_variables(secret: SecretsManagerDriver) -> None:
    with only_these_variables(AWS_ACCESS_KEY_ID="AKIAENV", AWS_SECRET_ACCESS_KEY="secret"):
        assert caller(secret, opened(secret)) == "AKIAENV"


def test_a_profile(secret: SecretsManagerDriver, tmp_path: Path) -> None:
    file = tmp_path / "profiles"
    file.write_text("[ops]\naws_access_key_id = AKIAOPS\naws_secret_access_key = secret\n")
    with only_these_variables(AWS_SHARED_CREDENTIALS_FILE=str(file)):
        assert caller(secret, opened(secret, profile="ops")) == "AKIAOPS"


def test_the_endpoint_of_the_environment(secret: SecretsManagerDriver) -> None:
    """AWS_ENDPOINT_URL is the SDK's own."""
    source = secret.source()
    with only_these_variables(
        AWS_ENDPOINT_URL=secret.aws.endpoint, AWS_ACCESS_KEY_ID="AKIAENV", AWS_SECRET_ACCESS_KEY="secret"
    ):
        key = KeySettings(name="master", provider="aws-secrets-manager", source=source, encoding="base64url")
        assert caller(secret, open_provider(key, timeout=5.0)) == "AKIAENV"


def test_a_role_is_assumed(secret: SecretsManagerDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", secret.aws.endpoint)
    provider = opened(secret, role_arn=ROLE, external_id="fedha")
    assert caller(secret, provider).startswith("ASIA")
    request = next(r for r in secret.aws.proxy.requests if b"AssumeRole" in r.body)
    assert b"ExternalId=fedha" in request.body
    assert b"RoleSessionName=keyferry" in request.body
    fetch(provider, {})
    assert secret.aws.proxy.calls["AssumeRole"] == 1


def test_a_role_that_is_no_longer_accepted_is_assumed_again(
    secret: SecretsManagerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", secret.aws.endpoint)
    provider = opened(secret, role_arn=ROLE)
    before = caller(secret, provider)
    secret.aws.proxy.revoked.add(before)
    assert caller(secret, provider) != before
    assert secret.aws.proxy.calls["AssumeRole"] == 2


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken", "RegionDisabledException"])
def test_a_role_that_may_not_be_assumed_is_unavailable(
    secret: SecretsManagerDriver, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """It says nothing about the key."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", secret.aws.endpoint)
    secret.aws.proxy.faults["AssumeRole"] = sts_refusal(code)
    with pytest.raises(UnavailableError, match=rf"AWS answers 403 \({code}\) to sts:AssumeRole; "):
        fetch(opened(secret, role_arn=ROLE), {})


def test_web_identity(secret: SecretsManagerDriver, tmp_path: Path) -> None:
    """IRSA: the token file is read at each login."""
    file = tmp_path / "token"
    file.write_text("first-token")
    with only_these_variables(
        AWS_WEB_IDENTITY_TOKEN_FILE=str(file),
        AWS_ROLE_ARN=ROLE,
        AWS_REGION=REGION,
        AWS_ENDPOINT_URL_STS=secret.aws.endpoint,
    ):
        provider = opened(secret)
        before = caller(secret, provider)
        assert before.startswith("ASIA")
        file.write_text("second-token")
        secret.aws.proxy.revoked.add(before)
        assert caller(secret, provider) != before
    logins = [r.body for r in secret.aws.proxy.requests if b"AssumeRoleWithWebIdentity" in r.body]
    assert [b"second-token" in body for body in logins] == [False, True]


def test_web_identity_without_its_file_is_unavailable(secret: SecretsManagerDriver, tmp_path: Path) -> None:
    with (
        only_these_variables(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "gone"), AWS_ROLE_ARN=ROLE),
        pytest.raises(UnavailableError) as failure,
    ):
        fetch(opened(secret), {})
    assert failure.value.reason == (
        "cannot read a file with credentials: No such file or directory; check AWS_WEB_IDENTITY_TOKEN_FILE "
        "and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    )


def test_web_identity_whose_file_holds_no_token(secret: SecretsManagerDriver, tmp_path: Path) -> None:
    """The SDK does not send what cannot be one, such as a file that is being written."""
    (tmp_path / "token").write_text("x")
    with (
        only_these_variables(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"), AWS_ROLE_ARN=ROLE),
        pytest.raises(UnavailableError) as failure,
    ):
        fetch(opened(secret), {})
    assert failure.value.reason == (
        "AWS's SDK sends no DescribeSecret: a setting, or the token in a file, is not of its form"
    )


def test_pod_identity(secret: SecretsManagerDriver, credentials: Credentials, tmp_path: Path) -> None:
    """The token file is read at each login."""
    file = tmp_path / "token"
    file.write_text(credentials.token)
    with only_these_variables(
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{credentials.address}/pod",
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(file),
    ):
        provider = opened(secret)
        assert caller(secret, provider) == "ASIAPOD1"
        credentials.token = "second"
        file.write_text("second")
        secret.aws.proxy.revoked.add("ASIAPOD1")
        assert caller(secret, provider) == "ASIAPOD2"


def test_instance_metadata(secret: SecretsManagerDriver, credentials: Credentials, tmp_path: Path) -> None:
    with only_these_variables(
        AWS_EC2_METADATA_SERVICE_ENDPOINT=credentials.address,
        AWS_EC2_METADATA_DISABLED="false",
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"),
    ):
        assert caller(secret, opened(secret)).startswith("ASIANODE")


def test_no_credentials_are_unavailable_and_looked_for_again(
    secret: SecretsManagerDriver, tmp_path: Path
) -> None:
    file = tmp_path / "later"
    with only_these_variables(AWS_SHARED_CREDENTIALS_FILE=str(file)):
        provider = opened(secret)
        with pytest.raises(UnavailableError, match=r"found no usable AWS credentials \(NoCredentialsError\)"):
            fetch(provider, {})
        file.write_text("[default]\naws_access_key_id = AKIALATER\naws_secret_access_key = secret\n")
        assert caller(secret, provider) == "AKIALATER"


def test_an_unknown_profile_is_unavailable(secret: SecretsManagerDriver) -> None:
    with pytest.raises(
        UnavailableError, match=r"^found no such AWS profile \(ProfileNotFound\); correct profile"
    ):
        fetch(opened(secret, profile="nobody"), {})


def test_a_refused_fetch_logs_in_once(secret: SecretsManagerDriver) -> None:
    """Asking again with the same answer proves nothing; asking for ever would lock an account out."""
    provider = opened(secret)
    fetch(provider, {})
    secret.deny()
    secret.aws.proxy.calls.clear()
    with pytest.raises(Exception, match="AWS refuses secretsmanager:GetSecretValue"):
        fetch(provider, {})
    assert secret.aws.proxy.calls["GetSecretValue"] == 2


def test_an_address_where_nobody_listens(secret: SecretsManagerDriver) -> None:
    secret.aws.endpoint = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match="AWS cannot be reached: Connection refused; check region and"):
        fetch(opened(secret), {})
