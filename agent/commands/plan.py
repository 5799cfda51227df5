# SPDX-License-Identifier: Apache-2.0
"""``plan``: what the agents will call and cost, how fast a rotation goes, and what they must be allowed.

It reads the configuration only, and a wrapped keyring's file to see what is bound into it: nothing is called.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import schedule
from agent.clock import moment
from agent.errors import RefreshError
from agent.exits import Exit
from agent.loading import load
from agent.parsing import format_duration
from agent.policies import Policy, policies
from agent.prices import HOURS_A_MONTH, TRAFFIC, Tariff
from agent.providers import env, file, vault, wrapped
from agent.providers.files import read_file
from agent.settings import KeySettings, Settings
from agent.sources.env import EnvSource
from agent.sources.file import FileSource
from agent.sources.vault import VaultSource
from agent.sources.wrapped import WrappedSource
from keyferry.layout import CHECK_INTERVAL_SECONDS
from keyferry.times import format_time, to_millis

_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be expected of one key. Money is US dollars, a month has 730 hours.

    ``unstaged`` says why no rotation is staged, where the configuration tells; ``check`` asks the store.
    ``assumed`` is what the plan takes for granted about the store, where the configuration does not tell.
    """

    key: str
    provider: str
    calls_at_refresh: tuple[str, ...]
    calls_at_new_version: tuple[str, ...]
    calls_an_hour: float
    calls_a_month: float
    dollars_a_month_for_calls: float | None
    dollars_a_month_to_keep: float | None
    share_of_quota: float | None
    tariff: Tariff | None
    bound_seconds: float
    bound_terms: tuple[tuple[str, float], ...]
    activation_delay_seconds: float
    rotated_now_activates_after: str
    rotated_now_activates_before: str
    unstaged: str | None
    assumed: str | None
    policies: tuple[Policy, ...]


def plan(config: Path | None, *, pods: int, as_json: bool) -> int:
    """Tell what ``pods`` pods with this configuration do; return 0."""
    settings = load(config, os.environ).settings
    plans = [_plan(key, settings, pods) for key in settings.keys.values()]
    if as_json:
        print(json.dumps({"pods": pods, "keys": [asdict(one) for one in plans]}, indent=1))
    else:
        for one in plans:
            print("\n".join(_lines(one, settings, pods)))
    return Exit.OK


def _plan(key: KeySettings, settings: Settings, pods: int) -> Plan:
    traffic = TRAFFIC[key.provider]
    tariff = traffic.tariff
    a_second = len(traffic.at_refresh) * pods / settings.refresh.interval
    a_month = a_second * _SECONDS_AN_HOUR * HOURS_A_MONTH
    bound = schedule.bound(settings.refresh, settings.rotation, mounted=key.mounted)
    delay = settings.rotation.activation_delay
    unstaged = _unstaged(key)
    now = moment().now
    return Plan(
        key=key.name,
        provider=key.provider,
        calls_at_refresh=traffic.at_refresh,
        calls_at_new_version=traffic.at_new_version,
        calls_an_hour=round(a_second * _SECONDS_AN_HOUR, 1),
        calls_a_month=round(a_month),
        dollars_a_month_for_calls=round(a_month / 10_000 * tariff.per_10000_calls, 2) if tariff else None,
        dollars_a_month_to_keep=tariff.per_month if tariff else None,
        # Not the mean: pods that start together ask together.
        share_of_quota=len(traffic.at_refresh) * pods / tariff.calls_per_second if tariff else None,
        tariff=tariff,
        bound_seconds=to_millis(bound),
        bound_terms=tuple(_terms(key, settings)),
        activation_delay_seconds=delay,
        rotated_now_activates_after=format_time(now + (delay if unstaged is None else 0.0)),
        rotated_now_activates_before=format_time(now + delay + bound),
        unstaged=unstaged,
        assumed=_assumed(key),
        policies=policies(key, bound=_is_bound(key)),
    )


