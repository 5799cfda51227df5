# SPDX-License-Identifier: Apache-2.0
"""Each way to log in to a real server; how a token is kept alive, replaced, and missed."""

import itertools
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from agent.errors import DeniedError, MissingError, UnavailableError
from agent.providers import open_provider, vault_session
from agent.providers.base import Provider, fetch
from agent.sources.vault import VaultAuth, VaultSource
from tests.providers.drivers import key, new_value
from tests.servers.kubernetes import Cluster
from tests.servers.openbao import OpenBao
from tests.servers.scripted import Response, ScriptedServer

_unique = itertools.count()

Opener = Callable[[VaultSource], Provider]


@dataclass
class Site:
    """A secret and an auth method of one test's own, and how often one logged in."""

    bao: OpenBao
    name: str
    directory: Path
    opened: Opener
    auth: VaultAuth

    @property
    def source(self) -> VaultSource:
        path = f"{self.name}/key"
        return VaultSource(address=self.bao.address, path=path, ca_file=self.bao.ca_file, auth=self.auth)

    def provider(self, **auth: object) -> Provider:
        return self.opened(replace(self.source, auth=replace(self.auth, **auth)))  # type: ignore[arg-type]

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o400)
        path.chmod(0o600)
        path.write_text(text + "\n")
        return path

    def logins(self) -> int:
        return self.bao.requests(f"auth/{self.name}/login", "update")

    def revoke_tokens(self) -> None:
        self.bao.root.sys.revoke_prefix(f"auth/{self.name}/")  # type: ignore[no-untyped-call]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Open providers that are closed after the test."""
    with ExitStack() as stack:

        def open_one(source: VaultSource) -> Provider:
            provider = open_provider(key(source, "vault"), timeout=5.0)
            stack.callback(provider.close)
            return provider

        yield open_one


@pytest.fixture
def site(bao: OpenBao, tmp_path: Path, opened: Opener) -> Site:
    """Make a secret, and a policy of the same name to read it."""
    name = f"site-{next(_unique)}"
    bao.mount_kv(name)
    bao.write(name, "key", key=new_value())
    bao.policy(name, f"{name}/*")
    return Site(bao, name, tmp_path, opened, VaultAuth(token=bao.token(name)))


@pytest.fixture(scope="session")
def cluster(bao: OpenBao) -> Iterator[Cluster]:
    """Run a Kubernetes API server with a certificate of the session's CA."""
    with Cluster(certificate(bao.ca, "127.0.0.1")) as server:
        yield server


def approle(site: Site, **options: object) -> VaultAuth:
    root = site.bao.root
    root.sys.enable_auth_method("approle", path=site.name)
    role = {"token_policies": [site.name], "token_ttl": "1h", **options}
    root.auth.approle.create_or_update_approle("app", mount_point=site.name, **role)
    role_id = root.auth.approle.read_role_id("app", mount_point=site.name)["data"]["role_id"]
    return VaultAuth(
        method="approle",
        mount=site.name,
        role_id=role_id,
        secret_id_file=site.write("secret-id", new_secret_id(site)),
    )


def new_secret_id(site: Site, wrap_ttl: str | None = None) -> str:
    answer = site.bao.root.auth.approle.generate_secret_id("app", mount_point=site.name, wrap_ttl=wrap_ttl)
    return str(answer["data"]["secret_id"] if wrap_ttl is None else answer["wrap_info"]["token"])


def wrapped_approle(site: Site) -> VaultAuth:
    auth = replace(approle(site), secret_id_wrapped=True)
    site.write("secret-id", new_secret_id(site, "60s"))
    return auth


def kubernetes(site: Site, cluster: Cluster) -> VaultAuth:
    root = site.bao.root
    root.sys.enable_auth_method("kubernetes", path=site.name)
    root.auth.kubernetes.configure(
        cluster.address,
        kubernetes_ca_cert=site.bao.ca_file.read_text(),
        token_reviewer_jwt=cluster.token("reviewer"),
        disable_local_ca_jwt=True,
        mount_point=site.name,
    )
    root.auth.kubernetes.create_role(
        "app", ["app"], ["team"], ttl="1h", policies=[site.name], audience="vault", mount_point=site.name
    )
    jwt_file = site.write("jwt", cluster.token("app"))
    return VaultAuth(method="kubernetes", mount=site.name, role="app", jwt_file=jwt_file)


