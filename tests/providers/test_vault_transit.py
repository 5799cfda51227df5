# SPDX-License-Identifier: Apache-2.0
"""What a real transit engine's answers mean for a wrapped keyring, and that no entry can be moved."""

from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.providers.vault_transit import VaultTransitProvider
from agent.sources.vault import VaultAuth
from keyferry.material import Material
from tests.providers.drivers import key, new_value
from tests.providers.wrapped_drivers import VaultTransitDriver, binding
from tests.servers.scripted import Request, Response, ScriptedServer

Store = VaultTransitDriver


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    with ExitStack() as stack:
        yield VaultTransitDriver(stack, tmp_path, lambda: request.getfixturevalue("bao"))


def results(provider: Provider, held: Known | None = None) -> list[str | RefreshError | None]:
    """Return each version's text, or what it fails of."""
    offer = fetch(provider, held or {})
    materials = [version.material for version in offer.versions]
    return [material.text if isinstance(material, Material) else material for material in materials]


def only(provider: Provider) -> RefreshError:
    (result,) = results(provider)
    assert isinstance(result, RefreshError)
    return result


def put(store: Store, *, entry: str, key_name: str = "master") -> None:
    store.keyring.add(store.wrap(new_value().encode(), binding(entry, key_name)))


def wrapped_anew(store: Store) -> None:
    store.bao.root.write_data(f"{store.mount}/keys/app/rotate", data={})
    store.bao.root.write_data(f"{store.mount}/keys/app/config", data={"min_decryption_version": 2})


def deleted(store: Store) -> None:
    store.bao.root.write_data(f"{store.mount}/keys/app/config", data={"deletion_allowed": True})
    store.bao.root.delete(f"{store.mount}/keys/app")


def may_read_the_key(store: Store) -> None:
    rules = [
        f'path "{store.mount}/decrypt/app" {{ capabilities = ["update"] }}',
        f'path "{store.mount}/keys/app" {{ capabilities = ["read"] }}',
    ]
    store.bao.root.sys.create_or_update_policy(store.mount, "\n".join(rules))


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        pytest.param(
            wrapped_anew,
            MissingError,
            "version 1 in file {path} was wrapped by version 1 of transit key {mount}/app, below its "
            "min_decryption_version 2; lower that, or wrap the key anew before raising it",
            id="below min_decryption_version",
        ),
        pytest.param(
            deleted,
            MissingError,
            "Vault has no transit key {mount}/app; check key_name, or restore the key from its backup",
            id="deleted key",
        ),
        pytest.param(
            lambda store: store.bao.root.sys.disable_secrets_engine(store.mount),
            MissingError,
            "Vault has no engine at {mount}/; check mount, or enable the engine",
            id="no engine",
        ),
        pytest.param(
            lambda store: store.bao.policy(store.mount),
            DeniedError,
            "Vault refuses to decrypt with transit key {mount}/app; the token's policy needs: "
            'path "{mount}/decrypt/app" {{ capabilities = ["update"] }}',
            id="denied",
        ),
    ],
)
def test_failures(store: Store, change: Callable[[Store], object], kind: type, reason: str) -> None:
    put(store, entry="1")
    may_read_the_key(store)
    provider = store.provider()
    assert [type(result) for result in results(provider)] == [str]
    change(store)
    error = only(provider)
    assert type(error) is kind
    assert error.reason == reason.format(path=store.keyring.path, mount=store.mount)


def test_a_token_that_is_not_one(store: Store) -> None:
    """Vault says the same as of a policy that lacks a line, but the kill switch must not fire for it."""
    put(store, entry="1")
    source = replace(store.source(), auth=VaultAuth(token="no-such-token"))
    provider = open_provider(key(source, "vault-transit"), timeout=5.0)
    with closing(provider), pytest.raises(UnavailableError) as caught:
        fetch(provider, {})
    assert caught.value.reason.endswith(
        "; or the token has expired or was revoked: it may not even look itself up"
    )


MALFORMED = (
    "version 1 in file {path} does not decrypt with transit key {mount}/app: another key wrapped it, or it "
    "was made for another key name or version id, or changed since; wrap the key anew"
)


