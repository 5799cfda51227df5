# SPDX-License-Identifier: Apache-2.0
"""The port between the agent and the key stores.

Rules:

- A provider shows what the key store has now, in order of activation; it decides nothing. Merging, staging
  and validation are the keyring's.
- ``fetch`` is told which versions the agent already holds and does not read their values again, where the
  store can tell that they are the same. Asking costs as little as the store allows.
- One call at a time: a provider need not be thread-safe. It never retries on its own, except for one fresh
  login after an authentication error, and a new connection where a kept one has ended. No call blocks longer
  than the key's timeout between two bytes.
- The public function ``fetch`` guarantees that only ``RefreshError`` comes out, whatever a provider raises.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from agent.errors import RefreshError, unexpected
from agent.offer import Known, Offer, Offered

__all__ = ["IDLE_LIMIT_SECONDS", "Known", "Offer", "Offered", "Provider", "causes", "fetch"]

# Balancers and NATs forget idle connections without a word, some after a minute. A forgotten one costs a
# whole timeout, a new one a few milliseconds.
IDLE_LIMIT_SECONDS: Final = 30.0


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
    except Exception as error:  # noqa: BLE001 - told above
        raise unexpected(error, "in the provider") from None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what it was raised for, down to the innermost: that one knows, the others wrap."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
