# SPDX-License-Identifier: Apache-2.0
"""The exit codes of every command."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command's end means."""

    OK = 0
    FAILED = 1
    MISCONFIGURED = 2
    NOT_READY = 3
