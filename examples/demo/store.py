# SPDX-License-Identifier: Apache-2.0
"""The two key stores of the demo: a keyring file, and a real OpenBao server.

Rules:

- A store can do what an operator does: create, rotate, be away, be back. It never talks to an agent.
- ``Notice`` is how a rotation becomes known. ``timer``: nobody is told and the agent's timer finds it.
  ``file``: a file that the agent watches changes with it. ``signal``: the operator sends SIGHUP afterwards.
- Keys are made here, stay in this process's memory and in the store, and are never shown.
"""

import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from tests.servers.openbao import OpenBao

Notice = Literal["timer", "file", "signal"]
Provider = Literal["file", "vault"]


class Store(Protocol):
    """What the demo needs of a key store."""

    watched: str
    """What changes together with a rotation that is noticed by ``file``."""
    absence: str
    """What it is to be away."""

    def settings(self, pod: str) -> dict[str, object]:
        """Return the key's part of agent.yaml for this pod's agent."""

    def rotate(self, notice: Notice) -> None:
        """Write a new version."""

    def go_away(self) -> None:
        """Answer nobody."""

    def come_back(self) -> None:
        """Answer again, with everything as it was."""


def open_store(provider: Provider, home: Path, pods: Iterable[str]) -> AbstractContextManager[Store]:
    """Return the store with version 1 in it; all its files are in ``home``."""
    return file_store(home) if provider == "file" else vault_store(home, pods)


@contextmanager
def file_store(home: Path) -> Iterator[Store]:
    """Give a keyring file."""
    yield FileStore(home)


@contextmanager
def vault_store(home: Path, pods: Iterable[str]) -> Iterator[Store]:
    """Give an OpenBao server that keeps its data while it is stopped."""
    # The vendor's client and the server's certificates take a while to load; the file store needs neither.
    from tests.servers.openbao import OpenBao

    bao = OpenBao(home / "bao", durable=True)
    with ExitStack() as stage:
        # Before it starts: Ctrl-C while it sets itself up must stop it too.
        stage.callback(bao.stop)
        yield VaultStore(stage.enter_context(bao), home, pods)


class FileStore:
    """A keyring file behind a link, in a directory that the agent does not watch.

    The agent watches the link's directory. So a file that is replaced behind the link is found by the timer,
    as on a network file system, and a link that is replaced is noticed at once, as a ConfigMap's is.
    """

    watched = "a link swapped"
    absence = "the file is gone"

    def __init__(self, home: Path) -> None:
        """Create version 1."""
        self._behind = home / "behind"
        self._link = home / "store" / "keyring.json"
        self._versions: list[dict[str, str]] = []
        self._behind.mkdir()
        self._link.parent.mkdir()
        self._target = self._behind / "keyring.json"
        self.rotate("file")

    def settings(self, pod: str) -> dict[str, object]:  # noqa: ARG002 - all pods read one file
        """Return the file as a source that is written in place."""
        return {"provider": "file", "path": str(self._link), "format": "keyring", "mounted": False}

    def rotate(self, notice: Notice) -> None:
        """Add a version: behind the link, or with a new link."""
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        version = {"id": str(len(self._versions) + 1), "created_at": created_at, "material": new_key()}
        self._versions.append(version)
        if notice == "file":
            self._target = self._behind / f"keyring-{version['id']}.json"
        keyring = {"schema": "keyferry-keyring/v1", "key": "master", "versions": self._versions}
        replace_file(self._target, json.dumps(keyring))
        if notice == "file":
            link = self._link.with_suffix(".new")
            link.symlink_to(self._target)
            link.replace(self._link)

    def go_away(self) -> None:
        """Move the directory behind the link away."""
        self._behind.rename(self._behind.with_suffix(".away"))

    def come_back(self) -> None:
        """Move it back."""
        self._behind.with_suffix(".away").rename(self._behind)


class VaultStore:
    """A KV v2 secret, which agents may read by AppRole and nothing else."""

    watched = "secret ids replaced"
    absence = "OpenBao is stopped"

    _POLICY = """\
path "secret/data/app/master" { capabilities = ["read"] }
path "secret/metadata/app/master" { capabilities = ["read"] }
"""

    def __init__(self, bao: "OpenBao", home: Path, pods: Iterable[str]) -> None:
        """Create version 1, the policy, the role, and each pod's credentials."""
        self._bao = bao
        self._credentials = {pod: home / f"credentials-{pod}" for pod in pods}
        bao.mount_kv("secret")
        bao.root.sys.create_or_update_policy("app", self._POLICY)
        bao.root.sys.enable_auth_method("approle")
        approle = bao.root.auth.approle
        approle.create_or_update_approle("app", token_policies=["app"], token_ttl="1m")  # noqa: S106 - a duration
        role_id = approle.read_role_id("app")["data"]["role_id"]
        for directory in self._credentials.values():
            directory.mkdir()
            replace_file(directory / "role_id", role_id)
        self.rotate("file")

    def settings(self, pod: str) -> dict[str, object]:
        """Return the secret and this pod's way to log in."""
        credentials = self._credentials[pod]
        auth = {
            "method": "approle",
            "role_id_file": str(credentials / "role_id"),
            "secret_id_file": str(credentials / "secret_id"),
        }
        return {
            "provider": "vault",
            "address": self._bao.address,
            "ca_file": str(self._bao.ca_file),
            "path": "secret/app/master",
            "auth": auth,
        }

    def rotate(self, notice: Notice) -> None:
        """Write a new version, and each pod a new secret id with it if ``notice`` is ``file``."""
        self._bao.write("secret", "app/master", key=new_key())
        if notice == "file":
            for directory in self._credentials.values():
                answer = self._bao.root.auth.approle.generate_secret_id("app")
                replace_file(directory / "secret_id", answer["data"]["secret_id"])

    def go_away(self) -> None:
        """Stop the server as a crash would."""
        self._bao.stop()

    def come_back(self) -> None:
        """Start it on its data and unseal it."""
        self._bao.start()
        self._bao.unseal()


def new_key() -> str:
    """Return 32 random bytes as base64url without padding."""
    return secrets.token_urlsafe(32)


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` for this user alone, so that nobody ever reads half of it."""
    draft = path.with_name(f".{path.name}.new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)
