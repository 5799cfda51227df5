# SPDX-License-Identifier: Apache-2.0
"""What a refresh makes of a keyring: a row a rule. What a failing row held is untouched."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from secrets import token_urlsafe

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    MissingError,
    RefreshError,
    UnavailableError,
)
from agent.keyring import Rules, known, merge, pruned, withdrawn
from agent.offer import UNRELEASED, Offer, Offered
from agent.settings import KeySettings
from agent.sources.env import EnvSource
from keyferry.layout import Generation, Keyring, Version, active_index, parse, serialize
from keyferry.material import Material, fingerprint

NOW = 1_000_000.0
DELAY = 1200.0
OLD = NOW - 100_000.0
KEY = KeySettings(name="master", provider="env", source=EnvSource(), encoding="base64url", length=32)
ANOTHER_SOURCE = replace(KEY, source=EnvSource(variable="ANOTHER"))
RULES = Rules(activation_delay=DELAY)
DROP = Rules(activation_delay=DELAY, drop_missing=True)
KEEP_1 = Rules(activation_delay=DELAY, keep_versions=1)

MATERIAL = {id_: Material(token_urlsafe(32).encode()) for id_ in "12345AB"}
# Texts that are base64url of 32 bytes and of 31 bytes: another length is another key.
SHORT = Material(token_urlsafe(31).encode())

DELETED = MissingError("version was deleted")
DESTROYED = MissingError("version was destroyed")
DENIED = DeniedError("the value is refused")
AWAY = UnavailableError("no answer")
NO_FIELD = MalformedError("it has no field key")


def ring(*versions: tuple[str, float | None], key: KeySettings = KEY) -> Keyring:
    """Return a held keyring of (id, activates_at), created a delay before."""
    return Keyring(
        key.provider,
        key.source_digest,
        key.encoding,
        key.length,
        tuple(
            Version(id_, OLD, activates_at, fingerprint(MATERIAL[id_], 32), MATERIAL[id_])
            for id_, activates_at in versions
        ),
    )


def show(
    id_: str,
    created_at: float | None = OLD,
    material: Material | RefreshError | str | None = None,
    *,
    first: bool = False,
    activates_at: float | None = None,
) -> Offered:
    """Return a version as it is offered; its own material unless told otherwise, none for "known"."""
    value = None if material == "known" else material or MATERIAL[id_]
    assert not isinstance(value, str)
    return Offered(id_, created_at, value, first, activates_at)


@dataclass(frozen=True)
class Row:
    """A refresh at NOW, and the (id, activates_at) that are held after it. The active one is ``active``."""

    held: Keyring | None
    offered: Sequence[Offered]
    after: Sequence[tuple[str, float | None]]
    active: str
    skipped: tuple[tuple[str, str], ...] = ()
    failure: RefreshError | None = None
    unstaged: str | None = None
    rules: Rules = RULES


HELD_2 = ring(("1", OLD), ("2", OLD + DELAY))
PENDING = ring(("1", OLD), ("2", NOW + 500))

MERGED = {
    "the first version ever is active at once": Row(
        None, [show("1", NOW - 5, first=True)], [("1", NOW - 5)], "1"
    ),
    "the first one is not in the future, whatever the store's clock": Row(
        None, [show("1", NOW + 50, first=True)], [("1", NOW)], "1"
    ),
    "the only one that is shown is staged unless it is the first, and used since there is no other": Row(
        None, [show("3", NOW - 5)], [("3", NOW)], "3"
    ),
    "a fresh pod inside the window waits as long as its neighbours": Row(
        None,
        [show("1", first=True), show("2", NOW - 60)],
        [("1", OLD), ("2", NOW - 60 + DELAY)],
        "1",
    ),
    "a fresh pod after the window starts with the newest": Row(
        None,
        [show("1", first=True), show("2", NOW - DELAY - 1)],
        [("1", OLD), ("2", NOW - 1)],
        "2",
    ),
    "a new version activates a delay after first sight": Row(
        ring(("1", OLD)), [show("1"), show("2", NOW - 30)], [("1", OLD), ("2", NOW + DELAY)], "1"
    ),
    "promoted or merged long after its creation": Row(
        ring(("1", OLD)), [show("1"), show("2", OLD)], [("1", OLD), ("2", NOW + DELAY)], "1"
    ),
    "a store's clock that is behind": Row(
        ring(("1", OLD)), [show("1"), show("2", NOW - 3600)], [("1", OLD), ("2", NOW + DELAY)], "1"
    ),
    "a creation time ahead of the clock": Row(
        ring(("1", OLD)), [show("1"), show("2", NOW + 90)], [("1", OLD), ("2", NOW + 90 + DELAY)], "1"
    ),
    "a creation time at the end of all time": Row(
        ring(("1", OLD)), [show("1"), show("2", UNRELEASED - 1)], [("1", OLD), ("2", UNRELEASED)], "1"
    ),
    "a version without creation time": Row(
        ring(("1", OLD)), [show("1"), show("2", None)], [("1", OLD), ("2", NOW + DELAY)], "1"
    ),
    "only versions without creation time": Row(None, [show("1", None)], [("1", NOW)], "1"),
    "what is held is never the first ever": Row(
        ring(("2", OLD)), [show("2"), show("1", NOW - 5, first=True)], [("2", OLD), ("1", NOW + DELAY)], "2"
    ),
    "the order is the store's, not the clock's": Row(
        ring(("1", OLD)), [show("2", OLD - 500), show("1")], [("2", NOW + DELAY), ("1", OLD)], "1"
    ),
    "nothing new": Row(
        HELD_2,
        [show("1", material="known"), show("2", material="known")],
        [("1", OLD), ("2", OLD + DELAY)],
        "2",
    ),
    "a held activation stays, though it would be later today": Row(
        PENDING, [show("1"), show("2", NOW + 90)], [("1", OLD), ("2", NOW + 500)], "1"
    ),
    "a source that states the activation": Row(
        ring(("1", OLD)),
        [show("1"), show("2", activates_at=NOW + 7)],
        [("1", OLD), ("2", NOW + 7)],
        "1",
    ),
    "a source that states it for now": Row(
        PENDING, [show("1"), show("2", activates_at=NOW)], [("1", OLD), ("2", NOW)], "2"
    ),
    "a source that states a later one than is published": Row(
        PENDING, [show("1"), show("2", activates_at=NOW + 900)], [("1", OLD), ("2", NOW + 500)], "1"
    ),
    "a rollback": Row(HELD_2, [show("2"), show("1")], [("2", OLD + DELAY), ("1", OLD)], "1"),
    "a rollback inside the window": Row(PENDING, [show("2"), show("1")], [("2", NOW + 500), ("1", OLD)], "1"),
    "a rollback with keep_versions is staged, first or not": Row(
        HELD_2,
        [show("2"), show("1", first=True)],
        [("2", OLD + DELAY), ("1", NOW + DELAY)],
        "2",
        rules=KEEP_1,
    ),
    "a rollback with keep_versions, the active one gone": Row(
        HELD_2, [show("1")], [("2", None), ("1", NOW)], "1", rules=KEEP_1
    ),
    "a version that keeps its place is no rollback": Row(
        HELD_2, [show("1"), show("2")], [("1", OLD), ("2", OLD + DELAY)], "2", rules=KEEP_1
    ),
    "rapid rotations": Row(
        PENDING,
        [show("1"), show("2", NOW - 400), show("3", NOW - 20)],
        [("1", OLD), ("2", NOW + 500), ("3", NOW + DELAY)],
        "1",
    ),
    "the active version was deleted: the newest that is due takes over": Row(
        HELD_2, [show("1"), show("2", material=DELETED)], [("2", None), ("1", OLD)], "1", (("2", "missing"),)
    ),
    "the active version was deleted inside the window: what is left must serve": Row(
        PENDING,
        [show("1", material=DELETED), show("2")],
        [("1", None), ("2", NOW)],
        "2",
        (("1", "missing"),),
    ),
    "a deleted version that leaves": Row(
        HELD_2,
        [show("1", material=DESTROYED), show("2")],
        [("2", OLD + DELAY)],
        "2",
        (("1", "missing"),),
        rules=DROP,
    ),
    "a version that is no longer shown": Row(HELD_2, [show("2")], [("1", None), ("2", OLD + DELAY)], "2"),
    "a version that is no longer shown leaves": Row(
        HELD_2, [show("2")], [("2", OLD + DELAY)], "2", rules=DROP
    ),
    "a new version that is deleted already": Row(
        ring(("1", OLD)), [show("1"), show("2", material=DELETED)], [("1", OLD)], "1", (("2", "missing"),)
    ),
    "an undeleted version is staged": Row(
        ring(("2", None), ("1", OLD)),
        [show("1"), show("2", material="known")],
        [("1", OLD), ("2", NOW + DELAY)],
        "1",
    ),
    "one unusable version among good ones is skipped": Row(
        ring(("1", OLD)),
        [show("1"), show("2", material=NO_FIELD), show("3")],
        [("1", OLD), ("3", NOW + DELAY)],
        "1",
        (("2", "malformed"),),
    ),
    "a new version of the wrong length": Row(
        ring(("1", OLD)), [show("1"), show("2", material=SHORT)], [("1", OLD)], "1", (("2", "malformed"),)
    ),
    "a new version that is refused": Row(
        ring(("1", OLD)), [show("1"), show("2", material=DENIED)], [("1", OLD)], "1", (("2", "denied"),)
    ),
    "a new version that did not come is no success": Row(
        ring(("1", OLD)),
        [show("1"), show("2", material=AWAY)],
        [("1", OLD)],
        "1",
        (("2", "unavailable"),),
        AWAY,
    ),
    "a held version that did not come stays": Row(
        HELD_2,
        [show("1", material=AWAY), show("2")],
        [("1", OLD), ("2", OLD + DELAY)],
        "2",
        (("1", "unavailable"),),
    ),
    "the active version is refused: it stays, what is new comes, and it is no success": Row(
        HELD_2,
        [show("1"), show("2", material=DENIED), show("3")],
        [("1", OLD), ("2", OLD + DELAY), ("3", NOW + DELAY)],
        "2",
        (("2", "denied"),),
        DENIED,
    ),
    "a deleted version that cannot be read either": Row(
        ring(("2", None), ("1", OLD)),
        [show("1"), show("2", material=AWAY)],
        [("2", None), ("1", OLD)],
        "1",
        (("2", "unavailable"),),
    ),
    "a fresh pod that cannot read an old version goes on": Row(
        None, [show("1", material=AWAY), show("2")], [("2", OLD + DELAY)], "2", (("1", "unavailable"),), AWAY
    ),
    "the store took for known what is not held": Row(
        ring(("1", OLD)),
        [show("1"), show("2", material="known")],
        [("1", OLD)],
        "1",
        (("2", "unavailable"),),
        UnavailableError("the provider took version 2 for known, but it is not held"),
    ),
    "a store without history: its one value is active at once": Row(
        None, [show("A", None)], [("A", NOW)], "A", unstaged="no history"
    ),
    "a store without history: what changes is staged, what was shown stays": Row(
        ring(("A", OLD)), [show("B", None)], [("A", OLD), ("B", NOW + DELAY)], "A", unstaged="no history"
    ),
    "a store without history: back again": Row(
        ring(("A", OLD), ("B", OLD + 1)),
        [show("A", None)],
        [("B", OLD + 1), ("A", OLD)],
        "A",
        unstaged="no history",
    ),
    "a store without history: back before it was used": Row(
        ring(("A", OLD), ("B", NOW + 9)),
        [show("A", None)],
        [("B", None), ("A", OLD)],
        "A",
        unstaged="no history",
    ),
    "a store without history: replaced before it was used": Row(
        ring(("A", OLD), ("B", NOW + 9)),
        [show("1", None)],
        [("B", None), ("A", OLD), ("1", NOW + DELAY)],
        "A",
        unstaged="no history",
    ),
    "a withdrawn key starts over": Row(
        withdrawn(KEY, "denied"), [show("1"), show("2")], [("1", OLD + DELAY), ("2", OLD + DELAY)], "2"
    ),
    "a withdrawn key starts over inside the window": Row(
        withdrawn(KEY, "denied"),
        [show("1"), show("2", NOW - 9)],
        [("1", OLD + DELAY), ("2", NOW - 9 + DELAY)],
        "1",
    ),
    "no delay": Row(
        ring(("1", OLD)), [show("1"), show("2", NOW - 9)], [("1", OLD), ("2", NOW)], "2", rules=Rules(0.0)
    ),
}


@pytest.mark.parametrize("row", MERGED.values(), ids=MERGED)
def test_merge(row: Row) -> None:
    merged = merge(row.held, Offer(tuple(row.offered), row.unstaged), key=KEY, rules=row.rules, now=NOW)

    versions = merged.keyring.versions
    assert [(version.id, version.activates_at) for version in versions] == list(row.after)
    assert versions[active_index(versions, NOW)].id == row.active
    assert tuple((skipped.id, skipped.outcome) for skipped in merged.skipped) == row.skipped
    assert (type(merged.failure), str(merged.failure)) == (type(row.failure), str(row.failure))
    assert all(version.material == MATERIAL[version.id] for version in versions)
    assert all(version.fingerprint == fingerprint(version.material, 32) for version in versions)
    assert merged.keyring == ring()._replace(versions=versions)


@dataclass(frozen=True)
class Refused:
    """A refresh that must fail with this class and text."""

    held: Keyring | None
    offered: Sequence[Offered]
    error: type[RefreshError]
    message: str
    key: KeySettings = KEY
    unstaged: str | None = None


ANOTHER_VALUE = (
    "version 1 of key 'master' has another value than the one published under this id; was the key deleted "
    "and made anew? The published one stays. Start pods with a fresh volume to take the new key"
)

REFUSED = {
    "nothing is shown": Refused(None, [], MissingError, "the provider shows no version of this key"),
    "nothing is shown any more": Refused(
        HELD_2, [], MissingError, "the provider shows no version of this key"
    ),
    "everything was deleted": Refused(
        HELD_2,
        [show("1", material=DESTROYED), show("2", material=DELETED)],
        MissingError,
        "version was deleted",
    ),
    "missing and away: nobody may conclude that it is missing": Refused(
        HELD_2, [show("1", material=AWAY), show("2", material=DELETED)], UnavailableError, "no answer"
    ),
    "malformed and missing": Refused(
        None,
        [show("1", material=NO_FIELD), show("2", material=DELETED)],
        MalformedError,
        "it has no field key",
    ),
    "away and malformed": Refused(
        None, [show("1", material=AWAY), show("2", material=NO_FIELD)], UnavailableError, "no answer"
    ),
    "denied before everything": Refused(
        HELD_2, [show("1", material=DENIED), show("2", material=AWAY)], DeniedError, "the value is refused"
    ),
    "the newest speaks for its like": Refused(
        None,
        [show("1", material=MalformedError("older")), show("2", material=NO_FIELD)],
        MalformedError,
        "it has no",
    ),
    "all that is held is refused": Refused(
        HELD_2, [show("1", material=DENIED), show("2", material=DENIED)], DeniedError, "the value is refused"
    ),
    "the one value of a store without history is malformed": Refused(
        ring(("A", OLD)),
        [show("B", None, SHORT)],
        MalformedError,
        "the value is 31 bytes",
        unstaged="no history",
    ),
    "of the wrong length": Refused(
        None,
        [show("1", material=SHORT)],
        MalformedError,
        "the value is 31 bytes long after decoding as base64url, not 32 (key 'master'; check its field, "
        "encoding and length)",
    ),
    "a known id with another value": Refused(
        HELD_2, [show("1", material=MATERIAL["5"])], ConflictError, ANOTHER_VALUE
    ),
    "a known id with another value, among good ones": Refused(
        HELD_2, [show("1", material=MATERIAL["5"]), show("2"), show("3")], ConflictError, ANOTHER_VALUE
    ),
    "another source": Refused(
        HELD_2,
        [show("1"), show("2")],
        ConflictError,
        "the volume holds key 'master' of another source (env); keys of two sources are never merged: start "
        "a pod with a fresh volume, or configure the source as it was",
        key=ANOTHER_SOURCE,
    ),
    "another length for what is published": Refused(
        HELD_2,
        [show("1"), show("2")],
        MalformedError,
        "version 1 of key 'master' is published but unusable as configured now: the value is 32 bytes long "
        "after decoding as base64url, not 16. The published ones stay; configure encoding and length as they "
        "were, or start pods with a fresh volume",
        key=replace(KEY, length=16),
    ),
    "another encoding for what is published, new ones fitting": Refused(
        HELD_2,
        [show("3", material=Material(b"c0ffee"))],
        MalformedError,
        "version 1 of key",
        replace(KEY, encoding="hex"),
    ),
    "a fresh pod that cannot tell what the fleet uses": Refused(
        None, [show("1", material=AWAY), show("2", NOW - 9)], UnavailableError, "no answer"
    ),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_refused(row: Refused) -> None:
    """The error says why, and what was held is as it was."""
    before = row.held and serialize(Generation(1, NOW, {"master": row.held}))
    with pytest.raises(row.error) as caught:
        merge(row.held, Offer(tuple(row.offered), row.unstaged), key=row.key, rules=RULES, now=NOW)
    assert str(caught.value).startswith(row.message)
    assert type(caught.value) is row.error
    assert (row.held and serialize(Generation(1, NOW, {"master": row.held}))) == before


def test_another_encoding_that_fits_is_taken() -> None:
    """An encoding or a length that says the same of every held version is no contradiction."""
    key = replace(KEY, length=None)
    merged = merge(HELD_2, Offer((show("1"), show("2"))), key=key, rules=RULES, now=NOW)
    assert merged.keyring == HELD_2._replace(length=None)


def test_known_are_all_held_with_their_creation_times() -> None:
    assert known(None) == {}
    assert known(ring(("1", None), ("2", OLD))) == {"1": OLD, "2": OLD}


KEPT = {
    "all": (None, [("1", OLD), ("2", OLD + 1), ("3", OLD + 2)], ["1", "2", "3"]),
    "one": (1, [("1", OLD), ("2", OLD + 1), ("3", OLD + 2)], ["3"]),
    "two": (2, [("1", OLD), ("2", OLD + 1), ("3", OLD + 2)], ["2", "3"]),
    "more than there are": (9, [("1", OLD), ("2", OLD + 1)], ["1", "2"]),
    "every pre-active one": (
        1,
        [("1", OLD), ("2", OLD + 1), ("3", NOW + 1), ("4", NOW + 2)],
        ["2", "3", "4"],
    ),
    "what was active less than two delays ago": (1, [("1", OLD), ("2", NOW - 2 * DELAY + 1)], ["1", "2"]),
    "not what was active before that": (1, [("1", OLD), ("2", NOW - 2 * DELAY)], ["2"]),
    "what became due and was rolled back from": (
        1,
        [("2", NOW - 9), ("3", NOW + 9), ("1", OLD)],
        ["2", "3", "1"],
    ),
    "not a deleted one": (1, [("1", None), ("2", OLD)], ["2"]),
    "nothing": (1, [], []),
}


@pytest.mark.parametrize(("keep", "held", "kept"), KEPT.values(), ids=KEPT)
def test_pruned(keep: int | None, held: list[tuple[str, float | None]], kept: list[str]) -> None:
    rules = RULES._replace(keep_versions=keep)
    assert [version.id for version in pruned(ring(*held), rules, NOW).versions] == kept


def test_pruned_versions_come_back_staged_after_a_restart() -> None:
    """The volume no longer has them, so neither has the neighbour's."""
    adopted = pruned(HELD_2, KEEP_1, NOW)
    merged = merge(adopted, Offer((show("2"), show("1"))), key=KEY, rules=KEEP_1, now=NOW)
    assert [(v.id, v.activates_at) for v in merged.keyring.versions] == [
        ("2", OLD + DELAY),
        ("1", NOW + DELAY),
    ]


