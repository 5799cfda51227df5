# SPDX-License-Identifier: Apache-2.0
"""What is Vault's own in making and rotating a key, against a real OpenBao."""

import json

import pytest

from agent.commands import rotate
from agent.commands.new_material import new_material
from agent.errors import AgentError
from agent.providers import lifecycle
from agent.providers.lifecycle import ChangedError, FullError, Keeper, Rotation
from keyferry.material import Material
from tests.lifecycle.stores import VaultKv
from tests.providers.drivers import unique_name


def test_only_the_field(vault: VaultKv) -> None:
    """Whatever else the secret holds is written back as Vault gives it, numbers and nested objects too."""

    def read() -> dict[str, object]:
        answer = vault.secrets.read_secret_version(
            vault.path, mount_point=vault.mount, raise_on_deleted_version=True
        )
        return dict(answer["data"]["data"])

    others = {"owner": "fedha", "n": 12345678901234567890, "list": [1.5, None, {"a": True}]}
    vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text, **others)
    before = read()
    assert vault.run("rotate")[0] == 0
    after = read()
    assert after.pop("key") == vault.values()[-1] != before.pop("key")
    assert after == before
    assert after.keys() == others.keys()


def test_after_a_deletion(vault: VaultKv) -> None:
    """Where a key was there is no room for a new one: the old one may come back. Rotating goes on."""
    vault.run("bootstrap", "--create")
    vault.secrets.delete_secret_versions(vault.path, [1], vault.mount)
    secret = f"secret {vault.mount}/{vault.path}"
    deleted = f"version 1 of {secret} was deleted; `kv undelete` brings it back"
    assert vault.run("bootstrap") == (
        1,
        f"key master (vault): missing: {deleted}; --create makes it if there never was one\n",
        "",
    )
    code, out, err = vault.run("bootstrap", "--create")
    assert (code, err) == (1, "")
    assert out == (
        f"key master (vault): failed: {secret} exists, at version 1; nothing was written: {deleted}; "
        "mend that, or go on without it with rotate\n"
    )
    assert vault.run("rotate")[0] == 0
    vault.secrets.undelete_secret_versions(vault.path, [1], vault.mount)
    assert len(vault.values()) == 2


@pytest.mark.parametrize("command", [["check"], ["bootstrap"], ["bootstrap", "--create"], ["rotate"]])
def test_a_wrapped_secret_id_is_left_to_the_agent(vault: VaultKv, command: list[str]) -> None:
    """It works once: who only looks must not take it away, and who writes logs in more often."""
    root, name = vault.bao.root, unique_name("approle")
    root.sys.enable_auth_method("approle", path=name)
    root.auth.approle.create_or_update_approle("app", token_policies=[vault.mount], mount_point=name)
    role_id = root.auth.approle.read_role_id("app", mount_point=name)["data"]["role_id"]
    wrapped = root.auth.approle.generate_secret_id("app", mount_point=name, wrap_ttl="10m")["wrap_info"]
    auth = {
        "method": "approle",
        "mount": name,
        "role_id": role_id,
        "secret_id": wrapped["token"],
        "secret_id_wrapped": True,
    }
    vault.configure({**vault.section(), "auth": auth})
    code, out, err = vault.run(*command)
    assert code == 2
    assert (
        "keys.master.auth.secret_id_wrapped: is true, and such a secret id works once: this command would "
        "use up what the agent needs; give it a configuration of its own, whose secret id is not wrapped\n"
    ) in out + err
    vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text)
    assert len(vault.values()) == 1


def test_after_its_metadata_went_too(vault: VaultKv) -> None:
    vault.run("bootstrap", "--create")
    vault.secrets.delete_metadata_and_all_versions(vault.path, vault.mount)
    assert vault.run("bootstrap", "--create")[0] == 0


def test_another_rotation_in_between(vault: VaultKv) -> None:
    vault.run("bootstrap", "--create")
    vault.run("rotate")
    sentence = f"^secret {vault.mount}/{vault.path} has a newer version by now, 2; nothing was written$"
    with pytest.raises(ChangedError, match=sentence):
        lifecycle.rotate(vault.keeper(), new_material(vault.key()), Rotation("1"))
    assert len(vault.values()) == 2


