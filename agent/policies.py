# SPDX-License-Identifier: Apache-2.0
"""The least that a key store must allow, for exactly one key's configuration. Pure: settings in, texts out.

Rules:

- Two roles: the agent only reads. Who runs ``bootstrap --create`` and ``rotate`` may write as well, and is
  somebody else.
- A policy names what is called and nothing more; what only improves a message is left out.
- What the configuration does not tell (an account's number, a service account's name) is a wildcard, or a
  word in capitals.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agent.providers.vault_kv import configured_place
from agent.providers.wrapped import KEY_NAME
from agent.settings import KeySettings
from agent.sources.aws import AwsKmsSource, SecretsManagerSource
from agent.sources.gcp import GcpKmsSource
from agent.sources.vault import VaultServer, VaultSource, VaultTransitSource

Role = Literal["agent", "keeper"]

_AGENT: Final[Role] = "agent"
_KEEPER: Final[Role] = "keeper"

# By the beginning of a region's name, as the SDK's own list of partitions has it.
_PARTITIONS: Final = {
    "cn-": "aws-cn",
    "eu-isoe-": "aws-iso-e",
    "eusc-": "aws-eusc",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "us-isof-": "aws-iso-f",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What ``role`` needs, as ``language`` writes it."""

    role: Role
    language: str
    text: str


def policies(key: KeySettings, *, bound: bool = True) -> tuple[Policy, ...]:
    """Return what the agent and who keeps ``key`` need at its store; nothing for local sources.

    ``bound`` says that each ciphertext has its key's name bound into it, as all but bare ones have.
    """
    match key.source:
        case VaultSource() as source:
            return tuple(Policy(role, "Vault HCL", _vault(source, role)) for role in (_AGENT, _KEEPER))
        case VaultTransitSource() as source:
            return tuple(Policy(role, "Vault HCL", _transit(source, role)) for role in (_AGENT, _KEEPER))
        case SecretsManagerSource() as source:
            return tuple(
                Policy(role, "IAM JSON", _iam(_secrets_manager(source, role))) for role in (_AGENT, _KEEPER)
            )
        case AwsKmsSource() as source:
            return tuple(
                Policy(role, "IAM JSON", _iam(_aws_kms(key, source, role, bound=bound)))
                for role in (_AGENT, _KEEPER)
            )
        case GcpKmsSource() as source:
            return tuple(Policy(role, "gcloud", _gcp_kms(source, role)) for role in (_AGENT, _KEEPER))
        case _:
            return ()


def _vault(source: VaultSource, role: Role) -> str:
    place = configured_place(source, source.kv_version or 2)
    data, metadata = place.api("data"), place.api("metadata")
    if source.kv_version == 1:
        return _hcl(source, {data: ["read"]})
    if role == _AGENT:
        return _hcl(source, {data: ["read"], metadata: ["read"]})
    return _hcl(
        source,
        {data: ["create", "read", "update"], metadata: ["read", "patch"], f"{place.mount}/config": ["read"]},
    )


def _transit(source: VaultTransitSource, role: Role) -> str:
    mount, name = source.mount.strip("/"), source.key_name
    grants = {f"{mount}/decrypt/{name}": ["update"]}
    if role == _KEEPER:
        grants |= {f"{mount}/encrypt/{name}": ["update"], f"{mount}/keys/{name}": ["read"]}
    return _hcl(source, grants)


def _hcl(source: VaultServer, grants: Mapping[str, list[str]]) -> str:
    if source.auth.method == "token":
        grants = {**grants, "auth/token/lookup-self": ["read"]}
    # Vault's policy "default" allows both as well, unless a token was made without it.
    grants = {**grants, "auth/token/renew-self": ["update"]}
    place = [] if source.namespace is None else [f"# in namespace {source.namespace}"]
    rules = [
        f"path {json.dumps(path)} {{\n  capabilities = {json.dumps(capabilities)}\n}}"
        for path, capabilities in grants.items()
    ]
    return "\n".join((*place, *rules))


def _secrets_manager(source: SecretsManagerSource, role: Role) -> list[object]:
    partition = _partition(source.region or "")
    # AWS adds a hyphen and six characters to a secret's name.
    secret = source.secret
    arn = (
        secret
        if secret.startswith("arn:")
        else f"arn:{partition}:secretsmanager:{source.region}:*:secret:{secret}-??????"
    )
    actions = ["DescribeSecret", "GetSecretValue", "ListSecretVersionIds"]
    if role == _KEEPER:
        actions += ["CreateSecret", "PutSecretValue"]
    return [_allow((f"secretsmanager:{action}" for action in actions), arn), *_assume(source.role_arn)]


def _aws_kms(key: KeySettings, source: AwsKmsSource, role: Role, *, bound: bool) -> list[object]:
    conditions: dict[str, dict[str, str]] = {}
    if bound:
        conditions["StringEquals"] = {f"kms:EncryptionContext:{KEY_NAME}": key.name}
    partition = _partition(source.region or "")
    keys = f"arn:{partition}:kms:{source.region}:*:key/"
    alias = re.fullmatch(r"(?:arn:.*:)?(alias/.+)", source.key_id)
    if alias:
        # IAM knows no ARN of an alias for these actions, but which aliases a key has.
        arn = f"{keys}*"
        conditions["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": alias[1]}
    else:
        arn = source.key_id if source.key_id.startswith("arn:") else f"{keys}{source.key_id}"
    actions = ["kms:Decrypt"] if role == _AGENT else ["kms:Decrypt", "kms:Encrypt"]
    return [_allow(actions, arn, conditions), *_assume(source.role_arn)]


def _assume(role_arn: str | None) -> list[object]:
    # For the credentials that the pod has; the statement before it belongs to the role.
    return (
        [] if role_arn is None else [{"Sid": "ForThePodNotTheRole", **_allow(["sts:AssumeRole"], role_arn)}]
    )


def _allow(
    actions: Iterable[str], resource: str, conditions: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, object]:
    statement: dict[str, object] = {"Effect": "Allow", "Action": sorted(actions), "Resource": resource}
    return {**statement, "Condition": conditions} if conditions else statement


def _iam(statements: list[object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def _partition(region: str) -> str:
    for prefix, partition in _PARTITIONS.items():
        if region.startswith(prefix):
            return partition
    return "aws"


def _gcp_kms(source: GcpKmsSource, role: Role) -> str:
    _, project, _, location, _, ring, _, name = source.key_name.split("/")
    what = "cryptoKeyDecrypter" if role == _AGENT else "cryptoKeyEncrypterDecrypter"
    return (
        f"gcloud kms keys add-iam-policy-binding {name} --project {project} --location {location} "
        f"--keyring {ring} \\\n"
        f"  --member serviceAccount:{role.upper()}@{project}.iam.gserviceaccount.com "
        f"--role roles/cloudkms.{what}"
    )
