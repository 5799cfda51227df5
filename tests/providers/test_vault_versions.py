# SPDX-License-Identifier: Apache-2.0
"""What KV version 2 can do with a secret's history on a real server, beyond the contract suite's cells."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPSConnection
from typing import Any

import pytest

from agent.errors import MalformedError, MissingError, RefreshError
from agent.offer import Known, Offer
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.sources.vault import VaultAuth, VaultSource
from keyferry.material import Material
from tests.providers.drivers import key, new_value
from tests.servers.openbao import OpenBao
from tests.servers.scripted import Request, Response, ScriptedServer

UNSTAGED = "the secret's max_versions is 1, so Vault keeps no earlier version; raise it"


@pytest.fixture(scope="module", params=["history", "deep/er"])
def mount(request: pytest.FixtureRequest, bao: OpenBao) -> str:
    """Mount a KV engine, at a path of one and of two parts."""
    name = str(request.param)
    bao.mount_kv(name)
    bao.policy("probe", f"{name}/data/*", f"{name}/metadata/*")
    bao.policy("no-probe", f"{name}/data/*")
    return name


@dataclass
class Secret:
    """One secret of one test, written by the administrator and read with a policy."""

    bao: OpenBao
    mount: str
    path: str
    policy: str = "probe"

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.bao.write(self.mount, self.path, key=new_value())

    def set(self, **metadata: Any) -> None:
        self.bao.root.secrets.kv.v2.update_metadata(self.path, mount_point=self.mount, **metadata)

    def fetch(self, known: Known | None = None, **settings: Any) -> Offer:
        source = VaultSource(
            address=self.bao.address,
            path=f"{self.mount}/{self.path}",
            ca_file=self.bao.ca_file,
            auth=VaultAuth(token=self.bao.token(self.policy)),
        )
        provider = open_provider(key(replace(source, **settings), "vault"), timeout=5.0)
        try:
            return fetch(provider, known or {})
        finally:
            provider.close()


@pytest.fixture
def secret(bao: OpenBao, mount: str) -> Secret:
    return Secret(bao, mount, f"app/{time.monotonic_ns()}")


@pytest.fixture(params=["probe", "no-probe"])
def either(secret: Secret, request: pytest.FixtureRequest) -> Secret:
    """Read the secret with and without its metadata."""
    secret.policy = request.param
    return secret


def ids(offer: Offer) -> list[str]:
    return [version.id for version in offer.versions]


def test_path_as_people_write_it(secret: Secret) -> None:
    secret.write()
    for path in (f"{secret.mount}/{secret.path}", f"{secret.mount}/data/{secret.path}"):
        assert ids(secret.fetch(path=path)) == ["1"]


def hiding_mounts(bao: OpenBao) -> Callable[[Request], Response]:
    """Pass everything on to ``bao`` but the question where an engine is, as a proxy in front may do."""
    context = ssl.create_default_context(cafile=bao.ca_file)

    def answer(request: Request) -> Response:
        if request.path.startswith("/v1/sys/internal/ui/mounts/"):
            return Response(403, b'{"errors": ["permission denied"]}')
        connection = HTTPSConnection("127.0.0.1", bao.port, context=context)
        headers = {"X-Vault-Token": request.headers["X-Vault-Token"]}
        connection.request(request.method, request.path, request.body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return Response(response.status, data)

    return answer


def test_mount_that_is_named(either: Secret) -> None:
    """An engine is found where ``mount`` says, with a server that tells where engines are and with none."""
    either.write()
    with ScriptedServer(hiding_mounts(either.bao)) as proxy:
        for address in (either.bao.address, proxy.address):
            assert ids(either.fetch(address=address, mount=either.mount)) == ["1"]
            path = f"{either.mount}/data/{either.path}"
            assert ids(either.fetch(address=address, mount=either.mount, path=path)) == ["1"]


def test_mount_that_is_guessed(secret: Secret) -> None:
    """Where nobody tells, the path's first word is taken, and a refusal says that it was."""
    secret.write()
    with ScriptedServer(hiding_mounts(secret.bao)) as proxy:
        if "/" not in secret.mount:
            assert ids(secret.fetch(address=proxy.address)) == ["1"]
            return
        with pytest.raises(RefreshError) as caught:
            secret.fetch(address=proxy.address)
    assert caught.value.reason == (
        f"Vault refuses to read secret deep/er/{secret.path}; the token's policy needs: "
        f'path "deep/data/er/{secret.path}" {{ capabilities = ["read"] }}; '
        "if its engine is not mounted at deep/, set mount"
    )


