# SPDX-License-Identifier: Apache-2.0
"""What every provider owes the agent, on every store: the same cells against the fake and the real ones.

Which cells a store leaves out, and why, stands in its driver.
"""

import time

import pytest

from agent.errors import DeniedError, MalformedError, MissingError, RefreshError, UnavailableError
from agent.offer import Known, Offer, Offered
from agent.providers.base import Provider, fetch
from keyferry.material import Material
from tests.providers.drivers import LATER, Driver, new_value
from tests.providers.stores import DRIVERS


def known(offer: Offer) -> Known:
    """Return what an agent that took ``offer`` would hold."""
    return {version.id: version.created_at for version in offer.versions}


def value(offered: Offered) -> str:
    assert isinstance(offered.material, Material)
    return offered.material.text


def outcome(provider: Provider, held: Known) -> RefreshError:
    """Return what the newest version fails of, whether the fetch fails as a whole or shows it."""
    try:
        offer = fetch(provider, held)
    except RefreshError as error:
        return error
    material = offer.versions[-1].material
    assert isinstance(material, RefreshError)
    return material


def test_fetch(driver: Driver) -> None:
    """The value comes verbatim, and never by repr."""
    secret = new_value()
    driver.put(secret)
    offer = fetch(driver.provider(), {})
    assert [value(version) for version in offer.versions] == [secret]
    assert secret not in repr(offer)


def test_versions_in_order(driver: Driver) -> None:
    """All versions come, oldest first; only the very first is called that."""
    secrets = [new_value(), new_value(), new_value()]
    for secret in secrets:
        driver.put(secret)
    offer = fetch(driver.provider(), {})
    assert [value(version) for version in offer.versions] == secrets
    times = [version.created_at for version in offer.versions]
    assert None not in times
    assert times == sorted(times, key=float)  # type: ignore[arg-type]
    assert [version.id for version in offer.versions] == [driver.version_id(n) for n in (1, 2, 3)]
    assert offer.unstaged is None


def test_first_version(driver: Driver) -> None:
    """A store knows whether a lone version is the first ever, or says why its rotations cannot be staged."""
    driver.put(new_value())
    offer = fetch(driver.provider(), {})
    assert offer.versions[0].first == (offer.unstaged is None)


def test_unchanged_costs_no_value_read(driver: Driver) -> None:
    driver.put(new_value())
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    reads = driver.value_reads()
    offer = fetch(provider, held)
    assert [version.material for version in offer.versions] == [None, None]
    assert known(offer) == held
    assert driver.value_reads() == reads == 2


def test_new_version(driver: Driver) -> None:
    """A fetch by the same provider shows what was put meanwhile."""
    driver.put(new_value())
    provider = driver.provider()
    before = fetch(provider, {})
    secret = new_value()
    driver.put(secret)
    offer = fetch(provider, known(before))
    assert value(offer.versions[-1]) == secret
    assert offer.versions[-1].id not in known(before)


def test_pending_version(driver: Driver) -> None:
    """A version whose time the store itself puts off comes at once, last, with its value and that time."""
    secret, later = new_value(), new_value()
    driver.put(secret)
    driver.put_pending(later)
    offer = fetch(driver.provider(), {})
    assert [value(version) for version in offer.versions] == [secret, later]
    first, pending = (version.activates_at for version in offer.versions)
    assert first is None
    assert pending is not None
    assert pending >= LATER


def test_rollback_of_the_pointer(driver: Driver) -> None:
    """The version that the store points back to is its newest word."""
    driver.put(new_value())
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    driver.point_back()
    offer = fetch(provider, held)
    assert [version.id for version in offer.versions] == [driver.version_id(n) for n in (2, 1)]
    assert all(version.activates_at is None for version in offer.versions)
    assert not any(isinstance(version.material, RefreshError) for version in offer.versions)


def test_probe_refused(driver: Driver) -> None:
    """Without permission for more than the value all versions come all the same, and a warning."""
    secrets = [new_value(), new_value(), new_value()]
    for secret in secrets[:2]:
        driver.put(secret)
    driver.refuse_probe()
    provider = driver.provider()
    first = fetch(provider, {})
    assert [value(version) for version in first.versions] == secrets[:2]
    assert len(first.warnings) == 1
    driver.put(secrets[2])
    second = fetch(provider, known(first))
    assert [version.id for version in second.versions] == [driver.version_id(n) for n in (1, 2, 3)]
    assert value(second.versions[-1]) == secrets[2]
    assert second.versions[0].material is None


