# SPDX-License-Identifier: Apache-2.0
"""Merges what a provider offers into the keyring that is held, and decides when each version activates.

Pure: values in, values out, ``now`` is an argument. It publishes nothing and derives no state: which version
is active follows from ``activates_at`` and the clock (keyferry.layout).

Rules (docs/adr/0002-activation-basis.md tells why):

- The order is the provider's. Versions that may never be active again stand first.
- A new version activates ``activation_delay`` after it was created, or after this replica first saw it if
  that is later: never earlier than its publication plus the delay. A replica that holds nothing yet has only
  the creation time to go by. The first version ever activates at once.
- A held ``activates_at`` is kept; only a source that states an earlier one moves it. So an active version
  never becomes pre-active again, and a rollback takes effect at once.
- A version that is deleted at the provider decrypts only (or leaves, with ``drop_missing``). One that cannot
  be used for another reason stays as it was held, or is skipped if it is new.
- What was deleted is staged like a new version when it comes back, and so is a version that its store had
  made but not released when it is released. So is a rollback if ``keep_versions`` is a number: others may
  have dropped what it brings back.
- A known id with another value is a conflict, and so is another source. Nothing of it is merged.
- A store without history does not delete what it no longer shows: the held versions stay. One whose time has
  not come by then never activates, since other replicas may have missed it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    MissingError,
    RefreshError,
    UnavailableError,
)
from agent.offer import UNRELEASED, Known, Offer, Offered
from agent.settings import KeySettings
from keyferry.layout import Keyring, Version, active_index
from keyferry.material import InvalidMaterialError, decode, fingerprint
from keyferry.status import Skipped
from keyferry.times import to_millis


class Rules(NamedTuple):
    """How versions of a key come and go. ``activation_delay`` is in seconds."""

    activation_delay: float
    drop_missing: bool = False
    keep_versions: int | None = None


class Merged(NamedTuple):
    """The keyring after a refresh, and the versions that could not be used.

    ``failure`` says why the refresh does not count as a success although its keyring is right: the active
    version was not confirmed, or there is a new one that could not be had for the moment.
    """

    keyring: Keyring
    skipped: tuple[Skipped, ...] = ()
    failure: RefreshError | None = None


def known(held: Keyring | None) -> Known:
    """Return the ids whose values need not be fetched again, with their creation times."""
    return {version.id: version.created_at for version in held.versions} if held else {}


def merge(held: Keyring | None, offer: Offer, *, key: KeySettings, rules: Rules, now: float) -> Merged:
    """Return the keyring that follows from ``held`` and ``offer``.

    ``held`` without versions counts as none: a withdrawn key starts over. Raises ``RefreshError`` where
    nothing usable is offered or it contradicts what is held; the held keyring is then still right.
    """
    before = _before(held, offer, key, rules, now)
    taken: dict[str, Version | RefreshError] = {}
    for offered in offer.versions:
        previous = before.get(offered.id)
        activates_at = _activates_at(offered, previous, rules, held=bool(before), now=now)
        taken[offered.id] = _take(offered, previous, key, activates_at)
    problems = {id_: result for id_, result in taken.items() if isinstance(result, RefreshError)}
    if len(problems) == len(taken):
        raise _worst(problems.values())
    merged = [_absent(version, offer, rules, now) for version in before.values() if version.id not in taken]
    merged += [_present(result, before.get(id_), rules) for id_, result in taken.items()]
    versions = tuple(sorted(filter(None, merged), key=lambda version: version.activates_at is not None))
    active = versions[active_index(versions, now)]
    failures = [
        error
        for id_, error in problems.items()
        if id_ == active.id or (isinstance(error, UnavailableError) and id_ not in before)
    ]
    failure = _worst(failures) if failures else None
    if not _has_come(active, now):
        if failure:
            # The version that the fleet uses may be the one that could not be had.
            raise failure
        # None is due, so this one must serve. From now on it does: a rollback must not bring in another.
        serving = active._replace(activates_at=to_millis(now))
        versions = tuple(serving if version is active else version for version in versions)
    keyring = Keyring(key.provider, key.source_digest, key.encoding, key.length, versions)
    skipped = tuple(Skipped(id_, error.outcome, error.reason) for id_, error in problems.items())
    return Merged(keyring, skipped, failure)


def pruned(keyring: Keyring, rules: Rules, now: float) -> Keyring:
    """Return the keyring as it is published: with ``keep_versions`` counted back from the active one.

    It is counted as of two delays ago, and nothing goes that was not yet due then: that much later may a
    neighbour see a rollback, and stage it, which this replica took at once.
    """
    if rules.keep_versions is None or not keyring.versions:
        return keyring
    then = now - 2 * rules.activation_delay
    first = max(0, active_index(keyring.versions, then) + 1 - rules.keep_versions)
    young = (version for version in keyring.versions[:first] if (version.activates_at or then) > then)
    return keyring._replace(versions=(*young, *keyring.versions[first:]))


def withdrawn(key: KeySettings, reason: str) -> Keyring:
    """Return the entry that says that ``key`` may no longer be used."""
    return Keyring(key.provider, key.source_digest, key.encoding, key.length, withdrawn=reason)


def _before(
    held: Keyring | None, offer: Offer, key: KeySettings, rules: Rules, now: float
) -> dict[str, Version]:
    """Return the held versions by id, if they can be merged with what is offered for ``key``."""
    if held is None or not held.versions:
        return {}
    if held.source != key.source_digest:
        message = (
            f"the volume holds key {key.name!r} of another source ({held.provider}); keys of two sources are "
            "never merged: start a pod with a fresh volume, or configure the source as it was"
        )
        raise ConflictError(message)
    if (held.encoding, held.length) != (key.encoding, key.length):
        for version in held.versions:
            _check_fits(version, key)
    before = {version.id: version for version in held.versions}
    for id_ in _returning(held.versions, offer, rules, now):
        before[id_] = _never(before[id_])
    return before


def _returning(held: Sequence[Version], offer: Offer, rules: Rules, now: float) -> set[str]:
    """Return the ids that a rollback brings back from where ``keep_versions`` lets others drop them."""
    if rules.keep_versions is None:
        return set()
    active = active_index(held, now)
    ids = [offered.id for offered in offer.versions]
    behind = ids[ids.index(held[active].id) :] if held[active].id in ids else ids
    return {version.id for version in held[:active]}.intersection(behind)


def _check_fits(version: Version, key: KeySettings) -> None:
    """Raise ``MalformedError`` if a held version is no key any more by the encoding and length of today."""
    try:
        decode(version.material, key.encoding, key.length)
    except InvalidMaterialError as error:
        message = (
            f"version {version.id} of key {key.name!r} is published but unusable as configured now: {error}. "
            "The published ones stay; configure encoding and length as they were, or start pods with a fresh "
            "volume"
        )
        raise MalformedError(message) from None


def _activates_at(
    offered: Offered, previous: Version | None, rules: Rules, *, held: bool, now: float
) -> float:
    stated = offered.activates_at
    if previous and previous.activates_at == UNRELEASED != stated:
        previous = None
    if previous and previous.activates_at is not None:
        return previous.activates_at if stated is None else min(previous.activates_at, stated)
    if stated is not None:
        return stated
    created_at = offered.created_at
    if held:
        # Creation may be long before publication, and the last refresh is before it by up to a whole
        # interval, or by an outage. That it is here now is the one thing known to be later.
        return _staged(max(now, created_at or now), rules)
    if offered.first or created_at is None:
        return to_millis(min(now, created_at or now))
    return _staged(created_at, rules)


def _staged(since: float, rules: Rules) -> float:
    # No file can hold a later time than that of what is not released.
    return min(to_millis(since + rules.activation_delay), UNRELEASED)


def _take(
    offered: Offered, previous: Version | None, key: KeySettings, activates_at: float
) -> Version | RefreshError:
    """Return the version that is offered, or why it cannot be used."""
    if isinstance(offered.material, RefreshError):
        return offered.material
    material = previous.material if offered.material is None and previous else offered.material
    if material is None:
        return UnavailableError(f"the provider took version {offered.id} for known, but it is not held")
    if previous and previous.material != material:
        message = (
            f"version {offered.id} of key {key.name!r} has another value than the one published under this "
            "id; was the key deleted and made anew? The published one stays. Start pods with a fresh volume "
            "to take the new key"
        )
        raise ConflictError(message)
    try:
        mark = fingerprint(material, len(decode(material, key.encoding, key.length)))
    except InvalidMaterialError as error:
        return MalformedError(f"{error} (key {key.name!r}; check its field, encoding and length)")
    return Version(offered.id, offered.created_at, activates_at, mark, material)


def _absent(version: Version, offer: Offer, rules: Rules, now: float) -> Version | None:
    """Return what becomes of a held version that the provider no longer shows."""
    if offer.unstaged is None:
        return None if rules.drop_missing else _never(version)
    return version if _has_come(version, now) else _never(version)


def _present(result: Version | RefreshError, previous: Version | None, rules: Rules) -> Version | None:
    """Return what becomes of a version that the provider shows, usable or not."""
    if isinstance(result, Version):
        return result
    if previous and isinstance(result, MissingError):
        return None if rules.drop_missing else _never(previous)
    return previous


def _never(version: Version) -> Version:
    return version._replace(activates_at=None)


def _has_come(version: Version, now: float) -> bool:
    return version.activates_at is not None and version.activates_at <= now


def _worst(errors: Iterable[RefreshError]) -> RefreshError:
    """Return the one error that tells why nothing is usable: what a person can mend comes first."""
    newest_first = list(errors)[::-1]
    for kind in (DeniedError, UnavailableError, MalformedError):
        for error in newest_first:
            if isinstance(error, kind):
                return error
    return newest_first[0] if newest_first else MissingError("the provider shows no version of this key")
