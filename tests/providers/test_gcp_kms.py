# SPDX-License-Identifier: Apache-2.0
"""What Cloud KMS's answers mean for a wrapped keyring, and each way to log in at Google."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import google_crc32c
import grpc
import pytest
from google.auth.compute_engine import _metadata

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known
from agent.providers import open_provider
from agent.providers.base import Provider, fetch
from agent.providers.crc32c import crc32c
from agent.sources.gcp import GcpKmsSource
from keyferry.material import Material
from tests.providers.drivers import key, new_value
from tests.providers.wrapped_drivers import GcpKmsDriver, binding
from tests.servers import gcp_kms
from tests.servers.gcp_kms import State
from tests.servers.google_identity import GoogleIdentity
from tests.servers.h2_proxy import ForbiddingProxy
from tests.servers.scripted import Response

ROOT = Path(__file__).parents[2]
Store = GcpKmsDriver


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with ExitStack() as stack:
        yield GcpKmsDriver(stack, tmp_path, lambda: pytest.fail("Cloud KMS needs no Vault"))


def results(provider: Provider, held: Known | None = None) -> list[str | RefreshError | None]:
    """Return each version's text, or what it fails of."""
    materials = [version.material for version in fetch(provider, held or {}).versions]
    return [material.text if isinstance(material, Material) else material for material in materials]


def failure(provider: Provider) -> RefreshError:
    """Return what a keyring with one version fails of, whether the fetch fails as a whole or shows it."""
    try:
        (result,) = results(provider)
    except RefreshError as error:
        return error
    assert isinstance(result, RefreshError)
    return result


def opened(store: Store, source: GcpKmsSource) -> Provider:
    provider = open_provider(key(source, "gcp-kms"), timeout=5.0)
    store.closing(provider)
    return provider


def fault(refusal: gcp_kms.RefusalError) -> Callable[[Store], None]:
    return lambda store: setattr(store.kms, "fault", refusal)


def in_state(state: int) -> Callable[[Store], None]:
    return lambda store: store.kms.set_state(store.key_name, 1, state)


DENIED = (
    "Cloud KMS refuses to decrypt with {key}, or there is no such key; check key_name, and grant "
    "roles/cloudkms.cryptoKeyDecrypter on it to the account of credentials_file {file}"
)
GONE = (
    "the KMS key version that wrapped version 1 in file {ring} is destroyed, or scheduled to be; before "
    "that day, restore and enable it"
)
UNUSABLE = (
    "{kms} cannot use the KMS key version that wrapped version 1 in file {ring}; check its state, or the "
    "external manager that holds it"
)
UNAUTHENTICATED = (
    "does not accept the token of credentials_file {file}; check that the key or the account was not "
    "disabled, and the clock of this machine"
)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        pytest.param(fault(gcp_kms.denied()), DeniedError, DENIED, id="denied"),
        pytest.param(
            fault(gcp_kms.denied("SECURITY_POLICY_VIOLATED")),
            UnavailableError,
            "{kms} is kept from the agent by VPC Service Controls (SECURITY_POLICY_VIOLATED); let the "
            "agent's network or account into the project's perimeter",
            id="outside the perimeter",
        ),
        pytest.param(
            fault(gcp_kms.denied("BILLING_DISABLED")),
            UnavailableError,
            "{kms} does not serve the project (BILLING_DISABLED); check its billing and that the API is on",
            id="no billing",
        ),
        pytest.param(
            in_state(State.DISABLED),
            DeniedError,
            "the KMS key version that wrapped version 1 in file {ring} is disabled; enable it",
            id="disabled",
        ),
        pytest.param(
            fault(gcp_kms.unusable("EKM_SAYS_NO")),
            UnavailableError,
            UNUSABLE,
            id="an external manager's trouble",
        ),
        pytest.param(fault(gcp_kms.unusable()), UnavailableError, UNUSABLE, id="an unnamed precondition"),
        pytest.param(in_state(State.DESTROY_SCHEDULED), MissingError, GONE, id="to be destroyed"),
        pytest.param(in_state(State.DESTROYED), MissingError, GONE, id="destroyed"),
        pytest.param(
            lambda store: store.kms.remove_key(store.key_name),
            MissingError,
            "Cloud KMS has no key {key}; check key_name",
            id="no such key",
        ),
        pytest.param(
            lambda store: setattr(store.kms, "corrupt", True),
            UnavailableError,
            "{kms} sent an answer that does not fit its checksum",
            id="corrupted",
        ),
        pytest.param(
            fault(gcp_kms.failed(grpc.StatusCode.UNAUTHENTICATED)),
            UnavailableError,
            "{kms} " + UNAUTHENTICATED,
            id="refused token",
        ),
        pytest.param(
            fault(gcp_kms.failed(grpc.StatusCode.UNAVAILABLE)),
            UnavailableError,
            "{kms} cannot be reached or is out of service; check endpoint, ca_file and the network policy",
            id="unavailable",
        ),
        pytest.param(
            fault(gcp_kms.failed(grpc.StatusCode.INTERNAL)),
            UnavailableError,
            "{kms} answers InternalServerError",
            id="internal error",
        ),
        pytest.param(
            fault(gcp_kms.throttled(7)), UnavailableError, "{kms} asks to slow down", id="throttled"
        ),
    ],
)
def test_failures(store: Store, change: Callable[[Store], None], kind: type, reason: str) -> None:
    store.put(new_value())
    provider = store.provider()
    assert [type(result) for result in results(provider)] == [str]
    change(store)
    error = failure(provider)
    assert type(error) is kind
    source = store.source()
    assert error.reason == reason.format(
        kms=f"Cloud KMS at {source.endpoint}",
        key=store.key_name,
        ring=store.keyring.path,
        file=store.credentials_file,
    )


