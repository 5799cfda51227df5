# SPDX-License-Identifier: Apache-2.0
"""What the loop lets other threads see: one immutable picture of the agent, replaced at each turn."""

from typing import NamedTuple

from keyferry.layout import Generation
from keyferry.status import Status


class Overview(NamedTuple):
    """The agent at the moment ``turned_boot`` (CLOCK_BOOTTIME seconds), when the loop last came by.

    ``unready`` names the keys that cannot be read and why; the agent is ready when it is empty.
    """

    turned_boot: float
    status: Status
    generation: Generation | None
    unready: tuple[tuple[str, str], ...]
