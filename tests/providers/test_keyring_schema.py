# SPDX-License-Identifier: Apache-2.0
"""The keyring file's schema and its page say what the parser does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent.errors import MalformedError
from agent.keyring_file import parse_keyring, parse_wrapped_keyring
from agent.offer import Offered

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "schemas/keyring-file.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)

WRAPPED = {"id": "1", "created_at": "2026-01-31T08:15:00Z", "ciphertext": "AQICAHh"}
PLAIN = {"id": "1", "created_at": "2026-01-31T08:15:00Z", "material": "the text"}
BINARY = {"id": "2", "created_at": "2026-01-31T08:15:00+01:00", "material": None, "binary": "AAAA"}


def keyring(*versions: object, **fields: object) -> dict[str, object]:
    return {"schema": "keyferry-keyring/v1", "key": "master", "versions": list(versions), **fields}


def taken(document: object) -> bool:
    """Say whether one of the parsers takes every version of ``document``."""
    data = json.dumps(document).encode()
    try:
        if all(not isinstance(v.material, MalformedError) for v in parse_keyring(data, "master", "it")):
            return True
        wrapped = parse_wrapped_keyring(data, "master", "it")
    except MalformedError:
        return False
    return all(not isinstance(version.ciphertext, MalformedError) for version in wrapped)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(keyring(WRAPPED), id="wrapped"),
        pytest.param(keyring(PLAIN, BINARY), id="plain"),
        pytest.param(keyring({**WRAPPED, "activates_at": "2026-02-01T00:00:00.5-03:00"}), id="its own time"),
        pytest.param(keyring({**WRAPPED, "activates_at": None}), id="no time"),
        pytest.param(keyring({**WRAPPED, "comment": 7}, comment=7), id="unknown fields"),
    ],
)
def test_what_the_parser_takes_conforms(document: Any) -> None:
    assert taken(document)
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="a list"),
        pytest.param(keyring(), id="no version"),
        pytest.param(keyring(WRAPPED, schema="keyferry-keyring/v2"), id="another schema"),
        pytest.param(keyring(WRAPPED, key=7), id="no name"),
        pytest.param(keyring(WRAPPED, PLAIN | {"id": "2"}), id="wrapped and plain"),
        pytest.param(keyring(WRAPPED | {"material": "the text"}), id="both in one"),
        pytest.param(keyring(PLAIN | {"binary": "AAAA"}), id="text and bytes"),
        pytest.param(keyring({k: v for k, v in WRAPPED.items() if k != "ciphertext"}), id="nothing"),
        pytest.param(keyring(WRAPPED | {"id": 1}), id="a number for an id"),
        pytest.param(keyring(WRAPPED | {"created_at": None}), id="no creation"),
        pytest.param(keyring(WRAPPED | {"created_at": "2026-01-31T08:15:00"}), id="a time without an offset"),
    ],
)
def test_what_the_parser_refuses_does_not_conform(document: Any) -> None:
    assert not taken(document)
    assert not VALIDATOR.is_valid(document)


def test_the_page_shows_a_keyring_that_conforms() -> None:
    page = (DOCS / "wrapped-keyring.md").read_text()
    (text,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    first, second = parse_wrapped_keyring(text.encode(), "master", "the page")
    assert isinstance(first.offered, Offered)
    assert second.offered.activates_at is not None
    VALIDATOR.validate(json.loads(text))


def test_the_aws_page_shows_one_too() -> None:
    page = (DOCS / "providers/aws-kms.md").read_text()
    texts = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (document,) = [found for found in map(json.loads, texts) if "schema" in found]
    VALIDATOR.validate(document)
