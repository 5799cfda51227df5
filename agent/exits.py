# SPDX-License-Identifier: Apache-2.0
"""The exit codes of every command."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command's end means.

    ``INTERRUPTED`` is what a shell says of Ctrl-C: 128 and the number of SIGINT. SIGTERM ends ``bootstrap``
    and ``rotate`` so, too. Neither ends the daemon so, which stops in good order.
    """

    OK = 0
    FAILED = 1
    MISCONFIGURED = 2
    NOT_READY = 3
    INTERRUPTED = 130
