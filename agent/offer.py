# SPDX-License-Identifier: Apache-2.0
"""What a provider shows of a key: plain values, without I/O, that the keyring judges."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.errors import RefreshError
from keyferry.material import Material

# Version ids that the agent holds, with the creation time that it was told. A store that forgot the key and
# started over shows a known id with another time: then the value must be read (and will be refused).
Known = Mapping[str, float | None]

# ``activates_at`` of a version that its store has made and not yet released (9999-12-31): it is handed out
# at once, and staged when it is released (docs/adr/0009-unreleased-versions.md).
UNRELEASED: Final = 253_402_214_400.0


class Offered(NamedTuple):
    """One version as the provider shows it.

    ``material`` is the value; or ``None``: the one that the agent holds already; or why there is none.
    ``created_at`` is Unix seconds by the provider's clock, ``None`` where the store does not say.
    ``first`` is the store's word that no version came before this one. ``activates_at`` is set where the
    source states it itself.
    """

    id: str
    created_at: float | None
    material: Material | RefreshError | None
    first: bool = False
    activates_at: float | None = None


class Offer(NamedTuple):
    """Everything that the provider shows of a key, in order of activation: the last one is its newest word.

    ``unstaged`` says why the store cannot show earlier versions, ``None`` if it does. ``ttl_seconds`` is the
    store's wish when to ask again. ``warnings`` are sentences for the operator.
    """

    versions: tuple[Offered, ...]
    unstaged: str | None = None
    ttl_seconds: float | None = None
    warnings: tuple[str, ...] = ()
