# SPDX-License-Identifier: Apache-2.0
"""The port between the agent and the key stores.

Rules:

- A provider shows what the key store has now, in order of activation; it decides nothing. Merging, staging
  and validation are the keyring's.
- ``fetch`` is told which versions the agent already holds and does not read their values again, where the
  store can tell that they are the same. Asking costs as little as the store allows.
- One call at a time: a provider need not be thread-safe. It never retries on its own, except for one fresh
  login after an authentication error. No call blocks longer than the key's timeout between two bytes.
- The public function ``fetch`` guarantees that only ``RefreshError`` comes out, whatever a provider raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.errors import RefreshError, UnavailableError
from keyferry.material import Material

# Version ids that the agent holds, with the creation time that it was told. A store that forgot the key and
# started over shows a known id with another time: then the value must be read (and will be refused).
Known = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Offered:
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


@dataclass(frozen=True, slots=True)
class Offer:
    """Everything that the provider shows of a key, in order of activation: the last one is the newest word.

    ``unstaged`` says why the store cannot show earlier versions, ``None`` if it does. ``ttl_seconds`` is the
    store's wish when to ask again. ``warnings`` are sentences for the operator.
    """

    versions: tuple[Offered, ...]
    unstaged: str | None = None
    ttl_seconds: float | None = None
    warnings: tuple[str, ...] = ()


class Provider(Protocol):
    """One key at one key store."""

    def fetch(self, known: Known) -> Offer:
        """Return what the store has; raise ``RefreshError`` where it gives nothing to go on with."""

    def close(self) -> None:
        """Let connections go. Never fails, never blocks."""


def fetch(provider: Provider, known: Known) -> Offer:
    """Ask ``provider`` and let nothing but ``RefreshError`` out.

    An error that a provider did not foresee counts as unavailable. Only its type is told: its text may hold
    an answer's body, a URL with a token, or the value itself.
    """
    try:
        return provider.fetch(known)
    except RefreshError:
        raise
    except Exception as error:
        reason = f"unexpected {type(error).__module__}.{type(error).__qualname__} in the provider"
        raise UnavailableError(reason) from error
