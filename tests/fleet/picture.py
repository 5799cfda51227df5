# SPDX-License-Identifier: Apache-2.0
"""Draws docs/rotation.svg: failed decrypts around one rotation of a simulated fleet, at once against staged.

    python -m tests.fleet.picture > docs/rotation.svg

Rules:

- Every number comes from the simulation (tests/pure/fleet.py) with the defaults; only the delay differs.
- A decrypt is one replica that opens what another encrypts now: all pairs count alike.
- The same seed gives the same picture, so a test can tell whether the committed one is current.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from agent import schedule
from agent.keyring import Rules
from agent.settings import RefreshSettings, RotationSettings
from examples.demo.picture import SVG, line, rectangle, text
from examples.demo.style import DARK, LIGHT, STYLE
from tests.pure.fleet import START, Fleet, Replica, Store

REPLICAS = 200
REFRESH, ROTATION = RefreshSettings(), RotationSettings()
BOUND = schedule.bound(REFRESH, ROTATION, mounted=False)
# In seconds from the rotation on. A sample that is the true maximum needs no finer step.
FIRST, LAST, STEP = -120, 1620, 5
WARM_UP = 1200.0

WIDTH, LEFT, RIGHT = 960, 72, 24
TOP, PLOT, GAP = 112, 130, 66

SHAPES = """
.has, .uses { fill: none; stroke-width: 2; stroke-linejoin: round }
.has { stroke-dasharray: 6 3 }
.lost { fill-opacity: 0.45 }
"""


class Sample(NamedTuple):
    """The shares, at one moment, of replicas that have and use version 2, and of decrypts that fail."""

    at: float
    has: float
    uses: float
    failed: float


def simulate(delay: float) -> list[Sample]:
    """Return how a fleet takes one new version, which uses it ``delay`` seconds after it was seen."""
    store = Store()
    store.put("1", now=START - WARM_UP, created_at=START - WARM_UP)
    fleet = Fleet(store)
    rules = Rules(activation_delay=delay)
    for number in range(REPLICAS):
        fleet.run(START + REFRESH.interval * number / REPLICAS)
        fleet.start(Replica(f"replica-{number}", REFRESH, rules))
    rotated = START + WARM_UP
    samples = []
    for at in range(FIRST, LAST + 1, STEP):
        if at == 0:
            store.put("2", now=rotated, created_at=rotated)
        fleet.run(rotated + at)
        samples.append(sample(fleet, at))
    return samples


def sample(fleet: Fleet, at: float) -> Sample:
    """Return what the fleet is like now."""
    writers = Counter(replica.active for replica in fleet.replicas)
    readers = [replica.view.ids for replica in fleet.replicas if replica.view]
    has = sum("2" in ids for ids in readers)
    failed = sum(number for ids in readers for version, number in writers.items() if version not in ids)
    return Sample(at, has / REPLICAS, writers["2"] / REPLICAS, failed / REPLICAS**2)


def draw() -> str:
    """Return the picture."""
    at_once, staged = simulate(0.0), simulate(ROTATION.activation_delay)
    wrong = [sample.at for sample in at_once if sample.failed]
    worst = max(sample.failed for sample in at_once)
    lost = f"up to {worst:.0%} of decrypts fail, for {minutes(wrong[-1] - wrong[0])}"
    kept = "no decrypt fails" if not any(sample.failed for sample in staged) else "decrypts fail"
    delay = f"{ROTATION.activation_delay / 60:.0f}m"
    title = f"One rotation in a fleet of {REPLICAS} replicas: staged, {kept}"
    described = (
        f"Two charts over {minutes(LAST)} after a rotation. With activation_delay 0s {lost}, while some "
        f"replicas encrypt with the new version and others do not have it. With activation_delay {delay} "
        f"{kept}: every replica has the version minutes before the first one encrypts with it."
    )
    subtitle = (
        f"Simulated with the agent's defaults: each replica asks every {minutes(REFRESH.interval)}. "
        "A decrypt is one replica opening what another encrypts now."
    )
    second = TOP + PLOT + GAP
    bottom = second + PLOT
    height = bottom + 62
    parts = [
        rectangle(0.5, 0.5, WIDTH - 1, height - 1, "sheet", radius=8),
        text(24, 36, title, "title"),
        text(
            24,
            57,
            subtitle,
            "muted",
        ),
        *panel(TOP, at_once, f"activation_delay: 0s: {lost}", "failed"),
        *panel(second, staged, f"activation_delay: {delay}, the default: {kept}", "good"),
        *marks(second, delay),
        *legend(bottom + 46),
    ]
    parts += [text(x(at), bottom + 18, f"{at / 60:.0f} min", "tick") for at in range(0, LAST + 1, 300)]
    return SVG.format(
        width=WIDTH,
        height=height,
        title=escape(title),
        description=escape(described),
        style=STYLE
        + SHAPES
        + colours(LIGHT)
        + "@media (prefers-color-scheme: dark) {\n"
        + colours(DARK)
        + "}\n",
        parts="\n".join(parts),
    )


def panel(top: float, samples: list[Sample], label: str, style: str) -> list[str]:
    """Return one chart; its label says what ``style`` says."""
    bottom = top + PLOT
    parts = [text(LEFT, top - 10, label, style)]
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * PLOT
        parts += [line(LEFT, y, WIDTH - RIGHT, y, "axis" if share == 0 else "grid")]
        parts += [text(LEFT - 8, y + 4, f"{share:.0%}", "pod")]
    failed = curve(bottom, [(sample.at, sample.failed) for sample in samples])
    parts.append(f'<polygon class="lost" points="{failed} {x(LAST):.1f},{bottom} {LEFT},{bottom}"/>')
    for name in ("has", "uses"):
        points = curve(bottom, [(sample.at, getattr(sample, name)) for sample in samples])
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    parts.append(line(x(0), top - 4, x(0), bottom, "lead"))
    return [*parts, text(x(0) - 6, top + 74, "rotation", "right small")]


def marks(top: float, delay: str) -> list[str]:
    """Return what is to be seen in the time of the staged rotation."""
    parts = []
    for at, told in (
        (BOUND, f"the bound, {BOUND:.0f} s"),
        (ROTATION.activation_delay, f"the delay, {delay}"),
    ):
        parts += [
            line(x(at), top - 4, x(at), top + PLOT, "lead"),
            text(x(at) - 6, top + 74, told, "right small"),
        ]
    return parts


def legend(y: float) -> list[str]:
    """Return what the lines and the area are."""
    told = (
        ("has", "replicas that have version 2", LEFT),
        ("uses", "replicas that encrypt with it", LEFT + 250),
        ("lost", "decrypts that fail", LEFT + 500),
    )
    parts = []
    for style, meaning, left in told:
        mark = (
            rectangle(left, y - 9, 24, 10, style)
            if style == "lost"
            else line(left, y - 4, left + 24, y - 4, style)
        )
        parts += [mark, text(left + 32, y, meaning, "small")]
    return parts


def curve(bottom: float, shares: list[tuple[float, float]]) -> str:
    """Return the points of a line, without those between two that are the same."""
    kept = [
        (at, share)
        for number, (at, share) in enumerate(shares)
        if number in (0, len(shares) - 1) or not shares[number - 1][1] == share == shares[number + 1][1]
    ]
    return " ".join(f"{x(at):.1f},{bottom - share * PLOT:.1f}" for at, share in kept)


def x(at: float) -> float:
    """Return where a moment is."""
    return LEFT + (at - FIRST) / (LAST - FIRST) * (WIDTH - LEFT - RIGHT)


def minutes(seconds: float) -> str:
    """Return a duration as it is read."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest} s" if rest else f"{whole} min"


def colours(palette: Mapping[str, str]) -> str:
    """Return the rules that a palette fills in."""
    return (
        f".has {{ stroke: {palette['rate']} }}\n"
        f".uses {{ stroke: {palette['active']} }}\n"
        f".lost {{ fill: {palette['gone']} }}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(draw())
