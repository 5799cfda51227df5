# SPDX-License-Identifier: Apache-2.0
"""The policies that ``plan`` prints are enough, and no more than what is called: over real servers."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from agent.commands.new_material import new_material
from agent.policies import Role, policies
from agent.prices import TRAFFIC
from agent.providers import open_provider
from agent.providers.base import fetch
from agent.settings import KeySettings
from agent.sources import Source
from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from agent.sources.env import EnvSource
from agent.sources.vault import VaultSource
from tests.lifecycle.stores import (
    TIMEOUT_SECONDS,
    AwsKms,
    GcpKms,
    NestedVaultKv,
    SecretsManager,
    Store,
    VaultKv,
    VaultTransit,
)
from tests.servers.openbao import OpenBao

RENEWAL = "auth/token/renew-self"


def printed(store: Store, role: Role) -> str:
    """Return the policy that ``plan`` prints for this configuration."""
    code, out, err = store.run("plan", "--json")
    assert (code, err) == (0, "")
    (text,) = [policy["text"] for policy in json.loads(out)["keys"][0]["policies"] if policy["role"] == role]
    return str(text)


def live_as_agent(store: Store) -> None:
    """Do what an agent does: a first fetch, one that finds nothing new, one that finds a new version."""
    provider = open_provider(store.key(), timeout=TIMEOUT_SECONDS)
    first = fetch(provider, {})
    known = {version.id: version.created_at for version in first.versions}
    second = fetch(provider, known)
    with somebody_else(store):
        code, _, err = store.run("rotate")
        assert (code, err) == (0, "")
    third = fetch(provider, known)
    provider.close()
    assert (first.warnings, second.warnings, third.warnings) == ((), (), ())
    assert [version.id in known for version in third.versions] == [True] * len(known) + [False]


@contextmanager
def somebody_else(store: Store) -> Iterator[None]:
    """Allow everything to what is done meanwhile, and leave it out of what is counted."""
    match store:
        case VaultKv() | VaultTransit():
            file = store.home / "token"
            token = file.read_text()
            file.chmod(0o600)
            file.write_text(store.bao.root.token)
            yield
            file.write_text(token)
        case SecretsManager() | AwsKms():
            before = store.aws.proxy.calls.copy()
            yield
            store.aws.proxy.calls.clear()
            store.aws.proxy.calls.update(before)


def live_as_keeper(store: Store) -> None:
    """Do what the commands do."""
    for command in (["bootstrap", "--create"], ["rotate"], ["rotate", "--activate", "now"]):
        code, out, err = store.run(*command)
        assert (code, err) == (0, ""), out


class Calls:
    """The API's paths that tokens of one policy asked for, and for what."""

    def __init__(self) -> None:
        self.made: set[tuple[str, str]] = set()


@contextmanager
def calls_at(bao: OpenBao, policy: str) -> Iterator[Calls]:
    log = bao.home / "requests.log"
    offset = log.stat().st_size
    calls = Calls()
    yield calls
    with log.open() as file:
        file.seek(offset)
        for entry in map(json.loads, file):
            if entry["type"] == "request" and policy in entry["auth"].get("policies", ()):
                calls.made.add((entry["request"]["path"], entry["request"]["operation"]))


def granted(hcl: str) -> set[tuple[str, str]]:
    rules = re.findall(r'path "(.+)" \{\s+capabilities = (\[.+\])\s+\}', hcl)
    return {(path, capability) for path, capabilities in rules for capability in json.loads(capabilities)}


@pytest.mark.parametrize("kind", [VaultKv, NestedVaultKv, VaultTransit])
def test_vault(
    kind: type[VaultKv | VaultTransit],
    opened: Callable[[type[VaultKv | VaultTransit]], VaultKv | VaultTransit],
) -> None:
    """With nothing but the printed policy, not even Vault's default one, everything works."""
    store = opened(kind)
    keeper, agent = printed(store, "keeper"), printed(store, "agent")
    store.policy(keeper)
    with calls_at(store.bao, store.mount) as calls:
        live_as_keeper(store)
    # Every token may ask where a path is mounted.
    made = {call for call in calls.made if not call[0].startswith("sys/internal/ui/mounts/")}
    assert made == granted(keeper) - {(RENEWAL, "update")}

    token = store.policy(agent)
    with calls_at(store.bao, store.mount) as calls:
        live_as_agent(store)
    made = {call for call in calls.made if not call[0].startswith("sys/internal/ui/mounts/")}
    assert made == granted(agent) - {(RENEWAL, "update")}
    assert store.bao.client(token).auth.token.renew_self()["auth"]["renewable"]
    code, _, err = store.run("rotate")
    assert code == 1
    assert "the token's policy needs: " in err


