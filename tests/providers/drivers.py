# SPDX-License-Identifier: Apache-2.0
"""How the contract suite handles each store: a driver, which knows how to put it into each state.

A cell of the suite that means nothing for a store stands in the driver's ``absent``, with the reason. Which
stores there are stands in tests.providers.stores.
"""

import itertools
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from agent.errors import MalformedError
from agent.providers import open_provider
from agent.providers.base import Provider
from agent.settings import KeySettings
from agent.sources import Source
from agent.sources.env import EnvSource
from agent.sources.file import FileSource
from agent.sources.vault import VaultAuth, VaultSource
from keyferry.times import format_time
from tests.providers.fake import FakeProvider, FakeStore
from tests.servers.openbao import OpenBao
from tests.servers.tcp_proxy import TcpProxy

_unique = itertools.count()


def unique_name(kind: str) -> str:
    """Return a name that no other test uses at the shared server."""
    return f"{kind}-{next(_unique)}"


def new_value() -> str:
    """Return a new key's text: 32 bytes as base64url."""
    return secrets.token_urlsafe(32)


def key(source: Source, provider: str) -> KeySettings:
    """Return the settings of the key that the suite fetches."""
    return KeySettings(name="master", provider=provider, source=source, encoding="base64url", length=32)


class Driver:
    """One store with one key, missing at first. An operation that no cell of a store needs is not there."""

    absent: ClassVar[Mapping[str, str]] = {}
    server: ClassVar = "bao"

    def __init__(self, stack: ExitStack, directory: Path, server: Callable[[], Any]) -> None:
        """Keep where to put files; ``server`` gives the session's server of the fixture of that name."""
        self._stack = stack

    def provider(self, timeout: float = 5.0) -> Provider:
        """Open the provider under test; it is closed after the test."""
        return self.closing(self.open(timeout))

    def closing(self, provider: Provider) -> Provider:
        """Close ``provider`` after the test."""
        self._stack.callback(provider.close)
        return provider

    def open(self, timeout: float) -> Provider:
        raise NotImplementedError

    def version_id(self, number: int) -> str:
        """Return the id of the ``number``-th version that is put, from 1."""
        return str(number)

    def put(self, value: str) -> None:
        """Make ``value`` the newest version."""
        raise NotImplementedError

    def put_unusable(self) -> None:
        """Make a version the newest that is there but is no key."""
        raise NotImplementedError

    def put_pending(self, value: str) -> None:
        """Make a version of which the store itself says that its time has not come."""
        raise NotImplementedError

    def point_back(self) -> None:
        """With two versions there, make the older one the store's newest word."""
        raise NotImplementedError

    def delete(self, version_id: str) -> None:
        """Take a version's value away in the way that can be undone."""
        raise NotImplementedError

    def destroy(self, version_id: str) -> None:
        """Take a version's value away for good."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget the key, so that it can be made anew with the same ids."""
        raise NotImplementedError

    def refuse_probe(self) -> None:
        """Let the value be read, but nothing else be asked."""
        raise NotImplementedError

    def deny(self) -> None:
        """Refuse the value."""
        raise NotImplementedError

    def allow(self) -> None:
        """Undo ``deny``."""
        raise NotImplementedError

    def go_away(self) -> None:
        """Be out of reach."""
        raise NotImplementedError

    def stall(self) -> None:
        """Take a request and never answer it."""
        raise NotImplementedError

    def come_back(self) -> None:
        """Undo ``go_away`` or ``stall``."""
        raise NotImplementedError

    def throttle(self) -> None:
        """Ask to slow down."""
        raise NotImplementedError

    def rotate_credentials(self) -> None:
        """Replace the agent's credentials, on disk and at the store; the old ones stop working."""
        raise NotImplementedError

    def revoke_credentials(self) -> None:
        """Let the agent's credentials stop working; it gets no others."""
        raise NotImplementedError

    def value_reads(self) -> int:
        """Return how many values were read so far."""
        raise NotImplementedError


# Unix seconds: a time that no test reaches.
LATER = 4_000_000_000.0

_NO_LOGIN = "it has no login"
_NO_HISTORY = "it holds one value and no history"
_LOCAL_READ = "reading is as cheap as comparing, so every fetch reads"
_NOTHING_TO_WAIT_FOR = "it never waits for anybody"
_NO_REFUSAL = "it has no refusal of its own: what cannot be read is unavailable"

