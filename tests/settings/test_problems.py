# SPDX-License-Identifier: Apache-2.0
"""Every way in which agent.yaml can be wrong, with the exact sentence that it earns."""

from pathlib import Path

import pytest

from agent import loading
from agent.errors import ConfigError
from tests.settings.conftest import Problems

PROVIDERS = "env, file, aws-secrets-manager, aws-kms, vault, vault-transit, gcp-kms"
KMS_KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/k"
KEY = "keys: {master: {provider: file, path: /etc/source}}\n"
DURATION = (
    'a duration above "0s"; write it in quotes with its unit (d, h, m, s, ms), such as "1h30m"; '
    "YAML reads 1:30 as 90"
)
MODE = (
    "octal digits by which the agent reads and nobody else writes or executes; "
    'write it in quotes, such as "0440": owner and group read; YAML reads 0440 as 288'
)
LISTEN = (
    'host:port with a port from 0 (takes a free one) to 65535, or "off"; '
    'write it in quotes, such as ":8181", "127.0.0.1:8181", "[::1]:8181" or "off"'
)
TEXT = "text; write it in quotes; YAML reads on, yes, no and 12 as other things"
SECRET = 'text without blanks around it; take it from "${VARIABLE}" or "${file:/path}"'
ADDRESS = (
    "http or https, a host and perhaps a port; "
    "write it like https://vault.example:8200, without user, path or query"
)
SECTION = "a mapping; write settings below it, indented, each as name: value"
ANOTHER_METHOD = "remove it, or choose another method"


