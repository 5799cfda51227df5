# SPDX-License-Identifier: Apache-2.0
"""What a right configuration becomes, and where it is looked for."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from agent import loading
from agent.errors import ConfigError
from agent.loading import Loaded, restart_reasons
from agent.settings import (
    HttpSettings,
    KeySettings,
    OutageSettings,
    RefreshSettings,
    RotationSettings,
    Settings,
    StartupSettings,
    VolumeSettings,
)
from agent.sources import SOURCES
from agent.sources.env import EnvSource
from agent.sources.file import FileSource
from agent.sources.gcp import GcpKmsSource
from agent.sources.vault import SERVICE_ACCOUNT_TOKEN, VaultAuth, VaultSource, VaultTransitSource
from tests.settings.conftest import Load

EXAMPLE = Path(__file__).parents[2] / "agent.yaml"
ADDRESS = "https://vault.example:8200"
KMS_KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/k"
VAULT = f"provider: vault, address: '{ADDRESS}', path: secret/app"


def key_of(load: Load, text: str, environ: Mapping[str, str] | None = None) -> KeySettings:
    """Return the key that agent.yaml describes by ``text``."""
    return load(f"keys: {{master: {{{text}}}}}", environ).settings.keys["master"]


def vault_auth(load: Load, auth: str, environ: Mapping[str, str] | None = None) -> VaultAuth:
    """Return the login of a Vault key."""
    source = key_of(load, f"{VAULT}, auth: {{{auth}}}", environ).source
    assert isinstance(source, VaultSource)
    return source.auth


def test_the_example_is_what_the_defaults_are() -> None:
    """agent.yaml at the top level says that it shows every default; a change of one must change it too."""
    loaded = loading.load(EXAMPLE, {})
    auth = VaultAuth(method="kubernetes", role="fedha", jwt_file=SERVICE_ACCOUNT_TOKEN)
    source = VaultSource(address=ADDRESS, path="secret/fedha/encryption/master-key", auth=auth)
    key = KeySettings(name="master", provider="vault", source=source, encoding="base64url", length=32)
    assert loaded == Loaded(Settings(keys={"master": key}), (), (EXAMPLE,))


def test_the_readme_shows_the_example(load: Load) -> None:
    """What somebody copies from there loads, and means what agent.yaml does."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", EXAMPLE.with_name("README.md").read_text(), re.DOTALL)
    assert load(shown).settings == loading.load(EXAMPLE, {}).settings


def test_the_example_shows_every_setting() -> None:
    tree = yaml.safe_load(EXAMPLE.read_text())
    assert {section: list(settings) for section, settings in tree.items()} == {
        "volume": ["path", "mode", "group", "require_tmpfs", "wipe_on_exit"],
        "refresh": ["interval", "jitter", "timeout", "max_backoff"],
        "rotation": ["activation_delay", "clock_skew", "keep_versions"],
        "outage": ["max_stale", "on_expired", "on_denied", "on_missing"],
        "startup": ["timeout"],
        "http": ["listen"],
        "log": ["level", "format"],
        "keys": ["master"],
    }


def test_every_section_can_be_changed(load: Load) -> None:
    settings = load(
        """
        volume: {path: /srv/keys, mode: "0400", group: 2000, require_tmpfs: false, wipe_on_exit: true}
        refresh: {interval: 1m, jitter: 5%, timeout: 500ms, max_backoff: 10s}
        rotation: {activation_delay: 0s, clock_skew: 0s, keep_versions: 3}
        outage: {max_stale: 1d, on_expired: withdraw, on_denied: withdraw, on_missing: withdraw}
        startup: {timeout: 2m}
        http: {listen: "[::1]:0"}
        log:
        keys: {master: {provider: env}, other: {provider: file, path: /a, mounted: false, length: 16}}
        """
    ).settings
    assert settings == Settings(
        volume=VolumeSettings(
            path=Path("/srv/keys"), mode=0o400, group=2000, require_tmpfs=False, wipe_on_exit=True
        ),
        refresh=RefreshSettings(interval=60, jitter=0.05, timeout=0.5, max_backoff=10),
        rotation=RotationSettings(activation_delay=0, clock_skew=0, keep_versions=3),
        outage=OutageSettings(
            max_stale=86400, on_expired="withdraw", on_denied="withdraw", on_missing="withdraw"
        ),
        startup=StartupSettings(timeout=120),
        http=HttpSettings(host="::1", port=0),
        keys={
            "master": KeySettings(name="master", provider="env", source=EnvSource()),
            "other": KeySettings(
                name="other", provider="file", source=FileSource(path=Path("/a"), mounted=False), length=16
            ),
        },
    )


