# SPDX-License-Identifier: Apache-2.0
"""Everything that the agent raises on purpose, split by what the caller does about it.

- ``ConfigError`` and ``VolumeError``: give up, a person must act (exit 2).
- ``PublishError``: what was published stays; try again later.
- ``MadeError``: a version was made, so it must not be made again (exit 3).
- ``RefreshError``: a refresh failed; its ``outcome`` decides what that means for the key (design section 6).

No message ever holds key material, a credential or the body of a vendor's answer.
"""

from collections.abc import Iterable
from typing import ClassVar

from keyferry.status import Outcome


class AgentError(Exception):
    """The root of what the agent raises."""


class ConfigError(AgentError):
    """The configuration is wrong; ``problems`` lists everything, a sentence each.

    ``files`` are the paths of those that it fills in, as far as they are known: what is wrong may be mended
    there.
    """

    def __init__(self, *problems: str, files: Iterable[str] = ()) -> None:
        """Keep ``problems``, each with its place, what is allowed and what to do."""
        super().__init__("\n".join(problems))
        self.problems = problems
        self.files = tuple(files)


class VolumeError(AgentError):
    """The volume cannot be used as it is: not there, not a tmpfs, not ours, or another agent has it."""


class PublishError(AgentError):
    """A generation could not be published; the volume is as it was."""


class MadeError(AgentError):
    """A version was made, or may have been, and what should have followed failed: answer, look or mark."""


class RefreshError(AgentError):
    """A refresh failed. ``retry_after_seconds`` is the provider's own wish, where it states one."""

    outcome: ClassVar[Outcome] = "unavailable"

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None) -> None:
        """Keep ``reason``: a sentence for people, without secrets."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(RefreshError):
    """The provider did not answer, or not now: timeout, refused, 5xx, throttled, sealed, TLS trouble."""


def unexpected(error: Exception, where: str) -> UnavailableError:
    """Return what an error comes to that nobody foresaw: its text may hold anything, its type does not."""
    kind = type(error)
    return UnavailableError(f"unexpected {kind.__module__}.{kind.__qualname__} {where}")


class DeniedError(RefreshError):
    """The provider refuses the value itself, by its own typed error, after one fresh login."""

    outcome = "denied"


class MissingError(RefreshError):
    """Nothing readable is there: never made, deleted or destroyed."""

    outcome = "missing"


class MalformedError(RefreshError):
    """Something is there, but not the key that was configured: field, encoding or length."""

    outcome = "malformed"


class ConflictError(RefreshError):
    """What the provider shows contradicts what is published: another source, or an id with another value."""

    outcome = "conflict"
