# SPDX-License-Identifier: Apache-2.0
"""``python -m keyferry``: what does this volume hold? It never shows a key, only fingerprints.

Exit codes: 0 the volume was read, 1 what lies on it is broken, 2 wrong usage or a wrong mount, 3 nothing is
published yet, 130 interrupted. ``keyferry-agent status`` says 3 as well if a key was withdrawn.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from keyferry.errors import ContractError, DeploymentError, KeyferryError, NotPublishedError
from keyferry.layout import DEFAULT_PATH
from keyferry.reader import read_status, read_volume
from keyferry.report import describe, lines

_OK: Final = 0
_BROKEN: Final = 1
_WRONG: Final = 2
_NOT_YET: Final = 3
# 128 and the number of SIGINT, as a shell says it.
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the volume holds and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m keyferry", description="Show what a keyferry volume holds."
    )
    default = os.environ.get("KEYFERRY_DIR") or DEFAULT_PATH
    parser.add_argument("--dir", default=default, help="the volume's directory (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    options = parser.parse_args(arguments)
    try:
        published = read_volume(options.dir)
        report = describe(published.generation, read_status(options.dir), time.time())
        print(json.dumps(report, indent=1) if options.json else "\n".join(lines(options.dir, report)))
    except KeyferryError as error:
        print(f"keyferry: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return _OK


def exit_code(error: KeyferryError) -> int:
    """Return the exit code of a command that ``error`` ends; the agent's commands end with the same."""
    match error:
        case NotPublishedError():
            return _NOT_YET
        case DeploymentError() if not isinstance(error, ContractError):
            return _WRONG
        case _:
            return _BROKEN


if __name__ == "__main__":
    sys.exit(main())