def test_a_file_that_is_written_in_place_needs_less_delay(load: Load) -> None:
    """12m51s is the default bound without the kubelet's 3 minutes."""
    text = (
        "rotation: {{activation_delay: 12m51s}}\nkeys: {{master: {{provider: file, path: /a, mounted: {}}}}}"
    )
    assert load(text.format("false")).settings.rotation.activation_delay == 771
    with pytest.raises(ConfigError, match=r"shorter than the bound, 15m51s"):
        load(text.format("true"))


def test_yaml_merges_are_no_duplicates(load: Load) -> None:
    settings = load("keys: {a: &a {provider: file, path: /a}, b: {<<: *a, path: /b}}").settings
    assert [key.source_files for key in settings.keys.values()] == [(Path("/a"),), (Path("/b"),)]


@pytest.mark.parametrize(
    ("auth", "environ", "expected"),
    [
        pytest.param("token: t", {}, VaultAuth(token="t"), id="token"),
        pytest.param("", {"VAULT_TOKEN": "e"}, VaultAuth(token="e"), id="token of the environment"),
        pytest.param(
            "token: t", {"VAULT_TOKEN": "e"}, VaultAuth(token="t"), id="token before the environment"
        ),
        pytest.param(
            "token_file: /t",
            {"VAULT_TOKEN": "e"},
            VaultAuth(token_file=Path("/t")),
            id="file before the environment",
        ),
        pytest.param(
            "method: approle, role_id: r, secret_id: s, secret_id_wrapped: true, mount: ci",
            {"VAULT_TOKEN": "e"},
            VaultAuth(method="approle", role_id="r", secret_id="s", secret_id_wrapped=True, mount="ci"),
            id="approle",
        ),
        pytest.param(
            "method: approle, role_id_file: /r, secret_id_file: /s",
            {},
            VaultAuth(method="approle", role_id_file=Path("/r"), secret_id_file=Path("/s")),
            id="approle from files",
        ),
        pytest.param(
            "method: kubernetes, role: r",
            {},
            VaultAuth(method="kubernetes", role="r", jwt_file=SERVICE_ACCOUNT_TOKEN),
            id="kubernetes",
        ),
        pytest.param(
            "method: kubernetes, role: r, jwt_file: /j",
            {},
            VaultAuth(method="kubernetes", role="r", jwt_file=Path("/j")),
            id="kubernetes with a projected token",
        ),
        pytest.param(
            "method: jwt, role: r, jwt_file: /j",
            {},
            VaultAuth(method="jwt", role="r", jwt_file=Path("/j")),
            id="jwt",
        ),
    ],
)
def test_vault_auth(load: Load, auth: str, environ: Mapping[str, str], expected: VaultAuth) -> None:
    assert vault_auth(load, auth, environ) == expected