def test_a_mount_that_nobody_named(opened: Callable[[type[NestedVaultKv]], NestedVaultKv]) -> None:
    """Without a right in the engine the server does not tell where it is: the refusal says what to set."""
    store = opened(NestedVaultKv)
    live_as_keeper(store)
    named = store.section()
    store.configure({name: value for name, value in named.items() if name != "mount"})
    store.policy(printed(store, "agent"))
    code, out, _ = store.run("check")
    assert code == 1
    assert out.endswith("; if its engine is not mounted at team/, set mount\n")
    store.configure(named)
    store.policy(printed(store, "agent"))
    code, out, err = store.run("check")
    assert (code, err) == (0, ""), out


def test_vault_kv1(vault: VaultKv) -> None:
    mount = f"{vault.mount}-v1"
    vault.bao.mount_kv(mount, kv_version=1)
    secret = new_material(vault.key()).text
    vault.bao.root.secrets.kv.v1.create_or_update_secret("app/key", {"key": secret}, mount_point=mount)
    vault.configure(vault.section() | {"path": f"{mount}/app/key", "kv_version": 1})
    vault.policy(printed(vault, "agent"))
    assert vault.values() == [secret]


def actions(policy: str) -> set[str]:
    document = json.loads(policy)
    assert document["Version"] == "2012-10-17"
    (statement,) = document["Statement"]
    assert statement["Effect"] == "Allow"
    return set(statement["Action"])


@pytest.mark.parametrize(
    ("kind", "service"), [(SecretsManager, "secretsmanager"), (AwsKms, "kms")], ids=["sm", "kms"]
)
def test_aws(
    kind: type[SecretsManager | AwsKms],
    service: str,
    opened: Callable[[type[SecretsManager | AwsKms]], SecretsManager | AwsKms],
) -> None:
    """The policies name the operations that were called, and no others."""
    store = opened(kind)
    live_as_keeper(store)
    assert {f"{service}:{name}" for name in store.aws.proxy.calls} == actions(printed(store, "keeper"))
    store.aws.proxy.calls.clear()
    live_as_agent(store)
    assert {f"{service}:{name}" for name in store.aws.proxy.calls} == actions(printed(store, "agent"))


@pytest.mark.parametrize("kind", [SecretsManager, AwsKms, GcpKms, VaultKv, VaultTransit])
def test_calls_of_a_refresh(kind: type[Store], opened: Callable[[type[Store]], Store]) -> None:
    """What ``plan`` multiplies by pods and prices is what a refresh without news really asks."""
    store = opened(kind)
    store.run("bootstrap", "--create")
    provider = open_provider(store.key(), timeout=TIMEOUT_SECONDS)
    known = {version.id: version.created_at for version in fetch(provider, {}).versions}
    expected = TRAFFIC[store.key().provider].at_refresh
    match store:
        case SecretsManager() | AwsKms():
            store.aws.proxy.calls.clear()
            fetch(provider, known)
            assert tuple(store.aws.proxy.calls.elements()) == expected
        case GcpKms():
            before = store.kms.calls
            fetch(provider, known)
            assert store.kms.calls - before == len(expected)
        case VaultKv() | VaultTransit():
            with calls_at(store.bao, store.mount) as calls:
                fetch(provider, known)
            ((path, operation),) = calls.made
            assert f"{operation} {path.split('/')[1]}" == expected[0]
    provider.close()


def key(provider: str, source: Source) -> KeySettings:
    return KeySettings(name="master", provider=provider, source=source)


def statements(source: SecretsManagerSource | AwsKmsSource, **options: Any) -> list[Mapping[str, Any]]:
    """Return what the agent may do."""
    document: Mapping[str, Any] = json.loads(policies(key("aws", source), **options)[0].text)
    return list(document["Statement"])


