# SPDX-License-Identifier: Apache-2.0
"""What the commands do not do, and the sentences with which they say so."""

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.commands.new_material import new_material
from agent.errors import AgentError, ConfigError, DeniedError, MissingError, UnavailableError
from agent.providers import files, lifecycle
from agent.providers.lifecycle import ExistsError, Rotation
from agent.settings import KeySettings
from agent.sources.file import FileSource
from keyferry.material import ENCODINGS, Encoding, Material, decode
from tests.lifecycle.stores import FileStore, GcpKms, JsonFile, KeyringFile, RawFile, VaultTransit
from tests.servers import gcp_kms

ENV = {"provider": "env", "variable": "APP_KEY"}
INLINE = '{"schema":"keyferry-keyring/v1","key":"master","versions":[]}'


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (
            ENV,
            (
                "keys.master: an environment variable is set from outside, so no command can make or rotate "
                "it; set APP_KEY where the pod is defined"
            ),
        ),
        (
            {"provider": "vault-transit", "key_name": "app", "keyring": INLINE, "address": "http://127.0.0.1:1",
             "auth": {"token": "none"}},
            (
                "keys.master.keyring: stands in the configuration, which no command writes; move it into a "
                "file, and name that"
            ),
        ),
        (
            {"provider": "file", "format": "json", "field": "key", "path": "/nowhere", "encoding": "binary",
             "length": None},
            "keys.master.encoding: binary does not fit into a JSON field; use base64, or format raw",
        ),
        (
            {"provider": "aws-secrets-manager", "secret": "a", "field": "b", "encoding": "binary",
             "length": None},
            "keys.master.encoding: binary does not fit into a JSON field; use base64, or no field",
        ),
        (
            {"provider": "vault", "path": "a/b", "address": "http://127.0.0.1:1", "auth": {"token": "none"},
             "encoding": "binary", "length": None},
            "keys.master.encoding: binary does not fit into Vault's KV, which holds text; use base64",
        ),
    ],
    ids=["env", "inline", "binary in JSON", "binary in a secret's JSON", "binary in KV"],
)  # fmt: skip
def test_what_no_command_can_do(
    section: dict[str, Any], sentence: str, opened: Callable[[type[KeyringFile]], KeyringFile]
) -> None:
    """Who asks for it learns why before anything is called, and exit code 2 says that retrying is no use."""
    store = opened(KeyringFile)
    store.configure(section)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        store.keeper()
    assert store.run("rotate") == (2, "", f"keyferry-agent: {sentence}\n")


def test_bootstrap_of_what_it_cannot_make(opened: Callable[[type[KeyringFile]], KeyringFile]) -> None:
    store = opened(KeyringFile)
    store.configure(ENV)
    missing = "environment variable APP_KEY is not set; set it in the agent's container"
    assert store.run("bootstrap") == (1, f"key master (env): missing: {missing}\n", "")
    code, out, _ = store.run("bootstrap", "--create")
    assert code == 2
    assert out.startswith(
        "key master (env): unsupported: keys.master: an environment variable is set from outside"
    )


def test_several_keys(opened: Callable[[type[KeyringFile]], KeyringFile]) -> None:
    """Which key is rotated is said, never guessed."""
    store = opened(KeyringFile)
    document = json.loads(store.config.read_text())
    document["keys"]["other"] = document["keys"]["master"]
    store.config.write_text(json.dumps(document))
    sentence = "keyferry-agent: --key: is needed, since there are several keys; allowed: master, other\n"
    assert store.run("rotate") == (2, "", sentence)
    sentence = "keyferry-agent: --key third: there is no such key; allowed: master, other\n"
    assert store.run("bootstrap", "--key", "third") == (2, "", sentence)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("length", [None, 16, 33, 48])
def test_new_keys_fit(encoding: Encoding, length: int | None) -> None:
    """What is made is what would be accepted, in each encoding and length; no two are the same."""
    key = KeySettings(
        name="master", provider="file", source=FileSource(path=Path("k")), encoding=encoding, length=length
    )
    made = [new_material(key) for _ in range(50)]
    assert {len(decode(material, encoding, length)) for material in made} == {
        length or (43 if encoding == "text" else 32)
    }
    assert len({material.raw for material in made}) == len(made)