@pytest.mark.parametrize(
    ("secret_max", "mount_max", "kept"),
    [(3, 0, 3), (0, 4, 4), (3, 4, 4), (4, 3, 4), (1, 0, 1)],
    ids=["the secret's", "the mount's", "the mount's is larger", "the secret's is larger", "one"],
)
def test_never_beyond_max_versions(vault: VaultKv, secret_max: int, mount_max: int, kept: int) -> None:
    """Vault keeps the larger of two settings, and a version beyond it takes the oldest with it."""
    if mount_max:
        vault.secrets.configure(max_versions=mount_max, mount_point=vault.mount)
    vault.secrets.update_metadata(vault.path, max_versions=secret_max, mount_point=vault.mount)
    keeper = vault.keeper()
    for _ in range(kept):
        vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text)
    sentence = (
        f"^secret {vault.mount}/{vault.path} has {kept} version{'s' * (kept > 1)}, and Vault keeps {kept}: "
        "another one would destroy version 1, and what nothing else decrypts; raise max_versions, or rotate "
        "with --drop-oldest$"
    )
    with pytest.raises(FullError, match=sentence):
        lifecycle.rotate(keeper, new_material(vault.key()), Rotation(str(kept)))
    assert len(vault.values()) == kept
    code, out, _ = vault.run("rotate", "--drop-oldest", "--json")
    assert (code, json.loads(out)["version"]) == (0, str(kept + 1))
    assert vault.offer().versions[0].id == "2"


def test_a_limit_that_was_lowered(vault: VaultKv) -> None:
    """The next write destroys all that are beyond it: each is named before, and after."""
    vault.secrets.update_metadata(vault.path, max_versions=20, mount_point=vault.mount)
    for _ in range(8):
        vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text)
    vault.secrets.update_metadata(vault.path, max_versions=3, mount_point=vault.mount)
    sentence = (
        f"keyferry-agent: secret {vault.mount}/{vault.path} has 8 versions, and Vault keeps 3: another one "
        "would destroy versions 1 to 6, and what nothing else decrypts; raise max_versions, or rotate with "
        "--drop-oldest\n"
    )
    assert vault.run("rotate") == (1, "", sentence)
    code, out, _ = vault.run("rotate", "--drop-oldest")
    assert code == 0
    assert "\n  dropped: version 1, 2, 3, 4, 5, 6, and what only that decrypts" in out
    assert [version.id for version in vault.offer().versions] == ["7", "8", "9"]


@pytest.mark.parametrize(("versions", "when"), [(8, None), (9, "the one after the next"), (10, "the next")])
def test_check_warns_before(vault: VaultKv, versions: int, when: str | None) -> None:
    for _ in range(versions):
        vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text)
    expected = (
        f"the secret has {versions} of the 10 versions that its max_versions or Vault's default keeps: "
        f"{when} rotation destroys version 1, and what only it decrypts is lost; raise max_versions"
    )
    assert vault.offer().warnings == (() if when is None else (expected,))


def test_kv_version_1(vault: VaultKv) -> None:
    """A write there would destroy what was there, so there is none."""
    mount = f"{vault.mount}-v1"
    vault.bao.mount_kv(mount, kv_version=1)
    vault.policy(f'path "{mount}/*" {{ capabilities = ["create", "read", "update"] }}')
    vault.configure(vault.section() | {"path": f"{mount}/app/key"})
    sentence = (
        f"keys.master: secret {mount}/app/key is in a KV version 1 engine, where a write destroys what "
        f"was there; enable versions: vault kv enable-versioning {mount}"
    )
    code, out, _ = vault.run("bootstrap", "--create")
    assert (code, out) == (2, f"key master (vault): unsupported: {sentence}\n")
    vault.bao.root.secrets.kv.v1.create_or_update_secret(
        "app/key", {"key": new_material(vault.key()).text}, mount_point=mount
    )
    assert vault.run("rotate") == (2, "", f"keyferry-agent: {sentence}\n")


def test_a_policy_that_only_reads(vault: VaultKv) -> None:
    """The missing line stands in the message; the agent's own policy cannot rotate."""
    vault.run("bootstrap", "--create")
    vault.policy(f'path "{vault.mount}/*" {{ capabilities = ["read"] }}')
    place = f"{vault.mount}/data/{vault.path}"
    sentence = (
        f"keyferry-agent: denied: Vault refuses to write secret {vault.mount}/{vault.path}; the token's "
        f'policy needs: path "{place}" {{ capabilities = ["create", "update"] }}\n'
    )
    assert vault.run("rotate") == (1, "", sentence)