def vault(auth: str, more: str = "") -> str:
    """Return an agent.yaml with a key of Vault's."""
    return f"keys: {{master: {{provider: vault, address: 'https://v', path: a/b, auth: {{{auth}}}{more}}}}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "",
            "keys: holds no key; allowed: one key or more, each under its name; name the first one, such "
            "as master",
            id="empty file",
        ),
        pytest.param(
            "keys: {}",
            "keys: holds no key; allowed: one key or more, each under its name; name the first one, such "
            "as master",
            id="no key",
        ),
        pytest.param(
            KEY + "refesh: {}",
            "refesh: is not a setting; allowed: volume, refresh, rotation, outage, startup, http, log, keys; "
            "did you mean refresh?",
            id="misspelt section",
        ),
        pytest.param(
            KEY + "refresh: {intervall: 5m}",
            "refresh.intervall: is not a setting; allowed: interval, jitter, timeout, max_backoff; "
            "did you mean interval?",
            id="misspelt setting",
        ),
        pytest.param(
            KEY + "log: {colour: blue}",
            "log.colour: is not a setting; allowed: level, format; remove it, or correct its name",
            id="unlike any setting",
        ),
        pytest.param(
            KEY + "http: {port: 8181}",
            "http.port: is not a setting; allowed: listen; remove it, or correct its name",
            id="a field's name is not a setting's",
        ),
        pytest.param(
            KEY + "refresh: 5m",
            f"refresh: is text; allowed: {SECTION}",
            id="text for a section",
        ),
        pytest.param(
            KEY + "refresh: [5m]", f"refresh: is a list; allowed: {SECTION}", id="list for a section"
        ),
        pytest.param(
            KEY + "log: {on: json}",
            "log: has a name that is true or false to YAML; allowed: names; "
            "write it in quotes; YAML reads on, yes, no and 12 as other things",
            id="a name that YAML reads as something else",
        ),
        pytest.param(
            KEY + "refresh: {interval: 300}",
            f"refresh.interval: 300 is a bare number; allowed: {DURATION}",
            id="bare number for a duration",
        ),
        pytest.param(
            KEY + "refresh: {interval: 1:30}",
            f"refresh.interval: 90 is a bare number; allowed: {DURATION}",
            id="sexagesimal",
        ),
        pytest.param(
            KEY + 'refresh: {interval: "300"}',
            f'refresh.interval: "300" is not a duration; allowed: {DURATION}',
            id="no unit",
        ),
        pytest.param(
            KEY + "refresh: {interval: 0s, timeout: 0s, jitter: 0%}",
            f'refresh.interval: "0s" is no time at all; allowed: {DURATION}\n'
            f'refresh.timeout: "0s" is no time at all; allowed: {DURATION}',
            id="zero interval and timeout",
        ),
        pytest.param(
            KEY + "refresh: {interval: }",
            f"refresh.interval: is empty; allowed: {DURATION}",
            id="nothing behind a name",
        ),
        pytest.param(
            KEY + "refresh: {interval: [5m], timeout: {s: 10}, max_backoff: 2026-01-01}",
            f"refresh.interval: is a list; allowed: {DURATION}\n"
            f"refresh.timeout: is a mapping; allowed: {DURATION}\n"
            f"refresh.max_backoff: is a date to YAML; allowed: {DURATION}",
            id="list, mapping and date for a duration",
        ),
        pytest.param(
            KEY + "refresh: {interval: 0x" + "f" * 5000 + "}",
            f"refresh.interval: is a number; allowed: {DURATION}",
            id="a number that Python refuses to print",
        ),
        pytest.param(
            KEY + "refresh: {jitter: 51%}",
            'refresh.jitter: "51%" is too much; allowed: "0%" to "50%"; '
            'write it in quotes with a percent sign, such as "10%"',
            id="too much jitter",
        ),
        pytest.param(
            KEY + "refresh: {jitter: 0.1}",
            'refresh.jitter: 0.1 is a bare number; allowed: "0%" to "50%"; '
            'write it in quotes with a percent sign, such as "10%"',
            id="jitter as a fraction",
        ),
        pytest.param(
            KEY + "refresh: {interval: 5s, timeout: 6s}",
            'refresh.timeout: "6s" is longer than refresh.interval, "5s"; allowed: at most the interval; '
            "shorten it, or lengthen the interval",
            id="timeout beyond the interval",
        ),
        pytest.param(
            KEY + "outage: {max_stale: 5m}",
            'outage.max_stale: "5m" is over before a healthy key is refreshed again; allowed: "never", or at '
            'least "5m40s", refresh.interval with its jitter and timeout; lengthen it, or shorten '
            "refresh.interval",
            id="stale between two refreshes",
        ),
        pytest.param(
            KEY + "outage: {on_denied: off}",
            "outage.on_denied: is true or false to YAML; allowed: keep, withdraw; choose one",
            id="YAML's off for a word",
        ),
        pytest.param(
            KEY + "rotation: {keep_versions: 0}",
            "rotation.keep_versions: 0 is not a whole number in the range; allowed: a whole number from 1 "
            "to 65536, "
            'or "all"; write it with digits only, such as 32',
            id="no version kept",
        ),
        pytest.param(
            KEY + "rotation: {activation_delay: 15m}",
            'rotation.activation_delay: "15m" is shorter than the bound, 15m51s: a version could be used '
            "before "
            "every replica has it (2 x refresh.interval 5m x (1 + refresh.jitter 10%) + 2 x "
            "refresh.timeout 10s + "
            "refresh.max_backoff 1m + the adapter's look every 1s + rotation.clock_skew 30s + 3m since the "
            "file of "
            'keys.master is mounted); allowed: at least "15m51s", or "0s" to replace at once; '
            "lengthen it for the whole fleet, or shorten refresh.interval",
            id="bound beyond the activation delay",
        ),
        pytest.param(
            "rotation: {activation_delay: 12m50s}\nkeys: {master: {provider: env}}",
            'rotation.activation_delay: "12m50s" is shorter than the bound, 12m51s: a version could be '
            "used before "
            "every replica has it (2 x refresh.interval 5m x (1 + refresh.jitter 10%) + 2 x "
            "refresh.timeout 10s + "
            "refresh.max_backoff 1m + the adapter's look every 1s + rotation.clock_skew 30s); allowed: at "
            "least "
            '"12m51s", or "0s" to replace at once; lengthen it for the whole fleet, or shorten '
            "refresh.interval",
            id="bound of a source that is not mounted",
        ),
        pytest.param(
            KEY + "volume: {mode: 0440}",
            f"volume.mode: 288 is a bare number; allowed: {MODE}",
            id="mode without quotes",
        ),
        pytest.param(
            KEY + 'volume: {mode: "0666"}',
            f'volume.mode: "0666" lets others than the agent write; allowed: {MODE}',
            id="world-writable",
        ),
        pytest.param(
            KEY + 'volume: {mode: "0000"}',
            f'volume.mode: "0000" does not let the agent itself read; allowed: {MODE}',
            id="nobody reads",
        ),
        pytest.param(
            KEY + "volume: {path: run, require_tmpfs: 1}",
            'volume.path: "run" is not an absolute path; allowed: an absolute path; '
            "start it with /, whatever the working directory is\n"
            "volume.require_tmpfs: 1 is a bare number; allowed: true or false; choose one",
            id="relative path and number for a flag",
        ),
        pytest.param(
            KEY + "volume: {path: /etc}",
            "keys.master.path: lies on the volume that the agent itself writes, volume.path; "
            "allowed: a file anywhere else; move the source, or volume.path",
            id="the source lies on the volume",
        ),
        pytest.param(
            KEY + "http: {listen: 8181}",
            f"http.listen: 8181 is a bare number; allowed: {LISTEN}",
            id="port alone",
        ),
        pytest.param(
            KEY + 'http: {listen: ":65536"}',
            f'http.listen: ":65536" is not an address to listen on; allowed: {LISTEN}',
            id="port out of range",
        ),
        pytest.param(
            "keys: {keyring.json: {provider: env}, a/b: {}, .x: {}}",
            "\n".join(
                f'keys: "{name}" cannot name a key; allowed: 1 to 63 letters, digits and . _ -, a letter, '
                "digit "
                "or _ first; not keyring.json; rename it"
                for name in ("keyring.json", "a/b", ".x")
            ),
            id="key names",
        ),
        pytest.param(
            "keys: {master: {length: 32}}",
            f"keys.master.provider: is missing; allowed: {PROVIDERS}; choose one",
            id="no provider",
        ),
        pytest.param(
            "keys: {master: }",
            f"keys.master.provider: is missing; allowed: {PROVIDERS}; choose one",
            id="nothing below a key",
        ),
        pytest.param(
            "keys: {master: {provider: azure, encoding: b64}}",
            f'keys.master.provider: "azure" is not a choice; allowed: {PROVIDERS}; choose one\n'
            'keys.master.encoding: "b64" is not a choice; allowed: text, base64, base64url, hex, binary; '
            "did you mean base64?",
            id="a provider that there is not, and an encoding",
        ),
        pytest.param(
            "keys: {master: {provider: file, path: /a, address: 'https://v'}}",
            "keys.master.address: is a setting of provider vault, vault-transit, not of file; allowed: "
            "provider, encoding, length, path, format, field, mounted; remove it, or choose another provider",
            id="another provider's setting",
        ),
        pytest.param(
            f"keys: {{master: {{provider: gcp-kms, keyring: /r, key_name: {KMS_KEY}/cryptoKeyVersions/1}}}}",
            f'keys.master.key_name: "{KMS_KEY}/cryptoKeyVersions/1" is not the resource name of a key; '
            "allowed: projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version; "
            "copy it from `gcloud kms keys list --location L --keyring R`",
            id="a version of a Cloud KMS key",
        ),
        pytest.param(
            f"keys: {{master: {{provider: gcp-kms, keyring: /ring, key_name: {KMS_KEY}, endpoint: 'http://kms'}}}}",
            "keys.master.endpoint: is not encrypted, and the key would cross it; allowed: https; use https",
            id="Cloud KMS in the clear",
        ),
        pytest.param(
            "keys: {master: {provider: vault-transit, keyring: /r, address: 'https://v', auth: {token: t}, "
            "key_name: transit/master}}",
            "keys.master.key_name: is a path; allowed: a transit key's name; write the key's name alone, and "
            "the engine's place as mount",
            id="a transit key with its mount",
        ),
        pytest.param(
            "keys: {master: {provider: env, path: /a}}",
            "keys.master.path: is a setting of provider file, vault, not of env; allowed: provider, "
            "encoding, "
            "length, variable; remove it, or choose another provider",
            id="two other providers' setting",
        ),
        pytest.param(
            "keys: {master: {provider: file}, other: {provider: vault}}",
            "keys.master.path: is missing; allowed: an absolute path; "
            "start it with /, and name the file that holds the key, not the key itself\n"
            f"keys.other.address: is missing; allowed: {ADDRESS}\n"
            "keys.other.auth.token: is missing; allowed: token or token_file, or VAULT_TOKEN in the "
            "environment; "
            "method token needs it\n"
            "keys.other.path: is missing; allowed: parts between single slashes, without . .. ? # or blanks; "
            "write it as the store's own tool takes it, mount included, such as secret/app/master-key",
            id="what a provider needs",
        ),
        pytest.param(
            "keys: {master: {provider: file, path: /a, format: json}, other: {provider: file, path: /a, "
            "field: k}}",
            "keys.master.field: is missing; allowed: the name of a field; format json needs it\n"
            "keys.other.field: means nothing with format raw; allowed: only format json; "
            "remove it, or set format to json",
            id="field and format",
        ),
        pytest.param(
            "keys: {master: {provider: file, path: /a, length: -1}}",
            "keys.master.length: -1 is not a whole number in the range; allowed: a whole number from 1 to "
            "65536; "
            "write it with digits only, such as 32",
            id="negative length",
        ),
        pytest.param(
            "keys: {master: {provider: env, variable: not-a-name}}",
            "keys.master.variable: the value (not shown) is not the name of an environment variable; "
            "allowed: letters, digits and _, not a digit first; "
            "name the variable that holds the key, not the key itself",
            id="a variable that may be the key itself",
        ),
        pytest.param(
            "keys: {master: {provider: vault, address: 'https://me:pw@v', path: a/b, auth: {token: x}}}",
            f"keys.master.address: the value (not shown) is not a server's address; allowed: {ADDRESS}",
            id="a password in the address",
        ),
        pytest.param(
            "keys: {master: {provider: vault, address: 'https://v', path: key, auth: {token: x}}}",
            "keys.master.path: names no secret below a mount; allowed: a mount and a path; "
            "write the mount before it, such as secret/app/master-key",
            id="no mount in the path",
        ),
        pytest.param(
            "keys: {master: {provider: vault, address: 'https://v', path: app/key, mount: team/kv, "
            "auth: {token: x}}}",
            "keys.master.path: names no secret below mount; allowed: the mount and a path; "
            "write the mount before it, such as team/kv/app/master-key",
            id="another mount than the path's",
        ),
        pytest.param(
            "keys: {master: {provider: vault, address: 'https://v', path: team/kv, mount: team/kv, "
            "auth: {token: x}}}",
            "keys.master.path: names no secret below mount; allowed: the mount and a path; "
            "write the mount before it, such as team/kv/app/master-key",
            id="nothing below the mount",
        ),
        pytest.param(
            vault("token: x", ", field: 7, kv_version: 3"),
            f"keys.master.field: 7 is a bare number; allowed: {TEXT}\n"
            "keys.master.kv_version: 3 is not a choice; allowed: 1, 2; choose one",
            id="number for text, and an unknown KV version",
        ),
        pytest.param(
            vault("token: x, token_file: /t"),
            "keys.master.auth.token_file: is given besides token; allowed: either token or token_file; "
            "remove one of them",
            id="two tokens",
        ),
        pytest.param(
            vault("token: 12345"),
            f"keys.master.auth.token: is a number; allowed: {SECRET}",
            id="a token that YAML reads as a number",
        ),
        pytest.param(
            vault("token: 'a '"),
            "keys.master.auth.token: the value (not shown) has blanks around it or control characters in it; "
            f"allowed: {SECRET}",
            id="a token with a blank",
        ),
        pytest.param(
            vault("token: x, role: r, mount: m"),
            "keys.master.auth.mount: means nothing to method token; allowed: method, token, token_file; "
            f"{ANOTHER_METHOD}\n"
            "keys.master.auth.role: means nothing to method token; allowed: method, token, token_file; "
            f"{ANOTHER_METHOD}",
            id="another method's settings",
        ),
        pytest.param(
            vault("method: kubernetes, token: x"),
            "keys.master.auth.role: is missing; allowed: role; method kubernetes needs it\n"
            "keys.master.auth.token: means nothing to method kubernetes; allowed: method, mount, role, "
            "jwt_file; "
            f"{ANOTHER_METHOD}",
            id="kubernetes without a role",
        ),
        pytest.param(
            vault("method: jwt"),
            "keys.master.auth.role: is missing; allowed: role; method jwt needs it\n"
            "keys.master.auth.jwt_file: is missing; allowed: jwt_file; method jwt needs it",
            id="jwt without anything",
        ),
        pytest.param(
            vault("method: approle, secret_id: s, secret_id_file: /s"),
            "keys.master.auth.role_id: is missing; allowed: role_id or role_id_file; method approle needs "
            "it\n"
            "keys.master.auth.secret_id_file: is given besides secret_id; allowed: either secret_id or "
            "secret_id_file; remove one of them",
            id="approle without a role id and with two secret ids",
        ),
        pytest.param(
            vault("method: kubernetes, role: r, secret_id_wrapped: true"),
            "keys.master.auth.secret_id_wrapped: means nothing to method kubernetes; allowed: method, "
            "mount, role, "
            f"jwt_file; {ANOTHER_METHOD}",
            id="wrapping without a secret id",
        ),
        pytest.param(
            vault("method: kuberntes"),
            'keys.master.auth.method: "kuberntes" is not a choice; allowed: token, approle, kubernetes, jwt; '
            "did you mean kubernetes?",
            id="a misspelt method",
        ),
        pytest.param(
            "log: {level: Warn}\nkeys: {master: {provider: vualt}}",
            'log.level: "Warn" is not a choice; allowed: debug, info, warning, error; did you mean warning?\n'
            'keys.master.provider: "vualt" is not a choice; allowed: '
            f"{PROVIDERS}; did you mean vault?",
            id="a misspelt provider, and a word in capitals",
        ),
        pytest.param(
            vault("method: ldap"),
            'keys.master.auth.method: "ldap" is not a choice; allowed: token, approle, kubernetes, jwt; '
            "choose one",
            id="unknown method",
        ),
        pytest.param(
            vault("token: '${TOKN}'"),
            "keys.master.auth.token: names ${TOKN}, which is not set; allowed: text without blanks around "
            "it; "
            "set it in the agent's environment",
            id="an undefined variable",
        ),
        pytest.param(
            vault("token: 'a${b c}'"),
            "keys.master.auth.token: has a ${ that starts no reference; allowed: text without blanks "
            "around it; "
            "write $${ where ${ itself is meant",
            id="something like a reference",
        ),
        pytest.param(
            vault("token: 'a${b'"),
            "keys.master.auth.token: has a ${ that starts no reference; allowed: text without blanks "
            "around it; "
            "write $${ where ${ itself is meant",
            id="an open reference",
        ),
        pytest.param(
            vault("token: '${file:/no/such/file}'"),
            'keys.master.auth.token: names the file "/no/such/file", which cannot be read: '
            "No such file or directory; allowed: text without blanks around it; "
            "let the agent read it, or correct the path",
            id="an unreadable file",
        ),
        pytest.param(
            vault("token: '${file:token}'"),
            "keys.master.auth.token: names a file by a relative path; allowed: text without blanks around "
            "it; "
            "start the path with /",
            id="a relative file",
        ),
        pytest.param(
            KEY + "log: {level: info, level: debug}\nlog: {}\n",
            "log.level: stands on line 2 and again on line 2; allowed: each name once; remove one of them\n"
            "log: stands on line 2 and again on line 3; allowed: each name once; remove one of them",
            id="names that stand twice",
        ),
    ],
)
def test_problem(problems: Problems, text: str, expected: str) -> None:
    assert problems(text) == expected.split("\n")