def test_a_proxys_403(store: Store) -> None:
    """To gRPC it is PERMISSION_DENIED, which must not fire the kill switch."""
    store.put(new_value())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    store.ca.issue_cert("127.0.0.1").configure_cert(context)
    with ForbiddingProxy(context) as proxy:
        error = failure(opened(store, replace(store.source(), endpoint=proxy.address)))
        assert proxy.calls == 1
    assert type(error) is UnavailableError
    assert error.reason == (
        f"Cloud KMS at {proxy.address} refuses the call without a reason, as a proxy does; check endpoint "
        "and the proxies"
    )


def test_a_wrong_authority(store: Store, tmp_path: Path) -> None:
    store.put(new_value())
    provider = opened(store, replace(store.source(), ca_file=None))
    assert "check endpoint, ca_file" in failure(provider).reason
    provider = opened(store, replace(store.source(), ca_file=tmp_path / "none.pem"))
    assert failure(provider).reason == f"cannot read ca_file {tmp_path}/none.pem: No such file or directory"


@pytest.mark.parametrize(
    "ciphertext",
    [
        pytest.param(lambda store: store.wrap(b"x", binding("2")), id="another version's"),
        pytest.param(lambda store: store.wrap(b"x", binding("1", "other")), id="another key's"),
        pytest.param(lambda store: store.wrap(b"x", b""), id="not bound"),
        pytest.param(lambda store: store.wrap(b"x", binding("1"))[:-8], id="truncated"),
        pytest.param(lambda store: "////" * 16, id="another store's"),
    ],
)
def test_what_does_not_decrypt(store: Store, ciphertext: Callable[[Store], str]) -> None:
    """An entry that was moved, mixed up or cut is that version's problem, and never a key."""
    store.keyring.add(ciphertext(store))
    store.put(new_value())
    first, second = results(store.provider())
    assert isinstance(second, str)
    assert type(first) is MalformedError
    assert first.reason == (
        f"version 1 in file {store.keyring.path} does not decrypt with {store.key_name}: another key wrapped "
        "it, or it was made for another key name or version id, or changed since; wrap the key anew"
    )


def test_what_is_no_base64(store: Store) -> None:
    store.keyring.add("?")
    error = failure(store.provider())
    assert type(error) is MalformedError
    assert store.kms.calls == 0


