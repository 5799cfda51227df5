# SPDX-License-Identifier: Apache-2.0
"""What one look at the volume leaves in the adapter, made for a hot path of two attribute loads.

Rules:

- Values in, values out, except ``View.deadline``: a look that finds nothing new moves it on.
- Only the adapter's own key is held: the volume's other keys do not stay in the app's process.
"""

import math
from typing import Final, NamedTuple

from keyferry.errors import ContractError
from keyferry.key import Key, Snapshot, snapshot
from keyferry.layout import Keyring, active_index, next_activation
from keyferry.material import InvalidMaterialError


class Held(NamedTuple):
    """One key of one generation, and the link's name when it was read."""

    key: str
    link: str
    generation: int
    published_at: float
    keyring: Keyring


class View:
    """A snapshot, and until when (``time.monotonic``) nobody needs to look again.

    ``activated`` is when its active version became that, ``next_activation`` when another one does (Unix
    seconds; infinite if never).
    ``active``, ``text`` (empty for a binary key) and ``by_id`` serve the hot path, and are there only if the
    key may be used. A view without them is never trusted: its deadline stays in the past.
    """

    __slots__ = ("activated", "active", "by_id", "deadline", "held", "next_activation", "snapshot", "text")

    active: Key
    by_id: dict[str, Key]
    text: str

    def __init__(
        self,
        held: Held,
        snapshot: Snapshot,
        activated: float = -math.inf,
        next_activation: float = math.inf,
    ) -> None:
        self.held = held
        self.snapshot = snapshot
        self.activated = activated
        self.next_activation = next_activation
        self.deadline = -math.inf
        if snapshot.withdrawn is None:
            self.active = snapshot.active
            self.by_id = {key.id: key for key in snapshot}
            self.text = "" if self.active.material.binary else self.active.text


# Before the first look: like a withdrawn key it has no versions.
NOTHING: Final = View(
    Held("", "", 0, -math.inf, Keyring("", "", "text", None)), Snapshot("", 0, (), withdrawn="not looked yet")
)


def view_at(path: str, held: Held, now: float) -> View:
    """Return what ``held`` means at ``now``; ``ContractError`` if a version is not what the keyring says."""
    try:
        found = snapshot(held.key, held.generation, held.keyring, now)
    except InvalidMaterialError as error:
        raise ContractError(path, f"key {held.key!r} is malformed: {error}") from None
    if found.withdrawn is not None:
        return View(held, found)
    versions = held.keyring.versions
    began, upcoming = versions[active_index(versions, now)].activates_at, next_activation(versions, now)
    return View(
        held,
        found,
        activated=began if began is not None and began <= now else -math.inf,
        next_activation=math.inf if upcoming is None else upcoming,
    )
