# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyferry.document import DocumentError, Fields, parse_object
from keyferry.errors import KeyferryError
from tests.adapter.strategies import json_trees

Read = Callable[[Fields], object]


@pytest.mark.parametrize(
    ("document", "read", "expected"),
    [
        pytest.param({"x": "text"}, lambda f: f.text("x"), "text", id="text"),
        pytest.param({"x": 3}, lambda f: f.integer("x"), 3, id="integer"),
        pytest.param({"x": 3}, lambda f: f.number("x"), 3.0, id="a whole number is a number"),
        pytest.param({"x": 3.5}, lambda f: f.number("x"), 3.5, id="number"),
        pytest.param({"x": False}, lambda f: f.flag("x"), False, id="flag"),
        pytest.param({"x": "1970-01-01T00:00:01.500Z"}, lambda f: f.time("x"), 1.5, id="time"),
        pytest.param({"x": "b"}, lambda f: f.choice("x", ("a", "b")), "b", id="choice"),
        pytest.param({"x": "a"}, lambda f: f.optional("x", f.text), "a", id="optional, there"),
        pytest.param({"x": None}, lambda f: f.optional("x", f.text), None, id="optional, null"),
        pytest.param({}, lambda f: f.optional("x", f.text), None, id="optional, absent"),
        pytest.param({"x": ["a", "b"]}, lambda f: list(f.texts("x")), ["a", "b"], id="texts"),
        pytest.param({"x": {"y": 1}}, lambda f: f.object("x").integer("y"), 1, id="object"),
        pytest.param(
            {"x": [{"y": 1}]}, lambda f: [o.integer("y") for o in f.objects("x")], [1], id="objects"
        ),
    ],
)
def test_read(document: object, read: Read, expected: object) -> None:
    assert read(Fields(document, "file.json")) == expected


@pytest.mark.parametrize(
    ("document", "read", "problem"),
    [
        pytest.param([], lambda f: f, "file.json is not a JSON object", id="no object"),
        pytest.param({}, lambda f: f.text("x"), "file.json: x is missing", id="missing"),
        pytest.param({"x": None}, lambda f: f.text("x"), "file.json: x is missing", id="null"),
        pytest.param({"x": 1}, lambda f: f.text("x"), "file.json: x is not a string", id="no string"),
        pytest.param(
            {"x": "1"}, lambda f: f.integer("x"), "file.json: x is not a whole number", id="no integer"
        ),
        pytest.param({"x": 1.0}, lambda f: f.integer("x"), "file.json: x is not a whole number", id="float"),
        pytest.param({"x": True}, lambda f: f.integer("x"), "file.json: x is not a whole number", id="true"),
        pytest.param({"x": True}, lambda f: f.number("x"), "file.json: x is not a number", id="true, again"),
        pytest.param(
            {"x": 10**400}, lambda f: f.number("x"), "file.json: x is too large a number", id="huge"
        ),
        pytest.param(
            {"x": 1e999}, lambda f: f.number("x"), "file.json: x is too large a number", id="infinite"
        ),
        pytest.param({"x": 1}, lambda f: f.flag("x"), "file.json: x is not true or false", id="no flag"),
        pytest.param({}, lambda f: f.flag("x"), "file.json: x is not true or false", id="no flag at all"),
        pytest.param(
            {"x": "yesterday"},
            lambda f: f.time("x"),
            "file.json: x is not an RFC 3339 time such as 2026-01-31T08:15:00.000Z",
            id="no time",
        ),
        pytest.param({"x": 5}, lambda f: f.time("x"), "file.json: x is not a string", id="a number as time"),
        pytest.param(
            {"x": "c"}, lambda f: f.choice("x", ("a", "b")), "file.json: x is not one of a, b", id="no choice"
        ),
        pytest.param({"x": "a"}, lambda f: list(f.texts("x")), "file.json: x is not a list", id="no list"),
        pytest.param(
            {"x": ["a", 1]}, lambda f: list(f.texts("x")), "file.json: x[1] is not a string", id="mixed list"
        ),
        pytest.param({}, lambda f: f.object("x"), "file.json: x is not a JSON object", id="object missing"),
        pytest.param({"x": 1}, lambda f: list(f.objects("x")), "file.json: x is not a list", id="no objects"),
        pytest.param(
            {"x": [{}]},
            lambda f: [o.text("y") for o in f.objects("x")],
            "file.json: x[0].y is missing",
            id="place in a list",
        ),
        pytest.param(
            {"x": {"y": {}}},
            lambda f: f.object("x").object("y").text("z"),
            "file.json: x.y.z is missing",
            id="place in objects",
        ),
        pytest.param(
            {"x": "\ud800"},
            lambda f: f.text("x"),
            "file.json: x is not Unicode text: it has half of a surrogate pair",
            id="half a surrogate pair",
        ),
        pytest.param(
            {"x": ["\udfff"]},
            lambda f: list(f.texts("x")),
            "file.json: x[0] is not Unicode text: it has half of a surrogate pair",
            id="half a surrogate pair in a list",
        ),
    ],
)
def test_refuse(document: object, read: Read, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(Fields(document, "file.json"))
    assert str(caught.value) == problem
    assert isinstance(caught.value, KeyferryError)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"x": 1', id="cut off"),
        pytest.param(b'{"x": 1} {}', id="two documents"),
        pytest.param(b'{"x": 1, "x": 2}', id="a name twice"),
        pytest.param(b'{"x": NaN}', id="NaN"),
        pytest.param(b'{"x": -Infinity}', id="infinity"),
        pytest.param(b'\xef\xbb\xbf{"x": 1}', id="byte order mark"),
        pytest.param('{"x": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"x": "\xff"}', id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b'{"x": ' + b"1" * 5000 + b"}", id="a number of 5000 digits"),
    ],
)
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_object(data, "file.json")
    assert str(caught.value) == "file.json is not JSON"
    # A JSONDecodeError would carry the whole document along.
    assert caught.value.__context__ is None


def test_null_is_json_but_no_object() -> None:
    with pytest.raises(DocumentError, match=r"^file\.json is not a JSON object$"):
        parse_object(b"null", "file.json")


@given(st.binary() | json_trees.map(lambda tree: json.dumps(tree).encode()))
def test_parse_object_raises_nothing_else(data: bytes) -> None:
    try:
        parse_object(data, "file.json")
    except DocumentError:
        return
