# SPDX-License-Identifier: Apache-2.0
"""Measures what keyferry promises about speed and memory: ``make bench``.

Machines differ and are shared, so only ratios of things measured in one run, in turn, say anything.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import adapter, providers, reaction, startup
from benchmarks.workshop import Workshop


def main() -> int:
    """Run all benchmarks; ``--json FILE`` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="how often each is measured (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="interpreter with the agent as it is shipped",
    )
    options = parser.parse_args()
    figures: dict[str, object] = dict(adapter.report())
    with Workshop(options.python.absolute()) as workshop:
        figures |= startup.report(workshop, options.rounds)
        figures |= reaction.report(workshop, options.rounds)
    figures |= providers.report(options.python.absolute(), max(3, options.rounds // 3))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
