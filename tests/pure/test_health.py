# SPDX-License-Identifier: Apache-2.0
"""What a row of refreshes means for a key."""

from collections.abc import Sequence

import pytest

from agent.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    MissingError,
    RefreshError,
    UnavailableError,
)
from agent.health import Record, expires_in, freshness, resumed, withdrawal
from agent.settings import OutageSettings
from keyferry.status import Freshness, KeyStatus

GAP = 125.0
KEEP = OutageSettings(max_stale=1000.0)
WITHDRAW = OutageSettings(
    max_stale=1000.0, on_expired="withdraw", on_denied="withdraw", on_missing="withdraw"
)

AWAY = UnavailableError("no answer")
DENIED = DeniedError("the policy says no")
MISSING = MissingError("it was deleted")
MALFORMED = MalformedError("it has no field")
CONFLICT = ConflictError("it has another value")

OK = None


def after(*results: tuple[float, RefreshError | None]) -> Record:
    """Return the record after refreshes at these boot times; the wall clock is an hour ahead of them."""
    record = Record()
    for boot, error in results:
        if error is None:
            record = record.succeeded(changed=True, at=boot + 3600, boot=boot)
        else:
            record = record.failed(error, at=boot + 3600, boot=boot)
    return record


def test_a_success_clears_the_failures() -> None:
    record = after((0, DENIED), (30, AWAY), (60, OK))
    assert record == Record(
        attempts=3,
        failures=0,
        outcome="changed",
        last_attempt_at=3660,
        last_success_at=3660,
        last_success_boot=60,
        confirmed=True,
    )
    assert record.succeeded(changed=False, at=3700, boot=100).outcome == "unchanged"


def test_a_failure_tells_itself_and_keeps_the_last_success() -> None:
    assert after((10, OK), (20, AWAY), (30, DENIED)) == Record(
        attempts=3,
        failures=2,
        outcome="denied",
        reason="the policy says no",
        last_attempt_at=3630,
        last_success_at=3610,
        last_success_boot=10,
        denials=1,
        denied_since_boot=30,
        confirmed=True,
    )


STALENESS: dict[str, tuple[float, float | None, Freshness, float | None]] = {
    "at once": (0.0, 1000.0, "fresh", 1000.0),
    "one gap": (GAP, 1000.0, "fresh", 875.0),
    "beyond a gap": (GAP + 0.1, 1000.0, "stale", 874.9),
    "at the limit": (1000.0, 1000.0, "stale", 0.0),
    "beyond the limit": (1000.1, 1000.0, "expired", None),
    "long ago, without a limit": (1e6, None, "stale", None),
    "a limit below the gap": (20.0, 10.0, "expired", None),
}


@pytest.mark.parametrize(("age", "max_stale", "word", "left"), STALENESS.values(), ids=STALENESS)
def test_freshness(age: float, max_stale: float | None, word: Freshness, left: float | None) -> None:
    record = after((50, OK), (51, AWAY))
    outage = OutageSettings(max_stale=max_stale)
    assert record.staleness(50 + age) == pytest.approx(age)
    assert freshness(record, outage, longest_gap=GAP, boot=50 + age) == word
    assert expires_in(record, outage, 50 + age) == (left if left is None else pytest.approx(left))


def test_without_a_success_there_is_no_age() -> None:
    record = after((50, AWAY))
    assert record.staleness(99) is None
    assert freshness(record, KEEP, longest_gap=GAP, boot=99) == "never"
    assert expires_in(record, KEEP, 99) is None
    assert withdrawal(record, WITHDRAW, 1e6) is None


def test_no_failure_makes_it_fresh_again() -> None:
    record = after((0, OK))
    for boot, error in enumerate((AWAY, DENIED, MISSING, MALFORMED, CONFLICT), start=1):
        record = record.failed(error, at=boot, boot=boot)
        assert record.staleness(boot) == boot


def test_the_boot_clock_of_a_call_that_began_before_is_no_negative_age() -> None:
    assert after((50, OK)).staleness(49.9) == 0.0


DENIALS: dict[str, tuple[Sequence[tuple[float, RefreshError | None]], float, bool]] = {
    "never": ([(0, OK)], 1e6, False),
    "once": ([(0, DENIED)], 1e6, False),
    "twice": ([(0, DENIED), (60, DENIED)], 1e6, False),
    "three times within a minute": ([(0, DENIED), (20, DENIED), (40, DENIED)], 59.9, False),
    "three times over a minute": ([(0, DENIED), (30, DENIED), (60, DENIED)], 60, True),
    "three times, the minute passes later": ([(0, DENIED), (20, DENIED), (40, DENIED)], 60, True),
    "an outage in between": ([(0, DENIED), (20, AWAY), (40, DENIED), (60, AWAY), (80, DENIED)], 80, True),
    "an outage at the end": ([(0, DENIED), (30, DENIED), (60, DENIED), (90, AWAY)], 90, True),
    "an outage does not count": ([(0, DENIED), (30, AWAY), (60, DENIED)], 99, False),
    "access in between": ([(0, DENIED), (30, DENIED), (60, OK), (90, DENIED)], 99, False),
    "missing in between": ([(0, DENIED), (30, DENIED), (60, MISSING), (90, DENIED)], 120, False),
    "malformed in between": ([(0, DENIED), (30, DENIED), (60, MALFORMED), (90, DENIED)], 120, False),
    "a conflict in between": ([(0, DENIED), (30, DENIED), (60, CONFLICT), (90, DENIED)], 120, False),
    "a new row": ([(0, DENIED), (9, OK), (60, DENIED), (90, DENIED), (120, DENIED)], 119, False),
    "a new row that is long enough": (
        [(0, DENIED), (9, OK), (60, DENIED), (90, DENIED), (120, DENIED)],
        120,
        True,
    ),
}