def test_a_mark_that_is_refused(vault: VaultKv) -> None:
    """The version is there then, and that is said."""
    vault.run("bootstrap", "--create")
    vault.policy(f'path "{vault.mount}/*" {{ capabilities = ["create", "read", "update"] }}')
    place = f"{vault.mount}/metadata/{vault.path}"
    sentence = (
        f"keyferry-agent: version 2 of secret {vault.mount}/{vault.path} was made, but not recorded to "
        "activate at once, so it activates after the delay: Vault answers 403; needed: "
        f'path "{place}" {{ capabilities = ["patch"] }}\n'
    )
    assert vault.run("rotate", "--activate", "now") == (3, "", sentence)
    assert len(vault.values()) == 2


@pytest.mark.parametrize("destroyed", [False, True], ids=["deleted", "destroyed"])
def test_the_other_fields_after_a_deletion(vault: VaultKv, destroyed: bool) -> None:
    """They come from the newest version that can be read: nothing is dropped without a word."""
    for number in range(1, 4):
        vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text, owner=f"fedha-{number}")
    remove = vault.secrets.destroy_secret_versions if destroyed else vault.secrets.delete_secret_versions
    remove(vault.path, [3], vault.mount)
    assert vault.run("rotate")[0] == 0
    answer = vault.secrets.read_secret_version(
        vault.path, mount_point=vault.mount, raise_on_deleted_version=True
    )
    assert answer["data"]["data"] == {"key": vault.values()[-1], "owner": "fedha-2"}


def test_few_logins(vault: VaultKv) -> None:
    """A secret id may have a number of uses, and each login leaves a token: one to look and one to write."""
    root, name = vault.bao.root, unique_name("approle")
    root.sys.enable_auth_method("approle", path=name)
    root.auth.approle.create_or_update_approle(
        "app", token_policies=[vault.mount], secret_id_num_uses=2, mount_point=name
    )
    role_id = root.auth.approle.read_role_id("app", mount_point=name)["data"]["role_id"]
    for command in (["bootstrap", "--create"], ["rotate"]):
        secret_id = root.auth.approle.generate_secret_id("app", mount_point=name)["data"]["secret_id"]
        auth = {"method": "approle", "mount": name, "role_id": role_id, "secret_id": secret_id}
        vault.configure({**vault.section(), "auth": auth})
        code, out, err = vault.run(*command)
        assert (code, err) == (0, ""), out


def test_marks_of_versions_that_are_gone(vault: VaultKv) -> None:
    """There is room for 64 only, so they go with the next mark; whatever else stands there stays."""
    vault.secrets.update_metadata(
        vault.path, max_versions=2, custom_metadata={"owner": "fedha"}, mount_point=vault.mount
    )
    vault.secrets.configure(max_versions=2, mount_point=vault.mount)
    keeper = vault.keeper()
    vault.bao.write(vault.mount, vault.path, key=new_material(vault.key()).text)
    for number in range(1, 5):
        rotation = Rotation(str(number), at_once=True, drop_oldest=True)
        lifecycle.rotate(keeper, new_material(vault.key()), rotation)
    metadata = vault.secrets.read_secret_metadata(vault.path, vault.mount)["data"]
    assert sorted(metadata["versions"]) == ["4", "5"]
    assert sorted(metadata["custom_metadata"]) == [
        "keyferry-activates-3",
        "keyferry-activates-4",
        "keyferry-activates-5",
        "owner",
    ]


def test_made_and_not_read_back(vault: VaultKv) -> None:
    """That the version is there is said, and the key still is not."""
    vault.run("bootstrap", "--create")
    vault.policy(
        f'path "{vault.mount}/metadata/*" {{ capabilities = ["read"] }}\n'
        f'path "{vault.mount}/data/{vault.path}" {{ capabilities = ["create", "read", "update"] }}'
    )
    real = lifecycle.rotate
    seen = vault.values()

    def rotate_and_deny(keeper: Keeper, material: Material, rotation: Rotation) -> str:
        seen.append(material.text)
        version_id = real(keeper, material, rotation)
        nothing_else = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
        vault.bao.root.sys.create_or_update_policy(vault.mount, nothing_else)
        return version_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "rotate", rotate_and_deny)
        patch.setattr(rotate, "harden", lambda: None)
        patch.setattr(rotate, "clean_up_when_stopped", lambda: None)
        with pytest.raises(
            AgentError, match=r"^version 2 was made, but cannot be read back: denied: "
        ) as raised:
            rotate.rotate(vault.config, None, None, rotate.Options())
    assert len(seen) == 2
    assert not any(secret in str(raised.value) for secret in seen)
