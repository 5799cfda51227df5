# SPDX-License-Identifier: Apache-2.0
import secrets
import traceback

import pytest

from keyferry import (
    DeploymentError,
    EnvAdapter,
    FileAdapter,
    InvalidMaterialError,
    KMSAdapter,
    ReadOnlyKeyError,
    Snapshot,
    UnknownVersionError,
    get_kms_adapter,
)
from tests.adapter.volume import Volume, version

VARIABLES = ("KEYFERRY_DIR", "KEYFERRY_ENCODING", "KEYFERRY_LENGTH", "KMS_PROVIDER", "MASTER_ENCRYPTION_KEY")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_the_volume_wins_whatever_the_agents_provider_is(
    volume: Volume, environment: pytest.MonkeyPatch
) -> None:
    volume.publish(version("1"))
    environment.setenv("KEYFERRY_DIR", str(volume.path))
    environment.setenv("KMS_PROVIDER", "vault")
    environment.setenv("MASTER_ENCRYPTION_KEY", "a leftover")
    keys: KMSAdapter = get_kms_adapter()
    assert isinstance(keys, FileAdapter)
    assert keys.active.id == "1"
    assert get_kms_adapter() is keys


@pytest.mark.parametrize("provider", [None, "", "env"])
def test_the_environment_for_development(environment: pytest.MonkeyPatch, provider: str | None) -> None:
    if provider is not None:
        environment.setenv("KMS_PROVIDER", provider)
    text = secrets.token_urlsafe(32)
    environment.setenv("MASTER_ENCRYPTION_KEY", text)
    with get_kms_adapter() as keys:
        assert isinstance(keys, EnvAdapter)
        assert keys.get_master_key() == keys.active.text == text
        assert keys.active.bytes == text.encode()
        assert keys.active.id == keys.active.fingerprint
        assert keys.active.id.startswith("sha256:")
        assert keys.get(keys.active.id) == keys.active
        assert keys.candidates() == keys.keyring.versions == keys.wait(timeout=1).versions == (keys.active,)
        assert (keys.generation, keys.staleness, keys.problem) == (0, None, None)
        assert repr(keys.active).count(text) == 0


def test_a_volume_that_was_forgotten_is_no_development(environment: pytest.MonkeyPatch) -> None:
    """A pod that names a real provider must not quietly encrypt with whatever the variable holds."""
    environment.setenv("KMS_PROVIDER", "vault")
    environment.setenv("MASTER_ENCRYPTION_KEY", secrets.token_urlsafe(32))
    with pytest.raises(DeploymentError) as caught:
        get_kms_adapter()
    assert str(caught.value) == (
        "KMS_PROVIDER is 'vault', which only the keyferry agent speaks to: set KEYFERRY_DIR to the directory"
        " that its volume is mounted on; or, to develop without it, KMS_PROVIDER=env"
    )


def test_decoding(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MASTER_ENCRYPTION_KEY", "00ff" * 16)
    environment.setenv("KEYFERRY_ENCODING", "hex")
    environment.setenv("KEYFERRY_LENGTH", "32")
    assert EnvAdapter().active.bytes == b"\0\xff" * 16


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        pytest.param(
            {"MASTER_ENCRYPTION_KEY": ""},
            "MASTER_ENCRYPTION_KEY is not set: set it for development; where the keyferry agent runs, set"
            " KEYFERRY_DIR to the directory that its volume is mounted on",
            id="no key",
        ),
        pytest.param(
            {"KEYFERRY_ENCODING": "utf-7"},
            "KEYFERRY_ENCODING is 'utf-7'; allowed are text, base64, base64url, hex, binary",
            id="encoding",
        ),
        pytest.param(
            {"KEYFERRY_LENGTH": "0"},
            "KEYFERRY_LENGTH is '0'; it counts bytes after decoding, such as 32",
            id="length 0",
        ),
        pytest.param(
            {"KEYFERRY_LENGTH": "32 bytes"},
            "KEYFERRY_LENGTH is '32 bytes'; it counts bytes after decoding, such as 32",
            id="length with a unit",
        ),
        pytest.param(
            {"KEYFERRY_ENCODING": "hex"},
            "MASTER_ENCRYPTION_KEY: not valid hex",
            id="another encoding",
        ),
        pytest.param(
            {"MASTER_ENCRYPTION_KEY": "\udcff"},
            "MASTER_ENCRYPTION_KEY: not UTF-8 text (byte 0); use encoding: binary for binary values",
            id="no text",
        ),
    ],
)
def test_bad_variables(environment: pytest.MonkeyPatch, variables: dict[str, str], problem: str) -> None:
    secret = secrets.token_urlsafe(32)
    for name, value in ({"MASTER_ENCRYPTION_KEY": secret} | variables).items():
        environment.setenv(name, value)
    with pytest.raises((DeploymentError, InvalidMaterialError)) as caught:
        _ = EnvAdapter().active
    assert str(caught.value) == problem
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert secret not in str([frame.locals for frame in shown.stack if "/keyferry/" in frame.filename])


def test_what_never_changes(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MASTER_ENCRYPTION_KEY", secrets.token_urlsafe(32))
    keys = EnvAdapter()

    def callback(snapshot: Snapshot) -> None:
        raise AssertionError(snapshot)

    assert keys.on_change(callback) is callback
    with pytest.raises(UnknownVersionError):
        keys.get("5", wait=3600)
    with pytest.raises(ReadOnlyKeyError) as caught:
        keys.rotate_key()
    assert str(caught.value) == (
        "key 'master' is a read-only copy here: set MASTER_ENCRYPTION_KEY anew and start the app again"
    )