def jwt(site: Site, cluster: Cluster) -> VaultAuth:
    root = site.bao.root
    root.sys.enable_auth_method("jwt", path=site.name)
    root.auth.jwt.configure(jwt_validation_pubkeys=[cluster.public_key], path=site.name)
    root.auth.jwt.create_role(
        "app",
        user_claim="sub",
        allowed_redirect_uris=[],
        role_type="jwt",
        bound_audiences=["vault"],
        bound_subject="system:serviceaccount:team:app",
        token_policies=[site.name],
        token_ttl="1h",
        path=site.name,
    )
    jwt_file = site.write("jwt", cluster.token("app"))
    return VaultAuth(method="jwt", mount=site.name, role="app", jwt_file=jwt_file)


Method = Callable[[Site, Cluster], VaultAuth]
METHODS: dict[str, Method] = {
    "approle": lambda site, _: approle(site),
    "approle, wrapped": lambda site, _: wrapped_approle(site),
    "kubernetes": kubernetes,
    "jwt": jwt,
}


@pytest.fixture(params=METHODS)
def login(request: pytest.FixtureRequest, site: Site, cluster: Cluster) -> Site:
    """Give the site each method that has a login."""
    site.auth = METHODS[request.param](site, cluster)
    return site


def test_one_login_serves_many_fetches(login: Site) -> None:
    provider = login.provider()
    for _ in range(3):
        assert fetch(provider, {}).versions
    assert login.logins() == 1


def test_lost_token(login: Site) -> None:
    """A token that stopped working is replaced within the same fetch, by one login."""
    provider = login.provider()
    fetch(provider, {})
    login.revoke_tokens()
    assert fetch(provider, {}).versions
    assert login.logins() == 2


def test_denied_after_one_fresh_login(login: Site) -> None:
    provider = login.provider()
    fetch(provider, {})
    login.bao.policy(login.name)
    with pytest.raises(DeniedError):
        fetch(provider, {})
    assert login.logins() == 2


def test_first_login_is_fresh_enough(login: Site) -> None:
    """A refusal right after a login is no reason for another one."""
    login.bao.policy(login.name)
    with pytest.raises(DeniedError):
        fetch(login.provider(), {})
    assert login.logins() == 1


def refused(site: Site, provider: Provider, status: int, method: str) -> None:
    with pytest.raises(UnavailableError) as failure:
        fetch(provider, {})
    suspects = {"approle": "the role id, and the secret id's age and uses"}
    assert failure.value.reason == (
        f"Vault refuses the {method} login at auth/{site.name}/login ({status}); check auth.mount, "
        + suspects.get(method, "the role, its bound claims and the token's age")
    )


def test_refused_approle(site: Site) -> None:
    site.auth = approle(site)
    site.write("secret-id", "no-such-secret-id")
    refused(site, site.provider(), 400, "approle")


def test_refused_kubernetes(site: Site, cluster: Cluster) -> None:
    """A login that the cluster refuses is unavailable, and works once the right token is on disk."""
    site.auth = kubernetes(site, cluster)
    provider = site.provider()
    site.write("jwt", cluster.token("another"))
    refused(site, provider, 403, "kubernetes")
    site.write("jwt", cluster.token("app"))
    assert fetch(provider, {}).versions


