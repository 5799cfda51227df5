# SPDX-License-Identifier: Apache-2.0
"""Follows a version on the volume until it is active there: a bar on a terminal, else a line a step.

It tells on standard error, since standard output is the command's result, and reads the volume only.
"""

import sys
import time
from pathlib import Path
from typing import Final

from agent.clock import moment
from agent.errors import VolumeError
from keyferry.errors import KeyferryError, NotPublishedError
from keyferry.layout import Version, active_index
from keyferry.reader import read_volume
from keyferry.report import duration
from keyferry.times import format_time

_LOOK_EVERY_SECONDS: Final = 0.1
_BAR_WIDTH: Final = 30
# ECMA-48: to the line's beginning, and erase what is left of it.
_REDRAW: Final = "\r\x1b[K"


class Follower:
    """Looks for versions of one key."""

    def __init__(self, path: Path, key_name: str) -> None:
        """Look at the volume once; raises ``VolumeError`` if there is none to follow anything on."""
        self._path = path
        self._key_name = key_name
        self._version_id = ""
        self._step: str | None = None
        self._seen_at = 0.0
        self._look(0.0)

    def follow(self, version_id: str, *, until_boot: float) -> bool:
        """Return whether the version became active before the boot clock shows ``until_boot``."""
        self._version_id = version_id
        try:
            is_active = self._follow(until_boot)
        except KeyboardInterrupt:
            self._end()
            print(f"keyferry-agent: version {version_id} is made, and goes on by itself", file=sys.stderr)
            raise
        self._end()
        if not is_active:
            message = f"version {version_id} is not active on {self._path} in time"
            print(f"keyferry-agent: {message}", file=sys.stderr)
        return is_active

    def _follow(self, until_boot: float) -> bool:
        while True:
            at = moment()
            version, is_active = self._look(at.now)
            if is_active:
                self._tell("active", f"version {self._version_id} is active on {self._path}")
                return True
            if version is None:
                text = f"waiting for the agent to see version {self._version_id}"
                self._tell("unseen", text, f"{text}, {duration(until_boot - at.boot)} left")
            elif version.activates_at is None:
                self._tell("never", f"version {self._version_id} is on the volume, and never activates")
            else:
                self._tell_staged(version.activates_at, at.now)
            if at.boot >= until_boot:
                return False
            time.sleep(_LOOK_EVERY_SECONDS)

    def _look(self, now: float) -> tuple[Version | None, bool]:
        """Return the version, if it is there, and whether it is active or was followed by a later one."""
        try:
            generation = read_volume(str(self._path)).generation
        except NotPublishedError:
            return None, False
        except KeyferryError as error:
            raise VolumeError(str(error)) from error
        keyring = generation.keys.get(self._key_name)
        versions = keyring.versions if keyring else ()
        for index, version in enumerate(versions):
            if version.id == self._version_id and version.activates_at is not None:
                return version, index <= active_index(versions, max(now, generation.published_at))
        return next((version for version in versions if version.id == self._version_id), None), False

    def _tell_staged(self, activates_at: float, now: float) -> None:
        self._seen_at = self._seen_at or now
        whole, left = activates_at - self._seen_at, max(0.0, activates_at - now)
        done = _BAR_WIDTH if whole <= 0 else round(_BAR_WIDTH * (1 - left / whole))
        bar = "#" * done + "." * (_BAR_WIDTH - done)
        self._tell(
            "staged",
            f"version {self._version_id} is on the volume, and active from {format_time(activates_at)}",
            f"[{bar}] version {self._version_id} is active in {duration(left)}",
        )

    def _tell(self, step: str, text: str, picture: str | None = None) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"{_REDRAW}{picture or text}")
            sys.stderr.flush()
        elif step != self._step:
            print(text, file=sys.stderr, flush=True)
        self._step = step

    def _end(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\n")
