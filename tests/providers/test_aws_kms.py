# SPDX-License-Identifier: Apache-2.0
"""What is AWS KMS's own: the context that binds a ciphertext to its entry, and a key that is switched off."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.settings import KeySettings
from keyferry.material import Encoding, Material
from tests.providers.aws_drivers import AwsKmsDriver
from tests.providers.drivers import new_value
from tests.servers.aws_proxy import refusal
from tests.servers.moto_server import Moto

WRONG_CIPHERTEXT = (
    r"the ciphertext is damaged, or was made with another key name, version id or encryption context"
)


@pytest.fixture
def kms(moto: Moto, tmp_path: Path) -> Iterator[AwsKmsDriver]:
    with ExitStack() as stack:
        yield AwsKmsDriver(stack, tmp_path, lambda: moto)


def known(offer: Offer) -> Known:
    return {version.id: version.created_at for version in offer.versions}


def opened(kms: AwsKmsDriver, encoding: Encoding = "base64url", **settings: Any) -> Provider:
    source = kms.source(**settings)
    key = KeySettings(name="master", provider="aws-kms", source=source, encoding=encoding, length=32)
    provider = open_provider(key, timeout=5.0)
    kms.stack.callback(provider.close)
    return provider


def failure(provider: Provider, held: Known | None = None) -> RefreshError:
    """Return what the newest version fails of."""
    material = fetch(provider, held or {}).versions[-1].material
    assert isinstance(material, RefreshError)
    return material


def bound(id_: str, key: str = "master", **more: str) -> dict[str, str]:
    return {"keyferry:key": key, "keyferry:version": id_} | more


@pytest.mark.parametrize(
    "context",
    [bound("2"), bound("1", key="other"), {}, bound("1", app="fedha")],
    ids=["another version's", "another key's", "none", "one more name"],
)
def test_a_ciphertext_of_another_context_is_refused(kms: AwsKmsDriver, context: dict[str, str]) -> None:
    """An entry cannot be relabelled: who may edit the file cannot bring an old key back as a new one."""
    kms.keyring.add(kms.encrypt(new_value().encode(), context))
    error = failure(kms.provider())
    assert isinstance(error, MalformedError)
    assert error.reason.startswith(WRONG_CIPHERTEXT.replace("\\", ""))


def test_a_configured_context_is_bound_too(kms: AwsKmsDriver) -> None:
    value = new_value()
    kms.keyring.add(kms.encrypt(value.encode(), bound("1", app="fedha", stage="prod")))
    provider = opened(kms, encryption_context=(("app", "fedha"), ("stage", "prod")))
    assert fetch(provider, {}).versions[0].material == Material(value.encode())
    assert isinstance(failure(opened(kms, encryption_context=(("app", "other"),))), MalformedError)


def test_another_kms_key_is_never_used(kms: AwsKmsDriver) -> None:
    """Even where the agent may decrypt with it."""
    other = kms.admin.create_key()["KeyMetadata"]["KeyId"]
    kms.keyring.add(kms.encrypt(new_value().encode(), bound("1"), other))
    error = failure(kms.provider())
    assert isinstance(error, MalformedError)
    assert "the ciphertext was made by another KMS key than" in error.reason


def test_an_alias_names_the_key(kms: AwsKmsDriver) -> None:
    alias = f"alias/{kms.key_id}"
    kms.admin.create_alias(AliasName=alias, TargetKeyId=kms.key_id)
    kms.put(new_value())
    assert isinstance(fetch(opened(kms, key_id=alias), {}).versions[0].material, Material)


@pytest.mark.parametrize(
    ("ciphertext", "reason"),
    [
        ("no base64!", r"version 1 in file \S+ is not base64; write the ciphertext as the store's own tool"),
        ("bm8gY2lwaGVydGV4dA==", WRONG_CIPHERTEXT),
    ],
    ids=["not base64", "not a ciphertext"],
)
def test_a_damaged_ciphertext(kms: AwsKmsDriver, ciphertext: str, reason: str) -> None:
    kms.keyring.add(ciphertext)
    error = failure(kms.provider())
    assert isinstance(error, MalformedError)
    with pytest.raises(MalformedError, match=reason):
        raise error


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("DisabledException", 400, DeniedError),
        ("NotFoundException", 400, MissingError),
        ("InvalidKeyUsageException", 400, MalformedError),
    ],
)
def test_a_kms_key_that_is_switched_off_is_noticed(
    kms: AwsKmsDriver, code: str, status: int, kind: type[RefreshError]
) -> None:
    """Although every version is known: that is how a kill switch fires."""
    for _ in range(3):
        kms.put(new_value())
    provider = kms.provider()
    held = known(fetch(provider, {}))
    kms.aws.proxy.faults["Decrypt"] = refusal(code, status)
    assert type(failure(provider, held)) is kind
    kms.aws.proxy.faults.clear()
    assert known(fetch(provider, held)) == held


@pytest.mark.parametrize(
    "code", ["KeyUnavailableException", "DependencyTimeoutException", "KMSInternalException"]
)
def test_trouble_inside_kms_is_unavailable(kms: AwsKmsDriver, code: str) -> None:
    kms.put(new_value())
    kms.aws.proxy.faults["Decrypt"] = refusal(code, 500)
    with pytest.raises(UnavailableError, match=rf"AWS answers 500 \({code}\) to kms:Decrypt"):
        fetch(kms.provider(), {})


def test_only_the_newest_is_unwrapped_again(kms: AwsKmsDriver) -> None:
    for _ in range(3):
        kms.put(new_value())
    provider = kms.provider()
    held = known(fetch(provider, {}))
    kms.aws.proxy.calls.clear()
    offer = fetch(provider, held)
    assert [version.material is None for version in offer.versions] == [True, True, False]
    assert dict(kms.aws.proxy.calls) == {"Decrypt": 1}


def test_a_bare_ciphertext_is_one_version_without_a_context(kms: AwsKmsDriver) -> None:
    """What `aws kms encrypt` prints, as apps keep it in a variable."""
    value = new_value()
    offer = fetch(opened(kms, keyring=kms.encrypt(value.encode(), {})), {})
    assert [version.material for version in offer.versions] == [Material(value.encode())]
    assert offer.versions[0].id.startswith("sha256:")
    assert offer.unstaged is not None


def test_a_keyring_can_stand_in_the_configuration(kms: AwsKmsDriver) -> None:
    kms.put(new_value())
    text = kms.keyring.path.read_text()
    offer = fetch(opened(kms, keyring=text), {})
    assert [version.id for version in offer.versions] == ["1"]
    assert isinstance(offer.versions[0].material, Material)


def test_wrapped_bytes(kms: AwsKmsDriver) -> None:
    kms.keyring.add(kms.encrypt(b"\xff" * 32, bound("1")))
    assert fetch(opened(kms, "binary"), {}).versions[0].material == Material(b"\xff" * 32, binary=True)


def test_a_keyring_of_another_key_is_refused(kms: AwsKmsDriver) -> None:
    kms.put(new_value())
    document = json.loads(kms.keyring.path.read_text()) | {"key": "other"}
    kms.keyring.path.write_text(json.dumps(document))
    with pytest.raises(MalformedError, match="is not 'master': this file was made for another key"):
        fetch(kms.provider(), {})
