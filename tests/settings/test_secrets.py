# SPDX-License-Identifier: Apache-2.0
"""No configuration, however broken, makes a message that holds a secret, and none ends in another error."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import loading
from agent.errors import ConfigError

# A secret of the kind that could be in each of these places, with the ways in which people miss the place.
PLACES = [
    pytest.param("token: '{}'", id="token"),
    pytest.param("method: approle, role_id: r, secret_id: '{}'", id="secret id"),
    pytest.param("token: '{} '", id="a blank behind it"),
    pytest.param('token: "{}\\n"', id="a newline behind it"),
    pytest.param("token: ['{}']", id="in a list"),
    pytest.param("token: {{value: '{}'}}", id="in a mapping"),
    pytest.param("token: {{'{}': }}", id="as a name"),
    pytest.param("'{}': ", id="as a name, in place of a setting's"),
    pytest.param("'{}': x, '{}': y", id="as a name, twice"),
    pytest.param("tokn: '{}'", id="misspelt name"),
    pytest.param("token: '{}', token: '{}'", id="twice"),
    pytest.param("token: '{}', role: r", id="beside another method's setting"),
    pytest.param("method: kubernetes, role: r, token: '{}'", id="for another method"),
    pytest.param("token: '${{{}'", id="like an open reference"),
    pytest.param("token: '${{-{}}}'", id="like a reference"),
    pytest.param("token: *{}", id="like an alias"),
    pytest.param("token: &{} ", id="like an anchor"),
    pytest.param("token: !{} x", id="like a tag"),
    pytest.param("token: !!int '{}'", id="behind a tag that it does not fit"),
    pytest.param('token: "\\q{}"', id="behind an escape that is none"),
    pytest.param("token: {}: x", id="before a colon"),
    pytest.param("token: '{}", id="with an open quote"),
    pytest.param("token: '${{SECRET}}', token_file: x", id="from the environment, beside a mistake"),
    pytest.param("method: '${{SECRET}}'", id="filled in as the method"),
    pytest.param("token_file: '${{SECRET}}'", id="filled in for its file"),
    pytest.param("token_file: '${{file:FILE}}'", id="filled in from its file for its file"),
]


def messages(text: str, environ: Mapping[str, str], path: Path) -> str:
    """Return all that a person or a log could see of a failure, the traceback's chain included."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loading.load(path, environ)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return f"{error!r} {error} {error.problems}"


@pytest.mark.parametrize("auth", PLACES)
@pytest.mark.parametrize("more", ["path: a/b", "address: 'https://me:SECRET@v', path: a/b", "field: 1"])
def test_no_secret_is_told(tmp_path: Path, auth: str, more: str) -> None:
    secret = secrets.token_urlsafe(32)
    (tmp_path / "secret").write_text(secret)
    auth = auth.format(secret, secret).replace("FILE", str(tmp_path / "secret"))
    more = more.replace("SECRET", secret)
    text = f"keys:\n  master: {{provider: vault, {more}, auth: {{{auth}}}}}\n"
    assert secret not in messages(text, {"SECRET": secret}, tmp_path / "agent.yaml")


@pytest.mark.parametrize("flaw", ["interval: 5", "timout: 1s", "interval: 5s"])
def test_no_secret_is_told_when_something_else_is_wrong(tmp_path: Path, flaw: str) -> None:
    secret = secrets.token_urlsafe(32)
    text = (
        f"refresh: {{{flaw}}}\nkeys:\n  a: {{provider: vault, address: 'https://v', path: a/b, "
        f"auth: {{token: '{secret}'}}}}\n  b: {{provider: env, variable: '{secret}='}}\n"
    )
    assert secret not in messages(text, {}, tmp_path / "agent.yaml")


@pytest.mark.parametrize("start", ["", "./", "key="], ids=["alone", "like a path", "like a line of a file"])
def test_a_key_in_place_of_its_files_path_is_not_told(tmp_path: Path, start: str) -> None:
    """Who moves a key from a variable to a file may leave it standing."""
    secret = secrets.token_urlsafe(32)
    remedy = (
        "allowed: an absolute path; start it with /, and name the file that holds the key, not the key itself"
    )
    written = f"keys: {{master: {{provider: file, path: '{start}{secret}'}}}}\n"
    told = messages(written, {}, tmp_path / "agent.yaml")
    assert secret not in told
    assert f"keys.master.path: the value (not shown) is not an absolute path; {remedy}" in told
    with pytest.raises(ConfigError) as caught:
        loading.load(None, {"KMS_PROVIDER": "file", "KEYFERRY_FILE": f"{start}{secret}"})
    assert str(caught.value) == f"KEYFERRY_FILE: the value (not shown) is not an absolute path; {remedy}"


SETTING_PLACES = [
    *("volume.path", "volume.mode", "volume.group", "volume.require_tmpfs"),
    *("refresh.interval", "refresh.jitter", "rotation.keep_versions", "outage.max_stale", "outage.on_denied"),
    *("startup.timeout", "http.listen", "log.level"),
    *("keys.master.provider", "keys.master.path", "keys.master.format", "keys.master.mounted"),
    *("keys.master.encoding", "keys.master.length"),
]


@pytest.mark.parametrize("place", SETTING_PLACES)
def test_what_was_filled_in_is_never_told(tmp_path: Path, place: str) -> None:
    """Whatever stands in a variable may be a secret, even where a setting is none."""
    secret = "!" + secrets.token_urlsafe(32)
    tree: dict[str, Any] = {"bad": 1, "keys": {"master": {"provider": "file", "path": "/a"}}}
    *sections, name = place.split(".")
    inner = tree
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = "${SECRET}"
    told = messages(yaml.safe_dump(tree), {"SECRET": secret}, tmp_path / "agent.yaml")
    assert secret not in told
    assert f"{place}: the value (not shown) " in told


NAMES = st.sampled_from(
    [
        *("volume", "refresh", "rotation", "outage", "startup", "http", "log", "keys", "master", "provider"),
        *("path", "mode", "group", "interval", "jitter", "timeout", "listen", "format", "address", "field"),
        *("auth", "method", "token", "token_file", "role", "variable", "encoding", "length"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(),
    st.binary(max_size=4),
    st.sampled_from(
        ["env", "file", "vault", "5m", "10%", "0440", "off", "never", "/a", "a/b", "token", "${A}", "${"]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, SCALARS), inner, max_size=5)
    ),
)
SECTIONS = st.dictionaries(NAMES, st.one_of(TREES, st.dictionaries(NAMES, TREES)))
KEYS = st.fixed_dictionaries({"keys": st.dictionaries(st.one_of(NAMES, st.text()), SECTIONS, max_size=3)})


@given(st.one_of(TREES, SECTIONS, KEYS, st.builds(lambda a, b: {**a, **b}, SECTIONS, KEYS)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_any_tree_loads_or_is_a_config_error(tmp_path: Path, tree: object) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    problems: tuple[str, ...] = ()
    try:
        assert loading.load(path, {"A": "a"}).settings.keys
    except ConfigError as error:
        problems = error.problems
    assert all("; allowed: " in problem for problem in problems)


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(text.encode("latin-1", errors="replace"))
    with pytest.raises(ConfigError):
        loading.load(path, {})
