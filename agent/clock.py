# SPDX-License-Identifier: Apache-2.0
"""The two clocks, read together.

``now`` (Unix seconds) is for what people and other machines see; it steps. ``boot`` (CLOCK_BOOTTIME seconds)
neither steps nor stops while the machine sleeps, and is the same for every process until the next boot.
"""

import time
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Moment(NamedTuple):
    """One moment by both clocks."""

    now: float
    boot: float


def moment() -> Moment:
    """Return the present moment."""
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def boot_id() -> str:
    """Return the name of this boot; another one makes times of the boot clock void."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
