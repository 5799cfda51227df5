# SPDX-License-Identifier: Apache-2.0
"""The timeline as a table on the terminal: one line a thing that happened, with the counts of that moment.

Colour, and a last line that keeps counting, only where a person looks on; plain lines otherwise. Never wider
than 100 columns.
"""

import os
import re
import time
from collections.abc import Iterable
from typing import TextIO

from examples.demo.timeline import Sighting, Timeline

WIDTH = 58
COLOURS = {
    "pre-active": "33",
    "active": "32;1",
    "deactivated": "2",
    "failed": "31;1",
}
_STATE = re.compile(r"pre-active|active|deactivated")


class Console:
    """Prints to one stream."""

    def __init__(self, out: TextIO, timeline: Timeline) -> None:
        """Look whether ``out`` is a terminal; print nothing yet."""
        self._out = out
        self._timeline = timeline
        self._live = out.isatty()
        self._colour = self._live and "NO_COLOR" not in os.environ

    def title(self, place: str) -> None:
        """Print what this is, and the table's head."""
        timeline = self._timeline
        text = f"keyferry demo: provider {timeline.provider}, {len(timeline.pods)} pods, in {place}"
        self._print(f"\n{self._paint('1', text)}\n")
        head = f"{'time':>7}  {'who':<7}{'gen':>3}  {'what':<{WIDTH}}{'decrypted':>10}{'failed':>8}"
        self._print(self._paint("2", head))

    def row(self, who: str, what: str, *, at: float | None = None, generation: int | None = None) -> None:
        """Print one thing that happened ``at`` a time (Unix seconds, default now)."""
        self._print(self._row(time.time() if at is None else at, who, what, generation))
        self.count()

    def sightings(self, news: Iterable[Sighting]) -> None:
        """Print what the app of one pod saw at one moment."""
        # What is used from now on is said first, what it replaces after it.
        ranked = sorted(news, key=lambda seen: seen.state == "deactivated")
        if ranked:
            pod, at = ranked[0].pod, ranked[0].at
            what = "   ".join(self._told(seen) for seen in ranked)
            self.row(f"pod {pod}", what, at=at, generation=self._timeline.generations[pod])

    def count(self) -> None:
        """Show the counts of now in the last line, where a person looks on."""
        if self._live:
            totals = self._timeline.totals
            text = f"{totals.encrypted:,} records encrypted so far"
            self._out.write(f"\r{self._row(time.time(), '', text, None)}\x1b[K")
            self._out.flush()

    def end(self) -> None:
        """Leave the table as it is."""
        self._print("")

    def _told(self, seen: Sighting) -> str:
        timeline = self._timeline
        text = f"{seen.version} {seen.state}"
        after, late = timeline.reached_after(seen.pod, seen.version), timeline.late(seen.pod, seen.version)
        if seen.state == "pre-active":
            return f"{text}  {timeline.fingerprints[seen.version]}  after {after:.2f} s"
        if seen.state == "active" and late is not None and after is not None and len(timeline.rotations) > 1:
            return f"{text}  {1000 * late:.1f} ms after its time"
        return f"{text}  {timeline.fingerprints[seen.version]}" if seen.state == "active" else text

    def _row(self, at: float, who: str, what: str, generation: int | None) -> str:
        totals = self._timeline.totals
        seconds = f"{at - self._timeline.began:5.1f} s"
        number = "" if generation is None else str(generation)
        text = _STATE.sub(lambda match: self._paint(COLOURS[match[0]], match[0]), f"{what:<{WIDTH}}")
        failed = f"{totals.failures:>8}"
        if totals.failures:
            failed = self._paint(COLOURS["failed"], failed)
        return f"{seconds}  {who:<7}{number:>3}  {text}{totals.decrypted:>10,}{failed}"

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _print(self, line: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        self._out.write(f"{clear}{line}\n")
        self._out.flush()
