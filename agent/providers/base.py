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

from typing import Protocol

from agent.errors import RefreshError, UnavailableError
from agent.offer import Known, Offer, Offered

__all__ = ["Known", "Offer", "Offered", "Provider", "fetch"]


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
