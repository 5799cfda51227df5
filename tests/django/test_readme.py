# SPDX-License-Identifier: Apache-2.0
"""The example's README is run, from its first command to its last."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.django.conftest import EXAMPLE

ROOT = EXAMPLE.parents[1]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_commands_of_the_readme(home: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    script = "\n".join(blocks).replace("$PWD/../../.venv/bin", str(Path(sys.executable).parent))
    # Whatever happens, no agent stays behind, and none is still at work when its directory goes.
    script = f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KEYFERRY_", "KMS_", "DATABASE_", "PG"))}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("-p /dev/shm", f"-p {home}")],
        cwd=ROOT,
        # Not beside the sources: that one is a person's.
        env=kept | {"DATABASE_PATH": str(home / "first.sqlite3")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\nDE02\n") == 2
    assert re.search(r"^version 2-[0-9a-f]{8} is active on ", run.stderr, re.MULTILINE)
    assert "\naccounts.Account.iban: 1 re-encrypted, 0 done by the app\n" in run.stdout
    assert re.search(r"^  1-\w+ +deactivated .*\n  2-\w+ +active ", run.stdout, re.MULTILINE)
