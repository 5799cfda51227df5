# SPDX-License-Identifier: Apache-2.0
"""Stands for the app: tells with which version it would encrypt."""

import signal
import sys
import time

from keyferry import FileAdapter

# Process 1 has no default for SIGTERM.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
keys = FileAdapter()
seen = None
while True:
    if (active := keys.active.id) != seen:
        print("encrypting with version", active)
        seen = active
    time.sleep(0.2)