def _terms(key: KeySettings, settings: Settings) -> Iterator[tuple[str, float]]:
    refresh = settings.refresh
    yield "2 x refresh.interval with its jitter", 2 * refresh.interval * (1 + refresh.jitter)
    yield "2 x refresh.timeout", 2 * refresh.timeout
    yield "refresh.max_backoff", refresh.max_backoff
    yield "the adapter's look at the volume", CHECK_INTERVAL_SECONDS
    yield "rotation.clock_skew", settings.rotation.clock_skew
    if key.mounted:
        yield "a mounted ConfigMap's or Secret's delay", schedule.MOUNT_DELAY_SECONDS


def _unstaged(key: KeySettings) -> str | None:
    match key.source:
        case EnvSource():
            return env.UNSTAGED
        case FileSource(format="raw" | "json" as kind):
            return file.UNSTAGED.format(kind)
        case VaultSource(kv_version=1):
            return vault.V1_UNSTAGED
        case WrappedSource() if not _is_bound(key):
            return wrapped.UNSTAGED
    return None


def _assumed(key: KeySettings) -> str | None:
    match key.source:
        case VaultSource(kv_version=None):
            return "KV version 2, for staging and policies; set kv_version where it is 1"
    return None


def _is_bound(key: KeySettings) -> bool:
    """Tell whether the ciphertexts have the key's name bound into them; a keyring that is not there will."""
    if not isinstance(key.source, WrappedSource):
        return True
    keyring = key.source.keyring
    if isinstance(keyring, str):
        return keyring.lstrip().startswith("{")
    with suppress(RefreshError):
        return read_file(keyring).lstrip().startswith(b"{")
    return True


def _lines(one: Plan, settings: Settings, pods: int) -> Iterator[str]:
    yield f"key {one.key} ({one.provider}), {pods} pod{'' if pods == 1 else 's'}"
    if not one.calls_at_refresh:
        yield "  calls:    none: it is read where the agent runs"
    else:
        yield f"  calls:    {one.calls_an_hour:g} an hour, {one.calls_a_month} a month"
        interval = format_duration(settings.refresh.interval)
        yield f"            every {interval}: {', '.join(one.calls_at_refresh)}"
        yield f"            at a new version besides: {', '.join(one.calls_at_new_version)}"
        yield "            logins come on top, as often as the credentials expire"
    if one.tariff is not None:
        yield (
            f"  cost:     ${one.dollars_a_month_for_calls:.2f} a month for calls, and "
            f"${one.dollars_a_month_to_keep:.2f} for {one.tariff.kept}"
        )
        yield f"            list prices of {one.tariff.as_of}: {one.tariff.source}"
        yield (
            f"  quota:    {one.share_of_quota:.2%} of {one.tariff.calls_per_second:g} calls a second, if all "
            f"pods ask at once ({one.tariff.quota})"
        )
    elif one.calls_at_refresh:
        yield "  cost:     none a call: the server is yours"
    yield f"  bound:    {one.bound_seconds:g} s, until every healthy pod has a new version:"
    for name, seconds in one.bound_terms:
        yield f"            {seconds:g} s  {name}"
    yield from _delay(one)
    if one.assumed is not None:
        yield f"  assumed:  {one.assumed}"
    for policy in one.policies:
        who = "the agent" if policy.role == "agent" else "who runs bootstrap --create and rotate"
        yield f"  policy ({policy.language}) of {who}:"
        yield from (f"    {line}" for line in policy.text.splitlines())


def _delay(one: Plan) -> Iterator[str]:
    if one.activation_delay_seconds == 0:
        yield "  delay:    0 s: a new version is used where it is seen, before others can decrypt with it"
        return
    if one.unstaged is not None:
        yield (
            f"  delay:    {one.activation_delay_seconds:g} s, in a pod that runs; one that starts uses the "
            "new version at once"
        )
        yield f"  staged:   no: {one.unstaged}"
        return
    spare = one.activation_delay_seconds - one.bound_seconds
    yield (
        f"  delay:    {one.activation_delay_seconds:g} s, {spare:g} s more than the bound: every pod can "
        "decrypt before any encrypts"
    )
    yield (
        f"  rotation: made now, it is active from {one.rotated_now_activates_after}, on every pod by "
        f"{one.rotated_now_activates_before}"
    )