class TestFiles:
    def test_a_file_that_is_there(self, opened: Callable[[type[JsonFile]], JsonFile]) -> None:
        """Even one that holds something else is never overwritten."""
        store = opened(JsonFile)
        store.path.write_text('{"owner": "somebody"}\n')
        keeper = store.keeper()
        with pytest.raises(ExistsError, match=f"^file {store.path} exists already; nothing was written$"):
            lifecycle.create(keeper, new_material(store.key()))
        assert [path.name for path in store.home.glob(".source*")] == []
        code, out, err = store.run("bootstrap", "--create")
        assert (code, err) == (1, "")
        assert ": failed: malformed: file " in out
        assert store.path.read_text() == '{"owner": "somebody"}\n'

    def test_only_the_field(self, opened: Callable[[type[JsonFile]], JsonFile]) -> None:
        """Other fields stay, and so do the mode and a link to the file."""
        store = opened(JsonFile)
        target = store.home / "target"
        first = new_material(store.key()).text
        target.write_text(json.dumps({"before": [1, {"a": "ä"}], "key": first, "after": None}))
        target.chmod(0o640)
        store.path.symlink_to(target)
        assert store.run("rotate")[0] == 0
        after = json.loads(target.read_text())
        assert after.pop("key") != first
        assert after == {"before": [1, {"a": "ä"}], "after": None}
        assert target.stat().st_mode & 0o777 == 0o640
        assert store.path.is_symlink()

    @pytest.mark.parametrize(
        "text",
        [
            '{"key":"KEY","x":1.10}',
            '\t{ "a" : [ {"key": "inner"}, 0.12345678901234567890123 ] ,\n "key" :\r\n"KEY" ,"n":1e400}\n',
            '{"half": "\\ud800", "k\\u0065y": "KEY", "ä": {}}',
        ],
        ids=["trailing zero", "blanks and long numbers", "escapes"],
    )
    def test_not_a_byte_of_the_rest(self, text: str, opened: Callable[[type[JsonFile]], JsonFile]) -> None:
        """What no parser gives back as it came stays as it is."""
        store = opened(JsonFile)
        first = new_material(store.key()).text
        store.path.write_bytes(text.replace("KEY", first).encode())
        lifecycle.rotate(store.keeper(), new_material(store.key()), Rotation(store.offer().versions[0].id))
        (second,) = store.values()
        assert second != first
        assert store.path.read_bytes() == text.replace("KEY", second).encode()

    @pytest.mark.parametrize("kind", [RawFile, JsonFile])
    def test_nothing_that_could_not_be_read_back(
        self, kind: type[FileStore], opened: Callable[[type[FileStore]], FileStore]
    ) -> None:
        """A file that the next command refuses is not made."""
        store = opened(kind)
        store.configure(store.section() | {"length": 8})
        code, out, _ = store.run("bootstrap", "--create")
        assert code == 1
        assert out.startswith(
            f"key master (file): failed: malformed: file {store.path}: the value is 8 bytes long after "
        )
        assert not store.path.exists()

    def test_a_field_that_nobody_knows(self, opened: Callable[[type[KeyringFile]], KeyringFile]) -> None:
        """It stays, even where it holds half of a surrogate pair."""
        store = opened(KeyringFile)
        store.run("bootstrap", "--create")
        text = store.path.read_text().replace('"versions"', '"note": "\\ud800 ä", "versions"')
        store.path.write_text(text)
        assert store.run("rotate")[0] == 0
        assert json.loads(store.path.read_text())["note"] == "\ud800 ä"

    def test_a_field_that_is_not_the_key(self, opened: Callable[[type[JsonFile]], JsonFile]) -> None:
        """What does not fit the configuration is not rotated: the mistake would get a field of its own."""
        store = opened(JsonFile)
        store.path.write_text('{"kee": "misspelt"}')
        code, out, err = store.run("rotate")
        assert (code, out) == (1, "")
        assert "has no field 'key' (it has 1 other field); check the key's field setting" in err
        assert store.path.read_text() == '{"kee": "misspelt"}'

    def test_nothing_to_rotate(self, opened: Callable[[type[KeyringFile]], KeyringFile]) -> None:
        store = opened(KeyringFile)
        code, out, err = store.run("rotate")
        assert (code, out) == (1, "")
        assert err.startswith(f"keyferry-agent: missing: file {store.path} does not exist; ")

    def test_a_directory_that_is_not_there(self, opened: Callable[[type[KeyringFile]], KeyringFile]) -> None:
        store = opened(KeyringFile)
        store.configure(store.section() | {"path": str(store.home / "none" / "key")})
        sentence = (
            f"^cannot write file {store.home}/none/key: No such file or directory; make its directory first$"
        )
        with pytest.raises(UnavailableError, match=sentence):
            lifecycle.create(store.keeper(), new_material(store.key()))

    def test_a_read_only_volume(
        self, opened: Callable[[type[KeyringFile]], KeyringFile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pod's ConfigMap is one: whoever tries to write it learns where it is changed."""

        def link(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        store = opened(KeyringFile)
        monkeypatch.setattr(os, "link", link)
        sentence = (
            f"^cannot write file {store.path}: Read-only file system; a mounted ConfigMap or Secret is "
            "changed at its source, not in the pod$"
        )
        with pytest.raises(UnavailableError, match=sentence):
            lifecycle.create(store.keeper(), new_material(store.key()))

    def test_somebody_else_at_work(
        self, opened: Callable[[type[KeyringFile]], KeyringFile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever waits for another one says so in the end, and does not wait for ever."""
        store = opened(KeyringFile)
        monkeypatch.setattr(files, "_LOCK_SECONDS", 0.1)
        descriptor = os.open(store.home, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            sentence = (
                f"^another one is changing file {store.path}, or holds a lock on its directory, for more "
                r"than 0\.1 s; nothing was written$"
            )
            with pytest.raises(UnavailableError, match=sentence):
                lifecycle.create(store.keeper(), new_material(store.key()))
        finally:
            os.close(descriptor)
        assert not store.path.exists()

    def test_a_bare_ciphertext(self, opened: Callable[[type[VaultTransit]], VaultTransit]) -> None:
        store = opened(VaultTransit)
        store.path.write_text("vault:v1:bare")
        sentence = (
            f"^file {store.path} holds a bare ciphertext, which has no room for another version; wrap its "
            r"key into a keyring first \(docs/wrapped-keyring.md\)$"
        )
        with pytest.raises(ConfigError, match=sentence):
            lifecycle.rotate(store.keeper(), new_material(store.key()), Rotation("1"))


class TestWrapping:
    def test_transit_makes_no_key(self, opened: Callable[[type[VaultTransit]], VaultTransit]) -> None:
        """A misspelt name would become a transit key with the first ciphertext."""
        store = opened(VaultTransit)
        store.policy(f'path "{store.mount}/*" {{ capabilities = ["create", "read", "update"] }}')
        store.configure(store.section() | {"key_name": "ap"})
        with pytest.raises(MissingError, match=f"^Vault has no transit key {store.mount}/ap; check key_name"):
            lifecycle.create(store.keeper(), new_material(store.key()))

    @pytest.mark.parametrize(
        ("fault", "kind", "sentence"),
        [
            (gcp_kms.denied(), DeniedError, "Cloud KMS refuses to encrypt with projects/"),
            (gcp_kms.denied("BILLING_DISABLED"), UnavailableError, "does not serve the project"),
            (gcp_kms.unusable(), UnavailableError, "cannot use the primary version of KMS key projects/"),
            (gcp_kms.throttled(7), UnavailableError, "asks to slow down"),
        ],
        ids=["denied", "billing", "unusable", "throttled"],
    )
    def test_cloud_kms(
        self,
        opened: Callable[[type[GcpKms]], GcpKms],
        fault: gcp_kms.RefusalError,
        kind: type[AgentError],
        sentence: str,
    ) -> None:
        store = opened(GcpKms)
        store.kms.fault = fault
        with pytest.raises(kind, match=sentence):
            lifecycle.create(store.keeper(), new_material(store.key()))

    def test_cloud_kms_corrupted(self, opened: Callable[[type[GcpKms]], GcpKms]) -> None:
        store = opened(GcpKms)
        store.kms.corrupt = True
        with pytest.raises(UnavailableError, match=r"sent an answer that does not fit its checksum$"):
            lifecycle.create(store.keeper(), new_material(store.key()))

    def test_cloud_kms_disabled(self, opened: Callable[[type[GcpKms]], GcpKms]) -> None:
        store = opened(GcpKms)
        store.kms.set_state(store.key_name, 1, gcp_kms.State.DISABLED)
        with pytest.raises(
            DeniedError, match=f"^the primary version of KMS key {store.key_name} is disabled"
        ):
            lifecycle.create(store.keeper(), new_material(store.key()))


def test_what_nobody_foresaw() -> None:
    """Only the error's type is told: its text may hold the value."""

    class Broken:
        states_times = False

        def create(self, material: Material) -> str:
            raise ValueError(material.text)

        def rotate(self, material: Material, rotation: Rotation) -> str:
            raise ValueError(material.text)

        def close(self) -> None: ...

    with pytest.raises(UnavailableError, match=r"^unexpected builtins.ValueError in the provider$") as caught:
        lifecycle.create(Broken(), Material(b"secret"))
    assert caught.value.__cause__ is None
    with pytest.raises(UnavailableError, match=r"^unexpected builtins.ValueError in the provider$"):
        lifecycle.rotate(Broken(), Material(b"secret"), Rotation("1"))
