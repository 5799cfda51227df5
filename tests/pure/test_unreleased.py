# SPDX-License-Identifier: Apache-2.0
"""A version that its store has made and not yet released decrypts everywhere and is used by nobody."""

from agent.keyring import Rules, merge
from agent.offer import UNRELEASED, Offer, Offered
from agent.settings import KeySettings
from agent.sources.env import EnvSource
from keyferry.layout import states
from keyferry.material import Material
from keyferry.times import format_time, parse_time

KEY = KeySettings(name="master", provider="env", source=EnvSource())
RULES = Rules(activation_delay=60.0)
OLD = Offered("1", 0.0, Material(b"an old key"), first=True)


def new(*, released: bool) -> Offered:
    return Offered("2", 100.0, Material(b"a new key"), activates_at=None if released else UNRELEASED)


def test_it_waits_for_its_release_however_long() -> None:
    held = merge(None, Offer((OLD, new(released=False))), key=KEY, rules=RULES, now=100.0).keyring
    later = merge(held, Offer((OLD, new(released=False))), key=KEY, rules=RULES, now=1e9).keyring
    assert later == held
    assert states(later.versions, 1e9) == ("active", "pre-active")


def test_it_is_staged_when_it_is_released() -> None:
    """Nobody knows since when the other replicas have it, so it waits a whole delay."""
    held = merge(None, Offer((OLD, new(released=False))), key=KEY, rules=RULES, now=100.0).keyring
    released = merge(held, Offer((OLD, new(released=True))), key=KEY, rules=RULES, now=500.0).keyring
    assert released.versions[-1].activates_at == 560.0
    again = merge(released, Offer((OLD, new(released=True))), key=KEY, rules=RULES, now=600.0).keyring
    assert again == released


def test_an_active_version_does_not_become_unreleased() -> None:
    """A label that is put on a version in use takes nothing away."""
    held = merge(None, Offer((OLD, new(released=True))), key=KEY, rules=RULES, now=1000.0).keyring
    labelled = merge(held, Offer((OLD, new(released=False))), key=KEY, rules=RULES, now=1001.0).keyring
    assert labelled == held


def test_its_time_can_be_written() -> None:
    assert parse_time(format_time(UNRELEASED)) == UNRELEASED