def test_review_down(site: Site, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vault says 403 while the cluster's API is down: this is why a refused login is not called denied."""
    site.auth = kubernetes(site, cluster)
    monkeypatch.setattr(cluster, "broken", True)
    refused(site, site.provider(), 403, "kubernetes")


def test_refused_jwt(site: Site, cluster: Cluster) -> None:
    site.auth = jwt(site, cluster)
    site.write("jwt", cluster.token("app", lifetime_seconds=-600))
    refused(site, site.provider(), 400, "jwt")


def test_wrapped_secret_id_is_unwrapped_once(site: Site) -> None:
    """A wrapping token works once: what was in it serves later logins, and a new one is unwrapped."""
    site.auth = wrapped_approle(site)
    provider = site.provider()
    fetch(provider, {})
    before = unwrappings(site)
    site.revoke_tokens()
    fetch(provider, {})
    assert unwrappings(site) == before
    site.revoke_tokens()  # a wrapping token is one, too
    site.write("secret-id", new_secret_id(site, "60s"))
    fetch(provider, {})
    assert unwrappings(site) == before + 1
    assert site.logins() == 3


def unwrappings(site: Site) -> int:
    return site.bao.requests("sys/wrapping/unwrap", "update")


def test_wrapping_token_used_before(site: Site) -> None:
    site.auth = wrapped_approle(site)
    fetch(site.provider(), {})
    with pytest.raises(UnavailableError) as failure:
        fetch(site.provider(), {})
    assert failure.value.reason == (
        "Vault refuses to unwrap the secret_id: its wrapping token has expired or was used before, "
        "and if not by this agent then by somebody else; deliver a new one"
    )


class Clock:
    """The session's monotonic clock, to be set ahead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        shifted = SimpleNamespace(monotonic=lambda: time.monotonic() + self.ahead)
        monkeypatch.setattr(vault_session, "time", shifted)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def renewals(bao: OpenBao) -> int:
    return bao.requests("auth/token/renew-self", "update")


def test_token_is_renewed_after_two_thirds_of_its_life(login: Site, clock: Clock) -> None:
    provider = login.provider()
    fetch(provider, {})
    before = renewals(login.bao)
    for ahead, count in ((2390.0, 0), (2410.0, 1), (2420.0, 1), (2410.0 + 2410.0, 2)):
        clock.ahead = ahead
        fetch(provider, {})
        assert renewals(login.bao) - before == count
    assert login.logins() == 1


def test_token_that_cannot_be_renewed_is_replaced(site: Site, clock: Clock) -> None:
    site.auth = approle(site, token_type="batch")
    provider = site.provider()
    fetch(provider, {})
    before = renewals(site.bao)
    for ahead, logins in ((2390.0, 1), (2410.0, 2), (2420.0, 2)):
        clock.ahead = ahead
        fetch(provider, {})
        assert site.logins() == logins
    assert renewals(site.bao) == before


def test_refused_renewal(site: Site, clock: Clock) -> None:
    """A token that is due but was revoked is replaced by a login."""
    site.auth = approle(site)
    provider = site.provider()
    fetch(provider, {})
    site.revoke_tokens()
    clock.ahead = 2410.0
    assert fetch(provider, {}).versions
    assert site.logins() == 2


def test_renewal_trouble_is_none_while_the_token_works(site: Site, clock: Clock) -> None:
    """A refused login does not spoil a fetch for which the old token is good enough."""
    site.auth = approle(site, token_type="batch")
    provider = site.provider()
    fetch(provider, {})
    site.write("secret-id", "no-such-secret-id")
    clock.ahead = 2410.0
    assert fetch(provider, {}).versions
    assert site.logins() == 2


def test_plain_token_is_renewed(site: Site, clock: Clock) -> None:
    """No login could replace a plain token, so the agent asks to come back in time to renew it."""
    site.auth = VaultAuth(token=site.bao.token(site.name, ttl="30m"))
    provider = site.provider()
    ttl = fetch(provider, {}).ttl_seconds
    assert ttl is not None
    assert 1190 < ttl <= 1200
    before = renewals(site.bao)
    clock.ahead = 1201.0
    assert fetch(provider, {}).versions
    assert renewals(site.bao) == before + 1


@pytest.mark.parametrize("options", [{"ttl": "30m", "renewable": False}, {"no_default_policy": True}])
def test_plain_token_that_cannot_be_renewed(site: Site, options: dict[str, object]) -> None:
    """A token that may not be renewed, or may not even look at itself, makes no wish and works."""
    site.auth = VaultAuth(token=site.bao.token(site.name, **options))
    offer = fetch(site.provider(), {})
    assert offer.versions
    assert offer.ttl_seconds is None


def test_revoked_plain_token(site: Site) -> None:
    """A plain token has no login: its refusal comes with the value, and says no more about the key."""
    token = site.bao.token(site.name)
    provider = site.provider(token=token)
    fetch(provider, {})
    site.bao.root.auth.token.revoke(token)
    with pytest.raises(UnavailableError, match=r"; or the token has expired or was revoked: it may not even"):
        fetch(provider, {})


def test_a_token_that_cannot_be_looked_up_is_read_anew(site: Site) -> None:
    """Its refusal says nothing before the file was read again."""
    token = site.bao.token(site.name, no_default_policy=True)
    site.auth = VaultAuth(token_file=site.write("token", token))
    provider = site.provider()
    fetch(provider, {})
    site.bao.root.auth.token.revoke(token)
    site.write("token", site.bao.token(site.name, no_default_policy=True))
    assert fetch(provider, {}).versions


def test_a_token_that_may_not_read(site: Site) -> None:
    """What may look itself up is a token of Vault's, and only its policy can be wrong."""
    with pytest.raises(DeniedError) as failure:
        fetch(site.provider(token=site.bao.token("default")), {})
    assert "expired" not in failure.value.reason


_NOT_ONE_LINE = "auth.token_file {path} is not one line of printable ASCII; write nothing else into it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read auth.token_file {path}: No such file or directory"),
        (b"", "auth.token_file {path} is empty"),
        (b" \n", "auth.token_file {path} is empty"),
        (b"\xff\xfe", "cannot read auth.token_file {path}: not text"),
        (b"one\ntwo\n", _NOT_ONE_LINE),
        ("t\u00f6ken".encode(), _NOT_ONE_LINE),
    ],
    ids=["not there", "empty", "blank", "not text", "two lines", "not ASCII"],
)
def test_token_file_that_holds_no_token(site: Site, content: bytes | None, message: str) -> None:
    path = site.directory / "token"
    if content is not None:
        path.write_bytes(content)
    site.auth = VaultAuth(token_file=path)
    with pytest.raises(UnavailableError) as failure:
        fetch(site.provider(), {})
    assert failure.value.reason == message.format(path=path)


