# SPDX-License-Identifier: Apache-2.0
"""docs/lifecycle.md is true: its walk-through runs from a shell, against every store that keeps a history."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.exits import Exit
from tests.lifecycle.stores import STORES, Store

DOCS = Path(__file__).parents[2] / "docs"
PAGE, OPERATIONS = ((DOCS / name).read_text() for name in ("lifecycle.md", "operations.md"))
# The delay is what the bound leaves, so that a staged rotation can be watched.
QUICK = {
    "refresh": {"interval": "1s", "timeout": "1s", "max_backoff": "100ms"},
    "rotation": {"activation_delay": "6s", "clock_skew": "0s"},
    "http": {"listen": "off"},
}
STAGED = [
    pytest.param(name, marks=() if name == "vault" else pytest.mark.slow)
    for name, kind in STORES.items()
    if kind.staged
]


@pytest.mark.parametrize("name", STAGED)
def test_from_nothing_to_a_rotation(name: str, opened: Callable[[type[Store]], Store]) -> None:
    store = opened(STORES[name])
    store.configure(store.section(), **QUICK)
    command = store.home / "keyferry-agent"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agent "$@"\n')
    command.chmod(0o755)
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "VAULT_", "KEYFERRY_"))}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=kept
        | store.environment
        | {"KEYFERRY_CONFIG": str(store.config), "PATH": f"{store.home}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    values = store.values()
    assert len(values) == 3
    ids = [version.id for version in store.offer().versions]
    assert run.stdout.startswith(f"key master ({store.key().provider}), 3 pods\n")
    assert f": created, version {ids[0]}, sha256:" in run.stdout
    assert f": ok, version {ids[0]}, sha256:" in run.stdout
    assert f"version {ids[1]} is on the volume, and active from 20" in run.stderr
    assert f"version {ids[2]} is active on {store.volume}" in run.stderr
    assert re.search(rf"{ids[2]}\s+active", run.stdout)
    assert not any(value in run.stdout + run.stderr for value in values)


def test_the_page_names_every_exit_code() -> None:
    (row,) = re.findall(r"^\| exit codes \|(.*)$", PAGE, re.MULTILINE)
    ends = {*Exit} - {Exit.INTERRUPTED}
    assert {int(number) for number in re.findall(r"\b\d\b", row)} == ends
    (all_of_them,) = re.findall(r"^Every command ends with .*?\n\n", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert {int(number) for number in re.findall(r"\b\d+\b", all_of_them)} == {*Exit}
