# SPDX-License-Identifier: Apache-2.0
"""How the picture looks: the reader's own fonts, and a palette for light and one for dark mode (WCAG AA)."""

from collections.abc import Mapping

SHAPES = """
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Inter, Helvetica, Arial, sans-serif;
       font-variant-numeric: tabular-nums }
.title { font-size: 18px; font-weight: 650 }
.label { font-weight: 600 }
.small, .tick, .pod, .onbar, .gone, .on-pre-active, .on-active, .on-deactivated { font-size: 11px }
.good, .failed { font-weight: 650 }
.right, .pod { text-anchor: end }
.tick, .number { text-anchor: middle }
.number { font-size: 11px; font-weight: 650 }
.lead { stroke-dasharray: 2 3 }
.rate { fill: none; stroke-width: 1.5; stroke-linejoin: round }
.write, .signal { stroke-width: 2 }
"""

LIGHT = {
    "sheet": "#ffffff", "edge": "#d1d9e0", "ink": "#1f2328", "muted": "#59636e", "grid": "#eceff2",
    "axis": "#9aa4af", "up": "#c6d3e4", "on-up": "#2b4263", "mark": "#2b5797", "outage": "#fdeeec",
    "gone": "#b3261e", "pre-active": "#f0c75e", "on-pre-active": "#4a3400", "active": "#11795f",
    "on-active": "#ffffff", "deactivated": "#dfe3e8", "on-deactivated": "#59636e", "area": "#dbe8f8",
    "rate": "#3a6fb0", "good": "#11795f",
}  # fmt: skip

DARK = {
    "sheet": "#0d1117", "edge": "#30363d", "ink": "#e6edf3", "muted": "#9ea7b1", "grid": "#1c232b",
    "axis": "#4d5763", "up": "#24364d", "on-up": "#b6cdea", "mark": "#79b0f5", "outage": "#2a1619",
    "gone": "#ff8a80", "pre-active": "#b98a1f", "on-pre-active": "#140d00", "active": "#36b391",
    "on-active": "#04140e", "deactivated": "#2b323b", "on-deactivated": "#a3adb8", "area": "#16283f",
    "rate": "#79b0f5", "good": "#4cc9a6",
}  # fmt: skip


def paint(colour: Mapping[str, str]) -> str:
    """Return the rules that a palette fills in."""
    fills = {
        "text": "ink",
        ".muted, .small, .tick, .pod": "muted",
        ".onbar": "on-up",
        ".gone, .failed": "gone",
        ".good": "good",
        ".area": "area",
        ".outage": "outage",
        ".up": "up",
        ".write, .signal": "mark",
        ".number": "sheet",
    } | {
        f".{name}": name
        for name in colour
        if name.removeprefix("on-") in ("pre-active", "active", "deactivated")
    }
    strokes = {".grid": "grid", ".axis": "axis", ".lead": "mark", ".rate": "rate", ".write, .signal": "sheet"}
    rules = [f".sheet {{ fill: {colour['sheet']}; stroke: {colour['edge']} }}"]
    rules += [f"{selector} {{ fill: {colour[name]} }}" for selector, name in fills.items()]
    rules += [f"{selector} {{ stroke: {colour[name]} }}" for selector, name in strokes.items()]
    return "\n".join(rules)


STYLE = f"{SHAPES}{paint(LIGHT)}\n@media (prefers-color-scheme: dark) {{\n{paint(DARK)}\n}}\n"
