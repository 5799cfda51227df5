# SPDX-License-Identifier: Apache-2.0
"""What a use of the key costs the app, beside one ``os.stat`` of the volume, the least that looking costs.

All are measured in turn, round after round, and the quickest round of each counts: what is slower is noise.
``python -m benchmarks.adapter [--json]`` runs this one alone.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.processes import median_ms
from keyferry import FileAdapter
from keyferry.layout import (
    DATA_LINK,
    GENERATION_PREFIX,
    KEYRING_FILE,
    Generation,
    Keyring,
    Version,
    serialize,
)
from keyferry.material import Material, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS: Final = 15
_CALLS: Final = 20_000
_STARTS: Final = 15
_GOAL_MICROSECONDS: Final = 0.3


def report() -> dict[str, object]:
    """Measure, print, and return the figures."""
    with tempfile.TemporaryDirectory() as volume:
        publish(Path(volume))
        uses = measure(volume)
    stat = uses["os.stat"]
    print(f"one use of the key, microseconds, best of {_ROUNDS} rounds of {_CALLS} calls")
    for name, seconds in uses.items():
        print(f"  {name:<34}{seconds * 1e6:8.3f}  {seconds / stat:6.2f} x os.stat")
    print(f"  goal: active and get_master_key() under {_GOAL_MICROSECONDS} and under one os.stat")
    imports = {
        statement: start(statement) for statement in ("import keyferry", "from keyferry import FileAdapter")
    }
    bare = start("pass")
    print(f"start of a Python that imports it, ms over a bare one ({bare:.1f}), median of {_STARTS}")
    for statement, milliseconds in imports.items():
        print(f"  {statement:<34}{milliseconds - bare:8.1f}")
    return {
        "use_microseconds": {name: seconds * 1e6 for name, seconds in uses.items()},
        "use_to_stat": {name: seconds / stat for name, seconds in uses.items()},
        "import_ms": {statement: milliseconds - bare for statement, milliseconds in imports.items()},
    }


def measure(volume: str) -> dict[str, float]:
    """Return the seconds that each use takes."""
    hot = FileAdapter(volume, check_interval=3600)
    looking = FileAdapter(volume, check_interval=0)
    uses: dict[str, Callable[[], object]] = {
        "os.stat": lambda: os.stat(volume),  # noqa: PTH116 -- what it costs is the point
        "active": lambda: hot.active,
        "get_master_key()": lambda: hot.get_master_key(),  # noqa: PLW0108 -- a call more, as for the others
        "get(id)": lambda: hot.get("1"),
        "keyring": lambda: hot.keyring,
        "active, with a look each time": lambda: looking.active,
    }
    best = dict.fromkeys(uses, float("inf"))
    for _ in range(_ROUNDS):
        for name, use in uses.items():
            best[name] = min(best[name], timeit.timeit(use, number=_CALLS) / _CALLS)
    # The lambda's own call is in each figure; it is no part of the use.
    nothing = min(timeit.repeat(lambda: None, number=_CALLS, repeat=_ROUNDS)) / _CALLS
    return {name: seconds - nothing for name, seconds in best.items()}


def publish(volume: Path) -> None:
    """Write one generation with two versions of the key master."""
    versions = tuple(_version(version_id) for version_id in ("1", "2"))
    keyring = Keyring("file", "sha256:0123456789abcdef", "base64url", 32, versions)
    directory = volume / f"{GENERATION_PREFIX}000001.x"
    directory.mkdir()
    (directory / KEYRING_FILE).write_bytes(serialize(Generation(1, time.time(), {"master": keyring})))
    (volume / DATA_LINK).symlink_to(directory.name)


def _version(version_id: str) -> Version:
    material = Material(secrets.token_urlsafe(32).encode())
    return Version(version_id, None, 0.0, fingerprint(material, 32), material)


def start(statement: str) -> float:
    """Return how many milliseconds a fresh Python takes for ``statement``."""
    delays = []
    for _ in range(_STARTS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        delays.append(time.perf_counter() - begun)
    return median_ms(delays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapter", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    figures = report()
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