@pytest.mark.parametrize(("results", "boot", "believed"), DENIALS.values(), ids=DENIALS)
def test_a_denial_is_believed(
    results: Sequence[tuple[float, RefreshError | None]], boot: float, believed: bool
) -> None:
    record = after(*results)
    assert record.denied(boot) is believed
    assert (withdrawal(record, OutageSettings(on_denied="withdraw"), boot) is not None) is believed
    assert withdrawal(record, KEEP, boot) is None


ROW = [(0.0, DENIED), (30.0, DENIED), (60.0, DENIED)]

WITHDRAWALS: dict[str, tuple[Sequence[tuple[float, RefreshError | None]], float, str | None]] = {
    "fresh": ([(0, OK)], 10, None),
    "away": ([(0, OK), (10, AWAY)], 20, None),
    "malformed": ([(0, OK), (10, MALFORMED)], 20, None),
    "conflict": ([(0, OK), (10, CONFLICT)], 20, None),
    "missing": ([(0, OK), (10, MISSING)], 20, "missing: it was deleted"),
    "missing, then away": ([(0, OK), (10, MISSING), (20, AWAY)], 30, None),
    "denied": (ROW, 60, "denied: the policy says no"),
    "denied, then away": ([*ROW, (90, AWAY)], 90, "denied by the provider"),
    "denied and missing": ([*ROW, (90, MISSING)], 90, "missing: it was deleted"),
    "at the limit": ([(0, OK)], 1000, None),
    "expired": ([(0, OK), (500, AWAY)], 1001, "expired: not confirmed by the provider for 1000 s"),
}


@pytest.mark.parametrize(("results", "boot", "reason"), WITHDRAWALS.values(), ids=WITHDRAWALS)
def test_withdrawal(
    results: Sequence[tuple[float, RefreshError | None]], boot: float, reason: str | None
) -> None:
    """Each switch withdraws for its own reason; by default nothing does."""
    record = after(*results)
    assert withdrawal(record, WITHDRAW, boot) == reason
    assert withdrawal(record, KEEP, boot) is None
    assert withdrawal(record, OutageSettings(on_expired="withdraw"), boot) is None


def status(*, at: float | None = 5000.0, boot: float | None = 1400.0) -> KeyStatus:
    return KeyStatus(
        provider="vault",
        freshness="stale",
        outcome="denied",
        reason="the policy says no",
        attempts=7,
        failures=4,
        last_attempt_at=5100.0,
        last_success_at=at,
        last_success_boottime=boot,
        next_refresh_at=5200.0,
        bound_seconds=318.0,
        activation_delay_seconds=1200.0,
        unstaged=None,
        beyond_bound=False,
        withdrawn=None,
    )


RESUMED: dict[str, tuple[KeyStatus | None, bool, float]] = {
    "nothing known: by the publication": (None, True, 700.0),
    "no success yet": (status(at=None, boot=None), True, 700.0),
    "the same boot, whatever the clock says": (status(at=9e9), True, 100.0),
    "the same boot, its clock not known": (status(boot=None), True, 1000.0),
    "another boot: by the clock": (status(), False, 1000.0),
    "another boot, the time ahead of the clock": (status(at=6000.1), False, 0.0),
}


@pytest.mark.parametrize(("before", "same_boot", "age"), RESUMED.values(), ids=RESUMED)
def test_a_restart_does_not_make_it_fresh(before: KeyStatus | None, same_boot: bool, age: float) -> None:
    """Only the age of the last success is taken over: no failure, no row of denials. It is never unknown."""
    record = resumed(before, published_at=5300.0, now=6000.0, boot=1500.0, same_boot=same_boot)
    assert record.staleness(1500.0) == age
    assert (record.attempts, record.failures, record.denials, record.outcome) == (0, 0, 0, "none")


def test_what_was_taken_over_is_stale_until_it_is_confirmed() -> None:
    before = status(boot=99.0)
    record = resumed(before, published_at=5300.0, now=6000.0, boot=100.0, same_boot=True)
    failed = record.failed(AWAY, at=6001.0, boot=101.0)
    confirmed = failed.succeeded(changed=False, at=6002.0, boot=102.0)
    words = [freshness(r, KEEP, longest_gap=GAP, boot=102.0) for r in (record, failed, confirmed)]
    assert words == ["stale", "stale", "fresh"]
