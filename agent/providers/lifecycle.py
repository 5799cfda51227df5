# SPDX-License-Identifier: Apache-2.0
"""The port through which a key is made and rotated, at the stores that can.

Rules:

- ``create`` never overwrites: of two at once one makes the key, the other gets ``ExistsError``.
- ``rotate`` is a compare-and-set on the newest version's id: of two at once one makes a version, the other
  gets ``ChangedError``. It replaces the configured field and nothing else.
- What replicas must know of a version, it carries itself or stands where their next refresh reads it anyway.
- A store that is full drops its oldest version only when told to.
- The public functions ``create`` and ``rotate`` let nothing but ``AgentError`` out. After a write that is
  unavailable nobody knows whether the store did it; the message says so, and asking the store tells.

Not here: reading a key (agent.providers.base), and deciding that it is to be made or rotated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from agent.errors import AgentError, MadeError, UnavailableError, unexpected
from keyferry.material import Material


class ExistsError(AgentError):
    """There is a key already, or the remains of one; nothing was written."""


class ChangedError(AgentError):
    """The newest version is another one than expected; nothing was written."""


class FullError(AgentError):
    """Another version would push the oldest one out; nothing was written."""


class Rotation(NamedTuple):
    """What a rotation expects and wants.

    ``expected`` is the id of the newest version. ``at_once``: the new version activates when it was created,
    by the store's clock, on every replica that sees it. ``activates_at``: it activates then (Unix seconds),
    where the keeper can state times. ``drop_oldest``: a full store may forget its oldest.
    """

    expected: str
    at_once: bool = False
    activates_at: float | None = None
    drop_oldest: bool = False

    def stated(self, created_at: float) -> float | None:
        """Return the activation that a version made at ``created_at`` is to state, if any."""
        return created_at if self.at_once else self.activates_at


class Keeper(Protocol):
    """One key at one key store, by the hand of somebody who may write there.

    ``states_times``: a version can state any time at which it activates.
    """

    @property
    def states_times(self) -> bool: ...  # noqa: D102 - see the class

    def create(self, material: Material) -> str:
        """Make the key with ``material`` as its first version, and return that version's id."""

    def rotate(self, material: Material, rotation: Rotation) -> str:
        """Make ``material`` the newest version, and return its id."""

    def close(self) -> None:
        """Let connections go. Never fails, never blocks."""


def create(keeper: Keeper, material: Material) -> str:
    """Make the key and return its version's id; raises ``ExistsError``, ``RefreshError``, ``ConfigError``."""
    with _only_agent_errors():
        return keeper.create(material)


def rotate(keeper: Keeper, material: Material, rotation: Rotation) -> str:
    """Make a new version and return its id; raises ``ChangedError`` and ``FullError`` as well."""
    with _only_agent_errors():
        return keeper.rotate(material, rotation)


@contextmanager
def writing() -> Iterator[None]:
    """Hold the write of a rotation: where it ends without an answer, say that it may have happened."""
    try:
        with _only_agent_errors():
            yield
    except UnavailableError as error:
        message = (
            f"{error.outcome}: {error.reason}; the store may have made a version: look with `check` before "
            "rotating again"
        )
        raise MadeError(message) from error


@contextmanager
def _only_agent_errors() -> Iterator[None]:
    try:
        yield
    except AgentError:
        raise
    except Exception as error:  # noqa: BLE001 - a vendor's code
        raise unexpected(error, "in the provider") from None
