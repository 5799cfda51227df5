# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyferry.document import DocumentError
from keyferry.status import Status, parse_status, serialize_status
from tests.adapter.strategies import json_trees, statuses
from tests.adapter.volume import status

Break = Callable[[dict[str, Any]], object]
MASTER = "status.json: keys.master"


@given(statuses)
def test_round_trip(found: Status) -> None:
    assert parse_status(serialize_status(found)) == found


def test_times_are_text_on_disk() -> None:
    written = json.loads(serialize_status(parse_status(json.dumps(status()).encode())))
    assert written == status() | {"publish_problem": None}


def test_unknown_fields_are_ignored() -> None:
    extended = status()
    extended["new"] = extended["keys"]["master"]["new"] = 1
    assert parse_status(json.dumps(extended).encode()) == parse_status(json.dumps(status()).encode())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(
            lambda d: d.update(schema="keyferry-status/v2"),
            "status.json: schema is not one of keyferry-status/v1",
            id="schema",
        ),
        pytest.param(lambda d: d.pop("boot_id"), "status.json: boot_id is missing", id="no boot_id"),
        pytest.param(
            lambda d: d.update(config_problems=[1]),
            "status.json: config_problems[0] is not a string",
            id="config_problems",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(freshness="rotten"),
            f"{MASTER}.freshness is not one of never, fresh, stale, expired",
            id="freshness",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(beyond_bound=None),
            f"{MASTER}.beyond_bound is not true or false",
            id="beyond_bound",
        ),
        pytest.param(
            lambda d: d["keys"]["master"].update(skipped=[{"id": "1"}]),
            f"{MASTER}.skipped[0].outcome is missing",
            id="skipped",
        ),
    ],
)
def test_a_broken_status_is_refused(change: Break, problem: str) -> None:
    broken = status()
    change(broken)
    with pytest.raises(DocumentError) as caught:
        parse_status(json.dumps(broken).encode())
    assert str(caught.value) == problem


@given(st.binary() | json_trees.map(lambda tree: json.dumps(tree).encode()))
def test_parse_status_raises_nothing_but_document_error(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^status\.json"):
        parse_status(data)
