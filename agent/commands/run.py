# SPDX-License-Identifier: Apache-2.0
"""``run`` and ``once``: the daemon, hardened before it holds a key."""

import os
from pathlib import Path

from agent.commands.hardening import harden
from agent.daemon import Daemon
from agent.loading import Loaded, load


def run(config: Path | None, *, once: bool) -> int:
    """Carry the keys until stopped, or only once; return the exit code."""
    harden()

    def load_config() -> Loaded:
        return load(config, os.environ)

    return Daemon(load_config(), load_config, once=once).run()