def test_one_unusable_version(driver: Driver) -> None:
    """A version that is no key hides none of the others."""
    first, third = new_value(), new_value()
    driver.put(first)
    driver.put_unusable()
    driver.put(third)
    offer = fetch(driver.provider(), {})
    assert [value(offer.versions[0]), value(offer.versions[2])] == [first, third]
    assert isinstance(offer.versions[1].material, MalformedError)


def test_malformed(driver: Driver) -> None:
    driver.put_unusable()
    error = outcome(driver.provider(), {})
    assert isinstance(error, MalformedError)
    assert "too short" not in error.reason
    assert "kee" not in error.reason


@pytest.mark.parametrize("removal", ["delete", "destroy"])
@pytest.mark.parametrize("version_id", ["1", "2"])
def test_removed_version(driver: Driver, version_id: str, removal: str) -> None:
    """A removed version is shown as missing, whether the agent holds it or not; the other is untouched."""
    driver.put(new_value())
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    getattr(driver, removal)(version_id)
    for offer in (fetch(provider, held), fetch(provider, {})):
        missing = {v.id for v in offer.versions if isinstance(v.material, MissingError)}
        assert missing == {version_id}
        assert len(offer.versions) == 2


def test_made_anew(driver: Driver) -> None:
    """A key that was forgotten and made anew has old ids: its values are read, whatever the agent holds."""
    driver.put(new_value())
    driver.put(new_value())
    provider = driver.provider()
    before = fetch(provider, {})
    driver.forget()
    with pytest.raises(MissingError):
        fetch(provider, known(before))
    secret = new_value()
    driver.put(secret)
    offer = fetch(provider, known(before))
    assert [version.id for version in offer.versions] == [driver.version_id(1)]
    assert value(offer.versions[0]) == secret
    assert offer.versions[0].created_at != before.versions[0].created_at


def test_missing(driver: Driver) -> None:
    assert isinstance(outcome(driver.provider(), {}), MissingError)


def test_denied(driver: Driver) -> None:
    """A refusal of the value is told as such, and is over when the store says so."""
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    driver.deny()
    for _ in range(2):
        assert isinstance(outcome(provider, held), DeniedError)
    driver.allow()
    assert known(fetch(provider, held)) == held


def test_unavailable(driver: Driver) -> None:
    """An outage is told as such, and the same provider works when it is over."""
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    driver.go_away()
    with pytest.raises(UnavailableError):
        fetch(provider, held)
    driver.come_back()
    assert known(fetch(provider, held)) == held


def test_throttled(driver: Driver) -> None:
    """A store that asks to slow down is unavailable, and its wish is passed on."""
    driver.put(new_value())
    driver.throttle()
    with pytest.raises(UnavailableError) as failure:
        fetch(driver.provider(), {})
    assert failure.value.retry_after_seconds is not None
    assert 0 < failure.value.retry_after_seconds <= 60


def test_slow(driver: Driver) -> None:
    """A store that does not answer costs no more than the timeout."""
    driver.put(new_value())
    # Enough for the first fetch of a fresh client on a busy machine.
    timeout = 2.0
    provider = driver.provider(timeout)
    held = known(fetch(provider, {}))
    driver.stall()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=f"gave no complete answer within {timeout:g} s"):
        fetch(provider, held)
    assert timeout <= time.monotonic() - started < timeout + 3
    driver.come_back()
    assert known(fetch(provider, held)) == held


def test_credentials_rotated(driver: Driver) -> None:
    """Credentials that were replaced on disk are read when the old ones stop working."""
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    driver.rotate_credentials()
    assert known(fetch(provider, held)) == held


def test_credentials_revoked(driver: Driver) -> None:
    """Credentials that stopped working say nothing about the key, which no kill switch may take away then."""
    driver.put(new_value())
    provider = driver.provider()
    held = known(fetch(provider, {}))
    driver.revoke_credentials()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            fetch(provider, held)


def test_close(driver: Driver) -> None:
    """Closing never fails, open or not, once or twice."""
    driver.put(new_value())
    provider = driver.provider()
    provider.close()
    fetch(provider, {})
    provider.close()
    provider.close()


@pytest.mark.parametrize("name", DRIVERS)
def test_what_is_absent_is_a_cell_and_says_why(name: str) -> None:
    cells = {test.removeprefix("test_") for test in globals() if test.startswith("test_")}
    absent = DRIVERS[name].absent
    assert set(absent) <= cells
    assert all(absent.values())
