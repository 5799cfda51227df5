# SPDX-License-Identifier: Apache-2.0
"""Times as the volume's files write them.

In memory a time is Unix seconds (float). On disk it is RFC 3339 UTC text with exactly three decimals, so
that times also sort as text and a shell can compare them.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_millis(seconds: float) -> float:
    """Round a time up to the files' precision, so that writing and reading it changes nothing."""
    return math.ceil(round(seconds * 1000, 3)) / 1000


def format_time(seconds: float) -> str:
    """Return Unix seconds as text, e.g. ``2026-01-31T08:15:00.250Z``."""
    moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """Return RFC 3339 text as Unix seconds, to the millisecond; ``ValueError`` without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = "a time needs an offset, such as Z"
        raise ValueError(message)
    return round((moment - _EPOCH) / timedelta(milliseconds=1)) / 1000
