# SPDX-License-Identifier: Apache-2.0
"""What is Secrets Manager's own: labels, its list of versions, and what the policy may forbid."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import UNRELEASED, Known, Offer
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.settings import KeySettings
from keyferry.material import Encoding, Material
from tests.providers.aws_drivers import SecretsManagerDriver
from tests.providers.drivers import new_value
from tests.servers.aws_proxy import refusal
from tests.servers.moto_server import Moto
from tests.servers.scripted import Response

NO_CURRENT = "has no current version yet; put a value into it"


@pytest.fixture
def secret(moto: Moto, tmp_path: Path) -> Iterator[SecretsManagerDriver]:
    with ExitStack() as stack:
        yield SecretsManagerDriver(stack, tmp_path, lambda: moto)


def known(offer: Offer) -> Known:
    return {version.id: version.created_at for version in offer.versions}


def numbers(offer: Offer) -> list[int]:
    """Return which of the versions that were put come, in order."""
    return [int(version.id) for version in offer.versions]


def opened(secret: SecretsManagerDriver, encoding: Encoding = "text", **settings: Any) -> Provider:
    source = secret.source(**settings)
    key = KeySettings(name="master", provider="aws-secrets-manager", source=source, encoding=encoding)
    provider = open_provider(key, timeout=5.0)
    secret.stack.callback(provider.close)
    return provider


def answer(document: Any) -> Response:
    return Response(200, json.dumps(document).encode(), {"Content-Type": "application/x-amz-json-1.1"})


def pending(secret: SecretsManagerDriver, value: str) -> str:
    return secret.put_string(json.dumps({"key": value}), VersionStages=["AWSPENDING"])


def label(secret: SecretsManagerDriver, stage: str, *, to: str | None = None, off: str | None = None) -> None:
    versions = {"MoveToVersionId": to, "RemoveFromVersionId": off}
    given = {name: id_ for name, id_ in versions.items() if id_ is not None}
    secret.admin.update_secret_version_stage(SecretId=secret.name, VersionStage=stage, **given)


def test_a_pending_version_comes_at_once_and_waits(secret: SecretsManagerDriver) -> None:
    """It stands last, with its value; it is not for use before it is promoted."""
    secret.put(new_value())
    value = new_value()
    pending(secret, value)
    offer = fetch(secret.provider(), {})
    assert numbers(offer) == [1, 2]
    assert offer.versions[1].material == Material(value.encode())
    assert [version.activates_at for version in offer.versions] == [None, UNRELEASED]


def test_a_promoted_version_is_released(secret: SecretsManagerDriver) -> None:
    """A rotation leaves AWSPENDING on what it has promoted."""
    secret.put(new_value())
    id_ = pending(secret, new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    label(secret, "AWSCURRENT", to=id_, off=secret.version_id(1))
    offer = fetch(provider, held)
    assert numbers(offer) == [1, 2]
    assert [version.activates_at for version in offer.versions] == [None, None]
    assert [version.material for version in offer.versions] == [None, None]


def test_an_abandoned_version_stands_before_those_that_were_used(secret: SecretsManagerDriver) -> None:
    """A rotation that failed and was begun again: while its second try waits, its first one is not used."""
    secret.put(new_value())
    abandoned = pending(secret, new_value())
    again = pending(secret, new_value())
    label(secret, "AWSCURRENT", to=again, off=secret.version_id(1))
    offer = fetch(secret.provider(), {})
    assert abandoned == secret.version_id(2)
    assert numbers(offer) == [2, 1, 3]
    assert [version.first for version in offer.versions] == [False, True, False]


def test_moving_the_label_back_moves_the_older_version_to_the_end(secret: SecretsManagerDriver) -> None:
    for _ in range(3):
        secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    label(secret, "AWSCURRENT", to=secret.version_id(2), off=secret.version_id(3))
    offer = fetch(provider, held)
    assert numbers(offer) == [1, 3, 2]
    assert [version.first for version in offer.versions] == [True, False, False]


def test_a_version_that_was_rolled_back_from_is_not_used_again(secret: SecretsManagerDriver) -> None:
    """While the version after it waits for its time, the one that was rolled back to is in use."""
    for _ in range(3):
        secret.put(new_value())
    label(secret, "AWSCURRENT", to=secret.version_id(2), off=secret.version_id(3))
    secret.put(new_value())
    assert numbers(fetch(secret.provider(), {})) == [1, 3, 2, 4]


def test_a_pending_version_without_a_value_is_not_there(secret: SecretsManagerDriver) -> None:
    """A rotation makes the version first and its value later: that is no failure."""
    secret.put(new_value())
    id_ = pending(secret, new_value())
    provider = secret.provider()
    held = {secret.version_id(1): fetch(provider, {}).versions[0].created_at}
    secret.aws.proxy.faults["GetSecretValue"] = refusal("ResourceNotFoundException")
    offer = fetch(provider, held)
    assert id_ == secret.version_id(2)
    assert numbers(offer) == [1]


def test_a_secret_without_a_version_is_missing(secret: SecretsManagerDriver) -> None:
    secret.admin.create_secret(Name=secret.name)
    with pytest.raises(MissingError, match=NO_CURRENT):
        fetch(secret.provider(), {})


def test_a_secret_with_nothing_but_a_pending_version_is_missing(secret: SecretsManagerDriver) -> None:
    """What was never released must not become the key for want of another."""
    secret.put(new_value())
    only = {"VersionId": secret.version_id(1), "VersionStages": ["AWSPENDING"], "CreatedDate": 1.5}
    secret.aws.proxy.faults["ListSecretVersionIds"] = answer({"ARN": "arn:x", "Versions": [only]})
    with pytest.raises(MissingError, match=NO_CURRENT):
        fetch(secret.provider(), {})


def test_a_secret_that_is_scheduled_for_deletion_is_missing(secret: SecretsManagerDriver) -> None:
    secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    secret.admin.delete_secret(SecretId=secret.name, RecoveryWindowInDays=7)
    with pytest.raises(MissingError, match="is scheduled for deletion; `restore-secret` brings it back"):
        fetch(provider, held)
    secret.admin.restore_secret(SecretId=secret.name)
    assert known(fetch(provider, held)) == held


def test_an_unchanged_secret_costs_one_call(secret: SecretsManagerDriver) -> None:
    secret.put(new_value())
    secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    secret.aws.proxy.calls.clear()
    fetch(provider, held)
    assert dict(secret.aws.proxy.calls) == {"DescribeSecret": 1}


def test_all_pages_are_read(secret: SecretsManagerDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.providers.aws_versions._PAGE_SIZE", 2)
    for _ in range(5):
        secret.put(new_value())
    offer = fetch(secret.provider(), {})
    assert numbers(offer) == [1, 2, 3, 4, 5]
    assert secret.aws.proxy.calls["ListSecretVersionIds"] == 3


def test_the_oldest_of_a_full_list_is_not_called_the_first(
    secret: SecretsManagerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS drops the oldest of more than a hundred."""
    monkeypatch.setattr("agent.providers.aws_versions.VERSIONS_KEPT", 2)
    secret.put(new_value())
    provider = secret.provider()
    assert fetch(provider, {}).versions[0].first
    secret.put(new_value())
    assert not fetch(provider, {}).versions[0].first


