# SPDX-License-Identifier: Apache-2.0
"""``rotate``: give a key a new version, which the agents hand out before the apps use it.

Rules:

- A compare-and-set on the newest version: of two at once one rotates, the other is told so and changes
  nothing. Only the configured field is replaced; earlier versions stay.
- A newest version that the configuration does not fit is not rotated: the mistake would get another field.
- The new version is read back as the agent would read it. The key itself is never shown.
- A time that is stated leaves every replica its bound, or it would be used before all have seen it.
- ``--wait`` only looks at the volume: what it reports has happened there.
"""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from agent import schedule
from agent.clock import Moment, moment
from agent.commands.following import Follower
from agent.commands.hardening import clean_up_when_stopped, harden
from agent.commands.look import chosen, judged, look, newest, opened
from agent.commands.new_material import new_material
from agent.errors import AgentError, ConfigError, MadeError, RefreshError
from agent.exits import Exit
from agent.loading import load
from agent.offer import Offer, Offered
from agent.providers import lifecycle, open_keeper
from agent.providers.base import Provider
from agent.providers.lifecycle import Keeper, Rotation
from agent.settings import KeySettings, Settings
from keyferry.layout import Version
from keyferry.times import format_time, parse_time

# On top of bound and delay, for the publication itself.
_MARGIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to rotate. ``activate`` is when, in Unix seconds, and ``None`` after the delay.

    ``timeout`` is seconds for ``wait``, ``None`` for what a healthy agent needs.
    """

    activate: Literal["now"] | float | None = None
    drop_oldest: bool = False
    wait: bool = False
    timeout: float | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done. The new version activates between the two times, replica by replica.

    ``at_once``: the store says that it activates when it was created. ``deliver_before``: when a file that is
    brought to the pods has to be at its source there. ``dropped``: versions that the store no longer shows.
    """

    key: str
    provider: str
    replaced: str
    version: str
    fingerprint: str
    unstaged: str | None
    activates_after: str
    activates_before: str
    at_once: bool
    deliver_before: str | None = None
    dropped: tuple[str, ...] = ()
    active_here: bool | None = None


def rotate(config: Path | None, directory: Path | None, name: str | None, options: Options) -> int:
    """Rotate one key; return 0, or 3 if it was to be followed and is not active in time."""
    harden()
    clean_up_when_stopped()
    settings = load(config, os.environ).settings
    keys = chosen(settings, name)
    if len(keys) > 1:
        message = f"--key: is needed, since there are several keys; allowed: {', '.join(settings.keys)}"
        raise ConfigError(message)
    key = keys[0]
    # Before anything is done: what cannot be followed is not begun.
    follower = Follower(directory or settings.volume.path, key.name) if options.wait else None
    begun = moment()
    rotated = _rotate(key, settings, options)
    if not options.as_json:
        print("\n".join(_lines(rotated, options)), flush=True)
    code = Exit.OK
    if follower is not None:
        active_here = follower.follow(rotated.version, until_boot=_until(rotated, options, begun))
        rotated = replace(rotated, active_here=active_here)
        code = Exit.OK if active_here else Exit.NOT_READY
    if options.as_json:
        print(json.dumps(asdict(rotated), indent=1))
    return code


def _until(rotated: Rotated, options: Options, begun: Moment) -> float:
    if options.timeout is not None:
        return begun.boot + options.timeout
    return begun.boot + parse_time(rotated.activates_before) - begun.now + _MARGIN_SECONDS


