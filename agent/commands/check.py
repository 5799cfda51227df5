# SPDX-License-Identifier: Apache-2.0
"""``check``: would the agent work here? Everything is tried, and nothing is published."""

import json
import os
import threading
from pathlib import Path
from time import perf_counter
from typing import Literal, NamedTuple

from agent import keyring, schedule
from agent.call import answer
from agent.clock import moment
from agent.commands.hardening import harden
from agent.commands.look import opened, require_lasting_login
from agent.errors import RefreshError, UnavailableError
from agent.exits import Exit
from agent.loading import load
from agent.offer import Offer
from agent.providers.base import fetch
from agent.settings import KeySettings, Settings
from agent.volume import inspect
from keyferry.layout import active_index
from keyferry.status import Outcome


class Finding(NamedTuple):
    """What one try of a key brought. Latencies are milliseconds: with login and connection, and without."""

    key: str
    provider: str
    outcome: Outcome | Literal["ok"]
    reason: str | None = None
    versions: tuple[str, ...] = ()
    active: str | None = None
    fingerprint: str | None = None
    first_ms: float | None = None
    next_ms: float | None = None
    unstaged: str | None = None
    bound_seconds: float = 0.0
    activation_delay_seconds: float = 0.0
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check(config: Path | None, *, as_json: bool) -> int:
    """Try everything and tell what was found.

    Returns 0 if the agent would serve, 1 if a key would fail, 2 if the volume cannot be used.
    """
    harden()
    loaded = load(config, os.environ)
    for key in loaded.settings.keys.values():
        require_lasting_login(key)
    inspection = inspect(loaded.settings.volume)
    findings = _try_all(loaded.settings)
    warnings = (*loaded.warnings, *inspection.warnings)
    if as_json:
        document = {
            "volume": {"path": str(loaded.settings.volume.path), "problems": inspection.problems},
            "warnings": warnings,
            "keys": [finding._asdict() for finding in findings],
        }
        print(json.dumps(document, indent=1))
    else:
        _tell(loaded.settings, inspection.problems, warnings, findings)
    if inspection.problems:
        return Exit.MISCONFIGURED
    return Exit.OK if all(finding.outcome == "ok" for finding in findings) else Exit.FAILED


def _try_all(settings: Settings) -> list[Finding]:
    findings: dict[str, Finding] = {}
    threads = []
    for name, key in settings.keys.items():
        findings[name] = _finding(
            key, settings, UnavailableError(f"no answer within {settings.refresh.timeout:g} s")
        )
        # A thread each, as in the daemon: one that hangs holds up neither the others nor the exit.
        thread = threading.Thread(
            target=lambda k=key: findings.update({k.name: _try(k, settings)}), daemon=True
        )
        thread.start()
        threads.append(thread)
    until = moment().boot + settings.refresh.timeout
    for thread in threads:
        thread.join(max(0.0, until - moment().boot))
    return list(findings.values())


def _try(key: KeySettings, settings: Settings) -> Finding:
    result = answer(lambda: _timed(key, settings))
    if isinstance(result, RefreshError):
        return _finding(key, settings, result)
    offer, first, following = result
    return _finding(key, settings, offer, first=first, following=following)


def _timed(key: KeySettings, settings: Settings) -> tuple[Offer, float, float]:
    """Ask twice; return what there is, and the seconds that the first and the next question took."""
    begun = perf_counter()
    with opened(key, settings) as provider:
        offer = fetch(provider, {})
        answered = perf_counter()
        fetch(provider, {})
        return offer, answered - begun, perf_counter() - answered


def _finding(
    key: KeySettings,
    settings: Settings,
    result: Offer | RefreshError,
    *,
    first: float = 0.0,
    following: float = 0.0,
) -> Finding:
    bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
    delay = settings.rotation.activation_delay
    if isinstance(result, RefreshError):
        return Finding(
            key.name,
            key.provider,
            result.outcome,
            result.reason,
            bound_seconds=bound,
            activation_delay_seconds=delay,
        )
    now = moment().now
    rules = keyring.Rules(activation_delay=delay)
    try:
        merged = keyring.merge(None, result, key=key, rules=rules, now=now)
    except RefreshError as error:
        return _finding(key, settings, error)
    versions = merged.keyring.versions
    active = versions[active_index(versions, now)]
    warnings = list(result.warnings)
    if delay == 0:
        warnings.append(
            "activation_delay is 0s: with several replicas, records that one encrypts right after a rotation "
            "cannot be decrypted by those that have not refreshed yet"
        )
    return Finding(
        key=key.name,
        provider=key.provider,
        outcome="ok",
        versions=tuple(version.id for version in versions),
        active=active.id,
        fingerprint=active.fingerprint,
        first_ms=round(first * 1000, 1),
        next_ms=round(following * 1000, 1),
        unstaged=result.unstaged,
        bound_seconds=bound,
        activation_delay_seconds=delay,
        skipped=tuple(f"{version.id}: {version.reason}" for version in merged.skipped),
        warnings=tuple(warnings),
    )


def _tell(
    settings: Settings, problems: tuple[str, ...], warnings: tuple[str, ...], findings: list[Finding]
) -> None:
    print(f"volume {settings.volume.path}: " + ("ok" if not problems else "not usable"))
    for problem in problems:
        print(f"  problem: {problem}")
    for warning in warnings:
        print(f"  warning: {warning}")
    for finding in findings:
        if finding.outcome != "ok":
            print(f"key {finding.key} ({finding.provider}): {finding.outcome}: {finding.reason}")
            continue
        print(f"key {finding.key} ({finding.provider}): ok, version {finding.active}, {finding.fingerprint}")
        print(f"  versions: {', '.join(finding.versions)}")
        print(f"  latency:  {finding.first_ms} ms with connection and login, {finding.next_ms} ms after")
        print(f"  staged:   {'yes' if finding.unstaged is None else f'no: {finding.unstaged}'}")
        print(
            f"  bound:    {finding.bound_seconds:g} s, within the activation delay of "
            f"{finding.activation_delay_seconds:g} s"
            if finding.activation_delay_seconds
            else f"  bound:    {finding.bound_seconds:g} s; activation delay 0 s: new versions act at once"
        )
        for skipped in finding.skipped:
            print(f"  skipped:  version {skipped}")
        for warning in finding.warnings:
            print(f"  warning:  {warning}")
