# SPDX-License-Identifier: Apache-2.0
"""AWS's sources: where the region comes from, and what contradicts itself."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent import loading
from agent.sources import Source
from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from tests.settings.conftest import Load, Problems

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/key-AbCdEf"
KMS_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = "keys: {{master: {{provider: aws-secrets-manager, {}}}}}"
KMS = "keys: {{master: {{provider: aws-kms, key_id: alias/app, keyring: /etc/ring, {}}}}}"


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        pytest.param(
            {"KMS_PROVIDER": "aws-secrets-manager"},
            SecretsManagerSource(secret="fedha/encryption/master-key", region="us-east-1"),
            id="nothing but the provider",
        ),
        pytest.param(
            {
                "KMS_PROVIDER": "aws-secrets-manager",
                "AWS_SECRET_NAME": "app/key",
                "AWS_REGION": "eu-west-1",
                "AWS_DEFAULT_REGION": "eu-west-2",
            },
            SecretsManagerSource(secret="app/key", region="eu-west-1"),
            id="aws-secrets-manager",
        ),
        pytest.param(
            {
                "KMS_PROVIDER": "aws-kms",
                "AWS_KMS_KEY_ID": "alias/app",
                "AWS_DEFAULT_REGION": "eu-west-2",
                "KEYFERRY_WRAPPED_KEYRING": "AQICAHh",
            },
            AwsKmsSource(key_id="alias/app", region="eu-west-2", keyring="AQICAHh"),
            id="aws-kms with a bare ciphertext",
        ),
        pytest.param(
            {"KMS_PROVIDER": "aws-kms", "AWS_KMS_KEY_ID": KMS_ARN, "KEYFERRY_WRAPPED_KEYRING": "/etc/ring"},
            AwsKmsSource(key_id=KMS_ARN, region="eu-west-1", keyring=Path("/etc/ring")),
            id="aws-kms with a keyring's file, in the ARN's region",
        ),
    ],
)
def test_environment_alone(environ: Mapping[str, str], source: Source) -> None:
    assert loading.load(None, environ).settings.keys["master"].source == source


def test_everything(load: Load) -> None:
    text = KMS.format(
        "region: eu-west-1, endpoint: 'https://kms.example', profile: ops, external_id: fedha, "
        "role_arn: 'arn:aws:iam::123456789012:role/teams/keyferry', "
        "encryption_context: 'stage=prod,app=fedha'"
    )
    assert load(text).settings.keys["master"].source == AwsKmsSource(
        key_id="alias/app",
        keyring=Path("/etc/ring"),
        region="eu-west-1",
        endpoint="https://kms.example",
        profile="ops",
        external_id="fedha",
        role_arn="arn:aws:iam::123456789012:role/teams/keyferry",
        encryption_context=(("app", "fedha"), ("stage", "prod")),
    )


def test_a_keyrings_file_is_watched_and_late(load: Load) -> None:
    key = load(KMS.format("region: eu-west-1")).settings.keys["master"]
    assert key.source_files == (Path("/etc/ring"),)
    assert key.mounted


@pytest.mark.parametrize("setting", ["mounted: false", "keyring: AQICAHh"])
def test_a_keyring_that_is_no_mounted_file_is_not_late(load: Load, setting: str) -> None:
    text = KMS.replace(" keyring: /etc/ring,", "") if "keyring" in setting else KMS
    assert not load(text.format(setting)).settings.keys["master"].mounted


def test_a_role_or_a_profile_is_no_other_key(load: Load) -> None:
    role = "role_arn: 'arn:aws:iam::123456789012:role/keyferry'"
    plain, with_role, elsewhere = (
        load(SECRET.format(settings)).settings.keys["master"].source_digest
        for settings in ("secret: a", f"secret: a, profile: ops, {role}", "secret: a, region: eu-west-1")
    )
    assert plain == with_role != elsewhere


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            SECRET.format(f"region: us-east-1, secret: '{ARN}'"),
            "keys.master.region: is us-east-1, but secret is an ARN in eu-west-1; allowed: the ARN's own "
            "region; correct one of them, or remove region",
            id="a secret's ARN in another region",
        ),
        pytest.param(
            KMS.format("region: us-east-1").replace("alias/app", f"'{KMS_ARN}'"),
            "keys.master.region: is us-east-1, but key_id is an ARN in eu-west-1; allowed: the ARN's own "
            "region; correct one of them, or remove region",
            id="a KMS key's ARN in another region",
        ),
        pytest.param(
            SECRET.format("secret: a, external_id: x"),
            "keys.master.external_id: means nothing without role_arn; allowed: only beside role_arn; remove "
            "it, or name the role",
            id="an external id without a role",
        ),
        pytest.param(
            SECRET.format("secret: a, region: Ireland"),
            'keys.master.region: "Ireland" is not the name of a region; allowed: a region\'s name; write it '
            "like eu-west-1",
            id="no region",
        ),
        pytest.param(
            SECRET.format("secret: a, role_arn: keyferry"),
            'keys.master.role_arn: "keyferry" is not the ARN of a role; allowed: the ARN of an IAM role; '
            "write it like arn:aws:iam::123456789012:role/keyferry",
            id="no role",
        ),
        pytest.param(
            KMS.format("encryption_context: app"),
            'keys.master.encryption_context: "app" is not a list of different names with values; allowed: '
            "name=value pairs with commas between them; write it as the AWS CLI takes it, such as "
            "app=fedha,stage=prod",
            id="no context",
        ),
        pytest.param(
            KMS.format("encryption_context: 'keyferry:key=other'"),
            'keys.master.encryption_context: "keyferry:key=other" has a name that begins with keyferry:, '
            "which the agent itself sets; allowed: name=value pairs with commas between them; write it as "
            "the AWS CLI takes it, such as app=fedha,stage=prod",
            id="the agent's own context",
        ),
        pytest.param(
            KMS.format("encryption_context: 'a=1,a=2'"),
            'keys.master.encryption_context: "a=1,a=2" is not a list of different names with values; '
            "allowed: name=value pairs with commas between them; write it as the AWS CLI takes it, such as "
            "app=fedha,stage=prod",
            id="a name twice",
        ),
        pytest.param(
            "keys: {master: {provider: aws-kms, key_id: alias/app, keyring: ' '}}",
            "keys.master.keyring: the value (not shown) is empty; allowed: an absolute path, or the text of "
            "a wrapped keyring or ciphertext; name the file, or fill the text in from ${VARIABLE}",
            id="an empty keyring",
        ),
        pytest.param(
            "volume: {path: /run/keys}\n"
            "keys: {master: {provider: aws-kms, key_id: alias/app, keyring: /run/keys/ring}}",
            "keys.master.keyring: lies on the volume that the agent itself writes, volume.path; allowed: a "
            "file anywhere else; move the source, or volume.path",
            id="a keyring on the volume",
        ),
    ],
)
def test_problem(problems: Problems, text: str, problem: str) -> None:
    assert problems(text) == [problem]
