# SPDX-License-Identifier: Apache-2.0
"""The kit's command line; ``tests/conformance/__init__.py`` says what it does and what a reader is.

Exit codes: 0 written, or the reader conforms; 1 it does not; 2 wrong usage.
"""

import argparse
import sys
from pathlib import Path

from tests.conformance.cases import cases
from tests.conformance.kit import check, write


def main() -> int:
    """Write all cases to a new directory, and run the reader if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="a new directory; in memory, as a volume is"
    )
    parser.add_argument("reader", nargs="*", help="a command, after --; it gets VOLUME and KEY as well")
    options = parser.parse_args()
    if options.directory.exists():
        parser.error(f"{options.directory} exists already; name a new directory")
    if options.reader:
        failed = check(options.directory, options.reader)
        print("\n".join(failed.values()), file=sys.stderr)
        print(f"{len(cases()) - len(failed)} of {len(cases())} cases are answered as the contract says")
        return 1 if failed else 0
    for name, case in cases().items():
        write(options.directory / name, case)
    print(f"{len(cases())} cases in {options.directory}; run them within the hour")
    return 0


if __name__ == "__main__":
    sys.exit(main())
