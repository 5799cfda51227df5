# SPDX-License-Identifier: Apache-2.0
"""One case of the kit: generations, what happens with them, and the answers. Keys are made when it is."""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.adapter.volume import keyring, moment

Document = Mapping[str, Any]
Answer = Mapping[str, Any]

HOUR = 3600.0
NOT_PUBLISHED: Answer = {"result": "not-published"}
WITHDRAWN: Answer = {"result": "withdrawn"}
BROKEN: Answer = {"result": "broken"}

# What lies at a generation's name: keyring.json's bytes, or something strange.
Content = bytes | str


@dataclass(frozen=True, slots=True)
class Step:
    """``..data`` points to ``link`` (``None``: it is not there), and the reader answers ``answer``.

    The step begins ``after_seconds`` after the case was written.
    """

    link: str | None
    answer: Answer
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """Generations by name, and what happens with them. Strange contents are words of ``kit.write``."""

    about: str
    generations: Mapping[str, Content]
    steps: Sequence[Step]
    key: str = "master"


def ok(*states: str, of: Sequence[Document], decode: Callable[[str], bytes] | None = None) -> Answer:
    """Return the answer for ``of``, which are in ``states``."""
    read = decode or unpadded
    return {
        "result": "ok",
        "versions": [
            {"id": entry["id"], "state": state, "sha256": hashlib.sha256(read(entry["material"])).hexdigest()}
            for entry, state in zip(of, states, strict=True)
        ],
    }


def unpadded(text: str) -> bytes:
    """Decode what secrets.token_urlsafe wrote."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def generation(
    *versions: Document, published_at: float | None = None, number: int = 7, **fields: object
) -> bytes:
    """Return keyring.json with the key ``master``, or with ``fields`` in place of its own."""
    document = {
        "schema": "keyferry/v1",
        "generation": number,
        "published_at": moment(time.time() if published_at is None else published_at),
        "keys": {"master": keyring(*versions)},
    }
    return json.dumps(document | fields).encode()


def one(about: str, data: Content, answer: Answer, key: str = "master") -> Case:
    """Return a case with one generation and one look."""
    return Case(about, {"..gen-000007.a": data}, [Step("..gen-000007.a", answer)], key)