def test_mount_that_is_wrong(secret: Secret) -> None:
    """The server knows better, and ``plan`` would print a policy for nothing."""
    secret.write()
    with pytest.raises(MalformedError) as caught:
        secret.fetch(mount=f"{secret.mount}/app")
    assert caught.value.reason == (
        f"secret {secret.mount}/{secret.path} is in the engine at {secret.mount}/; correct or remove the "
        "key's mount"
    )


def test_kv_version_that_is_wrong(secret: Secret) -> None:
    """A version 1 path on a version 2 engine names another thing, which the policy cannot allow."""
    with pytest.raises(MalformedError) as caught:
        secret.fetch(kv_version=1)
    sentence = f"{secret.mount}/ is a KV version 2 engine; correct or remove the key's kv_version"
    assert caught.value.reason == sentence


def test_purged_versions(either: Secret) -> None:
    """Versions beyond max_versions are not there, and the oldest that is left is not called the first."""
    either.write()
    either.set(max_versions=3)
    either.write(4)
    offer = either.fetch()
    assert ids(offer) == ["3", "4", "5"]
    assert all(isinstance(version.material, Material) for version in offer.versions)
    assert not any(version.first for version in offer.versions)
    assert offer.unstaged is None


def test_max_versions_of_the_secret(secret: Secret) -> None:
    secret.write()
    assert secret.fetch().unstaged is None
    secret.set(max_versions=1)
    assert secret.fetch().unstaged == UNSTAGED


def test_max_versions_of_the_secret_that_the_mount_overrules(secret: Secret) -> None:
    """The larger one counts, and a history of several tells which that is."""
    config = secret.bao.root.secrets.kv.v2.configure
    config(max_versions=5, mount_point=secret.mount)
    secret.write()
    secret.set(max_versions=1)
    secret.write(2)
    offer = secret.fetch()
    config(max_versions=10, mount_point=secret.mount)
    assert ids(offer) == ["1", "2", "3"]
    assert offer.unstaged is None


def test_max_versions_that_was_lowered(secret: Secret) -> None:
    """The next version takes all those beyond the limit with it: the warning is right about which."""
    config = secret.bao.root.secrets.kv.v2.configure
    config(max_versions=0, mount_point=secret.mount)
    secret.write(8)
    secret.set(max_versions=3)
    warnings = secret.fetch().warnings
    secret.write()
    left = ids(secret.fetch())
    config(max_versions=10, mount_point=secret.mount)
    warning = (
        "the secret has 8 versions, and its max_versions keeps 3: if the engine's own is not larger, the "
        "next rotation destroys versions 1 to 6, and what only they decrypt is lost; raise max_versions"
    )
    assert warnings == (warning,)
    assert left == ["7", "8", "9"]


def test_a_secret_without_a_version(secret: Secret) -> None:
    """Metadata can be there before the first value; nothing is pushed out."""
    secret.set(max_versions=1)
    offer = secret.fetch()
    assert (offer.versions, offer.unstaged, offer.warnings) == ((), None, ())


def test_max_versions_of_the_mount(secret: Secret) -> None:
    """The mount's setting may not be readable: a history of one that is not the first tells."""
    secret.bao.root.secrets.kv.v2.configure(max_versions=1, mount_point=secret.mount)
    secret.write()
    assert secret.fetch().unstaged is None
    secret.write()
    assert secret.fetch().unstaged == UNSTAGED
    secret.bao.root.secrets.kv.v2.configure(max_versions=10, mount_point=secret.mount)