def test_everything_is_told_at_once(problems: Problems) -> None:
    """Nobody corrects one mistake a restart; also what depends on two settings is told with the rest."""
    text = (
        "refresh: {interval: 5s, timeout: 10s}\noutage: {on_expired: drop}\nfoo: 1\n"
        "keys: {master: {provider: env, provider: env}, other: {provider: file, path: x}}\n"
    )
    assert [problem.partition(":")[0] for problem in problems(text)] == [
        "keys.master.provider",
        "foo",
        "outage.on_expired",
        "keys.other.path",
        "refresh.timeout",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a: b: c", " line 1", id="two colons"),
        pytest.param("a: [1", " line 2", id="an open list"),
        pytest.param("log: {}\n\tkeys: {}", " line 2", id="a tab"),
        pytest.param("a: 1\n---\nb: 2\n", " line 2", id="two documents"),
        pytest.param("keys:\n  master:\n    token: *hvs.secret", " line 3", id="a password like an alias"),
        pytest.param("keys: !hvs.secret {}", " line 1", id="a password like a tag"),
        pytest.param("? [a]\n: 1", " line 1", id="a list for a name"),
        pytest.param("[" * 33 + "]" * 33, " line 1", id="too deep"),
        pytest.param("[" * 100_000, " line 1", id="so deep that it would end the process"),
        pytest.param("a: !!int ''", "", id="an empty number"),
        pytest.param("a: !!bool maybe", "", id="neither true nor false"),
        pytest.param("a: !!timestamp now", "", id="no time"),
        pytest.param("a: 2026-13-45", "", id="no date"),
        pytest.param("a: " + "9" * 5000, "", id="more digits than Python reads"),
        pytest.param("a: \x01", "", id="a control character"),
    ],
)
def test_what_is_not_yaml(problems: Problems, tmp_path: Path, text: str, line: str) -> None:
    """The library's own words would quote the file, so only the line is told."""
    assert problems(text) == [
        (
            f"{tmp_path / 'agent.yaml'}{line}: is not valid YAML; allowed: one YAML document; "
            "check the indentation, and put texts with special characters in quotes"
        )
    ]