@pytest.mark.parametrize(
    "ciphertext",
    [
        pytest.param(lambda store: store.wrap(b"x", binding("2")), id="another version's"),
        pytest.param(lambda store: store.wrap(b"x", binding("1", "other")), id="another key's"),
        pytest.param(lambda store: store.wrap(b"x", b""), id="not bound"),
        pytest.param(lambda store: store.wrap(b"x", binding("1"))[:-8], id="truncated"),
        pytest.param(lambda store: "vault:v9:" + "QUJD" * 16, id="of a version to come"),
        pytest.param(lambda store: b64encode(b"of another store").decode(), id="another store's"),
    ],
)
def test_what_does_not_decrypt(store: Store, ciphertext: Callable[[Store], str]) -> None:
    """An entry that was moved, mixed up or cut is that version's problem, and never a key."""
    store.keyring.add(ciphertext(store))
    may_read_the_key(store)
    error = only(store.provider())
    assert type(error) is MalformedError
    assert error.reason == MALFORMED.format(path=store.keyring.path, mount=store.mount)


def test_without_leave_to_read_the_key(store: Store) -> None:
    """What cannot be told apart counts as the class that changes nothing, and the policy's line is named."""
    put(store, entry="1")
    wrapped_anew(store)
    error = only(store.provider())
    assert type(error) is MalformedError
    grant = f'path "{store.mount}/keys/app" {{ capabilities = ["read"] }}'
    hint = f"; the policy line {grant} would let the agent tell more"
    assert error.reason == MALFORMED.format(path=store.keyring.path, mount=store.mount) + hint


@pytest.mark.parametrize("kind", ["rsa-2048", "ed25519"])
def test_a_transit_key_of_another_type(store: Store, kind: str) -> None:
    """It cannot bind an entry to its place, which Vault says in words alone."""
    store.bao.root.write_data(f"{store.mount}/keys/other", data={"type": kind})
    store.bao.root.sys.create_or_update_policy(
        store.mount, f'path "{store.mount}/*" {{ capabilities = ["read", "update"] }}'
    )
    store.keyring.add("vault:v1:QUJD")
    settings = key(replace(store.source(), key_name="other"), "vault-transit")
    provider = VaultTransitProvider(settings, settings.source, 5.0)  # type: ignore[arg-type]
    store.closing(provider)
    with pytest.raises(MalformedError) as caught:
        provider.wrap(b"x", {})
    assert caught.value.reason == only(provider).reason
    assert caught.value.reason == (
        f"transit key {store.mount}/other is of type {kind}, which takes no associated data; make one of "
        "type aes256-gcm96, and wrap the key with that"
    )


def test_a_namespace_that_is_not_there(store: Store) -> None:
    """Vault answers 404 to everything, and the namespace is the likeliest to be misspelt."""
    put(store, entry="1")
    source = replace(store.source(), namespace="nosuch")
    with closing(open_provider(key(source, "vault-transit"), timeout=5.0)) as provider:
        error = only(provider)
    assert type(error) is MissingError
    assert error.reason == (
        f"Vault has no engine at {store.mount}/ in namespace nosuch; check mount, or enable the engine"
    )


def test_one_version_below_leaves_the_others(store: Store) -> None:
    put(store, entry="1")
    store.bao.root.write_data(f"{store.mount}/keys/app/rotate", data={})
    put(store, entry="2")
    may_read_the_key(store)
    wrapped_anew(store)
    first, second = results(store.provider())
    assert type(first) is MissingError
    assert isinstance(second, str)


def test_a_bare_ciphertext(store: Store) -> None:
    """Without a keyring around it a ciphertext is not bound, has no history, and is the key all the same."""
    value = new_value()
    source = replace(store.source(), keyring=store.wrap(value.encode(), b""))
    with closing(open_provider(key(source, "vault-transit"), timeout=5.0)) as provider:
        offer = fetch(provider, {})
    assert [isinstance(v.material, Material) and v.material.text for v in offer.versions] == [value]
    assert offer.unstaged is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(
            b'{"request_id": "1", "data": {}}', "Vault's answer: data.plaintext is missing", id="none"
        ),
        pytest.param(
            b'{"request_id": "1", "data": {"plaintext": "?"}}',
            "Vault's answer: data.plaintext is not base64",
            id="no base64",
        ),
    ],
)
def test_an_answer_that_is_none(store: Store, body: bytes, reason: str) -> None:
    def answer(request: Request) -> Response:
        if "decrypt" in request.path:
            return Response(200, body)
        return Response(403, b'{"errors": []}')

    store.keyring.add("vault:v1:QUJD")
    with ScriptedServer(answer) as server:
        source = replace(store.source(), address=server.address, ca_file=None)
        provider = open_provider(key(source, "vault-transit"), timeout=5.0)
        with pytest.raises(UnavailableError) as caught:
            fetch(provider, {})
        provider.close()
    told = f"{reason}; Vault at {server.address} does not answer as Vault and OpenBao do"
    assert caught.value.reason == told