_LOCAL = {
    "unchanged_costs_no_value_read": _LOCAL_READ,
    "probe_refused": "it has no probe apart from the value",
    "denied": _NO_REFUSAL,
    "credentials_rotated": _NO_LOGIN,
    "credentials_revoked": _NO_LOGIN,
    "throttled": _NOTHING_TO_WAIT_FOR,
    "slow": _NOTHING_TO_WAIT_FOR,
}
_UNVERSIONED = {
    "versions_in_order": _NO_HISTORY,
    "one_unusable_version": _NO_HISTORY,
    "removed_version": _NO_HISTORY,
    "pending_version": _NO_HISTORY,
    "rollback_of_the_pointer": _NO_HISTORY,
    "made_anew": "its version's id is its value's fingerprint: another value is another version",
}


class FakeDriver(Driver):
    """The store in memory."""

    absent: ClassVar = {
        "credentials_rotated": _NO_LOGIN,
        "credentials_revoked": _NO_LOGIN,
        "slow": "it has no timeout of its own; `hold` is for tests of who calls it",
    }

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self._store = FakeStore()

    def open(self, timeout: float) -> Provider:
        return FakeProvider(self._store)

    def put(self, value: str) -> None:
        self._store.create(value)

    def put_unusable(self) -> None:
        self._store.create(MalformedError("the store holds no key here"))

    def put_pending(self, value: str) -> None:
        self._store.create(value, activates_at=LATER)

    def point_back(self) -> None:
        self._store.point_at("1")

    def delete(self, version_id: str) -> None:
        self._store.delete(version_id)

    def destroy(self, version_id: str) -> None:
        self._store.delete(version_id)

    def forget(self) -> None:
        self._store.forget()

    def refuse_probe(self) -> None:
        self._store.probe_refused = True

    def deny(self) -> None:
        self._store.deny()

    def allow(self) -> None:
        self._store.recover()

    def go_away(self) -> None:
        self._store.fail()

    def come_back(self) -> None:
        self._store.recover()

    def throttle(self) -> None:
        self._store.fail(retry_after_seconds=7.0)

    def value_reads(self) -> int:
        return self._store.value_reads


class EnvDriver(Driver):
    """An environment variable of this process."""

    absent: ClassVar = _LOCAL | _UNVERSIONED | {"unavailable": "a process always has its environment"}

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self._variable = f"KEYFERRY_TEST_{next(_unique)}"
        stack.callback(os.environ.pop, self._variable, None)

    def open(self, timeout: float) -> Provider:
        return open_provider(key(EnvSource(variable=self._variable), "env"), timeout=timeout)

    def put(self, value: str) -> None:
        os.environ[self._variable] = value

    def put_unusable(self) -> None:
        os.environ[self._variable] = "too short"


class _FileDriver(Driver):
    """A file; a link that leads to itself stands for a storage that fails."""

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self._path = directory / "key"

    def source(self) -> FileSource:
        raise NotImplementedError

    def open(self, timeout: float) -> Provider:
        return open_provider(key(self.source(), "file"), timeout=timeout)

    def write(self, text: str) -> None:
        new = self._path.with_name("new")
        new.write_text(text)
        new.replace(self._path)

    def go_away(self) -> None:
        self._path.rename(self._path.with_name("away"))
        self._path.symlink_to(self._path)

    def come_back(self) -> None:
        self._path.with_name("away").replace(self._path)


class RawFileDriver(_FileDriver):
    absent: ClassVar = _LOCAL | _UNVERSIONED

    def source(self) -> FileSource:
        return FileSource(path=self._path)

    def put(self, value: str) -> None:
        self.write(f"{value}\n")

    def put_unusable(self) -> None:
        self.write("too short\n")


class JsonFileDriver(_FileDriver):
    absent: ClassVar = _LOCAL | _UNVERSIONED

    def source(self) -> FileSource:
        return FileSource(path=self._path, format="json", field="key")

    def put(self, value: str) -> None:
        self.write(json.dumps({"key": value, "owner": "tests"}))

    def put_unusable(self) -> None:
        self.write(json.dumps({"kee": "misspelt"}))


