# SPDX-License-Identifier: Apache-2.0
"""What must hold between settings that are each right by themselves.

Rules:

- Pure. A section that is ``None`` had a problem of its own: what depends on it is not judged, since a guess
  at what was meant would only produce misleading problems.
- A problem names the numbers that it was worked out from, and which of them to change.
- A warning is for what is allowed but seldom meant.
"""

from collections.abc import Iterator, Mapping

from agent.kinds import SHARE
from agent.parsing import format_duration
from agent.problems import Problem
from agent.schedule import MOUNT_DELAY_SECONDS, bound, longest_gap
from agent.settings import KeySettings, OutageSettings, RefreshSettings, RotationSettings, VolumeSettings
from agent.sources.wrapped import WrappedSource
from keyferry.layout import CHECK_INTERVAL_SECONDS
from keyferry.times import to_millis


def problems(
    *,
    volume: VolumeSettings | None = None,
    refresh: RefreshSettings | None = None,
    rotation: RotationSettings | None = None,
    outage: OutageSettings | None = None,
    keys: Mapping[str, KeySettings],
    **_others: object,
) -> Iterator[Problem]:
    """Yield what is wrong between the settings that are there."""
    if volume is not None:
        yield from _sources_on_the_volume(volume, keys)
    if refresh is not None:
        yield from _timeout(refresh)
        if outage is not None:
            yield from _staleness(refresh, outage)
        if rotation is not None:
            yield from _bound(refresh, rotation, keys)


def warnings(*, volume: VolumeSettings, **_others: object) -> Iterator[Problem]:
    """Yield what is allowed but seldom meant."""
    if volume.mode & 0o004:
        yield Problem(
            "volume.mode",
            "lets every user in the pod's containers read the keys",
            '"0440"',
            'write "0440" and give the pod an fsGroup',
        )


def _sources_on_the_volume(volume: VolumeSettings, keys: Mapping[str, KeySettings]) -> Iterator[Problem]:
    for name, key in keys.items():
        if any(file.is_relative_to(volume.path) for file in key.source_files):
            setting = "keyring" if isinstance(key.source, WrappedSource) else "path"
            yield Problem(
                f"keys.{name}.{setting}",
                "lies on the volume that the agent itself writes, volume.path",
                "a file anywhere else",
                "move the source, or volume.path",
            )


def _timeout(refresh: RefreshSettings) -> Iterator[Problem]:
    if refresh.timeout > refresh.interval:
        timeout, interval = format_duration(refresh.timeout), format_duration(refresh.interval)
        yield Problem(
            "refresh.timeout",
            f'"{timeout}" is longer than refresh.interval, "{interval}"',
            "at most the interval",
            "shorten it, or lengthen the interval",
        )


def _staleness(refresh: RefreshSettings, outage: OutageSettings) -> Iterator[Problem]:
    gap = to_millis(longest_gap(refresh))
    if outage.max_stale is not None and outage.max_stale < gap:
        yield Problem(
            "outage.max_stale",
            f'"{format_duration(outage.max_stale)}" is over before a healthy key is refreshed again',
            f'"never", or at least "{format_duration(gap)}", refresh.interval with its jitter and timeout',
            "lengthen it, or shorten refresh.interval",
        )


def _bound(
    refresh: RefreshSettings, rotation: RotationSettings, keys: Mapping[str, KeySettings]
) -> Iterator[Problem]:
    late = [name for name, key in keys.items() if key.mounted]
    least = to_millis(bound(refresh, rotation, mounted=bool(late)))
    if not 0 < rotation.activation_delay < least:
        return
    share = SHARE.write(refresh.jitter)
    terms = [
        f"2 x refresh.interval {format_duration(refresh.interval)} x (1 + refresh.jitter {share})",
        f"2 x refresh.timeout {format_duration(refresh.timeout)}",
        f"refresh.max_backoff {format_duration(refresh.max_backoff)}",
        f"the adapter's look every {format_duration(CHECK_INTERVAL_SECONDS)}",
        f"rotation.clock_skew {format_duration(rotation.clock_skew)}",
    ]
    if late:
        terms.append(f"{format_duration(MOUNT_DELAY_SECONDS)} since the file of keys.{late[0]} is mounted")
    delay, enough = format_duration(rotation.activation_delay), format_duration(least)
    yield Problem(
        "rotation.activation_delay",
        f'"{delay}" is shorter than the bound, {enough}: a version could be used before every replica has it '
        f"({' + '.join(terms)})",
        f'at least "{enough}", or "0s" to replace at once',
        "lengthen it for the whole fleet, or shorten refresh.interval",
    )
