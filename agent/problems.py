# SPDX-License-Identifier: Apache-2.0
"""How something wrong with the configuration is told.

Rules:

- Always the same four parts: where, what is wrong, what is allowed, what to do.
- A value is shown as JSON and shortened. Whether it may be shown at all is the caller's to know.
- A name is shown only if it could be a setting's: a secret in the wrong column is a name to YAML.
"""

import json
import re
from typing import Final, NamedTuple

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,31}"
_MAX_SHOWN: Final = 120


class Problem(NamedTuple):
    """One thing wrong with the setting at ``place``, such as ``refresh.interval``."""

    place: str
    wrong: str
    allowed: str
    remedy: str

    def below(self, section: str) -> "Problem":
        """Return it with a place that starts at ``section``."""
        return self._replace(place=join(section, self.place))

    def __str__(self) -> str:
        return f"{self.place}: {self.wrong}; allowed: {self.allowed}; {self.remedy}"


def join(section: str, name: str) -> str:
    """Return the place of ``name`` in ``section``, which is empty for the top."""
    return f"{section}.{name}" if section else name


def shown_name(name: str) -> str:
    """Return ``name``, or a stand-in where it could be something else."""
    return name if re.fullmatch(_NAME, name) else "(a name that is not shown)"


def shown_value(value: object) -> str:
    """Return ``value`` for a message, not too long and on one line."""
    # Pure ASCII: what is not could be a terminal's control sequence, or not be printable at all.
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