def test_a_credential_that_no_header_takes(site: Site) -> None:
    """It is told before anything is sent, and without the text: the standard library would quote it."""
    with pytest.raises(UnavailableError) as failure:
        fetch(site.provider(token="two\nlines"), {})
    assert failure.value.reason == "auth.token is not one line of printable ASCII; write nothing else into it"
    assert failure.value.__context__ is None


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o400, False), (0o440, False), (0o640, False), (0o644, True), (0o602, True)]
)
def test_open_token_file(site: Site, mode: int, warned: bool) -> None:
    path = site.write("token", site.bao.token(site.name))
    path.chmod(mode)
    site.auth = VaultAuth(token_file=path)
    provider = site.provider()
    expected = f"auth.token_file {path} is open to every user (mode {mode:04o}); set 0440 or 0400"
    assert fetch(provider, {}).warnings == ((expected,) if warned else ())
    assert fetch(provider, {}).warnings == ((expected,) if warned else ())


def test_namespace(bao: OpenBao, opened: Opener) -> None:
    """A secret in a namespace is read with a token of that namespace."""
    namespace = f"team-{next(_unique)}"
    bao.root.adapter.post(f"/v1/sys/namespaces/{namespace}")
    bao.mount_kv("secret", namespace=namespace)
    client = bao.client(bao.root.token, namespace=namespace)
    client.secrets.kv.v2.create_or_update_secret("key", {"key": new_value()})
    client.sys.create_or_update_policy("app", 'path "secret/*" { capabilities = ["read"] }')
    token = client.auth.token.create(policies=["app"])["auth"]["client_token"]
    client.adapter.close()
    source = VaultSource(
        address=bao.address, path="secret/key", ca_file=bao.ca_file, auth=VaultAuth(token=token)
    )
    inside = opened(replace(source, namespace=namespace))
    assert fetch(inside, {}).versions
    outside = opened(source)
    with pytest.raises(DeniedError):
        fetch(outside, {})
    nowhere = opened(replace(source, namespace="nosuch"))
    with pytest.raises(MissingError) as caught:
        fetch(nowhere, {})
    assert caught.value.reason == (
        "Vault has no secret secret/key in a KV version 2 engine in namespace nosuch; check the key's path, "
        "or create it"
    )


