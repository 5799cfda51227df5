# SPDX-License-Identifier: Apache-2.0
"""The timeline as one SVG, drawn by hand, for light and dark mode, any size, and screen readers.

Rules:

- Values in, text out. Every number in it comes from the recorded run.
- Colour never says anything alone: segments carry their state's name where there is room, and all a tooltip.
- Plain classes instead of CSS variables: image viewers that know no variables show it as well.
"""

from collections.abc import Mapping
from html import escape

from examples.demo.style import STYLE
from examples.demo.timeline import Span, Timeline
from examples.demo.words import description, title

WIDTH = 960
LEFT, RIGHT = 118, 24
TOP = 116
BAR, BAR_GAP, LANE_GAP = 15, 3, 13
CHART = 58
TICK_SECONDS = 5
RATE_STEP_SECONDS = 0.5

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{description}</desc>
<style>{style}</style>
{parts}
</svg>
"""


def draw(timeline: Timeline) -> str:
    """Return the whole picture; ``timeline`` must have ended."""
    return Picture(timeline).draw()


class Picture:
    """Draws one timeline from top to bottom; ``_y`` is how far it has come."""

    def __init__(self, timeline: Timeline) -> None:
        """Start with an empty sheet."""
        self._timeline = timeline
        self._scale = (WIDTH - LEFT - RIGHT) / (timeline.ended - timeline.began)
        self._parts: list[str] = []
        self._y = TOP

    def draw(self) -> str:
        """Draw each part, then put the sheet, whose height is known by then, around it."""
        version_tops = self._lanes()
        self._chart()
        bottom = self._y
        self._axis(bottom)
        height = bottom + 34
        sheet = [
            self._sheet(height),
            *self._grid(bottom),
            *self._outage(bottom),
            *self._written(version_tops),
        ]
        return SVG.format(
            width=WIDTH,
            height=height,
            title=escape(title(self._timeline)),
            description=escape(description(self._timeline)),
            style=STYLE,
            parts="\n".join([*sheet, *self._head(), *self._parts]),
        )

    # What lies behind

    def _sheet(self, height: float) -> str:
        return rectangle(0.5, 0.5, WIDTH - 1, height - 1, "sheet", radius=8)

    def _head(self) -> list[str]:
        timeline = self._timeline
        subtitle = (
            f"provider {timeline.provider}, {len(timeline.pods)} pods with an agent and an app each, "
            f"activation delay {timeline.activation_delay:g} s: one real run of make demo"
        )
        parts = [text(24, 36, title(timeline), "title"), text(24, 57, subtitle, "muted")]
        x = LEFT
        legend = (
            ("pre-active", "decrypts, not yet used"),
            ("active", "encrypts"),
            ("deactivated", "decrypts only"),
        )
        for state, meaning in legend:
            parts.append(rectangle(x, 74, 14, 10, state, radius=2))
            parts.append(text(x + 20, 83, f"{state}: {meaning}", "small"))
            x += 34 + 6 * len(f"{state}: {meaning}")
        return parts

    def _grid(self, bottom: float) -> list[str]:
        return [line(self._x(at), TOP - 10, self._x(at), bottom, "grid") for at in self._ticks()]

    def _outage(self, bottom: float) -> list[str]:
        away = self._timeline.away
        if away is None:
            return []
        x, end = self._x(away.start), self._x(away.end or self._timeline.ended)
        return [rectangle(x, TOP - 10, end - x, bottom - TOP + 10, "outage")]

    def _written(self, version_tops: Mapping[str, float]) -> list[str]:
        """Lead from each write down to the version's lane: the gap on its right is the latency."""
        lane = 2 * BAR + BAR_GAP
        return [
            line(
                x := self._x(rotation.written_at), TOP + BAR, x, version_tops[rotation.version] + lane, "lead"
            )
            for rotation in self._timeline.rotations[1:]
        ]

    # The lanes

    def _lanes(self) -> Mapping[str, float]:
        timeline = self._timeline
        self._label("store")
        self._up_bar(timeline.away, "away")
        for rotation in timeline.rotations:
            x = self._x(rotation.written_at)
            self._parts.append(f'<circle class="write" cx="{x:.1f}" cy="{self._y + BAR / 2}" r="9"/>')
            self._parts.append(text(x, self._y + 11.5, rotation.version, "number"))
        self._y += BAR + LANE_GAP
        for pod in timeline.pods:
            self._label(f"agent {pod}")
            self._up_bar(timeline.killed.get(pod), "killed")
            for at in timeline.signals:
                self._parts.append(text(self._x(at) + 9, self._y + 11, "SIGHUP", "onbar"))
                self._parts.append(diamond(self._x(at), self._y + BAR / 2))
            self._y += BAR + BAR_GAP
        self._y += LANE_GAP
        tops = {}
        for rotation in timeline.rotations:
            tops[rotation.version] = self._y
            self._version(rotation.version, rotation.found_by)
        return tops

    def _up_bar(self, gap: Span | None, reason: str) -> None:
        """Draw a bar for the time in which something was there."""
        timeline = self._timeline
        ends = [timeline.began, timeline.ended]
        if gap is not None:
            end = gap.end or timeline.ended
            ends[1:1] = [gap.start, end]
            self._parts.append(
                text(self._x(gap.start) + 8, self._y + 11, f"{reason} {end - gap.start:.1f} s", "gone")
            )
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            self._bar("up", start, end)

    def _version(self, version: str, found_by: str) -> None:
        timeline = self._timeline
        self._label(f"version {version}", below=None if found_by == "start" else f"by {found_by}")
        fingerprint = timeline.fingerprints.get(version, "")
        for pod in timeline.pods:
            self._parts.append(text(LEFT - 8, self._y + 11.5, pod, "pod"))
            after = timeline.reached_after(pod, version)
            for state, start, end in timeline.segments(pod, version):
                told = (
                    f"{state} after {after:.2f} s" if state == "pre-active" and after is not None else state
                )
                tip = f"version {version} ({fingerprint}) in pod {pod}: {state} for {end - start:.1f} s"
                self._bar(state, start, end, told, tip)
            self._y += BAR + BAR_GAP
        self._y += LANE_GAP - BAR_GAP

    def _bar(self, style: str, start: float, end: float, told: str = "", tip: str = "") -> None:
        x, width = self._x(start), (end - start) * self._scale
        # A hair less than its width, so that neighbours are told apart without colour.
        self._parts.append(rectangle(x, self._y, max(width - 1, 1), BAR, style, radius=3, tip=tip))
        if told and width > 6 * len(told) + 10:
            self._parts.append(text(x + 7, self._y + 11, told, f"on-{style}"))

    def _label(self, label: str, below: str | None = None) -> None:
        self._parts.append(text(24, self._y + 11.5, label, "label"))
        if below is not None:
            self._parts.append(text(24, self._y + 11.5 + BAR + BAR_GAP, below, "small"))

    # Decrypts, and the axis

    def _chart(self) -> None:
        timeline, top = self._timeline, self._y + 4
        rates = timeline.decrypts_per_second(RATE_STEP_SECONDS)
        highest = max((rate for _, rate in rates), default=0.0) or 1.0
        bottom = top + CHART
        ends = [(timeline.began, rates[0][1]), *rates, (timeline.ended, rates[-1][1])] if rates else []
        points = [f"{self._x(at):.1f},{bottom - rate / highest * (CHART - 18):.1f}" for at, rate in ends]
        if points:
            floor = f"{WIDTH - RIGHT},{bottom} {LEFT},{bottom}"
            self._parts.append(f'<polygon class="area" points="{" ".join(points)} {floor}"/>')
            self._parts.append(f'<polyline class="rate" points="{" ".join(points)}"/>')
        totals = timeline.totals
        self._parts += [
            text(24, top + 11, "decrypts", "label"),
            text(24, top + 28, f"up to {highest:,.0f}/s", "small"),
            text(24, bottom - 6, f"{totals.failures} failed", "failed" if totals.failures else "good"),
            text(
                WIDTH - RIGHT,
                top + 8,
                f"{totals.decrypted:,} decrypts of {totals.encrypted:,} records",
                "right small",
            ),
        ]
        self._y = bottom

    def _axis(self, bottom: float) -> None:
        self._parts.append(line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis"))
        for at in self._ticks():
            self._parts.append(text(self._x(at), bottom + 17, f"{at - self._timeline.began:.0f} s", "tick"))

    def _ticks(self) -> list[float]:
        seconds = int(self._timeline.ended - self._timeline.began)
        return [self._timeline.began + second for second in range(0, seconds + 1, TICK_SECONDS)]

    def _x(self, at: float) -> float:
        return LEFT + (at - self._timeline.began) * self._scale


def text(x: float, y: float, content: str, style: str) -> str:
    """Return a line of text on the base line ``y``; the style says whether it begins or ends at ``x``."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def rectangle(  # noqa: PLR0913 - a place, a size and a look
    x: float, y: float, width: float, height: float, style: str, *, radius: float = 0, tip: str = ""
) -> str:
    """Return a box; ``tip`` is shown by browsers when pointed at."""
    size = f'width="{width:.1f}" height="{height:.1f}" rx="{radius}"'
    box = f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" {size}'
    return f"{box}><title>{escape(tip)}</title></rect>" if tip else f"{box}/>"


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def diamond(x: float, y: float) -> str:
    """Return the mark of a signal."""
    return f'<path class="signal" d="M{x:.1f},{y - 6:.1f} l6,6 l-6,6 l-6,-6 Z"/>'
