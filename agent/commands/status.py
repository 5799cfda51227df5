# SPDX-License-Identifier: Apache-2.0
"""``status``: what is on the volume, for people, programs and start-up scripts. It reads the volume only.

Probes use HTTP instead: starting a process costs more CPU than the agent uses in an hour.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agent.clock import moment
from agent.commands.volume_path import volume_path
from agent.exits import Exit
from keyferry.errors import NotPublishedError
from keyferry.reader import read_status, read_volume
from keyferry.report import describe, lines

# ECMA-48: cursor home and erase below, so that a picture replaces the last one without flicker.
_HOME: Final = "\x1b[H"
_ERASE_LINE: Final = "\x1b[K"
_ERASE_BELOW: Final = "\x1b[J"
_CLEAR: Final = "\x1b[2J"


def status(config: Path | None, directory: Path | None, *, as_json: bool, ready: bool) -> int:
    """Print what the volume holds (nothing with ``ready``); return 0, or 3 unless every key can be read."""
    path = volume_path(config, directory)
    report = _look(path)
    if not ready:
        print(json.dumps(report, indent=1) if as_json else "\n".join(lines(str(path), report)))
    return Exit.OK if _is_ready(report) else Exit.NOT_READY


def watch(config: Path | None, directory: Path | None, *, as_json: bool, interval_seconds: float) -> int:
    """Show the volume again and again until interrupted: in place on a terminal, else whenever it changed."""
    path = volume_path(config, directory)
    in_place = sys.stdout.isatty() and not as_json
    if in_place:
        sys.stdout.write(_CLEAR)
    shown: object = None
    while True:
        report = _look(path)
        if in_place:
            picture = "".join(f"{line}{_ERASE_LINE}\n" for line in lines(str(path), report))
            sys.stdout.write(f"{_HOME}{picture}{_ERASE_BELOW}")
        elif (essence := list(_essence(report))) != shown:
            shown = essence
            print(json.dumps(report) if as_json else "\n".join((*lines(str(path), report), "")))
        sys.stdout.flush()
        time.sleep(interval_seconds)


def _look(path: Path) -> dict[str, Any]:
    try:
        generation = read_volume(str(path)).generation
    except NotPublishedError:
        generation = None
    return describe(generation, read_status(str(path)), moment().now)


def _is_ready(report: dict[str, Any]) -> bool:
    return bool(report["keys"]) and all(key["versions"] for key in report["keys"].values())


def _essence(report: dict[str, Any]) -> Iterator[object]:
    """Return what a line is worth: not the ages, which always change."""
    yield report["generation"]
    for name, key in report["keys"].items():
        yield name, key["freshness"], key["withdrawn"], key["versions"]
        if key["refresh"] is not None:
            yield key["refresh"]["outcome"] in ("changed", "unchanged"), key["refresh"]["reason"]
