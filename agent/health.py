# SPDX-License-Identifier: Apache-2.0
"""What the agent's memory of a key's refreshes means: fresh or stale, ready or not, keep or withdraw.

Pure: values in, verdicts out. ``boot`` is CLOCK_BOOTTIME seconds, which neither steps nor stops.

Rules:

- Staleness counts from the last successful refresh. Only a success re-arms it: no restart, no clock, no
  failure. What was taken over from an agent before is stale until this one has confirmed it.
- A key is ready while it can be read: published and not withdrawn. Staleness never makes it unready, since
  every pod would leave the service at the same moment.
- A refusal is believed after 3 tries over at least a minute; before, it is one failure among others.
- What a failure withdraws is the operator's choice; the default keeps everything.
"""

from typing import Final, NamedTuple

from agent.errors import RefreshError
from agent.settings import OutageSettings
from keyferry.status import Freshness, KeyStatus, Outcome

DENIALS_TO_BELIEVE: Final = 3
DENIAL_SECONDS_TO_BELIEVE: Final = 60.0


class Record(NamedTuple):
    """What happened at the refreshes of one key; ``outcome`` and ``reason`` are the last attempt's.

    ``confirmed`` tells whether this agent itself had a success, or goes on from another's.
    """

    attempts: int = 0
    failures: int = 0
    outcome: Outcome = "none"
    reason: str | None = None
    last_attempt_at: float | None = None
    last_success_at: float | None = None
    last_success_boot: float | None = None
    denials: int = 0
    denied_since_boot: float | None = None
    confirmed: bool = False

    def succeeded(self, *, changed: bool, at: float, boot: float) -> "Record":
        """Return the record after a successful refresh."""
        return self._replace(
            attempts=self.attempts + 1,
            failures=0,
            outcome="changed" if changed else "unchanged",
            reason=None,
            last_attempt_at=at,
            last_success_at=at,
            last_success_boot=boot,
            denials=0,
            denied_since_boot=None,
            confirmed=True,
        )

    def failed(self, error: RefreshError, *, at: float, boot: float) -> "Record":
        """Return the record after a failed refresh. An outage between two refusals does not break the row."""
        denied = error.outcome == "denied"
        # Any answer other than a refusal or silence shows that access is back.
        answered = error.outcome in ("missing", "malformed", "conflict")
        since = None if answered else self.denied_since_boot
        return self._replace(
            attempts=self.attempts + 1,
            failures=self.failures + 1,
            outcome=error.outcome,
            reason=error.reason,
            last_attempt_at=at,
            denials=0 if answered else self.denials + denied,
            denied_since_boot=boot if denied and since is None else since,
        )

    def staleness(self, boot: float) -> float | None:
        """Return the seconds since the last success, ``None`` if there was none."""
        return None if self.last_success_boot is None else max(0.0, boot - self.last_success_boot)

    def denied(self, boot: float) -> bool:
        """Tell whether the provider's refusal is to be believed."""
        since = self.denied_since_boot
        return (
            since is not None
            and self.denials >= DENIALS_TO_BELIEVE
            and boot - since >= DENIAL_SECONDS_TO_BELIEVE
        )


def freshness(record: Record, outage: OutageSettings, *, longest_gap: float, boot: float) -> Freshness:
    """Return how old the agent's knowledge of the key is, in a word."""
    staleness = record.staleness(boot)
    if staleness is None:
        return "never"
    if outage.max_stale is not None and staleness > outage.max_stale:
        return "expired"
    return "fresh" if record.confirmed and staleness <= longest_gap else "stale"


def expires_in(record: Record, outage: OutageSettings, boot: float) -> float | None:
    """Return the seconds until the key expires, ``None`` if it never will or has already."""
    staleness = record.staleness(boot)
    if staleness is None or outage.max_stale is None or staleness > outage.max_stale:
        return None
    return outage.max_stale - staleness


def withdrawal(record: Record, outage: OutageSettings, boot: float) -> str | None:
    """Return why the key must be withdrawn now, ``None`` to keep serving it."""
    if outage.on_missing == "withdraw" and record.outcome == "missing":
        return f"missing: {record.reason}"
    if outage.on_denied == "withdraw" and record.denied(boot):
        return f"denied: {record.reason}" if record.outcome == "denied" else "denied by the provider"
    staleness = record.staleness(boot)
    if outage.on_expired == "keep" or outage.max_stale is None or staleness is None:
        return None
    if staleness > outage.max_stale:
        return f"expired: not confirmed by the provider for {outage.max_stale:g} s"
    return None


def resumed(
    before: KeyStatus | None, *, published_at: float, now: float, boot: float, same_boot: bool
) -> Record:
    """Return the record to go on from after a restart: only the age of the last success is taken over.

    Where the heartbeat does not tell it, what is published was confirmed at ``published_at`` at the latest.
    After a reboot the boot clock started anew; then the wall clock is all there is. A time ahead of it counts
    as now: a key whose age nobody knows must still expire.
    """
    last_success_at, last_success_boot = published_at, None
    if before is not None and before.last_success_at is not None:
        last_success_at = before.last_success_at
        last_success_boot = before.last_success_boottime if same_boot else None
    if last_success_boot is None:
        last_success_boot = boot - max(0.0, now - last_success_at)
    return Record(last_success_at=last_success_at, last_success_boot=last_success_boot)