def test_no_credential_is_in_a_repr(load: Load) -> None:
    """Settings end up in logs and tracebacks sooner or later."""
    text = f"keys: {{master: {{{VAULT}, auth: {{method: approle, role_id: r, secret_id: planted}}}}}}"
    assert "planted" not in repr(load(text))
    assert "planted" not in repr(load(text.replace("method: approle, role_id: r, secret_id", "token")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${A}", "1", id="variable"),
        pytest.param("x${A}y${B}z", "x1y2z", id="two inside a text"),
        pytest.param("$${A}", "${A}", id="escaped"),
        pytest.param("$A $$ a$b", "$A $$ a$b", id="no reference"),
        pytest.param("${C}", "${A}", id="not filled in twice"),
        pytest.param("${file:TMP/token}", "from-a-file", id="file"),
        pytest.param("${A}-${file:TMP/crlf}", "1-from-windows", id="variable and file"),
    ],
)
def test_expansion(load: Load, tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    (tmp_path / "crlf").write_bytes(b"from-windows\r\n")
    text = text.replace("TMP", str(tmp_path))
    assert vault_auth(load, f"token: '{text}'", {"A": "1", "B": "2", "C": "${A}"}).token == value


def test_expanded_texts_may_be_any_setting(load: Load) -> None:
    """An environment has only texts, so numbers and flags are read from them too."""
    environ = {"KEEP": "3", "TMPFS": "false", "LENGTH": "32", "EVERY": "1m", "GROUP": "2000", "WHAT": "env"}
    settings = load(
        "volume: {require_tmpfs: '${TMPFS}', group: '${GROUP}'}\nrotation: {keep_versions: '${KEEP}'}\n"
        "refresh: {interval: '${EVERY}'}\nkeys: {master: {provider: '${WHAT}', length: '${LENGTH}'}}",
        environ,
    ).settings
    assert (settings.volume.require_tmpfs, settings.volume.group) == (False, 2000)
    assert (settings.rotation.keep_versions, settings.refresh.interval) == (3, 60)
    assert (settings.keys["master"].provider, settings.keys["master"].length) == ("env", 32)


def test_the_files_to_watch(load: Load, tmp_path: Path) -> None:
    """agent.yaml first, then each file that it fills in, once."""
    token = tmp_path / "token"
    token.write_text("a")
    loaded = load(
        f"keys: {{m: {{{VAULT}, field: '${{file:{token}}}', auth: {{token: '${{file:{token}}}'}}}}}}"
    )
    assert loaded.files == (tmp_path / "agent.yaml", token)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            "keys: {m: {provider: vault, address: 'http://vault:8200', path: a/b, auth: {token: t}}}",
            "keys.m.address: sends tokens and keys in the clear; allowed: https; use https",
            id="plain http",
        ),
        pytest.param(
            'volume: {mode: "0444"}\nkeys: {m: {provider: env}}',
            "volume.mode: lets every user in the pod's containers read the keys; "
            'allowed: "0440"; write "0440" and give the pod an fsGroup',
            id="world-readable",
        ),
    ],
)
def test_warnings(load: Load, text: str, warning: str) -> None:
    assert load(text).warnings == (warning,)


@pytest.mark.parametrize("host", ["localhost:8200", "127.0.0.1", "[::1]:1"])
def test_loopback_needs_no_tls(load: Load, host: str) -> None:
    text = f"keys: {{m: {{provider: vault, address: 'http://{host}', path: a/b, auth: {{token: t}}}}}}"
    assert load(text).warnings == ()


