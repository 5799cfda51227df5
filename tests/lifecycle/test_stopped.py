# SPDX-License-Identifier: Apache-2.0
"""A command that is ended while it writes a file leaves no key behind."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.agent_process import eventually
from tests.lifecycle.stores import FileStore, JsonFile, KeyringFile, RawFile

# A disk that never says that it is done, after the key was written and before it has its name.
ON_A_DEAD_DISK = (
    "import os, runpy, sys, time; os.fsync = lambda descriptor: time.sleep(600); sys.argv[0] = 'agent'; "
    "runpy.run_module('agent', run_name='__main__')"
)


def ended_while_writing(store: FileStore, ending: signal.Signals, *command: str) -> int:
    """Begin a command, end it in the middle of its write, and return its exit code."""
    name, *more = command
    arguments = [sys.executable, "-c", ON_A_DEAD_DISK, name, "-c", str(store.config), *more]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: any(path.stat().st_size for path in half_made(store)))
        finally:
            process.send_signal(ending)
    return process.returncode


def half_made(store: FileStore) -> list[Path]:
    return list(store.home.glob(f".{store.path.name}.*"))


@pytest.mark.parametrize("kind", [RawFile, JsonFile, KeyringFile])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal(
    kind: type[FileStore], ending: signal.Signals, opened: Callable[[type[FileStore]], FileStore]
) -> None:
    store = opened(kind)
    assert ended_while_writing(store, ending, "bootstrap", "--create") == 130
    assert half_made(store) == []
    assert not store.path.exists()
    store.run("bootstrap", "--create")
    before = store.path.read_bytes()
    assert ended_while_writing(store, ending, "rotate") == 130
    assert half_made(store) == []
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("command", [["bootstrap", "--create"], ["rotate"]], ids=["bootstrap", "rotate"])
def test_a_kill(command: list[str], opened: Callable[[type[FileStore]], FileStore]) -> None:
    """What it left goes with the next write to that file, and nothing else does."""
    store = opened(KeyringFile)
    if command == ["rotate"]:
        store.run("bootstrap", "--create")
    neighbour = store.home / f".{store.path.name}.swp"
    ended_while_writing(store, signal.SIGKILL, *command)
    assert len(half_made(store)) == 1
    neighbour.touch()
    assert store.run(*command)[0] == 0
    assert half_made(store) == [neighbour]
