# SPDX-License-Identifier: Apache-2.0
"""The keyring file: all versions of one key in one small JSON document, as a source of the agent.

    {"schema": "keyferry-keyring/v1",
     "key": "master",
     "versions": [{"id": "1", "created_at": "2026-01-31T08:15:00Z", "material": "..."},
                  {"id": "2", "created_at": "2026-04-30T08:15:00Z", "activates_at": "2026-05-01T00:00:00Z",
                   "material": "..."}]}

Rules:

- ``versions`` is in order of activation. ``activates_at`` is optional; where it is missing the agent stages.
- ``material`` is the text of the key, verbatim; ``binary`` holds bytes as base64 instead. One of them.
- In a wrapped keyring each version has ``ciphertext`` instead, as the store's own tool writes it. One file is
  plain or wrapped: an entry in the clear would let whoever can write the file choose the key.
- ``key`` names the key that the file was made for: a file that was mounted in another's place is refused.
- What is wrong with one version's material is that version's problem. Everything else refuses the file, since
  a truncated or mixed-up list must never look like a shorter one.
- A list with one version says that no version came before it.

It is documented for people in docs/wrapped-keyring.md, for machines in docs/schemas/keyring-file.schema.json.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

from agent.errors import MalformedError
from agent.offer import Offered
from keyferry.document import DocumentError, Fields, parse_object
from keyferry.material import Material
from keyferry.times import format_time

SCHEMA: Final = "keyferry-keyring/v1"

Entry = Mapping[str, str]

T = TypeVar("T")


class Wrapped(NamedTuple):
    """One version in a wrapped keyring: what is offered, but for the material, and its ciphertext."""

    offered: Offered
    ciphertext: str | MalformedError


def parse_keyring(data: bytes, key_name: str, place: str) -> tuple[Offered, ...]:
    """Return the versions in ``data``, a plain keyring for ``key_name``; ``place`` begins each message.

    Raises ``MalformedError``, never with a value in it.
    """

    def read(entry: Fields, *, first: bool) -> Offered:
        return _offered(entry, _tried(entry, _material), first=first)

    return _versions(data, key_name, place, read)


def parse_wrapped_keyring(data: bytes, key_name: str, place: str) -> tuple[Wrapped, ...]:
    """Return the versions in ``data``, a wrapped keyring, like ``parse_keyring``."""

    def read(entry: Fields, *, first: bool) -> Wrapped:
        return Wrapped(_offered(entry, None, first=first), _tried(entry, _ciphertext))

    return _versions(data, key_name, place, read)


def new_entry(
    id_: str, created_at: float, value: Material | str, *, activates_at: float | None = None
) -> Entry:
    """Return a version's entry: its material, or the text of its ciphertext.

    ``activates_at`` is what it states itself; without it each agent stages it.
    """
    times = {"created_at": format_time(created_at)}
    if activates_at is not None:
        times["activates_at"] = format_time(activates_at)
    if isinstance(value, str):
        return {"id": id_, **times, "ciphertext": value}
    if value.binary:
        return {"id": id_, **times, "binary": base64.b64encode(value.raw).decode()}
    return {"id": id_, **times, "material": value.text}


def new_keyring(key_name: str, entry: Entry) -> bytes:
    """Return the file of a keyring with one version."""
    return _serialized({"schema": SCHEMA, "key": key_name, "versions": [entry]})


def appended(data: bytes, entry: Entry) -> bytes:
    """Return the keyring file ``data``, which has been read before, with ``entry`` as its newest version.

    Everything else in it stays, known or not.
    """
    document = json.loads(data)
    document["versions"].append(entry)
    return _serialized(document)


def next_id(ids: Iterable[str]) -> str:
    """Return the id of the version to follow ``ids``, such as ``3-9f2c41d7``: the next number, and chance.

    The number is for people. Alone it would come again for another key after the file was reverted, and an
    agent that holds the first one refuses the second.
    """
    numbers = (re.match("[0-9]{1,9}", id_) for id_ in ids)
    return f"{max((int(number[0]) for number in numbers if number), default=0) + 1}-{os.urandom(4).hex()}"


def _serialized(document: Mapping[str, object]) -> bytes:
    # Half of a surrogate pair, in a field that nobody here knows, goes back to the escape that it came as.
    return json.dumps(document, indent=1, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _versions(data: bytes, key_name: str, place: str, read: Callable[..., T]) -> tuple[T, ...]:
    try:
        root = parse_object(data, place)
        root.choice("schema", (SCHEMA,))
        if root.text("key") != key_name:
            root.fail("key", f"is not {key_name!r}: this file was made for another key")
        entries = list(root.objects("versions"))
        if not entries:
            root.fail("versions", "is empty; a keyring has at least one")
        if len({entry.text("id") for entry in entries}) != len(entries):
            root.fail("versions", "has two with the same id")
        return tuple(read(entry, first=len(entries) == 1) for entry in entries)
    except DocumentError as error:
        raise MalformedError(str(error)) from None


def _offered(entry: Fields, material: Material | MalformedError | None, *, first: bool) -> Offered:
    return Offered(
        id=entry.text("id"),
        created_at=entry.time("created_at"),
        material=material,
        first=first,
        activates_at=entry.optional("activates_at", entry.time),
    )


def _tried(entry: Fields, read: Callable[[Fields], T]) -> T | MalformedError:
    try:
        return read(entry)
    except DocumentError as error:
        return MalformedError(str(error))


def _material(entry: Fields) -> Material:
    if "ciphertext" in entry.document:
        entry.fail("ciphertext", "is wrapped: a provider that unwraps reads it, such as aws-kms, not file")
    text = entry.optional("material", entry.text)
    binary = entry.optional("binary", entry.text)
    if (text is None) == (binary is None):
        entry.fail("material", "or binary must be there, and only one of them")
    if text is not None:
        return Material(text.encode())
    try:
        return Material(base64.b64decode(binary or "", validate=True), binary=True)
    except ValueError:
        entry.fail("binary", "is not base64")


def _ciphertext(entry: Fields) -> str:
    for name in ("material", "binary"):
        if name in entry.document:
            entry.fail(
                name, "holds the key in the clear; remove it, and rotate: whoever read it knows the key"
            )
    return entry.text("ciphertext")
