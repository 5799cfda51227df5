# SPDX-License-Identifier: Apache-2.0
"""The volume contract, v1: file names, the keyring file's format, and which version is active.

This module is the single definition of what lies on the volume; docs/volume-contract.md tells it in prose.

Rules:

- Values in, values out: no file, clock or log is touched here. Times are Unix seconds.
- ``versions`` is in order of activation. Active is the last one whose ``activates_at`` has come, else the
  first that may ever be active. Versions before the active one are deactivated, those after it pre-active.
- ``activates_at`` of ``None`` means never: the version was deleted at the provider and only decrypts.
- No clock counts as earlier than ``published_at``: an activation that was seen is never taken back.
- Readers ignore fields that they do not know and refuse only another major version of the schema.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from keyferry.document import Fields, parse_object
from keyferry.material import ENCODINGS, Encoding, Material
from keyferry.times import format_time

SCHEMA: Final = "keyferry/v1"
DEFAULT_PATH: Final = "/run/keyferry"
KEYRING_FILE: Final = "keyring.json"
DATA_LINK: Final = "..data"
GENERATION_PREFIX: Final = "..gen-"
STATUS_DIRECTORY: Final = "..status"
STATUS_FILE: Final = "status.json"
LOCK_FILE: Final = "..lock"

# How long a reader may trust its last look. It is part of every replica's bound, hence of the contract.
CHECK_INTERVAL_SECONDS: Final = 1.0

State = Literal["pre-active", "active", "deactivated"]

_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_SCHEMA: Final = re.compile(r"keyferry/v([0-9]+)")


class Version(NamedTuple):
    """One value of a key. Times are Unix seconds; ``activates_at`` of ``None`` means never."""

    id: str
    created_at: float | None
    activates_at: float | None
    fingerprint: str
    material: Material


class Keyring(NamedTuple):
    """All versions of one key, in order of activation, or the reason why it was withdrawn.

    ``source`` is a digest of provider, address, path and field: another source is another key.
    ``length`` counts bytes after decoding; ``None`` is unchecked.
    """

    provider: str
    source: str
    encoding: Encoding
    length: int | None
    versions: tuple[Version, ...] = ()
    withdrawn: str | None = None


class Generation(NamedTuple):
    """One immutable snapshot of all keyrings; ``number`` only grows while a volume lives."""

    number: int
    published_at: float
    keys: Mapping[str, Keyring]


def active_index(versions: Sequence[Version], now: float) -> int:
    """Return the position of the version to encrypt with at ``now``, which is not before published_at."""
    fallback = 0
    for index in range(len(versions) - 1, -1, -1):
        activates_at = versions[index].activates_at
        if activates_at is None:
            continue
        if activates_at <= now:
            return index
        fallback = index
    return fallback


def states(versions: Sequence[Version], now: float) -> tuple[State, ...]:
    """Return each version's NIST SP 800-57 state at ``now``.

    One that never activates is deactivated, wherever it stands.
    """
    active = active_index(versions, now)

    def state(index: int, version: Version) -> State:
        if index == active:
            return "active"
        return "pre-active" if index > active and version.activates_at is not None else "deactivated"

    return tuple(state(index, version) for index, version in enumerate(versions))


def next_activation(versions: Sequence[Version], now: float) -> float | None:
    """Return when the clock alone makes another version active, or ``None`` if it never will."""
    later = versions[active_index(versions, now) + 1 :]
    return min((v.activates_at for v in later if v.activates_at is not None), default=None)


def is_key_name(name: str) -> bool:
    """Tell whether ``name`` can name a key: a file in the volume's root that collides with nothing."""
    return _KEY_NAME.fullmatch(name) is not None and name != KEYRING_FILE


def serialize(generation: Generation) -> bytes:
    """Return keyring.json for ``generation``; ``parse`` gives an equal generation back."""
    document = {
        "schema": SCHEMA,
        "generation": generation.number,
        "published_at": format_time(generation.published_at),
        "keys": {name: _keyring_document(keyring) for name, keyring in generation.keys.items()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def parse(data: bytes) -> Generation:
    """Return the generation that keyring.json holds; ``DocumentError`` says where it breaks the contract."""
    root = parse_object(data, KEYRING_FILE)
    match = _SCHEMA.fullmatch(root.text("schema"))
    if match is None:
        root.fail("schema", f"is not {SCHEMA}: this is not a keyferry volume")
    if match[1] != "1":
        root.fail("schema", f"is keyferry/v{match[1]}, newer than this reader (v1): upgrade keyferry here")
    keys = root.object("keys")
    if not all(map(is_key_name, keys.document)):
        root.fail("keys", "has a name that cannot be a key's")
    return Generation(
        number=root.integer("generation"),
        published_at=root.time("published_at"),
        keys={name: _keyring(keys.object(name)) for name in keys.document},
    )


def _keyring_document(keyring: Keyring) -> dict[str, object]:
    document: dict[str, object] = {
        "provider": keyring.provider,
        "source": keyring.source,
        "encoding": keyring.encoding,
        "length": keyring.length,
    }
    if keyring.withdrawn is not None:
        return document | {"withdrawn": keyring.withdrawn}
    return document | {"versions": [_version_document(version) for version in keyring.versions]}


def _version_document(version: Version) -> dict[str, object]:
    document: dict[str, object] = {
        "id": version.id,
        "created_at": None if version.created_at is None else format_time(version.created_at),
        "activates_at": None if version.activates_at is None else format_time(version.activates_at),
        "fingerprint": version.fingerprint,
    }
    if version.material.binary:
        return document | {"material": base64.b64encode(version.material.raw).decode(), "binary": True}
    return document | {"material": version.material.text}


def _keyring(fields: Fields) -> Keyring:
    withdrawn = fields.optional("withdrawn", fields.text)
    return Keyring(
        provider=fields.text("provider"),
        source=fields.text("source"),
        encoding=fields.choice("encoding", ENCODINGS),
        length=fields.optional("length", fields.integer),
        versions=_versions(fields) if withdrawn is None else (),
        withdrawn=withdrawn,
    )


def _versions(fields: Fields) -> tuple[Version, ...]:
    versions = tuple(_version(item) for item in fields.objects("versions"))
    if all(version.activates_at is None for version in versions):
        fields.fail("versions", "has none that may ever be active")
    if len({version.id for version in versions}) != len(versions):
        fields.fail("versions", "has two with the same id")
    return versions


def _version(fields: Fields) -> Version:
    return Version(
        id=fields.text("id"),
        created_at=fields.optional("created_at", fields.time),
        activates_at=fields.optional("activates_at", fields.time),
        fingerprint=fields.text("fingerprint"),
        material=_material(fields),
    )


def _material(fields: Fields) -> Material:
    text = fields.text("material")
    if fields.document.get("binary") is not True:
        return Material(text.encode())
    try:
        return Material(base64.b64decode(text, validate=True), binary=True)
    except ValueError:
        # The library's error is not chained to: it may quote the text.
        fields.fail("material", "is not base64, as binary: true says")