def _rotate(key: KeySettings, settings: Settings, options: Options) -> Rotated:
    bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
    keeper = open_keeper(key, timeout=settings.refresh.timeout)
    # One for both looks: each login may be a use of a secret id, and leaves a token.
    with closing(keeper), opened(key, settings) as provider:
        made_at = moment().now
        activates_at = _stated(keeper, options, earliest=made_at + bound)
        try:
            shown = look(provider).offer
            before, _ = newest(shown, key)
            at_once = options.activate == "now"
            rotation = Rotation(before.id, at_once, activates_at, drop_oldest=options.drop_oldest)
            version_id = lifecycle.rotate(keeper, new_material(key), rotation)
        except RefreshError as error:
            message = f"{error.outcome}: {error.reason}"
            raise AgentError(message) from error
        offered, offer = _read_back(provider, version_id)
    version = _judged(offered, offer, key)
    at_once = at_once and offered.activates_at is not None
    delay = 0.0 if at_once else settings.rotation.activation_delay
    # Whoever runs stages what it sees change; a pod that starts where nothing is staged does not.
    after = activates_at or made_at + (delay if offer.unstaged is None else 0.0)
    brought = key.mounted and offer.unstaged is None and after > made_at
    kept = {one.id for one in offer.versions}
    return Rotated(
        key.name,
        key.provider,
        before.id,
        version.id,
        version.fingerprint,
        offer.unstaged,
        format_time(after),
        format_time(activates_at or made_at + delay + bound),
        at_once,
        format_time(after - bound) if brought else None,
        tuple(one.id for one in shown.versions if one.id not in kept) if offer.unstaged is None else (),
    )


def _stated(keeper: Keeper, options: Options, *, earliest: float) -> float | None:
    """Return the time that the version is to state; raises ``ConfigError`` where it cannot, or must not."""
    if options.activate is None or options.activate == "now":
        return None
    if not keeper.states_times:
        message = "--activate: only a keyring file can state a time; leave it out, or say now"
        raise ConfigError(message)
    if options.activate < earliest:
        message = (
            f"--activate: is sooner than {format_time(earliest)}, and until then not every healthy replica "
            "needs to have it; state a later time, or say now"
        )
        raise ConfigError(message)
    return options.activate


def _read_back(provider: Provider, version_id: str) -> tuple[Offered, Offer]:
    """Return the version as the store shows it, and all that it shows."""
    try:
        offer = look(provider).offer
    except RefreshError as error:
        message = f"version {version_id} was made, but cannot be read back: {error.outcome}: {error.reason}"
        raise MadeError(message) from error
    # Not the newest one: the next rotation may be there by now.
    for offered in offer.versions:
        if offered.id == version_id:
            return offered, offer
    shown = offer.versions[-1].id
    if offer.unstaged is not None:
        message = f"version {version_id} was made, but there is {shown} now: somebody replaced it"
    else:
        message = (
            f"version {version_id} was made, but is not to be seen yet: the store still shows {shown}; "
            "`check` shows it when it is; do not rotate again"
        )
    raise MadeError(message)


def _judged(offered: Offered, offer: Offer, key: KeySettings) -> Version:
    try:
        return judged(offered, offer, key)
    except RefreshError as error:
        message = f"version {offered.id} was made, but cannot be read back: {error.outcome}: {error.reason}"
        raise MadeError(message) from error


def _lines(rotated: Rotated, options: Options) -> Iterator[str]:
    yield (
        f"key {rotated.key} ({rotated.provider}): version {rotated.version}, {rotated.fingerprint}, "
        f"follows version {rotated.replaced}"
    )
    by = f"on every replica by {rotated.activates_before}"
    if rotated.at_once:
        yield f"  active:  where it is seen, {by}"
        yield f"  staged:  no: {rotated.unstaged or '--activate now'}"
    elif rotated.unstaged is not None:
        yield f"  active:  at once in a pod that starts, after the delay in one that runs, {by}"
        yield f"  staged:  no: {rotated.unstaged}"
    else:
        yield f"  active:  from {rotated.activates_after}, {by}"
        yield "  staged:  yes: until then it only decrypts"
    if rotated.deliver_before is not None:
        yield f"  deliver: to where the pods get it, before {rotated.deliver_before}"
        if options.activate is None:
            yield "           times count from now, not from the roll-out; --activate TIME states a later one"
    if rotated.dropped:
        yield f"  dropped: version {', '.join(rotated.dropped)}, and what only that decrypts"
    if options.activate == "now" and not rotated.at_once:
        yield "  ignored: --activate now, which this store has no place for"
