# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from examples.demo.picture import LEFT, RIGHT, WIDTH, draw
from examples.demo.style import DARK, LIGHT, STYLE
from tests.demo.runs import run

SVG = "{http://www.w3.org/2000/svg}"
COMMITTED = Path(__file__).parents[2] / "docs" / "demo.svg"


def parsed(failure: str | None = None) -> ET.Element:
    # Our own text, not a stranger's.
    return ET.fromstring(draw(run(failure)))  # noqa: S314


def bars(root: ET.Element, style: str) -> list[tuple[float, float]]:
    """Return the left and right edge of each bar of one style, from top to bottom."""
    found = [
        bar for bar in root.iter(f"{SVG}rect") if bar.get("class") == style and bar.get("height") == "15.0"
    ]
    return [(float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"])) for bar in found]


def test_a_screen_reader_gets_title_and_description() -> None:
    root = parsed()
    named = {element.get("id") for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert root.attrib["role"] == "img"
    assert set(root.attrib["aria-labelledby"].split()) == named


def test_every_class_has_a_rule() -> None:
    """A misspelt class would be drawn black on black."""
    used = {name for element in parsed().iter() for name in element.get("class", "").split()}
    ruled = set(re.findall(r"\.([a-z-]+)", STYLE))
    assert used - ruled == set()


def test_bars_stand_where_and_as_long_as_they_were_seen() -> None:
    """One second is a tenth of the plot; each bar is a pixel short of its neighbour."""
    second = (WIDTH - LEFT - RIGHT) / 10
    expected = [
        (LEFT + 2.5 * second, LEFT + 6.503 * second - 1),
        (LEFT + 3 * second, LEFT + 7.003 * second - 1),
    ]
    assert bars(parsed(), "pre-active") == [pytest.approx(edges, abs=0.2) for edges in expected]


def test_what_was_away_leaves_a_gap() -> None:
    second = (WIDTH - LEFT - RIGHT) / 10
    gaps = [(LEFT + 4 * second, LEFT + 8 * second), (LEFT + 5 * second, LEFT + 7 * second)]
    for left, right in bars(parsed(), "up")[:4]:
        assert any(right <= start + 1 or left >= end - 1 for start, end in gaps)
    assert len(bars(parsed(), "up")) == 5


def test_nothing_leaves_the_sheet() -> None:
    root = parsed()
    height = float(root.attrib["height"])
    for element in root.iter():
        assert (
            0 <= float(element.get("x", "0")) + float(element.get("width", "0")) <= WIDTH or element is root
        )
        assert (
            0 <= float(element.get("y", "0")) + float(element.get("height", "0")) <= height or element is root
        )


@pytest.mark.parametrize(
    ("failure", "style", "told"), [(None, "good", "0 failed"), ("x", "failed", "2 failed")]
)
def test_failures_are_told(failure: str | None, style: str, told: str) -> None:
    texts = [element.text for element in parsed(failure).iter(f"{SVG}text") if element.get("class") == style]
    assert texts == [told]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back"),
    [
        ("ink", "sheet"),
        ("muted", "sheet"),
        ("gone", "sheet"),
        ("gone", "outage"),
        ("good", "sheet"),
        ("on-up", "up"),
        ("sheet", "mark"),
        ("on-pre-active", "pre-active"),
        ("on-active", "active"),
        ("on-deactivated", "deactivated"),
        ("muted", "area"),
    ],
)
def test_text_can_be_read(palette: dict[str, str], front: str, back: str) -> None:
    """WCAG 2.2, success criterion 1.4.3: a contrast of at least 4.5 to 1."""
    lighter, darker = sorted((luminance(palette[front]), luminance(palette[back])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Return the relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_committed_picture_is_of_this_drawing_and_of_a_good_run() -> None:
    """After a change of the look: make demo, then copy build/demo.svg to docs/."""
    text = COMMITTED.read_text()
    assert f"<style>{STYLE}</style>" in text
    assert "3 rotations, an outage and a killed agent: no failed decrypt" in text