@pytest.mark.parametrize(
    ("secret", "region", "resource"),
    [
        ("app/key", "eu-west-1", "arn:aws:secretsmanager:eu-west-1:*:secret:app/key-??????"),
        ("app/key", "cn-north-1", "arn:aws-cn:secretsmanager:cn-north-1:*:secret:app/key-??????"),
        ("app/key", "us-gov-west-1", "arn:aws-us-gov:secretsmanager:us-gov-west-1:*:secret:app/key-??????"),
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-AbCdEf", "eu-west-1", None),
    ],
    ids=["name", "China", "GovCloud", "ARN"],
)
def test_a_secrets_resource(secret: str, region: str, resource: str | None) -> None:
    (statement,) = statements(SecretsManagerSource(secret=secret, region=region))
    assert (resource or secret) == statement["Resource"]


def test_every_region_is_in_its_partition() -> None:
    """By what the SDK knows, which a policy is printed without."""
    session = botocore.session.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("kms", partition):
            (statement,) = statements(AwsKmsSource(key_id="1", keyring="bare", region=region))
            assert statement["Resource"] == f"arn:{partition}:kms:{region}:*:key/1"


ACCOUNT = "arn:aws:kms:eu-west-1:123456789012"
ALIAS = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/app"}}
BINDING = {"StringEquals": {"kms:EncryptionContext:keyferry:key": "master"}}


@pytest.mark.parametrize(
    ("key_id", "resource", "condition"),
    [
        ("1234abcd", "arn:aws:kms:eu-west-1:*:key/1234abcd", BINDING),
        (
            "arn:aws:kms:eu-west-1:123456789012:key/1234",
            "arn:aws:kms:eu-west-1:123456789012:key/1234",
            BINDING,
        ),
        ("alias/app", "arn:aws:kms:eu-west-1:*:key/*", BINDING | ALIAS),
        ("arn:aws:kms:eu-west-1:123456789012:alias/app", "arn:aws:kms:eu-west-1:*:key/*", BINDING | ALIAS),
    ],
    ids=["id", "ARN", "alias", "alias ARN"],
)
def test_a_kms_keys_resource(key_id: str, resource: str, condition: Mapping[str, object]) -> None:
    source = AwsKmsSource(key_id=key_id, keyring=Path("keyring"), region="eu-west-1")
    (statement,) = statements(source)
    assert (statement["Resource"], statement["Condition"]) == (resource, condition)


def test_a_bare_ciphertext_has_no_condition() -> None:
    """Nothing is bound into it."""
    source = AwsKmsSource(key_id="1234", keyring="bare", region="eu-west-1")
    (statement,) = statements(source, bound=False)
    assert "Condition" not in statement


def test_a_role_is_assumed() -> None:
    """The statement says that it belongs to other credentials than the one before it."""
    role = "arn:aws:iam::123456789012:role/keyferry"
    _, statement = statements(SecretsManagerSource(secret="app", region="eu-west-1", role_arn=role))
    assert statement == {
        "Sid": "ForThePodNotTheRole",
        "Effect": "Allow",
        "Action": ["sts:AssumeRole"],
        "Resource": role,
    }


def test_a_namespace_is_told() -> None:
    source = VaultSource(address="https://vault.example", path="secret/data/app", namespace="team")
    assert policies(key("vault", source))[0].text.startswith(
        '# in namespace team\npath "secret/data/app" {\n  capabilities = ["read"]\n}\n'
    )


def test_local_sources_need_none() -> None:
    assert policies(key("env", EnvSource())) == ()


def test_google_names_the_role(opened: Callable[[type[GcpKms]], GcpKms]) -> None:
    store = opened(GcpKms)
    binding = "gcloud kms keys add-iam-policy-binding app --project p --location global --keyring r \\\n"
    member = "  --member serviceAccount:{}@p.iam.gserviceaccount.com --role roles/cloudkms.cryptoKey{}"
    assert printed(store, "agent") == binding + member.format("AGENT", "Decrypter")
    assert printed(store, "keeper") == binding + member.format("KEEPER", "EncrypterDecrypter")