def test_withdrawn() -> None:
    entry = withdrawn(KEY, "denied: by policy")
    assert entry == Keyring("env", KEY.source_digest, "base64url", 32, (), "denied: by policy")


# Properties. Times are whole milliseconds, as stores and volumes have them.

times = st.integers(0, 4000).map(lambda seconds: NOW - 2000 + seconds)
answers = st.one_of(
    st.none(), st.none(), st.none(), st.sampled_from([DELETED, DENIED, AWAY, NO_FIELD]), st.just("known")
)


@st.composite
def offers(draw: st.DrawFn, *, orderly: bool = False) -> Offer:
    """Return any offer; an ``orderly`` one only ever grows, and everything in it can be read."""
    if orderly:
        ids = [str(number) for number in range(1, draw(st.integers(2, 6)))]
        return Offer(tuple(show(id_, draw(times)) for id_ in ids))
    ids = draw(st.lists(st.sampled_from(sorted(MATERIAL)), unique=True, max_size=5))
    return Offer(
        tuple(
            show(
                id_,
                draw(times | st.none()),
                draw(answers),
                first=draw(st.booleans()),
                activates_at=draw(st.none() | times),
            )
            for id_ in ids
        ),
        draw(st.sampled_from([None, "no history"])),
    )


rules_of_any_kind = st.builds(
    Rules,
    activation_delay=st.sampled_from([0.0, 1.0, 700.0]),
    drop_missing=st.booleans(),
    keep_versions=st.none() | st.integers(1, 3),
)


