# SPDX-License-Identifier: Apache-2.0
"""One question to a key's provider, asked in a daemon thread of its own.

Rules:

- A thread a call: one that hangs in a vendor's code holds up neither the loop nor the process's exit.
- Whatever goes wrong becomes the call's result, and each call reports its end exactly once.
- The provider is opened in the thread too, since that may import an SDK, and anew when its settings change.

Who asks sees to it that there is one call at a time; what came too late is theirs to drop.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from agent.clock import Moment
from agent.errors import AgentError, RefreshError, UnavailableError, unexpected
from agent.offer import Known, Offer
from agent.providers.base import Provider, fetch
from agent.settings import KeySettings

T = TypeVar("T")


class Opener(Protocol):
    """How to come by the provider of a key; in the agent ``agent.providers.open_provider``."""

    def __call__(self, key: KeySettings, *, timeout: float) -> Provider:
        """Return the provider, whose every fetch ends within about ``timeout`` seconds."""


@dataclass(eq=False)
class Call:
    """One question to a provider. Its result does not count once it is ``overdue`` or ``outdated``."""

    key: str
    started: Moment
    overdue: bool = False
    outdated: bool = False
    result: Offer | RefreshError = field(
        default_factory=lambda: UnavailableError("the call ended without an answer"), repr=False
    )


def answer(ask: Callable[[], T]) -> T | RefreshError:
    """Return what ``ask`` brings from a provider that it opens, or why it brings nothing: it never fails."""
    try:
        return ask()
    except RefreshError as error:
        return error
    except AgentError as error:
        return UnavailableError(str(error))
    except Exception as error:  # noqa: BLE001 - a vendor's code
        return unexpected(error, "at opening it")


class Caller:
    """Asks the provider of one key."""

    def __init__(self, opener: Opener, done: Callable[[Call], None]) -> None:
        """Tell ``done``, in the call's thread, when a call has its result."""
        self._opener = opener
        self._done = done
        self._provider: Provider | None = None
        self._opened_for: tuple[KeySettings, float] | None = None

    def ask(self, key: KeySettings, known: Known, at: Moment, *, timeout: float) -> Call:
        """Begin a call and return it."""
        call = Call(key.name, at)
        thread = threading.Thread(
            target=self._answer, args=(call, key, timeout, known), name=f"refresh-{key.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            call.result = UnavailableError("the system gives the agent no more threads; raise its pids limit")
            self._done(call)
        return call

    def _answer(self, call: Call, key: KeySettings, timeout: float, known: Known) -> None:
        try:
            call.result = answer(lambda: fetch(self._open(key, timeout), known))
        finally:
            self._done(call)

    def _open(self, key: KeySettings, timeout: float) -> Provider:
        if self._provider is None or self._opened_for != (key, timeout):
            if self._provider is not None:
                self._provider.close()
            # In this order: one that fails to open must not leave the one before it in use.
            self._opened_for = (key, timeout)
            self._provider = None
            self._provider = self._opener(key, timeout=timeout)
        return self._provider