def test_deletion_to_come(either: Secret) -> None:
    """A version that will be deleted by itself is as good as any until then."""
    either.write()
    either.set(delete_version_after="1h")
    either.write()
    assert all(isinstance(version.material, Material) for version in either.fetch().versions)


def test_deleted_history_without_probe(secret: Secret) -> None:
    """A deleted newest version hides none of the earlier ones; a destroyed one in between ends nothing."""
    secret.policy = "no-probe"
    secret.write(4)
    kv = secret.bao.root.secrets.kv.v2
    kv.delete_secret_versions(secret.path, [4], secret.mount)
    kv.destroy_secret_versions(secret.path, [2], secret.mount)
    offer = secret.fetch()
    assert ids(offer) == ["1", "2", "3", "4"]
    assert [isinstance(v.material, MissingError) for v in offer.versions] == [False, True, False, True]


def test_made_anew_with_more_versions_without_probe(secret: Secret) -> None:
    """Without a probe too, no old id passes for held: the newest one that is held is read to make sure."""
    secret.policy = "no-probe"
    secret.write(2)
    held = {version.id: version.created_at for version in secret.fetch().versions}
    secret.bao.root.secrets.kv.v2.delete_metadata_and_all_versions(secret.path, secret.mount)
    secret.write(3)
    offer = secret.fetch(held)
    assert ids(offer) == ["1", "2", "3"]
    assert all(isinstance(version.material, Material) for version in offer.versions)


def test_unchanged_without_probe_is_one_read(secret: Secret) -> None:
    secret.policy = "no-probe"
    secret.write(3)
    held = {version.id: version.created_at for version in secret.fetch().versions}
    before = secret.bao.requests(f"{secret.mount}/data/{secret.path}")
    offer = secret.fetch(held)
    assert secret.bao.requests(f"{secret.mount}/data/{secret.path}") == before + 1
    assert [version.material is None for version in offer.versions] == [True, True, False]


def test_warning_names_the_missing_line(secret: Secret) -> None:
    secret.policy = "no-probe"
    secret.write()
    line = f'path "{secret.mount}/metadata/{secret.path}" {{ capabilities = ["read"] }}'
    warning = (
        "the policy forbids to read the secret's metadata: each refresh reads the value, and an earlier "
        f"version's deletion goes unseen; add: {line}"
    )
    assert secret.fetch().warnings == (warning,)


def test_stated_activation(secret: Secret) -> None:
    """Custom metadata states when a version activates; what is no time is told and ignored."""
    secret.write(3)
    secret.set(
        custom_metadata={
            "keyferry-activates-2": "2026-01-31T08:15:00Z",
            "keyferry-activates-3": "tomorrow",
            "owner": "tests",
        }
    )
    offer = secret.fetch()
    assert [version.activates_at for version in offer.versions] == [None, 1769847300.0, None]
    assert offer.warnings == (
        "custom metadata keyferry-activates-3 is ignored: not a time such as 2026-01-31T08:15:00Z",
    )


def test_version_1_ttl(bao: OpenBao) -> None:
    """A KV version 1 secret's own ttl is a wish when to come back; the mount's default is none."""
    mount = "plain"
    bao.mount_kv(mount, kv_version=1)
    bao.policy("plain", f"{mount}/*")
    kv = bao.root.secrets.kv.v1
    reader = Secret(bao, mount, "app/key", policy="plain")
    kv.create_or_update_secret("app/key", {"key": new_value()}, mount_point=mount)
    without = reader.fetch().ttl_seconds
    assert without is not None
    assert without > 86400  # the token's
    kv.create_or_update_secret("app/key", {"key": new_value(), "ttl": "90s"}, mount_point=mount)
    assert reader.fetch().ttl_seconds == 90