def history(
    steps: Sequence[tuple[float, Offer]], rules: Rules
) -> list[tuple[float, Offer, Keyring | None, Keyring]]:
    """Return (now, offer, held before, held after) of refreshes that follow each other and succeed."""
    held: Keyring | None = None
    now = NOW
    seen: list[tuple[float, Offer, Keyring | None, Keyring]] = []
    for wait, offer in steps:
        now += wait
        before = held
        with suppress(RefreshError):
            held = merge(before, offer, key=KEY, rules=rules, now=now).keyring
            seen.append((now, offer, before, held))
    return seen


steps = st.lists(st.tuples(st.integers(0, 900).map(float), offers()), min_size=1, max_size=6)


@settings(max_examples=50)
@given(steps, rules_of_any_kind, st.integers(0, 3000))
def test_the_same_offer_again_changes_nothing(
    steps: list[tuple[float, Offer]], rules: Rules, later: int
) -> None:
    """Not at once, and not later either: time alone never changes a keyring, only which version is active."""
    for now, offer, _, after in history(steps, rules):
        again = merge(after, offer, key=KEY, rules=rules, now=now)
        assert again.keyring == after
        stated = any(version.activates_at is not None for version in offer.versions)
        if not stated and rules.keep_versions is None and not offer.unstaged and not again.failure:
            assert merge(after, offer, key=KEY, rules=rules, now=now + later).keyring == after


