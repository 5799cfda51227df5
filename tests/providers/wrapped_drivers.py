# SPDX-License-Identifier: Apache-2.0
"""The contract suite's drivers for the stores that unwrap a keyring: one file, and as many ways to wrap."""

import json
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import trustme

from agent.providers import open_provider
from agent.providers.base import Provider
from agent.sources import Source
from agent.sources.gcp import GcpKmsSource
from agent.sources.vault import VaultAuth, VaultTransitSource
from keyferry.times import format_time
from tests.providers.drivers import LATER, Driver, key, unique_name
from tests.servers import gcp_kms
from tests.servers.gcp_kms import CloudKms
from tests.servers.google_identity import GoogleIdentity
from tests.servers.openbao import OpenBao
from tests.servers.tcp_proxy import TcpProxy


def binding(version_id: str, key_name: str = "master") -> bytes:
    """Return what binds a ciphertext to its entry, as docs/wrapped-keyring.md writes it."""
    return f'{{"keyferry:key":"{key_name}","keyferry:version":"{version_id}"}}'.encode()


class KeyringFile:
    """A wrapped keyring in a file; its clock ticks once an entry, so that a key made anew has other times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[dict[str, str]] = []
        self._clock = 1_700_000_000.0

    @property
    def next_id(self) -> str:
        return str(len(self._entries) + 1)

    def add(self, ciphertext: str, **stated: str) -> None:
        """Append a version, with what is stated of it."""
        self._clock += 1
        created_at = format_time(self._clock)
        entry = {"id": self.next_id, "created_at": created_at, "ciphertext": ciphertext, **stated}
        self._entries.append(entry)
        self._deliver()

    def reverse(self) -> None:
        """Turn the order of the entries around."""
        self._entries.reverse()
        self._deliver()

    def _deliver(self) -> None:
        """Replace the file as whoever delivers it does: with one rename."""
        document = {"schema": "keyferry-keyring/v1", "key": "master", "versions": self._entries}
        new = self.path.with_name("new")
        new.write_text(json.dumps(document))
        new.replace(self.path)

    def remove(self) -> None:
        self._entries.clear()
        self.path.unlink()


class WrappedDriver(Driver):
    """A keyring file, and a key in a store that unwraps it, behind a TCP proxy."""

    provider_name: ClassVar[str]
    absent: ClassVar = {
        "unchanged_costs_no_value_read": "every fetch unwraps the newest version: that shows a disabled key",
        "probe_refused": "it has no probe apart from the value",
        "removed_version": "an entry is removed by leaving it out, and a held version is not unwrapped again",
    }

    def __init__(self, stack: ExitStack, directory: Path, server: Callable[[], Any]) -> None:
        super().__init__(stack, directory, server)
        self.keyring = KeyringFile(directory / "keyring.json")
        self.proxy: TcpProxy

    def source(self) -> Source:
        raise NotImplementedError

    def wrap(self, plaintext: bytes, aad: bytes) -> str:
        """Return ``plaintext`` as the store's own tool would wrap it."""
        raise NotImplementedError

    def open(self, timeout: float) -> Provider:
        return open_provider(key(self.source(), self.provider_name), timeout=timeout)

    def put(self, value: str) -> None:
        self.keyring.add(self.wrap(value.encode(), binding(self.keyring.next_id)))

    def put_unusable(self) -> None:
        self.keyring.add(self.wrap(b"too short", binding("relabelled")))

    def put_pending(self, value: str) -> None:
        wrapped = self.wrap(value.encode(), binding(self.keyring.next_id))
        self.keyring.add(wrapped, activates_at=format_time(LATER))

    def point_back(self) -> None:
        self.keyring.reverse()

    def forget(self) -> None:
        self.keyring.remove()

    def go_away(self) -> None:
        self.proxy.behave("refuse")

    def stall(self) -> None:
        self.proxy.behave("stall")

    def come_back(self) -> None:
        self.proxy.behave("pass")


class VaultTransitDriver(WrappedDriver):
    """A transit key at a real server: a mount, a policy and a token of its own."""

    provider_name: ClassVar = "vault-transit"
    derived: ClassVar = False

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self.bao = bao()
        self.mount = unique_name("transit")
        self.bao.root.sys.enable_secrets_engine("transit", self.mount)
        self.bao.root.write_data(f"{self.mount}/keys/app", data={"derived": self.derived})
        self.proxy = stack.enter_context(TcpProxy(self.bao.port))
        self._token_file = directory / "token"
        self.allow()
        self.rotate_credentials()

    def source(self) -> VaultTransitSource:
        return VaultTransitSource(
            address=f"https://127.0.0.1:{self.proxy.port}",
            ca_file=self.bao.ca_file,
            mount=self.mount,
            key_name="app",
            keyring=self.keyring.path,
            auth=VaultAuth(token_file=self._token_file),
        )

    def wrap(self, plaintext: bytes, aad: bytes) -> str:
        bound = b64encode(aad).decode()
        answer = self.bao.root.secrets.transit.encrypt_data(
            "app",
            b64encode(plaintext).decode(),
            context=bound,
            associated_data=bound,
            mount_point=self.mount,
        )
        return str(answer["data"]["ciphertext"])

    def deny(self) -> None:
        self.bao.policy(self.mount)

    def allow(self) -> None:
        self.bao.policy(self.mount, f"{self.mount}/decrypt/app", capability="update")

    def throttle(self) -> None:
        self.bao.throttle(self.mount)

    def rotate_credentials(self) -> None:
        if self._token_file.exists():
            self.revoke_credentials()
        self._token_file.write_text(self.bao.token(self.mount) + "\n")
        self._token_file.chmod(0o400)

    def revoke_credentials(self) -> None:
        self.bao.root.auth.token.revoke(self._token_file.read_text().strip())


class DerivedTransitDriver(VaultTransitDriver):
    """A transit key from which each entry's own is derived: the binding is its context as well."""

    derived: ClassVar = True


class GcpKmsDriver(WrappedDriver):
    """A double of Cloud KMS, and a service account's key to log in."""

    provider_name: ClassVar = "gcp-kms"
    key_name: ClassVar = "projects/p/locations/global/keyRings/r/cryptoKeys/app"

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self.ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.identity = stack.enter_context(GoogleIdentity())
        self.kms = stack.enter_context(CloudKms(self.ca, self.identity.accepts))
        self.kms.create_key(self.key_name)
        self.proxy = stack.enter_context(TcpProxy(self.kms.port))
        self.credentials_file = directory / "google.json"
        self.rotate_credentials()

    def source(self) -> GcpKmsSource:
        return GcpKmsSource(
            key_name=self.key_name,
            keyring=self.keyring.path,
            credentials_file=self.credentials_file,
            endpoint=f"https://127.0.0.1:{self.proxy.port}",
            ca_file=self.ca_file,
        )

    def wrap(self, plaintext: bytes, aad: bytes) -> str:
        return self.kms.encrypt(self.key_name, plaintext, aad)

    def deny(self) -> None:
        self.kms.fault = gcp_kms.denied()

    def allow(self) -> None:
        self.kms.fault = None

    def throttle(self) -> None:
        self.kms.fault = gcp_kms.throttled(seconds=7)

    def rotate_credentials(self) -> None:
        self.credentials_file.write_text(json.dumps(self.identity.new_key()))

    def revoke_credentials(self) -> None:
        self.identity.new_key()  # the earlier ones stop working