def test_merges_that_end_nowhere(problems: Problems) -> None:
    """A chain of merges is a recursion to the YAML library, and no reason to die."""
    links = "".join(f"x{n}: &x{n} {{<<: *x{n - 1}}}\n" for n in range(1, 3000))
    assert len(problems("x0: &x0 {}\n" + links + "keys: {}")) >= 1


def test_an_alias_into_itself(problems: Problems) -> None:
    """Only what a setting asks for is visited, so a loop is just a mapping where text should be."""
    assert problems("keys: {master: &m {provider: *m}}") == [
        f"keys.master.provider: is a mapping; allowed: {PROVIDERS}; choose one"
    ]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: None, "No such file or directory", id="missing"),
        pytest.param(lambda path: path.mkdir(), "Is a directory", id="directory"),
        pytest.param(
            lambda path: path.write_bytes(b" " * (1 << 20) + b"#"), "larger than 1048576 bytes", id="large"
        ),
    ],
)
def test_an_unreadable_file(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "agent.yaml"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError) as caught:
        loading.load(path, {})
    assert caught.value.problems == (
        (
            f"{path}: cannot be read: {reason}; allowed: a YAML file; let the agent read it, or name another "
            "one by "
            "--config or KEYFERRY_CONFIG"
        ),
    )


def test_a_filled_in_file_that_is_not_text(problems: Problems, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    assert problems(vault(f"token: '${{file:{path}}}'")) == [
        (
            f'keys.master.auth.token: names the file "{path}", which is not UTF-8 text; '
            "allowed: text without blanks around it; correct the path"
        )
    ]


def test_a_long_value_is_cut(problems: Problems) -> None:
    """A certificate in the wrong place must not fill the log, nor a control sequence steer a terminal."""
    [problem] = problems(KEY + 'refresh: {interval: "\\e[31m' + "x" * 1000 + '"}')
    assert problem.startswith('refresh.interval: "\\u001b[31m' + "x" * 109 + "... is not a duration; ")
