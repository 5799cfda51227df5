# SPDX-License-Identifier: Apache-2.0
"""From SIGHUP to the new version in a reader's hand, and what the running agent weighs.

The agent runs warm on a real OpenBao server on loopback. Each round writes a new version of the key, sends
SIGHUP and waits until keyring.json, read through ``..data``, shows the new version.
"""

import os
import signal
import time
from pathlib import Path

from benchmarks.processes import median_ms, rss_mib, stop, wait_until
from benchmarks.workshop import Workshop
from keyferry.reader import read_volume


def report(workshop: Workshop, rounds: int) -> dict[str, object]:
    """Measure, print, and return the figures."""
    volume = workshop.volume()
    process = workshop.agent(volume)
    try:
        wait_until((volume / "..status" / "status.json").exists, "the agent's first heartbeat")
        # Log, metrics, HTTP and watcher are loaded after the first key; they are part of a warm agent.
        time.sleep(1.0)
        delays = [_react(workshop, volume, process.pid) for _ in range(rounds)]
        resident, anonymous = rss_mib(process.pid)
    finally:
        stop(process)
    print(f"SIGHUP to new version visible, warm, OpenBao on loopback, {rounds} rotations")
    print(
        f"  median {median_ms(delays):.1f} ms, slowest {max(delays) * 1000:.1f} ms (goal: median under 30 ms)"
    )
    print("memory of the agent with the vault provider")
    print(f"  resident {resident:.1f} MiB, of which anonymous {anonymous:.1f} MiB (goal: under 40 MiB)")
    return {"sighup_ms": median_ms(delays), "rss_mib": resident, "anonymous_mib": anonymous}


def _react(workshop: Workshop, volume: Path, pid: int) -> float:
    before = len(read_volume(str(volume)).generation.keys["master"].versions)
    workshop.rotate()
    begun = time.perf_counter()
    os.kill(pid, signal.SIGHUP)
    return (
        wait_until(
            lambda: len(read_volume(str(volume)).generation.keys["master"].versions) > before,
            "the new version",
        )
        - begun
    )
