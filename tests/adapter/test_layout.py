# SPDX-License-Identifier: Apache-2.0
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyferry.document import DocumentError
from keyferry.layout import (
    Generation,
    State,
    Version,
    active_index,
    is_key_name,
    next_activation,
    parse,
    serialize,
    states,
)
from keyferry.material import Material
from tests.adapter.strategies import generations, json_trees
from tests.adapter.volume import keyring, moment, version, withdrawn

NEVER = None
Break = Callable[[dict[str, Any]], object]


def ring(*activations: float | None) -> tuple[Version, ...]:
    return tuple(
        Version(str(index + 1), None, activates_at, "sha256:-", Material(b"x"))
        for index, activates_at in enumerate(activations)
    )


@pytest.mark.parametrize(
    ("activations", "active", "upcoming"),
    [
        pytest.param([0], 0, None, id="one"),
        pytest.param([0, 50], 1, None, id="the last whose time has come"),
        pytest.param([0, 100], 1, None, id="at the very moment"),
        pytest.param([0, 100.001], 0, 100.001, id="just before it"),
        pytest.param([0, 150, 120], 0, 120, id="the one after next activates first"),
        pytest.param([0, 150, 50], 2, None, id="order counts, not time"),
        pytest.param([150, 200], 0, 200, id="none yet: the first"),
        pytest.param([NEVER, 150], 1, None, id="none yet, and the first never: the next"),
        pytest.param([0, NEVER], 0, None, id="a deleted newest one is passed over"),
        pytest.param([0, NEVER, 200], 0, 200, id="a deleted one in between"),
        pytest.param([NEVER, 0, 50, NEVER, 150, NEVER], 2, 150, id="all together"),
    ],
)
def test_which_version_is_active(
    activations: list[float | None], active: int, upcoming: float | None
) -> None:
    versions = ring(*activations)
    assert active_index(versions, now=100) == active
    assert next_activation(versions, now=100) == upcoming


def test_states() -> None:
    """A deleted version is never called pre-active, wherever it stands."""
    expected: tuple[State, ...] = ("deactivated", "active", "deactivated", "pre-active")
    assert states(ring(0, 50, NEVER, 150), now=100) == expected


activation_lists = st.lists(st.none() | st.floats(0, 100), min_size=1, max_size=6).filter(
    lambda activations: any(activates_at is not None for activates_at in activations)
)


@given(activation_lists, st.floats(0, 100))
def test_exactly_one_is_active_and_it_may_be(activations: list[float | None], now: float) -> None:
    versions = ring(*activations)
    found = states(versions, now)
    assert found.count("active") == 1
    assert versions[found.index("active")].activates_at is not None
    assert found.index("active") == active_index(versions, now)


@given(activation_lists, st.floats(0, 100), st.floats(0, 100))
def test_time_never_makes_an_earlier_entry_active(
    activations: list[float | None], one: float, other: float
) -> None:
    """Once a version was active by its time, only a later entry replaces it."""
    versions = ring(*activations)
    earlier, later = sorted((one, other))
    assert active_index(versions, earlier) <= active_index(versions, later)


@given(activation_lists, st.floats(0, 100))
def test_nothing_changes_before_the_next_activation(activations: list[float | None], now: float) -> None:
    versions = ring(*activations)
    upcoming = next_activation(versions, now)
    if upcoming is None:
        assert active_index(versions, 1e9) == active_index(versions, now)
        return
    assert upcoming > now
    assert active_index(versions, math.nextafter(upcoming, now)) == active_index(versions, now)
    assert active_index(versions, upcoming) > active_index(versions, now)


@pytest.mark.parametrize("name", ["master", "a", "_x", "0", "db.key-2_b", "x" * 63])
def test_key_names(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".hidden", "..data", "-x", "a/b", "a b", "ä", "a\n", "keyring.json", "x" * 64, "../../etc/passwd"],
)
def test_what_is_no_key_name(name: str) -> None:
    assert not is_key_name(name)


@given(generations)
def test_round_trip(generation: Generation) -> None:
    assert parse(serialize(generation)) == generation


@given(generations)
def test_the_file_is_one_json_document_and_a_newline(generation: Generation) -> None:
    data = serialize(generation)
    assert data.endswith(b"}\n")
    assert json.loads(data)["schema"] == "keyferry/v1"


def document(**keys: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": "keyferry/v1",
        "generation": 7,
        "published_at": moment(1_700_000_000),
        "keys": keys or {"master": keyring(version("1"))},
    }


def test_unknown_fields_are_ignored() -> None:
    """A newer agent may add fields anywhere without a new major version."""
    plain = document(master=keyring(version("1")), gone=withdrawn())
    extended: dict[str, Any] = json.loads(json.dumps(plain))
    extended["new"] = extended["keys"]["master"]["new"] = extended["keys"]["gone"]["new"] = [1]
    extended["keys"]["master"]["versions"][0]["new"] = {"a": 1}
    assert parse(json.dumps(extended).encode()) == parse(json.dumps(plain).encode())


