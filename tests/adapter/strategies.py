# SPDX-License-Identifier: Apache-2.0
"""Anything that may lie on a volume, for property tests."""

import base64
from typing import get_args

from hypothesis import strategies as st

from keyferry.layout import Generation, Keyring, Version
from keyferry.material import ENCODINGS, Encoding, Material, fingerprint
from keyferry.status import Freshness, KeyStatus, Outcome, Skipped, Status

# To the millisecond, from 1970 to 2200.
times = st.integers(0, 7_258_118_400_000).map(lambda millis: millis / 1000)
seconds = st.floats(0, 1e9)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
key_names = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,62}\Z").filter(lambda name: name != "keyring.json")
secret_bytes = st.binary(min_size=16, max_size=48).filter(any)


def write(secret: bytes, encoding: Encoding) -> Material:
    """Return ``secret`` as a key store would hold it."""
    match encoding:
        case "binary":
            return Material(secret, binary=True)
        case "hex":
            return Material(secret.hex().encode())
        case "base64":
            return Material(base64.b64encode(secret))
        case "base64url" | "text":
            return Material(base64.urlsafe_b64encode(secret).rstrip(b"="))


@st.composite
def versions(draw: st.DrawFn, encoding: Encoding, version_id: str) -> Version:
    secret = draw(secret_bytes)
    material = write(secret, encoding)
    return Version(
        id=version_id,
        created_at=draw(st.none() | times),
        activates_at=draw(st.none() | times),
        fingerprint=fingerprint(material, len(secret)),
        material=material,
    )


def may_be_active(found: tuple[Version, ...]) -> bool:
    return any(version.activates_at is not None for version in found)


@st.composite
def keyrings(draw: st.DrawFn) -> Keyring:
    encoding = draw(st.sampled_from(ENCODINGS))
    withdrawn = draw(st.none() | texts)
    ids = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
    found = st.tuples(*(versions(encoding, version_id) for version_id in ids)).filter(may_be_active)
    return Keyring(
        provider=draw(texts),
        source=draw(texts),
        encoding=encoding,
        length=None,
        versions=draw(found) if withdrawn is None else (),
        withdrawn=withdrawn,
    )


generations = st.builds(
    Generation,
    number=st.integers(0, 2**53),
    published_at=times,
    keys=st.dictionaries(key_names, keyrings(), max_size=3),
)

outcomes = st.sampled_from(get_args(Outcome))
key_statuses = st.builds(
    KeyStatus,
    provider=texts,
    freshness=st.sampled_from(get_args(Freshness)),
    outcome=outcomes,
    reason=st.none() | texts,
    attempts=st.integers(0, 2**53),
    failures=st.integers(0, 2**53),
    last_attempt_at=st.none() | times,
    last_success_at=st.none() | times,
    last_success_boottime=st.none() | seconds,
    next_refresh_at=st.none() | times,
    bound_seconds=seconds,
    activation_delay_seconds=seconds,
    unstaged=st.none() | texts,
    beyond_bound=st.booleans(),
    withdrawn=st.none() | texts,
    skipped=st.lists(st.builds(Skipped, id=texts, outcome=outcomes, reason=texts), max_size=3).map(tuple),
)
statuses = st.builds(
    Status,
    agent_version=texts,
    pid=st.integers(1, 2**22),
    boot_id=texts,
    started_at=times,
    written_at=times,
    generation=st.integers(0, 2**53),
    config_problems=st.lists(texts, max_size=3).map(tuple),
    publish_problem=st.none() | texts,
    keys=st.dictionaries(key_names, key_statuses, max_size=3),
)

json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
