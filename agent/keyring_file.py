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
- ``key`` names the key that the file was made for: a file that was mounted in another's place is refused.
- What is wrong with one version's material is that version's problem. Everything else refuses the file, since
  a truncated or mixed-up list must never look like a shorter one.
- A list with one version says that no version came before it.
"""

import base64
import json
from typing import Final

from agent.errors import MalformedError
from agent.offer import Offered
from agent.providers.values import text_material
from keyferry.document import DocumentError, Fields
from keyferry.material import Material

SCHEMA: Final = "keyferry-keyring/v1"


def parse_keyring(data: bytes, key_name: str, place: str) -> tuple[Offered, ...]:
    """Return the versions in ``data``, a keyring file for ``key_name``; ``place`` begins each message.

    Raises ``MalformedError``, never with a value in it.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # `from None`: a JSONDecodeError carries the whole document.
        message = f"{place} is not JSON"
        raise MalformedError(message) from None
    try:
        root = Fields(document, place)
        root.choice("schema", (SCHEMA,))
        if root.text("key") != key_name:
            root.fail("key", f"is not {key_name!r}: this file was made for another key")
        entries = list(root.objects("versions"))
        versions = tuple(_offered(entry, first=len(entries) == 1) for entry in entries)
        if not versions:
            root.fail("versions", "is empty; a keyring has at least one")
        if len({version.id for version in versions}) != len(versions):
            root.fail("versions", "has two with the same id")
    except DocumentError as error:
        raise MalformedError(str(error)) from None
    return versions


def _offered(entry: Fields, *, first: bool) -> Offered:
    material: Material | MalformedError
    try:
        material = _material(entry)
    except (DocumentError, MalformedError) as error:
        material = MalformedError(str(error))
    return Offered(
        id=entry.text("id"),
        created_at=entry.time("created_at"),
        material=material,
        first=first,
        activates_at=entry.optional("activates_at", entry.time),
    )


def _material(entry: Fields) -> Material:
    text = entry.optional("material", entry.text)
    binary = entry.optional("binary", entry.text)
    if (text is None) == (binary is None):
        entry.fail("material", "or binary must be there, and only one of them")
    if text is not None:
        return text_material(text, f"{entry.place}.material")
    try:
        return Material(base64.b64decode(binary or "", validate=True), binary=True)
    except ValueError:
        entry.fail("binary", "is not base64")