def test_a_withdrawn_key_has_no_versions_whatever_the_file_says() -> None:
    found = parse(json.dumps(document(master=keyring(version("1"), withdrawn="denied"))).encode())
    assert found.keys["master"].withdrawn == "denied"
    assert found.keys["master"].versions == ()


def test_binary_material() -> None:
    found = parse(json.dumps(document(master=keyring(version("1", material="AP8=", binary=True)))).encode())
    assert found.keys["master"].versions[0].material == Material(b"\0\xff", binary=True)


def first(broken: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = broken["keys"]["master"]["versions"][0]
    return found


MASTER = "keyring.json: keys.master"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(lambda d: d.pop("schema"), "keyring.json: schema is missing", id="no schema"),
        pytest.param(
            lambda d: d.update(schema="tuf/v1"),
            "keyring.json: schema is not keyferry/v1: this is not a keyferry volume",
            id="another schema",
        ),
        pytest.param(
            lambda d: d.update(schema="keyferry/v2"),
            "keyring.json: schema is keyferry/v2, newer than this reader (v1): upgrade keyferry here",
            id="a newer major version",
        ),
        pytest.param(
            lambda d: d.pop("generation"), "keyring.json: generation is missing", id="no generation"
        ),
        pytest.param(
            lambda d: d.update(published_at=5),
            "keyring.json: published_at is not a string",
            id="published_at",
        ),
        pytest.param(lambda d: d.pop("keys"), "keyring.json: keys is not a JSON object", id="no keys"),
        pytest.param(
            lambda d: d["keys"].update({"../x": {}}),
            "keyring.json: keys has a name that cannot be a key's",
            id="a name that escapes",
        ),
        pytest.param(
            lambda d: d["keys"].update(master=[]), f"{MASTER} is not a JSON object", id="key is no object"
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(encoding="utf-7"),
            f"{MASTER}.encoding is not one of text, base64, base64url, hex, binary",
            id="encoding",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(length="32"),
            f"{MASTER}.length is not a whole number",
            id="length",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(withdrawn=True),
            f"{MASTER}.withdrawn is not a string",
            id="withdrawn without a reason",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].pop("versions"), f"{MASTER}.versions is missing", id="no versions"
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(versions=[]),
            f"{MASTER}.versions has none that may ever be active",
            id="versions empty",
        ),
        pytest.param(
            lambda d: first(d).update(activates_at=None),
            f"{MASTER}.versions has none that may ever be active",
            id="all deleted",
        ),
        pytest.param(
            lambda d: d["keys"]["master"]["versions"].append(version("1")),
            f"{MASTER}.versions has two with the same id",
            id="an id twice",
        ),
        pytest.param(lambda d: first(d).pop("id"), f"{MASTER}.versions[0].id is missing", id="no id"),
        pytest.param(
            lambda d: first(d).pop("fingerprint"),
            f"{MASTER}.versions[0].fingerprint is missing",
            id="no fingerprint",
        ),
        pytest.param(
            lambda d: first(d).update(created_at="today"),
            f"{MASTER}.versions[0].created_at is not an RFC 3339 time such as 2026-01-31T08:15:00.000Z",
            id="created_at",
        ),
        pytest.param(
            lambda d: first(d).update(material=None),
            f"{MASTER}.versions[0].material is missing",
            id="no material",
        ),
        pytest.param(
            lambda d: first(d).update(material="\ud800"),
            f"{MASTER}.versions[0].material is not Unicode text: it has half of a surrogate pair",
            id="material is no text",
        ),
        pytest.param(
            lambda d: first(d).update(binary=True, material="*"),
            f"{MASTER}.versions[0].material is not base64, as binary: true says",
            id="binary that is not base64",
        ),
    ],
)
def test_a_broken_keyring_is_refused(change: Break, problem: str) -> None:
    broken = document()
    material = first(broken)["material"]
    change(broken)
    with pytest.raises(DocumentError) as caught:
        parse(json.dumps(broken).encode())
    assert str(caught.value) == problem
    assert material not in str(caught.value)


@given(st.binary() | json_trees.map(lambda tree: json.dumps(tree).encode()))
def test_parse_raises_nothing_but_document_error(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^keyring\.json"):
        parse(data)


@given(generations, st.data())
def test_a_damaged_file_is_read_or_refused(generation: Generation, data: st.DataObject) -> None:
    """One byte changed anywhere gives a generation or a DocumentError, nothing else."""
    damaged = bytearray(serialize(generation))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(damaged))
    except DocumentError as error:
        assert str(error).startswith("keyring.json")  # noqa: PT017 -- not every damage is an error