def test_without_the_list_the_labelled_versions_come(secret: SecretsManagerDriver) -> None:
    for _ in range(3):
        secret.put(new_value())
    pending(secret, new_value())
    secret.refuse("ListSecretVersionIds")
    provider = secret.provider()
    offer = fetch(provider, {})
    assert numbers(offer) == [2, 3, 4]
    assert [version.activates_at for version in offer.versions] == [None, None, UNRELEASED]
    assert not any(version.first for version in offer.versions)
    assert len(offer.warnings) == 1
    assert offer.warnings[0].endswith("allow secretsmanager:ListSecretVersionIds")
    reads = secret.value_reads()
    again = fetch(provider, known(offer))
    assert known(again) == known(offer)
    assert secret.value_reads() == reads == 3


def test_without_the_probe_a_deletion_goes_unseen(secret: SecretsManagerDriver) -> None:
    """The list tells nothing of it, and no value is read: a warning says so from the start."""
    secret.put(new_value())
    secret.refuse_probe()
    provider = secret.provider()
    before = fetch(provider, {})
    secret.admin.delete_secret(SecretId=secret.name)
    after = fetch(provider, known(before))
    assert known(after) == known(before)
    warning = (
        "the policy forbids to describe the secret: each refresh lists its versions, and the secret's "
        "deletion goes unseen; allow secretsmanager:DescribeSecret"
    )
    assert before.warnings == after.warnings == (warning,)


def test_with_the_value_alone_the_labelled_versions_come(secret: SecretsManagerDriver) -> None:
    for _ in range(3):
        secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    secret.refuse("DescribeSecret", "ListSecretVersionIds")
    offer = fetch(provider, held)
    assert numbers(offer) == [2, 3]
    pending(secret, new_value())
    offer = fetch(provider, held)
    assert numbers(offer) == [2, 3, 4]
    assert [version.activates_at for version in offer.versions] == [None, None, UNRELEASED]
    assert len(offer.warnings) == 1
    assert "secretsmanager:DescribeSecret and secretsmanager:ListSecretVersionIds" in offer.warnings[0]


def test_a_refused_value_is_that_versions_problem(secret: SecretsManagerDriver) -> None:
    """A policy can allow AWSCURRENT alone."""
    secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    secret.put(new_value())
    secret.refuse("GetSecretValue")
    offer = fetch(provider, held)
    assert offer.versions[0].material is None
    assert isinstance(offer.versions[1].material, DeniedError)