@settings(max_examples=50)
@given(steps, rules_of_any_kind)
def test_what_is_held_can_always_be_published_and_adopted(
    steps: list[tuple[float, Offer]], rules: Rules
) -> None:
    """Every keyring survives being written and read, pruned or not, and has an active version."""
    for now, _, _, after in history(steps, rules):
        for shown in (after, pruned(after, rules, now)):
            assert parse(serialize(Generation(1, now, {"master": shown}))).keys["master"] == shown
            assert shown.versions[active_index(shown.versions, now)].activates_at is not None


@settings(max_examples=50)
@given(steps, rules_of_any_kind)
def test_pruning_never_takes_the_active_or_a_pre_active_version(
    steps: list[tuple[float, Offer]], rules: Rules
) -> None:
    for now, _, _, after in history(steps, rules):
        active = after.versions[active_index(after.versions, now) :]
        assert pruned(after, rules, now).versions[-len(active) :] == active


@settings(max_examples=50)
@given(steps, rules_of_any_kind)
def test_an_activation_never_moves_later_while_it_is_published(
    steps: list[tuple[float, Offer]], rules: Rules
) -> None:
    """Unless the version is lost: deleted, passed over or no longer kept."""
    keeps_all = rules._replace(keep_versions=None)
    for _, _, before, after in history(steps, keeps_all):
        if before is not None:
            moments = {version.id: version.activates_at for version in after.versions}
            for version in before.versions:
                now_at = moments.get(version.id)
                if version.activates_at is not None and now_at is not None:
                    assert now_at <= version.activates_at


