# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path
from xml.etree import ElementTree as ET

from agent import schedule
from agent.settings import RotationSettings
from examples.demo.style import STYLE
from tests.fleet.picture import BOUND, SHAPES, draw, simulate

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_committed_picture_is_current() -> None:
    """After a change of the rules or the look: python -m tests.fleet.picture > docs/rotation.svg."""
    assert (DOCS / "rotation.svg").read_text() == draw()


def test_it_shows_what_the_delay_is_for() -> None:
    at_once, staged = simulate(0.0), simulate(RotationSettings().activation_delay)
    assert max(sample.failed for sample in at_once) > 0.2
    assert {sample.failed for sample in staged} == {0.0}
    assert at_once[-1].uses == staged[-1].uses == 1.0


def test_every_replica_has_the_version_within_the_bound() -> None:
    late = [sample.at for sample in simulate(RotationSettings().activation_delay) if sample.has < 1]
    assert max(late) < BOUND


def test_every_class_has_a_rule() -> None:
    """A misspelt class would be drawn black on black."""
    # Our own text, not a stranger's.
    root = ET.fromstring(draw())  # noqa: S314
    used = {name for element in root.iter() for name in element.get("class", "").split()}
    ruled = set(re.findall(r"\.([a-z-]+)", STYLE + SHAPES))
    assert used - ruled == set()


def test_the_page_tells_the_bounds_of_the_defaults() -> None:
    mounted = BOUND + schedule.MOUNT_DELAY_SECONDS
    page = (DOCS / "rotation.md").read_text()
    assert f"That is {BOUND:.0f} s by default, {mounted:.0f} s with a mounted" in page