def test_where_it_is_looked_for(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then KEYFERRY_CONFIG, then the default file, then the environment alone."""
    paths = {}
    for name in ("argument", "named", "default"):
        paths[name] = tmp_path / name
        paths[name].write_text(f"keys: {{{name}: {{provider: env}}}}")
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", paths["default"])
    environ = {"KMS_PROVIDER": "env", "KEYFERRY_CONFIG": str(paths["named"])}
    assert list(loading.load(paths["argument"], environ).settings.keys) == ["argument"]
    assert list(loading.load(None, environ).settings.keys) == ["named"]
    del environ["KEYFERRY_CONFIG"]
    assert list(loading.load(None, environ).settings.keys) == ["default"]
    paths["default"].unlink()
    assert list(loading.load(None, environ).settings.keys) == ["master"]


def test_a_default_file_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting from the environment instead would serve another configuration in silence."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", loop)
    with pytest.raises(ConfigError, match=r"loop: cannot be read: Too many levels of symbolic links; "):
        loading.load(None, {"KMS_PROVIDER": "env"})


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        pytest.param(
            {"KMS_PROVIDER": "env", "KEYFERRY_ENCODING": "base64url", "KEYFERRY_LENGTH": "32"},
            KeySettings(name="master", provider="env", source=EnvSource(), encoding="base64url", length=32),
            id="env",
        ),
        pytest.param(
            {"KMS_PROVIDER": "file", "KEYFERRY_FILE": "/etc/key", "VAULT_ADDR": "", "KEYFERRY_LENGTH": ""},
            KeySettings(name="master", provider="file", source=FileSource(path=Path("/etc/key"))),
            id="file",
        ),
        pytest.param(
            {
                "KMS_PROVIDER": "vault",
                "VAULT_ADDR": ADDRESS,
                "VAULT_TOKEN": "a${b",
                "KEYFERRY_FILE": "/unused",
            },
            KeySettings(
                name="master",
                provider="vault",
                source=VaultSource(
                    address=ADDRESS, path="secret/fedha/encryption/master-key", auth=VaultAuth(token="a${b")
                ),
            ),
            id="vault",
        ),
        pytest.param(
            {"KMS_PROVIDER": "vault", "VAULT_ADDR": ADDRESS, "VAULT_TOKEN": "t", "VAULT_SECRET_PATH": "kv/a"},
            KeySettings(
                name="master",
                provider="vault",
                source=VaultSource(address=ADDRESS, path="kv/a", auth=VaultAuth(token="t")),
            ),
            id="vault with a path",
        ),
        pytest.param(
            {
                "KMS_PROVIDER": "vault-transit",
                "VAULT_ADDR": ADDRESS,
                "VAULT_TOKEN": "t",
                "VAULT_TRANSIT_KEY": "master",
                "KEYFERRY_WRAPPED_KEYRING": "/etc/ring",
            },
            KeySettings(
                name="master",
                provider="vault-transit",
                source=VaultTransitSource(
                    address=ADDRESS,
                    key_name="master",
                    keyring=Path("/etc/ring"),
                    auth=VaultAuth(token="t"),
                ),
            ),
            id="vault-transit",
        ),
        pytest.param(
            {
                "KMS_PROVIDER": "gcp-kms",
                "GCP_KMS_KEY_NAME": KMS_KEY,
                "KEYFERRY_WRAPPED_KEYRING": "CiQAbWFzdGVy",
                "GOOGLE_APPLICATION_CREDENTIALS": "/etc/google.json",
            },
            KeySettings(
                name="master",
                provider="gcp-kms",
                source=GcpKmsSource(
                    key_name=KMS_KEY,
                    keyring="CiQAbWFzdGVy",
                    credentials_file=Path("/etc/google.json"),
                ),
            ),
            id="gcp-kms",
        ),
    ],
)
def test_environment_alone(environ: Mapping[str, str], key: KeySettings) -> None:
    loaded = loading.load(None, {**environ, "KEYFERRY_DIR": "/srv/keys"})
    settings = Settings(keys={"master": key}, volume=VolumeSettings(path=Path("/srv/keys")))
    assert loaded == Loaded(settings)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param(
            {},
            [
                (
                    "KMS_PROVIDER: is not set, and there is no {default}; allowed: {providers}; "
                    "set it, or write agent.yaml and name it by --config or KEYFERRY_CONFIG"
                )
            ],
            id="nothing at all",
        ),
        pytest.param(
            {"KMS_PROVIDER": "azure"},
            ['KMS_PROVIDER: "azure" is not a choice; allowed: {providers}; choose one'],
            id="a provider that there is not",
        ),
        pytest.param(
            {"KMS_PROVIDER": "aws_kms"},
            ['KMS_PROVIDER: "aws_kms" is not a choice; allowed: {providers}; did you mean aws-kms?'],
            id="a misspelt provider",
        ),
        pytest.param(
            {"KMS_PROVIDER": "file", "KEYFERRY_LENGTH": "long", "KEYFERRY_DIR": "run"},
            [
                (
                    'KEYFERRY_DIR: "run" is not an absolute path; allowed: an absolute path; '
                    "start it with /, whatever the working directory is"
                ),
                (
                    'KEYFERRY_LENGTH: "long" is not a whole number in the range; allowed: a whole number '
                    "from "
                    "1 to "
                    "65536; write it with digits only, such as 32"
                ),
                (
                    "KEYFERRY_FILE: is missing; allowed: an absolute path; "
                    "start it with /, and name the file that holds the key, not the key itself"
                ),
            ],
            id="three variables",
        ),
        pytest.param(
            {"KMS_PROVIDER": "vault", "VAULT_ADDR": "https://me:planted@vault"},
            [
                (
                    "VAULT_ADDR: the value (not shown) is not a server's address; allowed: http or https, a "
                    "host and "
                    "perhaps a port; write it like https://vault.example:8200, without user, path or query"
                ),
                (
                    "VAULT_TOKEN: is missing; allowed: token or token_file, or VAULT_TOKEN in the "
                    "environment; "
                    "method token needs it"
                ),
            ],
            id="vault without a token",
        ),
    ],
)
def test_problems_of_the_environment_name_the_variable(
    environ: Mapping[str, str], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        loading.load(None, environ)
    default = str(loading.DEFAULT_CONFIG)
    filled = [
        line.replace("{default}", default).replace("{providers}", ", ".join(SOURCES)) for line in expected
    ]
    assert list(caught.value.problems) == filled


SOURCE = VaultSource(address=ADDRESS, path="secret/app", auth=VaultAuth(token="t"))
KEY = KeySettings(name="master", provider="vault", source=SOURCE)
SETTINGS = Settings(keys={"master": KEY})
ANOTHER_KEY = (
    "keys.master names another source now, and that is another key, which never replaces a published one; "
    "use a new key name or a new pod, or undo it"
)


def with_source(source: EnvSource | FileSource | VaultSource, provider: str = "vault") -> Settings:
    """Return the settings with another source."""
    return replace(SETTINGS, keys={"master": replace(KEY, source=source, provider=provider)})


@pytest.mark.parametrize(
    ("new", "reasons"),
    [
        pytest.param(SETTINGS, (), id="nothing"),
        pytest.param(replace(SETTINGS, refresh=RefreshSettings(interval=1)), (), id="refresh"),
        pytest.param(replace(SETTINGS, keys={"other": KEY}), (), id="another key name"),
        pytest.param(with_source(replace(SOURCE, auth=VaultAuth(token="u"))), (), id="another token"),
        pytest.param(with_source(replace(SOURCE, ca_file=Path("/ca"))), (), id="another authority"),
        pytest.param(
            replace(SETTINGS, volume=VolumeSettings(path=Path("/other"), mode=0o400)),
            (
                "volume.path changed, and a running agent cannot follow; restart the pod, or undo it",
                "volume.mode changed, and a running agent cannot follow; restart the pod, or undo it",
            ),
            id="volume",
        ),
        pytest.param(
            replace(SETTINGS, http=HttpSettings(host="::1", port=1)),
            ("http.listen changed, and a running agent cannot follow; restart the pod, or undo it",),
            id="listen, once",
        ),
        pytest.param(with_source(replace(SOURCE, path="secret/other")), (ANOTHER_KEY,), id="path"),
        pytest.param(with_source(replace(SOURCE, address="https://v")), (ANOTHER_KEY,), id="address"),
        pytest.param(with_source(replace(SOURCE, field="f")), (ANOTHER_KEY,), id="field"),
        pytest.param(with_source(replace(SOURCE, namespace="n")), (ANOTHER_KEY,), id="namespace"),
        pytest.param(with_source(EnvSource(), "env"), (ANOTHER_KEY,), id="provider"),
    ],
)
def test_what_a_running_agent_cannot_follow(new: Settings, reasons: tuple[str, ...]) -> None:
    assert restart_reasons(SETTINGS, new) == reasons


def test_digests_stay_what_they_are() -> None:
    """They are on volumes: another value after an upgrade would make every key a foreign one."""
    assert KEY.source_digest == "sha256:66abe28f90f5b94b"
    env = KeySettings(name="a", provider="env", source=EnvSource())
    file = KeySettings(name="a", provider="file", source=FileSource(path=Path("/a")))
    assert (env.source_digest, file.source_digest) == ("sha256:179d2acc323885ff", "sha256:81cc8bea5acb83ff")


def test_what_a_key_says_of_its_source() -> None:
    files = [Path(f"/{name}") for name in ("t", "r", "s", "j", "ca")]
    token, role, secret, jwt, ca = files
    auth = VaultAuth(token_file=token, role_id_file=role, secret_id_file=secret, jwt_file=jwt)
    vault = replace(KEY, source=replace(SOURCE, auth=auth, ca_file=ca))
    assert (vault.source_files, vault.credential_files, vault.mounted) == ((), tuple(files), False)
    file = replace(KEY, source=FileSource(path=Path("/a")))
    assert (file.source_files, file.credential_files, file.mounted) == ((Path("/a"),), (), True)
    assert not replace(KEY, source=FileSource(path=Path("/a"), mounted=False)).mounted
    assert (replace(KEY, source=EnvSource()).credential_files, KEY.credential_files) == ((), ())
