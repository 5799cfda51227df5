# SPDX-License-Identifier: Apache-2.0
"""When to ask a provider again, and how long a replica may take to have a new version.

Rules:

- Pure: durations in, durations out; ``chance`` is a uniform random number in [0, 1). All are seconds.
- Two successful refreshes of a healthy replica are never further apart than ``longest_gap``.
- A failure backs off exponentially and at random, so that a fleet does not return in step. The provider's own
  wish (Retry-After, a lockout) comes on top; it may exceed the interval, and never an hour.
"""

from typing import Final

from agent.settings import RefreshSettings, RotationSettings
from keyferry.layout import CHECK_INTERVAL_SECONDS

# How late the kubelet may bring a change of a ConfigMap or Secret: its sync period (1 min), the cache's
# delay and the watch's jitter, as measured by its own documentation's worst case, rounded up.
MOUNT_DELAY_SECONDS: Final = 180.0

# A refusal is confirmed by 3 tries over at least a minute (health.py); asking faster proves nothing.
DENIED_RETRY_SECONDS: Final = 30.0

# A lockout or a quota is over by then. A maintenance page that asks for a day is not to be obeyed.
LONGEST_WISH_SECONDS: Final = 3600.0

_FIRST_BACKOFF_SECONDS: Final = 0.5
# 2**16 half seconds is beyond any sensible max_backoff; a larger exponent would only overflow.
_MAX_EXPONENT: Final = 16


def longest_gap(refresh: RefreshSettings) -> float:
    """Return the longest time between the ends of two refreshes while none fails."""
    return refresh.interval * (1 + refresh.jitter) + refresh.timeout


def longest_staleness(refresh: RefreshSettings) -> float:
    """Return the age of the last success up to which a replica can decrypt whatever the fleet encrypts.

    A healthy replica stays below it: there is room for one refresh that fails and is tried again. It counts
    from the beginning of a refresh, since what is published right after the question is not in the answer.
    """
    return 2 * longest_gap(refresh) + refresh.max_backoff


def bound(refresh: RefreshSettings, rotation: RotationSettings, *, mounted: bool) -> float:
    """Return the longest time that a healthy replica may take to have a new version.

    On top of its staleness come the reader's check interval and the clocks' difference; ``mounted`` adds the
    kubelet's delay.
    """
    delay = MOUNT_DELAY_SECONDS if mounted else 0.0
    return longest_staleness(refresh) + CHECK_INTERVAL_SECONDS + rotation.clock_skew + delay


def after_success(refresh: RefreshSettings, *, chance: float, ttl_seconds: float | None = None) -> float:
    """Return the wait until the next refresh: interval x (1 +- jitter), or the store's ttl if less."""
    wait = refresh.interval * (1 + refresh.jitter * (2 * chance - 1))
    return wait if ttl_seconds is None else min(wait, max(ttl_seconds, _FIRST_BACKOFF_SECONDS))


def after_failure(
    refresh: RefreshSettings,
    *,
    failures: int,
    chance: float,
    denied: bool = False,
    retry_after_seconds: float | None = None,
) -> float:
    """Return the wait after the ``failures``-th failure in a row (from 1)."""
    if denied:
        # Never later than the timer would ask: the bound has room for that and a backoff.
        wait = min(DENIED_RETRY_SECONDS * (1 + chance / 2), refresh.interval)
    else:
        ceiling = _FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, _MAX_EXPONENT)
        # Half of it is certain: a full jitter down to zero would hammer a store that has just failed.
        wait = min(refresh.max_backoff, ceiling) * (0.5 + chance / 2)
    # Added, not the maximum of both: all whom the store told the same would come back at the same moment.
    return wait + min(max(retry_after_seconds or 0.0, 0.0), LONGEST_WISH_SECONDS)
