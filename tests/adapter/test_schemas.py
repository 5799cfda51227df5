# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas say what the code does: what is written conforms, what breaks one breaks both."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from keyferry.document import DocumentError
from keyferry.layout import Generation, parse, serialize, states
from keyferry.material import decode, fingerprint
from keyferry.status import Status, parse_status, serialize_status
from tests.adapter.strategies import generations, statuses
from tests.adapter.volume import keyring, moment, status, version, withdrawn

DOCS = Path(__file__).parents[2] / "docs"


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((DOCS / "schemas" / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


KEYRING = validator("keyring.schema.json")
STATUS = validator("status.schema.json")


@given(generations)
def test_what_the_agent_publishes_conforms(generation: Generation) -> None:
    KEYRING.validate(json.loads(serialize(generation)))


@given(statuses)
def test_what_the_agent_reports_conforms(found: Status) -> None:
    STATUS.validate(json.loads(serialize_status(found)))


def document() -> dict[str, Any]:
    keys = {"master": keyring(version("1"), version("2", activates_at=None)), "gone": withdrawn()}
    return {"schema": "keyferry/v1", "generation": 7, "published_at": moment(1_700_000_000), "keys": keys}


def places(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path to everything inside ``tree``."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for name, value in items for found in [(*path, name), *places(value, (*path, name))]]


def removed(tree: Any, path: tuple[str | int, ...]) -> Any:
    copy = json.loads(json.dumps(tree))
    parent = copy
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    return copy


# What the schemas ask of writers though this reader can do without: it takes absent for null.
OPTIONAL = {"activates_at", "created_at", "length", "reason", "unstaged", "withdrawn"} | {
    "last_attempt_at",
    "last_success_at",
    "last_success_boottime",
    "next_refresh_at",
}


@pytest.mark.parametrize(
    ("schema", "tree", "read"),
    [
        pytest.param(KEYRING, document(), parse, id="keyring.json"),
        pytest.param(
            STATUS,
            status(fields={"skipped": [{"id": "3", "outcome": "missing", "reason": "deleted"}]}),
            parse_status,
            id="status.json",
        ),
    ],
)
def test_what_is_left_out_breaks_both(
    schema: Draft202012Validator, tree: dict[str, Any], read: Callable[[bytes], object]
) -> None:
    """Take away each field in turn: the schema and the reader agree about whether that is broken."""
    schema.validate(tree)
    read(json.dumps(tree).encode())
    for path in places(tree):
        broken = removed(tree, path)
        refused = False
        try:
            read(json.dumps(broken).encode())
        except DocumentError:
            refused = True
        conforms = schema.is_valid(broken)
        assert not (refused and conforms), f"the schema lets {path} be left out, the reader does not"
        assert conforms or refused or path[-1] in OPTIONAL, f"the reader lets {path} be left out"


def test_the_example_of_the_contract_conforms() -> None:
    """The prose is held to the schema too, and the reader reads it as the prose says."""
    text = (DOCS / "volume-contract.md").read_text()
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 1
    KEYRING.validate(json.loads(examples[0]))
    found = parse(examples[0].encode())
    assert list(found.keys) == ["master", "legacy"]
    assert found.keys["legacy"].withdrawn == "denied by the key store"
    for entry in found.keys["master"].versions:
        assert fingerprint(entry.material, len(decode(entry.material, "base64url", 32))) == entry.fingerprint
    assert states(found.keys["master"].versions, found.published_at) == ("active", "pre-active")