class KeyringFileDriver(_FileDriver):
    absent: ClassVar = _LOCAL | {
        "removed_version": "an entry is removed by leaving it out",
    }

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self._entries: list[dict[str, str]] = []
        self._clock = 1_700_000_000.0

    def source(self) -> FileSource:
        return FileSource(path=self._path, format="keyring")

    def put(self, value: str) -> None:
        self._add({"material": value})

    def put_unusable(self) -> None:
        self._add({"binary": "no base64"})

    def put_pending(self, value: str) -> None:
        self._add({"activates_at": format_time(LATER), "material": value})

    def point_back(self) -> None:
        self._entries.reverse()
        self._write()

    def forget(self) -> None:
        self._entries.clear()
        self._path.unlink()

    def _add(self, material: dict[str, str]) -> None:
        self._clock += 1
        created_at = format_time(self._clock)
        self._entries.append({"id": str(len(self._entries) + 1), "created_at": created_at, **material})
        self._write()

    def _write(self) -> None:
        document = {"schema": "keyferry-keyring/v1", "key": "master", "versions": self._entries}
        self.write(json.dumps(document))


class VaultDriver(Driver):
    """KV version 2 at a real server: a mount, a policy and a token of its own, behind a TCP proxy."""

    absent: ClassVar = {
        "pending_version": "every version of KV is there to be used; it is the agent that makes it wait",
        "rollback_of_the_pointer": "a rollback makes a new version",
    }
    kv_version: ClassVar = 2
    path: ClassVar = "fedha/master-key"

    def __init__(self, stack: ExitStack, directory: Path, bao: Callable[[], OpenBao]) -> None:
        super().__init__(stack, directory, bao)
        self._bao = bao()
        self._mount = unique_name("kv")
        self._bao.mount_kv(self._mount, kv_version=self.kv_version)
        self._proxy = stack.enter_context(TcpProxy(self._bao.port))
        self._token_file = directory / "token"
        self.allow()
        self.rotate_credentials()

    def open(self, timeout: float) -> Provider:
        source = VaultSource(
            address=f"https://127.0.0.1:{self._proxy.port}",
            path=f"{self._mount}/{self.path}",
            ca_file=self._bao.ca_file,
            auth=VaultAuth(token_file=self._token_file),
        )
        return open_provider(key(source, "vault"), timeout=timeout)

    def put(self, value: str) -> None:
        self._write({"key": value})

    def put_unusable(self) -> None:
        self._write({"kee": "misspelt"})

    def delete(self, version_id: str) -> None:
        self._bao.root.secrets.kv.v2.delete_secret_versions(self.path, [int(version_id)], self._mount)

    def destroy(self, version_id: str) -> None:
        self._bao.root.secrets.kv.v2.destroy_secret_versions(self.path, [int(version_id)], self._mount)

    def forget(self) -> None:
        self._bao.root.secrets.kv.v2.delete_metadata_and_all_versions(self.path, self._mount)

    def refuse_probe(self) -> None:
        self._bao.policy(self._mount, f"{self._mount}/data/*")

    def deny(self) -> None:
        self._bao.policy(self._mount)

    def allow(self) -> None:
        self._bao.policy(self._mount, f"{self._mount}/*")

    def go_away(self) -> None:
        # Not "reset": CPython leaks a TLS socket that is reset before its handshake began, and warns of that.
        self._proxy.behave("refuse")

    def stall(self) -> None:
        self._proxy.behave("stall")

    def come_back(self) -> None:
        self._proxy.behave("pass")

    def throttle(self) -> None:
        self._bao.throttle(self._mount)

    def rotate_credentials(self) -> None:
        if self._token_file.exists():
            self.revoke_credentials()
        self._token_file.write_text(self._bao.token(self._mount) + "\n")
        self._token_file.chmod(0o400)

    def revoke_credentials(self) -> None:
        self._bao.root.auth.token.revoke(self._token_file.read_text().strip())

    def value_reads(self) -> int:
        return self._bao.requests(f"{self._mount}/data/{self.path}")

    def _write(self, fields: dict[str, str]) -> None:
        self._bao.write(self._mount, self.path, **fields)


class VaultV1Driver(VaultDriver):
    """KV version 1 at a real server."""

    kv_version: ClassVar = 1
    absent: ClassVar = _UNVERSIONED | {
        "unchanged_costs_no_value_read": "KV version 1 has nothing to ask but the value",
        "probe_refused": "KV version 1 has nothing to ask but the value",
    }

    def _write(self, fields: dict[str, str]) -> None:
        self._bao.root.secrets.kv.v1.create_or_update_secret(self.path, fields, mount_point=self._mount)
