# SPDX-License-Identifier: Apache-2.0
"""One key's way from its provider to the keyring that should be published.

Rules:

- At most one call (agent.call) is under way; while it hangs, time goes on for everything else.
- A call that exceeds the timeout counts as unavailable at once; what it brings later is dropped.
- The next refresh is scheduled before anything else is done with a result.
- A failure takes nothing from the held keyring; withdrawing it is the operator's choice (agent.health).

It does not publish, and it tells what happened only through ``Events``.
"""

from collections.abc import Callable
from random import random
from typing import Final

from agent import health, keyring, schedule
from agent.call import Call, Caller, Opener
from agent.clock import Moment
from agent.errors import RefreshError, UnavailableError
from agent.events import Events
from agent.offer import Offer, Offered
from agent.settings import KeySettings, Settings
from keyferry.layout import Keyring
from keyferry.status import KeyStatus, Skipped

# A provider's clock a little ahead is normal; more than this delays activations noticeably.
CLOCK_WARNING_SECONDS: Final = 300.0


class Refresher:
    """The state of one key between its provider and the volume. Not thread-safe: the main loop owns it."""

    def __init__(
        self,
        key: KeySettings,
        settings: Settings,
        *,
        events: Events,
        opener: Opener,
        done: Callable[[Call], None],
    ) -> None:
        """Start with nothing held; ``done`` is called in the call's thread when it has its result."""
        self._events = events
        self._caller = Caller(opener, done)
        self._call: Call | None = None
        self._held: Keyring | None = None
        self._withdrawn: Keyring | None = None
        self._again = False
        self.record = health.Record()
        self.skipped: tuple[Skipped, ...] = ()
        self.unstaged: str | None = None
        self.warnings: tuple[str, ...] = ()
        self.due: float | None = 0.0
        self.configure(key, settings)

    def configure(self, key: KeySettings, settings: Settings) -> None:
        """Use other settings from the next call on; a call under way is dropped and asked again."""
        self.key = key
        self._settings = settings
        self._gap = schedule.longest_gap(settings.refresh)
        self._rules = keyring.Rules(
            activation_delay=settings.rotation.activation_delay,
            drop_missing=settings.outage.on_missing == "withdraw",
            keep_versions=settings.rotation.keep_versions,
        )
        self.bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
        if self._call is not None:
            self._call.outdated = True
            self._again = True

    def adopt(self, held: Keyring, record: health.Record) -> None:
        """Go on from what an agent before this one published and knew. It stays stale until confirmed."""
        if held.withdrawn is None:
            self._held = held
        else:
            self._withdrawn = held
        self.record = record

    def entry(self, now: float) -> Keyring | None:
        """Return what should be on the volume for this key, ``None`` while nothing is known."""
        if self._withdrawn is not None:
            return self._withdrawn
        if self._held is None:
            return None
        return keyring.pruned(self._held, self._rules, now)

    def refresh_soon(self) -> None:
        """Ask again as soon as possible: now, or right after the call that is under way."""
        if self._call is None:
            self.due = 0.0
        else:
            self._again = True

    def turn(self, at: Moment) -> None:
        """Do what is due: give up an overdue call, start the next one, withdraw what has expired."""
        call, timeout = self._call, self._settings.refresh.timeout
        if call and not call.overdue and at.boot >= call.started.boot + timeout:
            call.overdue = True
            self._fail(UnavailableError(f"no answer within {timeout:g} s"), call.started, at)
        if self.due is not None and at.boot >= self.due:
            if call is None:
                self._start(at)
            else:
                waited = at.boot - call.started.boot
                error = UnavailableError(f"the last call has not come back for {waited:.0f} s")
                self._fail(error, None, at)
        self._withdraw_if_due(at)

    def next_turn(self, at: Moment) -> float:
        """Return when ``turn`` has something to do (boot clock), infinity if only a message can bring it."""
        times = [self.due]
        if self._call and not self._call.overdue:
            times.append(self._call.started.boot + self._settings.refresh.timeout)
        expires_in = health.expires_in(self.record, self._settings.outage, at.boot)
        if expires_in is not None:
            # Strictly later than the limit, or the loop would turn without end at it.
            times.append(at.boot + expires_in + 0.001)
        return min((time for time in times if time is not None), default=float("inf"))

    def finished(self, call: Call, at: Moment) -> None:
        """Take the result of ``call``, unless it came too late."""
        if call is not self._call:
            return
        self._call = None
        if not call.overdue and not call.outdated:
            if isinstance(call.result, Offer):
                self._succeed(call, call.result, at)
            else:
                self._fail(call.result, call.started, at)
        if self._again:
            self._again = False
            self.due = 0.0

    def status(self, at: Moment) -> KeyStatus:
        """Return what the heartbeat says of this key."""
        record = self.record
        staleness, limit = record.staleness(at.boot), schedule.longest_staleness(self._settings.refresh)
        return KeyStatus(
            provider=self.key.provider,
            freshness=health.freshness(record, self._settings.outage, longest_gap=self._gap, boot=at.boot),
            outcome=record.outcome,
            reason=record.reason,
            attempts=record.attempts,
            failures=record.failures,
            last_attempt_at=record.last_attempt_at,
            last_success_at=record.last_success_at,
            last_success_boottime=record.last_success_boot,
            next_refresh_at=None if self.due is None else at.now + max(0.0, self.due - at.boot),
            bound_seconds=self.bound,
            activation_delay_seconds=self._settings.rotation.activation_delay,
            unstaged=self.unstaged,
            beyond_bound=staleness is not None and staleness > limit,
            withdrawn=self._withdrawn.withdrawn if self._withdrawn else None,
            skipped=self.skipped,
        )

    def _start(self, at: Moment) -> None:
        self.due = None
        self._events.emit("refresh.started", "debug", key=self.key.name, provider=self.key.provider)
        timeout = self._settings.refresh.timeout
        self._call = self._caller.ask(self.key, keyring.known(self._held), at, timeout=timeout)

    def _succeed(self, call: Call, offer: Offer, at: Moment) -> None:
        chance = random()  # noqa: S311 - jitter, not a secret
        self.due = at.boot + schedule.after_success(
            self._settings.refresh, chance=chance, ttl_seconds=offer.ttl_seconds
        )
        try:
            merged = keyring.merge(self._held, offer, key=self.key, rules=self._rules, now=at.now)
        except RefreshError as error:
            self._fail(error, call.started, at)
            return
        changed = merged.keyring != self._held
        self._held, self._withdrawn = merged.keyring, None
        self.unstaged = offer.unstaged
        self._tell_skipped(merged.skipped)
        self._tell_warnings((*offer.warnings, *_clock_warnings(offer.versions, at.now)))
        if merged.failure:
            self._fail(merged.failure, call.started, at)
            return
        # As of the question, not the answer: what came in between may not have been seen.
        self.record = self.record.succeeded(changed=changed, at=call.started.now, boot=call.started.boot)
        self._events.emit(
            "refresh.succeeded",
            "info" if changed else "debug",
            key=self.key.name,
            provider=self.key.provider,
            outcome=self.record.outcome,
            duration=round(at.boot - call.started.boot, 6),
        )

    def _fail(self, error: RefreshError, began: Moment | None, at: Moment) -> None:
        """Take a failure of the call that ``began``, or of none because it could not be made."""
        failures = self.record.failures + 1
        wait = schedule.after_failure(
            self._settings.refresh,
            failures=failures,
            chance=random(),  # noqa: S311 - jitter, not a secret
            denied=error.outcome == "denied",
            retry_after_seconds=error.retry_after_seconds,
        )
        self.due = at.boot + wait
        self.record = self.record.failed(error, at=(began or at).now, boot=at.boot)
        took = {} if began is None else {"duration": round(at.boot - began.boot, 6)}
        self._events.emit(
            "refresh.failed",
            "warning" if error.outcome == "unavailable" else "error",
            audit=error.outcome in ("denied", "conflict"),
            key=self.key.name,
            provider=self.key.provider,
            outcome=error.outcome,
            reason=error.reason,
            **took,
            failures=failures,
            retry_in=round(wait, 3),
        )

    def _withdraw_if_due(self, at: Moment) -> None:
        if self._held is None:
            return
        reason = health.withdrawal(self.record, self._settings.outage, at.boot)
        if reason is not None:
            self._held, self._withdrawn = None, keyring.withdrawn(self.key, reason)

    def _tell_skipped(self, skipped: tuple[Skipped, ...]) -> None:
        for version in skipped:
            if version not in self.skipped:
                self._events.emit(
                    "version.skipped",
                    "warning",
                    key=self.key.name,
                    version=version.id,
                    outcome=version.outcome,
                    reason=version.reason,
                )
        self.skipped = skipped

    def _tell_warnings(self, warnings: tuple[str, ...]) -> None:
        for warning in warnings:
            if warning not in self.warnings:
                self._events.emit("provider.warning", "warning", key=self.key.name, reason=warning)
        self.warnings = warnings


def _clock_warnings(versions: tuple[Offered, ...], now: float) -> tuple[str, ...]:
    return tuple(
        f"version {version.id} was created in the future by this node's clock: its activation will be late"
        for version in versions
        if version.created_at is not None and version.created_at > now + CLOCK_WARNING_SECONDS
    )
