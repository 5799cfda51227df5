# SPDX-License-Identifier: Apache-2.0
"""What every server needs that is a process of its own: a port, and to end with the tests."""

import secrets
import socket
from contextlib import suppress

# Starts a command that is killed when its parent ends. By a program in between, not by a preexec_fn: that one
# forks this process for real, and what gRPC does at a fork has kept servers from coming up. setpriv(1) is of
# util-linux.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now, and that no outgoing connection takes meanwhile.

    Those get theirs from 32768 on (ip(7)).
    """
    while True:
        # Not of `random`, which property tests seed: two workers would draw the same ones.
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
