# SPDX-License-Identifier: Apache-2.0
"""Timing and weighing processes that one benchmark started."""

import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess

_DEADLINE_SECONDS: Final = 20.0


def wait_until(condition: Callable[[], bool], what: str) -> float:
    """Return the time (perf_counter) at which ``condition`` held; it is tried without a pause."""
    deadline = time.perf_counter() + _DEADLINE_SECONDS
    while not condition():
        if time.perf_counter() > deadline:
            message = f"waited {_DEADLINE_SECONDS:g} s in vain for {what}"
            raise TimeoutError(message)
        # As short as the system allows, yet it leaves the core to what is measured.
        time.sleep(0.0002)
    return time.perf_counter()


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that this benchmark started."""
    process.send_signal(signal.SIGTERM)
    process.wait(_DEADLINE_SECONDS)


def rss_mib(pid: int) -> tuple[float, float]:
    """Return resident and anonymous memory of a process in MiB (proc_pid_status(5))."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["RssAnon"].split()[0]) / 1024


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return statistics.median(seconds) * 1000
