# SPDX-License-Identifier: Apache-2.0
"""``run`` and ``once``: the daemon, hardened before it holds a key."""

import ctypes
import os
import resource
from pathlib import Path
from typing import Final

from agent.daemon import Daemon
from agent.loading import Loaded, load

# prctl(2), PR_SET_DUMPABLE of <sys/prctl.h>.
_PR_SET_DUMPABLE: Final = 4
_STANDARD_ERROR: Final = 2


def run(config: Path | None, *, once: bool) -> int:
    """Carry the keys until stopped, or only once; return the exit code."""
    _harden()

    def load_config() -> Loaded:
        return load(config, os.environ)

    return Daemon(load_config(), load_config, once=once).run()


def _harden() -> None:
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
