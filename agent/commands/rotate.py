# SPDX-License-Identifier: Apache-2.0
"""``rotate``: give a key a new version, which the agents hand out before the apps use it.

Rules:

- A compare-and-set on the newest version: of two at once one rotates, the other is told so and changes
  nothing. Only the configured field is replaced; earlier versions stay.
- A newest version that the configuration does not fit is not rotated: the mistake would get another field.
- The new version is read back as the agent would read it. The key itself is never shown.
- ``--wait`` only looks at the volume: what it reports has happened there.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from agent import schedule
from agent.clock import moment
from agent.commands.following import Follower
from agent.commands.hardening import clean_up_when_stopped, harden
from agent.commands.look import chosen, judged, look, newest
from agent.commands.new_material import new_material
from agent.errors import AgentError, ConfigError, RefreshError
from agent.exits import Exit
from agent.loading import load
from agent.providers import lifecycle, open_keeper
from agent.providers.lifecycle import Rotation
from agent.settings import KeySettings, Settings
from keyferry.layout import Version
from keyferry.times import format_time

# On top of bound and delay, for the publication itself.
_MARGIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to rotate. ``timeout`` is seconds for ``wait``, ``None`` for what a healthy agent needs."""

    at_once: bool = False
    drop_oldest: bool = False
    wait: bool = False
    timeout: float | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done. The new version activates between the two times, replica by replica.

    ``at_once``: the store says that it activates when it was created.
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
        timeout = _patience(key, settings, rotated) if options.timeout is None else options.timeout
        active_here = follower.follow(rotated.version, until_boot=begun.boot + timeout)
        rotated = replace(rotated, active_here=active_here)
        code = Exit.OK if active_here else Exit.NOT_READY
    if options.as_json:
        print(json.dumps(asdict(rotated), indent=1))
    return code


def _rotate(key: KeySettings, settings: Settings, options: Options) -> Rotated:
    keeper = open_keeper(key, timeout=settings.refresh.timeout)
    try:
        before, _ = newest(look(key, settings).offer, key)
        rotation = Rotation(before.id, at_once=options.at_once, drop_oldest=options.drop_oldest)
        made_at = moment().now
        version_id = lifecycle.rotate(keeper, new_material(key), rotation)
    finally:
        keeper.close()
    version, at_once, unstaged = _read_back(version_id, key, settings)
    bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
    delay = 0.0 if at_once else settings.rotation.activation_delay
    return Rotated(
        key.name,
        key.provider,
        before.id,
        version.id,
        version.fingerprint,
        unstaged,
        # Whoever runs stages what it sees change; a pod that starts where nothing is staged does not.
        format_time(made_at + (delay if unstaged is None else 0.0)),
        format_time(made_at + delay + bound),
        at_once,
    )


def _read_back(version_id: str, key: KeySettings, settings: Settings) -> tuple[Version, bool, str | None]:
    """Return the version as the agent would read it, if it states its time, and why it cannot be staged."""
    try:
        offer = look(key, settings).offer
        # Not the newest one: the next rotation may be there by now.
        for offered in offer.versions:
            if offered.id == version_id:
                return judged(offered, offer, key), offered.activates_at is not None, offer.unstaged
    except RefreshError as error:
        message = f"version {version_id} was made, but cannot be read back: {error.outcome}: {error.reason}"
        raise AgentError(message) from error
    shown = offer.versions[-1].id
    message = f"version {version_id} was made, but the store shows {shown} instead: somebody replaced it"
    raise AgentError(message)


def _patience(key: KeySettings, settings: Settings, rotated: Rotated) -> float:
    bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
    delay = 0.0 if rotated.at_once else settings.rotation.activation_delay
    return bound + delay + _MARGIN_SECONDS


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
    if options.at_once and not rotated.at_once:
        yield "  ignored: --activate now, which this store has no place for"