def test_versions_of_the_kms_key(store: Store) -> None:
    """Which version of the KMS key wrapped an entry is the ciphertext's matter; one of them may be gone."""
    store.put(new_value())
    store.kms.rotate(store.key_name)
    store.put(new_value())
    store.kms.set_state(store.key_name, 1, State.DESTROYED)
    first, second = results(store.provider())
    assert type(first) is MissingError
    assert isinstance(second, str)


def test_a_bare_ciphertext(store: Store) -> None:
    value = new_value()
    offer = fetch(opened(store, replace(store.source(), keyring=store.wrap(value.encode(), b""))), {})
    assert [isinstance(v.material, Material) and v.material.text for v in offer.versions] == [value]
    assert offer.unstaged is not None


def test_one_fresh_login(store: Store) -> None:
    """A refusal is tried again once, with a token made anew; a second one in the same fetch is not."""
    store.put(new_value())
    store.put(new_value())
    provider = store.provider()
    fetch(provider, {})
    store.deny()
    calls = store.kms.calls
    fetch(provider, {})
    assert store.kms.calls - calls == 3


def test_a_kept_connection_is_given_one_more_try(store: Store) -> None:
    """It may have ended without the client's knowing; a new connection's failure stands."""
    store.put(new_value())
    provider = store.provider()
    fetch(provider, {})
    store.kms.fault = gcp_kms.failed(grpc.StatusCode.UNAVAILABLE)
    for tries in (2, 1):
        calls = store.kms.calls
        with pytest.raises(UnavailableError, match="cannot be reached or is out of service"):
            fetch(provider, {})
        assert store.kms.calls - calls == tries


@pytest.fixture
def federated(store: Store, tmp_path: Path) -> GcpKmsSource:
    """Log in by workload identity federation, with a subject token in a file."""
    (tmp_path / "subject").write_text(store.identity.subject_token)
    store.credentials_file.write_text(json.dumps(store.identity.federation(str(tmp_path / "subject"))))
    return store.source()


@pytest.fixture
def on_google(store: Store, monkeypatch: pytest.MonkeyPatch) -> GcpKmsSource:
    """Log in as a pod on GKE does, at the metadata server."""
    # GCE_METADATA_HOST is read when the library is imported, which another test has done by now.
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", store.identity.address.removeprefix("http://"))
    return replace(store.source(), credentials_file=None)


@pytest.mark.parametrize("login", ["federated", "on_google"])
def test_logins(store: Store, login: str, request: pytest.FixtureRequest) -> None:
    """A token is kept while it is good, and got anew when it is refused or about to expire."""
    source = request.getfixturevalue(login)
    value = new_value()
    store.put(value)
    provider = opened(store, source)
    assert results(provider) == [value]
    requests = len(store.identity.requests)
    assert requests
    assert results(provider) == [value]
    assert len(store.identity.requests) == requests
    store.identity.tokens.clear()
    store.identity.lifetime_seconds = 1
    assert results(provider) == [value]
    requests = len(store.identity.requests)
    assert results(provider) == [value]
    assert len(store.identity.requests) > requests


@pytest.mark.parametrize("status", [400, 403, 429, 503])
@pytest.mark.parametrize("login", ["federated", "on_google"])
def test_a_refused_login_is_unavailable(
    store: Store, login: str, status: int, request: pytest.FixtureRequest
) -> None:
    """It says nothing about the key, is asked once only, and quotes no answer."""
    source = request.getfixturevalue(login)
    store.put(new_value())
    store.identity.status = status
    error = failure(opened(store, source))
    assert type(error) is UnavailableError
    assert "made up" not in error.reason
    assert len(store.identity.requests) == 1
    assert store.kms.calls == 0