def test_a_list_that_lags_behind_is_not_remembered(secret: SecretsManagerDriver) -> None:
    """AWS is eventually consistent: the list may come from before what DescribeSecret has shown."""
    secret.put(new_value())
    provider = secret.provider()
    held = known(fetch(provider, {}))
    old = json.loads(secret.aws.proxy.last_bodies["ListSecretVersionIds"])
    secret.put(new_value())
    secret.aws.proxy.faults["ListSecretVersionIds"] = answer(old)
    assert numbers(fetch(provider, held)) == [1]
    secret.aws.proxy.faults.clear()
    assert numbers(fetch(provider, held)) == [1, 2]


def test_the_whole_value_is_the_key_without_a_field(secret: SecretsManagerDriver) -> None:
    value = new_value()
    secret.put_string(value)
    offer = fetch(opened(secret, field=None), {})
    assert offer.versions[0].material == Material(value.encode())
    assert offer.warnings == ()


def test_a_whole_value_that_looks_like_json_is_told(secret: SecretsManagerDriver) -> None:
    """Published as it is, it would be a key that nobody meant."""
    secret.put(new_value())
    offer = fetch(opened(secret, field=None), {})
    assert offer.warnings == (
        "the whole value is the key, but it looks like a JSON object; set field to take one of its fields",
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("binary", Material(b"\xff" * 32, binary=True)), ("text", None)],
    ids=["as binary", "as text"],
)
def test_a_binary_secret(secret: SecretsManagerDriver, encoding: Encoding, expected: Material | None) -> None:
    secret.admin.create_secret(Name=secret.name, SecretBinary=b"\xff" * 32)
    material = fetch(opened(secret, encoding, field=None), {}).versions[0].material
    if expected is None:
        assert isinstance(material, MalformedError)
        assert material.reason.endswith("is not UTF-8 text (byte 0); use encoding: binary for binary values")
    else:
        assert material == expected


AN_OBJECT = "write an object that has the field, or remove the key's field setting"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        pytest.param(
            {"SecretBinary": b"bytes"},
            "is binary and has no field 'key'; remove the key's field setting",
            id="a binary secret has no fields",
        ),
        pytest.param({"SecretString": "no JSON"}, f"is not JSON; {AN_OBJECT}", id="no JSON"),
        pytest.param({"SecretString": "[1]"}, f"is not a JSON object; {AN_OBJECT}", id="no object"),
        pytest.param(
            {"SecretString": '{"key": 7}'}, "is a number, not a string", id="a field that is no string"
        ),
        pytest.param(
            {"SecretString": '{"kee": "x"}'},
            "has no field 'key' (it has 1 other field); check the key's field setting",
            id="another field",
        ),
    ],
)
def test_a_value_that_is_no_key(secret: SecretsManagerDriver, parameters: Any, reason: str) -> None:
    secret.admin.create_secret(Name=secret.name, **parameters)
    material = fetch(secret.provider(), {}).versions[0].material
    assert isinstance(material, MalformedError)
    assert material.reason.endswith(reason)
    assert secret.name in material.reason


def test_another_region_says_which(secret: SecretsManagerDriver) -> None:
    secret.put(new_value())
    provider = opened(secret, region="eu-central-1")
    with pytest.raises(
        MissingError, match=r"AWS has no secret \S+ in eu-central-1; check its name and region"
    ):
        fetch(provider, {})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refusal("InternalServiceError", 500), UnavailableError),
        (refusal("ServiceUnavailable", 503), UnavailableError),
        (Response(403, b"<html>no</html>", {"Content-Type": "text/html"}), UnavailableError),
        (Response(200, b"<html>login</html>", {"Content-Type": "text/html"}), UnavailableError),
        (refusal("ExpiredTokenException"), UnavailableError),
        (refusal("InvalidSignatureException"), UnavailableError),
        (refusal("DecryptionFailure"), DeniedError),
        (refusal("InvalidRequestException"), MissingError),
    ],
    ids=["500", "503", "proxy 403", "proxy 200", "expired", "clock", "KMS key off", "being deleted"],
)
def test_failure(secret: SecretsManagerDriver, fault: Response, kind: type[RefreshError]) -> None:
    """Over a real connection, with every operation failing alike."""
    secret.put(new_value())
    operations = ("DescribeSecret", "ListSecretVersionIds", "GetSecretValue")
    secret.aws.proxy.faults |= dict.fromkeys(operations, fault)
    with pytest.raises(kind) as failure:
        fetch(secret.provider(), {})
    assert failure.value.outcome == kind.outcome
    assert "quote anything" not in str(failure.value)
    assert failure.value.__cause__ is None
