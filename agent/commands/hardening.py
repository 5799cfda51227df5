# SPDX-License-Identifier: Apache-2.0
"""What a process does before it holds a key."""

import ctypes
import os
import resource
import signal
from typing import Final

# prctl(2), PR_SET_DUMPABLE of <sys/prctl.h>.
_PR_SET_DUMPABLE: Final = 4
_STANDARD_ERROR: Final = 2


def harden() -> None:
    """Let nothing of this process reach a disk or another process: no core file, debugger or lax mode."""
    # The number of a closed standard stream would go to the next file, and with it what libraries print.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A process of the same uid could attach to a dumpable one and read the keys. Where the call is not
    # allowed the pod's own isolation is all there is, and that is what it is for.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def clean_up_when_stopped() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that no half-made file with a key in it stays."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