def test_a_machine_that_is_not_googles(
    store: Store, on_google: GcpKmsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that whoever forgot the credentials sees."""
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", "127.0.0.1:1")
    store.put(new_value())
    error = failure(opened(store, on_google))
    assert type(error) is UnavailableError
    sentence = "the metadata server gives no answer; outside Google Cloud, set credentials_file"
    assert error.reason == sentence


def test_a_login_that_cannot_be_renewed_yet(store: Store, federated: GcpKmsSource) -> None:
    """A token that is about to expire works until then, whatever the login says."""
    value = new_value()
    store.put(value)
    store.identity.lifetime_seconds = 120
    provider = opened(store, federated)
    assert results(provider) == [value]
    store.identity.status = 503
    assert results(provider) == [value]


def test_a_login_behind_a_private_authority(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ca_file`` holds for the login too, whatever the environment says about certificates."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ROOT / "agent.yaml"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    store.ca.issue_cert("127.0.0.1").configure_cert(context)
    value = new_value()
    store.put(value)
    with GoogleIdentity(context) as identity:
        (tmp_path / "subject").write_text(identity.subject_token)
        store.credentials_file.write_text(json.dumps(identity.federation(str(tmp_path / "subject"))))
        store.identity.tokens = identity.tokens
        assert results(store.provider()) == [value]
        error = failure(opened(store, replace(store.source(), ca_file=None)))
        assert type(error) is UnavailableError


def test_a_login_that_is_sent_elsewhere(store: Store, federated: GcpKmsSource) -> None:
    """The subject token goes to the configured address and nowhere else."""
    store.put(new_value())
    elsewhere = Response(307, headers={"Location": f"{store.identity.address}/v1/token?elsewhere"})
    store.identity.answer = lambda request: elsewhere
    assert failure(opened(store, federated)).reason == (
        f"Google gives no token for credentials_file {store.credentials_file}; check the federation's "
        "audience and conditions, and the age of its subject token"
    )
    assert len(store.identity.requests) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("{", "is not JSON; write the file as Google made it", id="no JSON"),
        pytest.param(
            '{"type": "service_account", "private_key": "planted"}',
            "is not complete; write the file as Google made it",
            id="cut",
        ),
        pytest.param(
            '{"type": "external_account", "credential_source": {"executable": {"command": "/bin/sh"}}}',
            "holds no credentials that keyferry takes: a service_account's key, or an external_account whose "
            "credential_source is a file or a url",
            id="a program to run",
        ),
        pytest.param("[]", "holds no credentials that keyferry takes", id="a list"),
    ],
)
def test_credentials_that_are_none(store: Store, text: str, reason: str) -> None:
    store.put(new_value())
    store.credentials_file.write_text(text)
    error = failure(store.provider())
    assert type(error) is UnavailableError
    assert error.reason.startswith(f"credentials_file {store.credentials_file} {reason}")
    assert "planted" not in error.reason


def test_no_credentials_file(store: Store) -> None:
    store.put(new_value())
    store.credentials_file.unlink()
    error = failure(store.provider())
    assert error.reason == f"cannot read credentials_file {store.credentials_file}: No such file or directory"


def test_grpc_keeps_quiet(store: Store) -> None:
    """Its own log lines would stand between the agent's, and it writes one when it trusts no certificate."""
    store.put(new_value())
    program = f"""
from pathlib import Path
from agent.errors import UnavailableError
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.settings import KeySettings
from agent.sources.gcp import GcpKmsSource
source = GcpKmsSource(
    key_name={store.key_name!r},
    keyring=Path({str(store.keyring.path)!r}),
    credentials_file=Path({str(store.credentials_file)!r}), endpoint={store.source().endpoint!r},
)
try:
    fetch(open_provider(KeySettings(name="master", provider="gcp-kms", source=source), timeout=5.0), {{}})
except UnavailableError:
    print("unavailable")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (result.stdout, result.stderr) == ("unavailable\n", "")


@pytest.mark.parametrize("size", [0, 1, 9, 300, 65536])
def test_crc32c(size: int) -> None:
    data = os.urandom(size)
    assert crc32c(data) == google_crc32c.value(data)


def test_crc32c_of_the_rfc() -> None:
    """RFC 3720, appendix B.4: 32 bytes of zeroes."""
    assert crc32c(bytes(32)) == 0x8A9136AA