def certificate(ca: trustme.CA, name: str) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(tls)
    return tls


@pytest.mark.parametrize(
    ("tls_server_name", "message"),
    [
        (None, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("vault.other", "Hostname mismatch, certificate is not valid for 'vault.other'"),
    ],
)
def test_certificate_of_another_name(site: Site, tls_server_name: str | None, message: str) -> None:
    """The certificate must be for the address's host, or else for tls_server_name."""
    answer = Response(403, b'{"errors": []}')
    with ScriptedServer(lambda _: answer, certificate(site.bao.ca, "vault.example")) as server:
        source = replace(site.source, address=server.address)
        with pytest.raises(UnavailableError) as failure:
            fetch(site.opened(replace(source, tls_server_name=tls_server_name)), {})
        with pytest.raises(UnavailableError, match=r"^Vault refuses to read secret "):
            fetch(site.opened(replace(source, tls_server_name="vault.example")), {})
    assert failure.value.reason == (
        f"Vault at {server.address} has a certificate that is not trusted: {message}; check ca_file"
    )


def test_ca_rotated_on_disk(site: Site) -> None:
    """Another CA is not trusted; the right one is as soon as it is on disk."""
    ca_file = site.directory / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    provider = site.opened(replace(site.source, ca_file=ca_file))
    with pytest.raises(UnavailableError) as failure:
        fetch(provider, {})
    assert failure.value.reason == (
        f"Vault at {site.bao.address} has a certificate that is not trusted: "
        "unable to get local issuer certificate; check ca_file"
    )
    ca_file.write_bytes(site.bao.ca_file.read_bytes())
    assert fetch(provider, {}).versions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read ca_file {path}: No such file or directory"),
        (b"", "ca_file {path} holds no PEM certificate"),
        (b"no certificate", "ca_file {path} holds no PEM certificate"),
    ],
    ids=["not there", "empty", "garbage"],
)
def test_ca_file_that_holds_no_certificate(site: Site, content: bytes | None, message: str) -> None:
    ca_file = site.directory / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(UnavailableError) as failure:
        fetch(site.opened(replace(site.source, ca_file=ca_file)), {})
    assert failure.value.reason == message.format(path=ca_file)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "https://127.0.0.1:1",
            (
                "Vault at https://127.0.0.1:1 cannot be reached: Connection refused; check address and the "
                "network policy"
            ),
        ),
        (
            "https://vault.invalid",
            "Vault at https://vault.invalid has a name that does not resolve; check address",
        ),
    ],
)
def test_nobody_there(address: str, message: str, opened: Opener) -> None:
    source = VaultSource(address=address, path="secret/key", auth=VaultAuth(token="token"))
    with pytest.raises(UnavailableError) as failure:
        fetch(opened(source), {})
    assert failure.value.reason == message


def test_sealed(tmp_path: Path, opened: Opener) -> None:
    """A sealed server is unavailable, and the same provider works once it is unsealed."""
    with OpenBao(tmp_path) as bao:
        bao.mount_kv("secret")
        bao.write("secret", "key", key=new_value())
        auth = VaultAuth(token=bao.root.token)
        source = VaultSource(address=bao.address, path="secret/key", ca_file=bao.ca_file, auth=auth)
        provider = opened(source)
        fetch(provider, {})
        bao.seal()
        with pytest.raises(UnavailableError, match=r"is sealed or out of service \(503\)"):
            fetch(provider, {})
        bao.unseal()
        assert fetch(provider, {}).versions