@settings(max_examples=50)
@given(steps, rules_of_any_kind)
def test_the_order_is_the_stores(steps: list[tuple[float, Offer]], rules: Rules) -> None:
    """Versions that may be active stand as the store shows them, behind all that may not."""
    for _, offer, _, after in history(steps, rules):
        never = [version.activates_at is None for version in after.versions]
        assert never == sorted(never, reverse=True)
        live = [version.id for version in after.versions if version.activates_at is not None]
        shown = [version.id for version in offer.versions if version.id in live]
        assert [id_ for id_ in live if id_ in shown] == shown


@given(
    st.lists(st.tuples(st.integers(0, 900).map(float), offers(orderly=True)), min_size=1, max_size=8), times
)
def test_the_active_version_never_runs_backwards(steps: list[tuple[float, Offer]], jump: float) -> None:
    """While a store only adds versions, each refresh finds the same active version or a later one."""
    del jump
    growing = [(wait, offer) for wait, offer in sorted(steps, key=lambda step: len(step[1].versions))]
    created: dict[str, float | None] = {}
    active = -1
    for now, _, _, after in history(_with_stable_times(growing, created), RULES):
        index = active_index(after.versions, now)
        assert index >= active
        active = index


def _with_stable_times(
    steps: Sequence[tuple[float, Offer]], created: dict[str, float | None]
) -> list[tuple[float, Offer]]:
    """Give each version the creation time that it was first shown with."""
    return [
        (
            wait,
            Offer(
                tuple(
                    version._replace(created_at=created.setdefault(version.id, version.created_at))
                    for version in offer.versions
                )
            ),
        )
        for wait, offer in steps
    ]


@settings(max_examples=50)
@given(steps, rules_of_any_kind)
def test_nothing_new_activates_within_the_delay(steps: list[tuple[float, Offer]], rules: Rules) -> None:
    """What is new to a replica that holds something waits for a delay, unless it is stated or must serve."""
    for now, offer, before, after in history(steps, rules):
        if before is not None:
            seen = {version.id for version in before.versions}
            stated = {version.id for version in offer.versions if version.activates_at is not None}
            serving = after.versions[active_index(after.versions, now)].id
            for version in after.versions:
                if version.id not in seen | stated | {serving}:
                    assert version.activates_at is not None
                    assert version.activates_at >= now + rules.activation_delay
            due = [v for v in after.versions if v.activates_at is not None and v.activates_at < now]
            assert serving in seen | stated or not due or rules.activation_delay == 0
