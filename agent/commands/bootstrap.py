# SPDX-License-Identifier: Apache-2.0
"""``bootstrap``: is every key there and what it should be? With ``--create``, the missing ones are made.

Rules:

- Nothing is ever overwritten, and a key is made once, however many do it at once: who comes second finds it.
- What was made is read back as the agent would read it. The key itself is never shown.
- Where versions were deleted, nothing is created: the old key may come back, and records need it.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from agent.commands.hardening import clean_up_when_stopped, harden
from agent.commands.look import active, chosen, look, opened
from agent.commands.new_material import new_material
from agent.errors import AgentError, ConfigError, MissingError, RefreshError
from agent.exits import Exit
from agent.loading import load
from agent.providers import open_keeper
from agent.providers.base import Provider
from agent.providers.lifecycle import ExistsError, create
from agent.settings import KeySettings, Settings
from agent.sources.env import EnvSource

Result = Literal["ok", "created", "missing", "failed", "unsupported"]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one key. ``milliseconds`` is the last fetch, of the first one with login."""

    key: str
    provider: str
    result: Result
    reason: str | None = None
    version: str | None = None
    fingerprint: str | None = None
    milliseconds: float | None = None


def bootstrap(config: Path | None, name: str | None, *, make: bool, as_json: bool) -> int:
    """Verify the keys, or make those that are missing.

    Returns 0 if all are there, 1 if one is not, 2 if one cannot be made by any command.
    """
    harden()
    clean_up_when_stopped()
    settings = load(config, os.environ).settings
    found = [_bootstrap(key, settings, make=make) for key in chosen(settings, name)]
    if as_json:
        print(json.dumps({"keys": [asdict(one) for one in found]}, indent=1))
    else:
        for one in found:
            print(_line(one))
    results = {one.result for one in found}
    if "unsupported" in results:
        return Exit.MISCONFIGURED
    return Exit.OK if results <= {"ok", "created"} else Exit.FAILED


def _bootstrap(key: KeySettings, settings: Settings, *, make: bool) -> Found:
    try:
        # One for all looks: each login may be a use of a secret id, and leaves a token.
        with opened(key, settings) as provider:
            found = _verified(provider, key, settings)
            if found.result != "missing":
                return found
            if not make:
                # A variable is set from outside.
                hint = (
                    "" if isinstance(key.source, EnvSource) else "; --create makes it if there never was one"
                )
                return Found(key.name, key.provider, "missing", f"{found.reason}{hint}")
            return _create(provider, key, settings)
    except ConfigError as error:
        return Found(key.name, key.provider, "unsupported", str(error))
    except RefreshError as error:
        return Found(key.name, key.provider, "failed", f"{error.outcome}: {error.reason}")
    except AgentError as error:
        return Found(key.name, key.provider, "failed", str(error))


def _verified(provider: Provider, key: KeySettings, settings: Settings, result: Result = "ok") -> Found:
    try:
        seen = look(provider)
        version = active(seen.offer, key, settings)
    except MissingError as error:
        return Found(key.name, key.provider, "missing", error.reason)
    return Found(key.name, key.provider, result, None, version.id, version.fingerprint, seen.milliseconds)


def _create(provider: Provider, key: KeySettings, settings: Settings) -> Found:
    keeper = open_keeper(key, timeout=settings.refresh.timeout)
    try:
        create(keeper, new_material(key))
    except ExistsError as error:
        # Somebody was faster, and theirs is the key; or only remains of one are there.
        found = _verified(provider, key, settings)
        if found.result == "ok":
            return found
        message = f"{error}: {found.reason}; mend that, or go on without it with rotate"
        raise ExistsError(message) from None
    finally:
        keeper.close()
    found = _verified(provider, key, settings, "created")
    if found.result == "missing":
        message = f"the key was made, but is not to be seen yet ({found.reason}); run it again"
        raise AgentError(message)
    return found


def _line(found: Found) -> str:
    head = f"key {found.key} ({found.provider}): {found.result}"
    if found.version is None:
        return f"{head}: {found.reason}"
    return f"{head}, version {found.version}, {found.fingerprint}, {found.milliseconds} ms"
