# SPDX-License-Identifier: Apache-2.0
"""Merges what a provider offers into the keyring that is held, and decides when each version activates.

Pure: values in, values out, ``now`` is an argument. It publishes nothing and derives no state: which version
is active follows from ``activates_at`` and the clock (keyferry.layout).

Rules (docs/design.md tells why):

- The order is the provider's. Versions that may never be active again stand first.
- A held ``activates_at`` is kept; only a source that states an earlier one moves it. So an active version
  never becomes pre-active again, and a rollback to a held version takes effect at once.
- A new version activates ``activation_delay`` after the latest of: its creation, the last refresh that did not
  show it, and the longest gap of a healthy replica before now. The first version ever activates at once.
- A version that is deleted at the provider decrypts only (or leaves, with ``drop_missing``). One that cannot be
  used for another reason stays as it was held, or is skipped if it is new.
- A known id with another value is a conflict, and so is another source. Nothing of it is merged.
- A store without history does not delete what it no longer shows: the held versions stay.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    MissingError,
    RefreshError,
    UnavailableError,
)
from agent.offer import Known, Offer, Offered
from agent.settings import KeySettings
from keyferry.layout import Keyring, Version, active_index
from keyferry.material import InvalidMaterialError, Material, decode, fingerprint
from keyferry.status import Skipped
from keyferry.times import to_millis


@dataclass(frozen=True, slots=True)
class Rules:
    """How versions of a key come and go. Durations are seconds."""

    activation_delay: float
    longest_gap: float
    drop_missing: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """The keyring after a refresh, and the versions that could not be used."""

    keyring: Keyring
    skipped: tuple[Skipped, ...]


def known(held: Keyring | None) -> Known:
    """Return the ids whose values need not be fetched again, with their creation times."""
    return {version.id: version.created_at for version in held.versions} if held else {}


def merge(  # noqa: PLR0913 - the arguments are the rule: what is held, what is offered, who, how, when
    held: Keyring | None,
    offer: Offer,
    *,
    key: KeySettings,
    rules: Rules,
    now: float,
    last_success: float | None,
) -> Merged:
    """Return the keyring that follows from ``held`` and ``offer``.

    ``held`` without versions counts as none: a withdrawn key starts over. ``last_success`` is when the last
    refresh succeeded (Unix seconds), ``None`` if nobody knows. Raises ``RefreshError`` where nothing usable
    is offered or what is offered contradicts what is held; the held keyring is then still right.
    """
    before = {version.id: version for version in held.versions} if held else {}
    if held and before and held.source != key.source_digest:
        message = (
            f"the volume holds key {key.name!r} of another source ({held.provider}); keys of two sources are never "
            "merged: start a pod with a fresh volume, or configure the source as it was"
        )
        raise ConflictError(message)
    earliest = _earliest_basis(bool(before), rules, now, last_success)
    offered_versions: list[Version] = []
    deleted: list[Version] = []
    problems: list[tuple[str, RefreshError]] = []
    for offered in offer.versions:
        previous = before.pop(offered.id, None)
        try:
            offered_versions.append(_take(offered, previous, key, earliest, rules.activation_delay, now))
        except ConflictError:
            raise
        except RefreshError as error:
            problems.append((offered.id, error))
            if previous is not None:
                (deleted if isinstance(error, MissingError) else offered_versions).append(previous)
    if offer.unstaged is None:
        deleted = [*before.values(), *deleted]
    else:
        offered_versions = [*before.values(), *offered_versions]
    live = [version for version in offered_versions if version.activates_at is not None]
    if not live:
        raise _worst(problems)
    never = [version for version in offered_versions if version.activates_at is None]
    if not rules.drop_missing:
        never += [replace(version, activates_at=None) for version in deleted]
    keyring = Keyring(
        provider=key.provider,
        source=key.source_digest,
        encoding=key.encoding,
        length=key.length,
        versions=(*never, *live),
    )
    return Merged(keyring, tuple(Skipped(id_, error.outcome, error.reason) for id_, error in problems))


def pruned(keyring: Keyring, keep_versions: int | None, now: float) -> Keyring:
    """Return the keyring with at most ``keep_versions`` counted back from the active one (``None``: all)."""
    if keep_versions is None or not keyring.versions:
        return keyring
    first = max(0, active_index(keyring.versions, now) + 1 - keep_versions)
    return replace(keyring, versions=keyring.versions[first:])


def withdrawn(key: KeySettings, reason: str) -> Keyring:
    """Return the entry that says that ``key`` may no longer be used."""
    return Keyring(
        provider=key.provider,
        source=key.source_digest,
        encoding=key.encoding,
        length=key.length,
        withdrawn=reason,
    )


def _earliest_basis(held: bool, rules: Rules, now: float, last_success: float | None) -> float | None:  # noqa: FBT001
    """Return the moment before which a new version cannot have been offered, as far as this replica knows.

    A replica that holds nothing cannot tell, so the creation time alone counts. One that was cut off does not
    know when in that time the version came: it counts as if it had missed it by one healthy gap. Counting
    from its last success would let it activate at once what its neighbours have not seen.
    """
    if not held:
        return None
    if last_success is None:
        return now
    return max(last_success, now - rules.longest_gap)


def _take(  # noqa: PLR0913
    offered: Offered,
    previous: Version | None,
    key: KeySettings,
    earliest: float | None,
    activation_delay: float,
    now: float,
) -> Version:
    if isinstance(offered.material, RefreshError):
        raise offered.material
    material = offered.material if offered.material is not None else previous and previous.material
    if material is None:
        message = f"the provider took version {offered.id} for known, but it is not held"
        raise UnavailableError(message)
    if previous and previous.material != material:
        message = (
            f"version {offered.id} of key {key.name!r} has another value than the one published under this id; was the "
            "key deleted and made anew? The published one stays. Start pods with a fresh volume to take the new key"
        )
        raise ConflictError(message)
    activates_at = _activates_at(offered, previous, earliest, activation_delay, now)
    return Version(
        id=offered.id,
        created_at=offered.created_at,
        activates_at=activates_at,
        fingerprint=_checked_fingerprint(material, key),
        material=material,
    )


def _activates_at(
    offered: Offered,
    previous: Version | None,
    earliest: float | None,
    activation_delay: float,
    now: float,
) -> float:
    stated = offered.activates_at
    if previous and previous.activates_at is not None:
        return previous.activates_at if stated is None else min(previous.activates_at, stated)
    if stated is not None:
        return stated
    times = [moment for moment in (offered.created_at, earliest) if moment is not None]
    if offered.first or not times:
        return to_millis(now if offered.created_at is None else min(now, offered.created_at))
    return to_millis(max(times) + activation_delay)


def _checked_fingerprint(material: Material, key: KeySettings) -> str:
    try:
        return fingerprint(material, len(decode(material, key.encoding, key.length)))
    except InvalidMaterialError as error:
        message = f"{error} (key {key.name!r}; check its field, encoding and length)"
        raise MalformedError(message) from None


def _worst(problems: Iterable[tuple[str, RefreshError]]) -> RefreshError:
    """Return the one error that tells why nothing is usable: what a person can mend comes first."""
    errors = [error for _, error in problems]
    for kind in (DeniedError, UnavailableError, MalformedError):
        for error in reversed(errors):
            if isinstance(error, kind):
                return error
    return errors[-1] if errors else MissingError("the provider shows no version of this key")
