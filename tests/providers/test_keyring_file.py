# SPDX-License-Identifier: Apache-2.0
"""The keyring file: what is taken, what is one version's problem, and what refuses the file."""

import base64
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import MalformedError
from agent.keyring_file import parse_keyring
from keyferry.material import Material
from tests.providers.drivers import new_value

PLACE = "file /etc/keys/master.json"
SECRET = new_value()


def entry(number: int, **fields: object) -> dict[str, object]:
    return {"id": str(number), "created_at": f"2026-0{number}-01T00:00:00Z", "material": SECRET, **fields}


def keyring(*versions: object, **fields: object) -> dict[str, object]:
    return {"schema": "keyferry-keyring/v1", "key": "master", "versions": list(versions), **fields}


def parse(document: object) -> Any:
    return parse_keyring(json.dumps(document).encode(), "master", PLACE)


def test_versions() -> None:
    raw = os.urandom(32)
    stated = entry(2, activates_at="2026-02-02T00:00:00+01:00", comment="unknown fields are fine")
    binary = entry(3, material=None, binary=base64.b64encode(raw).decode())
    first, second, third = parse(keyring(entry(1), stated, binary))
    assert (first.id, first.created_at, first.activates_at) == ("1", 1767225600.0, None)
    assert second.activates_at == 1769986800.0
    assert [first.material, third.material] == [Material(SECRET.encode()), Material(raw, binary=True)]
    assert not any(version.first for version in (first, second, third))


def test_one_version_is_the_first() -> None:
    assert parse(keyring(entry(7)))[0].first


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"material": None}, "versions[1].material or binary must be there, and only one of them"),
        ({"binary": ""}, "versions[1].material or binary must be there, and only one of them"),
        ({"material": 7}, "versions[1].material is not a string"),
        ({"material": None, "binary": "A"}, "versions[1].binary is not base64"),
        ({"material": None, "binary": "A\n=="}, "versions[1].binary is not base64"),
        (
            {"material": "\ud800"},
            "versions[1].material is not Unicode text: it has half of a surrogate pair",
        ),
    ],
)
def test_one_versions_problem(broken: dict[str, object], message: str) -> None:
    first, second, third = parse(keyring(entry(1), entry(2, **broken), entry(3)))
    assert isinstance(first.material, Material)
    assert isinstance(third.material, Material)
    assert type(second.material) is MalformedError
    assert second.material.reason == f"{PLACE}: {message}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], " is not a JSON object"),
        (keyring(entry(1), schema="keyferry-keyring/v2"), ": schema is not one of keyferry-keyring/v1"),
        (keyring(entry(1), schema=None), ": schema is missing"),
        (keyring(entry(1), key="other"), ": key is not 'master': this file was made for another key"),
        (keyring(entry(1), key=None), ": key is missing"),
        (keyring(versions=None), ": versions is missing"),
        (keyring(versions={}), ": versions is not a list"),
        (keyring(), ": versions is empty; a keyring has at least one"),
        (keyring("x"), ": versions[0] is not a JSON object"),
        (keyring(entry(1), entry(1)), ": versions has two with the same id"),
        (keyring(entry(1, id=1)), ": versions[0].id is not a string"),
        (keyring(entry(1, id=None)), ": versions[0].id is missing"),
        (keyring(entry(1, created_at=None)), ": versions[0].created_at is missing"),
        (
            keyring(entry(1, activates_at="tomorrow")),
            ": versions[0].activates_at is not an RFC 3339 time such as 2026-01-31T08:15:00.000Z",
        ),
    ],
)
def test_refused(document: object, message: str) -> None:
    with pytest.raises(MalformedError) as error:
        parse(document)
    assert error.value.reason == PLACE + message


@given(st.integers(min_value=0))
def test_truncated(length: int) -> None:
    """A file that is cut anywhere is refused; it never passes for a shorter list."""
    data = json.dumps(keyring(entry(1), entry(2))).encode()
    with pytest.raises(MalformedError) as error:
        parse_keyring(data[: length % len(data)], "master", PLACE)
    assert error.value.reason == f"{PLACE} is not JSON"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["schema", "key", "versions"]), _json, st.sampled_from(list(entry(1))), _json)
def test_whatever_stands_there(field: str, value: object, inner: str, inner_value: object) -> None:
    """Nothing but MalformedError comes out, and no value with it."""
    for document in (keyring(entry(1), **{field: value}), keyring(entry(1, **{inner: inner_value}))):
        try:
            parse(document)
        except MalformedError as error:
            assert SECRET not in error.reason  # noqa: PT017 - most documents of these are refused, some are not
