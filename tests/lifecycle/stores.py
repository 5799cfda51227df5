# SPDX-License-Identifier: Apache-2.0
"""The stores in which the commands make and rotate a key: a place in each, without a key yet.

A store knows its section of agent.yaml, and how an administrator looks at what is there. A new one is one
more class, and its line in ``STORES``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import trustme

from agent.loading import load
from agent.offer import Offer
from agent.providers import open_keeper, open_provider
from agent.providers.base import fetch
from agent.providers.lifecycle import Keeper
from agent.settings import KeySettings
from keyferry.material import Material
from tests.providers.drivers import unique_name
from tests.servers.aws_proxy import AwsProxy
from tests.servers.gcp_kms import CloudKms
from tests.servers.google_identity import GoogleIdentity
from tests.servers.moto_server import REGION, Moto
from tests.servers.openbao import OpenBao

TIMEOUT_SECONDS = 10.0


class Store:
    """One place for a key called ``master``, and the commands that are told of it."""

    server: ClassVar = ""
    staged: ClassVar = True

    def __init__(self, stack: ExitStack, home: Path, server: Callable[[], Any]) -> None:
        """Keep where files may lie; ``server`` gives the real one, where the store needs one."""
        self._stack = stack
        self.home = home
        self.config = home / "agent.yaml"
        self.volume = home / "volume"
        self.volume.mkdir()
        self.environment: dict[str, str] = {}
        self.prepare(stack, server)
        self.configure(self.section())

    def prepare(self, stack: ExitStack, server: Callable[[], Any]) -> None:
        """Make what there must be before a key can be."""

    def section(self) -> dict[str, Any]:
        """Return the key's section of agent.yaml, but for encoding and length."""
        raise NotImplementedError

    def configure(self, section: Mapping[str, Any], **others: Any) -> None:
        """Write agent.yaml."""
        key = {"encoding": "base64url", "length": 32, **section}
        document = {"volume": {"path": str(self.volume)}, "keys": {"master": key}, **others}
        self.config.write_text(json.dumps(document))

    # As a person uses it

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of the agent."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "VAULT_", "KEYFERRY_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "agent", arguments[0], "-c", str(self.config), *arguments[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | self.environment,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; return its exit code and what it said."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    # As the agent uses it

    def key(self) -> KeySettings:
        """Return the key's settings as they are configured."""
        return load(self.config, self.environment).settings.keys["master"]

    def offer(self) -> Offer:
        """Return what the store shows of the key."""
        provider = open_provider(self.key(), timeout=TIMEOUT_SECONDS)
        try:
            return fetch(provider, {})
        finally:
            provider.close()

    def values(self) -> list[str]:
        """Return the texts of all versions, oldest first."""
        materials = [version.material for version in self.offer().versions]
        return [material.text for material in materials if isinstance(material, Material)]

    def keeper(self) -> Keeper:
        """Open what makes and rotates the key; it is closed after the test."""
        keeper = open_keeper(self.key(), timeout=TIMEOUT_SECONDS)
        self._stack.callback(keeper.close)
        return keeper


class FileStore(Store):
    """One file; each kind says what is in it."""

    kind: ClassVar[Mapping[str, str]]

    @property
    def path(self) -> Path:
        return self.home / "source"

    def section(self) -> dict[str, Any]:
        return {"provider": "file", "path": str(self.path), "mounted": False, **self.kind}


class RawFile(FileStore):
    staged: ClassVar = False
    kind: ClassVar = {"format": "raw"}


class JsonFile(FileStore):
    staged: ClassVar = False
    kind: ClassVar = {"format": "json", "field": "key"}


class KeyringFile(FileStore):
    kind: ClassVar = {"format": "keyring"}


class _Vault(Store):
    """A real OpenBao with an engine of the store's own, and a token of one policy."""

    server: ClassVar = "bao"
    bao: OpenBao
    mount: str

    def login(self) -> dict[str, Any]:
        """Return where the server is and as whom to ask it."""
        return {
            "address": self.bao.address,
            "ca_file": str(self.bao.ca_file),
            "auth": {"method": "token", "token_file": str(self.home / "token")},
        }

    def policy(self, text: str) -> str:
        """Let the token have this policy and no other; return the token."""
        self.bao.root.sys.create_or_update_policy(self.mount, text)
        token = self.bao.token(self.mount, no_default_policy=True)
        (self.home / "token").unlink(missing_ok=True)
        (self.home / "token").write_text(token)
        (self.home / "token").chmod(0o400)
        return token


class VaultKv(_Vault):
    """A KV v2 engine; the token may do everything in it that is not deleting."""

    engine: ClassVar = "kv"
    path: ClassVar = "fedha/master-key"

    def prepare(self, stack: ExitStack, server: Callable[[], OpenBao]) -> None:
        self.bao = server()
        self.mount = unique_name(self.engine)
        self.bao.mount_kv(self.mount)
        self.policy(f'path "{self.mount}/*" {{ capabilities = ["create", "read", "update", "patch"] }}')

    def section(self) -> dict[str, Any]:
        return {"provider": "vault", "path": f"{self.mount}/{self.path}", **self.login()}

    @property
    def secrets(self) -> Any:
        """The administrator's way to the engine."""
        return self.bao.root.secrets.kv.v2


class NestedVaultKv(VaultKv):
    """An engine whose mount has a slash, and is named."""

    engine: ClassVar = "team/kv"

    def section(self) -> dict[str, Any]:
        return {"mount": self.mount, **super().section()}


class _Wrapped(Store):
    @property
    def path(self) -> Path:
        return self.home / "keyring.json"

    def section(self) -> dict[str, Any]:
        return {"keyring": str(self.path), "mounted": False, **self.wrapper()}

    def wrapper(self) -> dict[str, Any]:
        raise NotImplementedError


class VaultTransit(_Vault, _Wrapped):
    def prepare(self, stack: ExitStack, server: Callable[[], OpenBao]) -> None:
        self.bao = server()
        self.mount = unique_name("transit")
        self.bao.root.sys.enable_secrets_engine("transit", self.mount)
        self.bao.root.write_data(f"{self.mount}/keys/app", data={})
        self.policy(f'path "{self.mount}/*" {{ capabilities = ["read", "update"] }}')

    def wrapper(self) -> dict[str, Any]:
        return {"provider": "vault-transit", "mount": self.mount, "key_name": "app", **self.login()}


class _Aws:
    """moto behind a proxy that answers as AWS does, and credentials of the environment."""

    def __init__(self, stack: ExitStack, moto: Moto) -> None:
        self.proxy = stack.enter_context(AwsProxy(moto.port))
        self.client = moto.client
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "irrelevant",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class SecretsManager(Store):
    """A secret with the key in one field."""

    server: ClassVar = "moto"

    def prepare(self, stack: ExitStack, server: Callable[[], Moto]) -> None:
        self.aws = _Aws(stack, server())
        self.environment = self.aws.environment
        self.name = unique_name("fedha/master-key")

    def section(self) -> dict[str, Any]:
        return {
            "provider": "aws-secrets-manager",
            "secret": self.name,
            "field": "key",
            "region": REGION,
            "endpoint": self.aws.proxy.address,
        }


class AwsKms(_Wrapped):
    server: ClassVar = "moto"

    def prepare(self, stack: ExitStack, server: Callable[[], Moto]) -> None:
        self.aws = _Aws(stack, server())
        self.environment = self.aws.environment
        client = self.aws.client("kms")
        stack.callback(client.close)
        self.key_id = client.create_key()["KeyMetadata"]["KeyId"]

    def wrapper(self) -> dict[str, Any]:
        return {
            "provider": "aws-kms",
            "key_id": self.key_id,
            "region": REGION,
            "endpoint": self.aws.proxy.address,
        }


class GcpKms(_Wrapped):
    """A double of Cloud KMS, and a service account's key to log in."""

    key_name: ClassVar = "projects/p/locations/global/keyRings/r/cryptoKeys/app"

    def prepare(self, stack: ExitStack, server: Callable[[], Any]) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.home / "ca.pem"))
        identity = stack.enter_context(GoogleIdentity())
        self.kms = stack.enter_context(CloudKms(ca, identity.accepts))
        self.kms.create_key(self.key_name)
        (self.home / "google.json").write_text(json.dumps(identity.new_key()))

    def wrapper(self) -> dict[str, Any]:
        return {
            "provider": "gcp-kms",
            "key_name": self.key_name,
            "credentials_file": str(self.home / "google.json"),
            "endpoint": f"https://127.0.0.1:{self.kms.port}",
            "ca_file": str(self.home / "ca.pem"),
        }


STORES: Mapping[str, type[Store]] = {
    "file-raw": RawFile,
    "file-json": JsonFile,
    "file-keyring": KeyringFile,
    "vault": VaultKv,
    "vault-transit": VaultTransit,
    "aws-secrets-manager": SecretsManager,
    "aws-kms": AwsKms,
    "gcp-kms": GcpKms,
}


def results(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Return exit code, output and complaints of each, when all have ended."""
    said = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]
