# SPDX-License-Identifier: Apache-2.0
"""Writes cases to a directory, and drives a reader through them."""

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.adapter.volume import version
from tests.conformance.case import Case, Content, generation
from tests.conformance.cases import cases

_PATIENCE_SECONDS = 10.0
_AT_ONCE = 4


class NonconformityError(AssertionError):
    """The reader's answer is not the contract's. The message holds digests and no key."""


def check(directory: Path, reader: Sequence[str]) -> dict[str, str]:
    """Write all cases to ``directory`` and return the names of those that ``reader`` fails, each with why."""

    def outcome(name: str) -> str:
        # With times of this moment: some cases are to be run at once.
        write(directory / name, cases()[name])
        try:
            run(directory / name, reader)
        except NonconformityError as error:
            return str(error)
        return ""

    names = list(cases())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        outcomes = zip(names, pool.map(outcome, names), strict=True)
        return {name: problem for name, problem in outcomes if problem}


def write(directory: Path, case: Case) -> None:
    """Write one case to the new directory ``directory``."""
    volume = directory / "volume"
    volume.mkdir(parents=True)
    for name, content in case.generations.items():
        _place(volume / name, content)
    # What an agent leaves there as well.
    (volume / "..lock").touch()
    (volume / "keyring.json").symlink_to("..data/keyring.json")
    document = {
        "about": case.about,
        "key": case.key,
        "written_at": time.time(),
        "steps": [asdict(step) for step in case.steps],
    }
    (directory / "case.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def run(directory: Path, reader: Sequence[str]) -> None:
    """Drive ``reader`` through the case in ``directory``; raise ``NonconformityError`` at a wrong answer."""
    case = json.loads((directory / "case.json").read_text())
    volume = directory / "volume"
    with subprocess.Popen(
        [*reader, str(volume), case["key"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            for number, step in enumerate(case["steps"], 1):
                _point(volume, step["link"])
                time.sleep(max(0.0, case["written_at"] + step["after_seconds"] - time.time()))
                answer = _ask(process)
                if answer != step["answer"]:
                    what = f"{directory.name}, step {number} ({case['about']})"
                    message = f"{what}: answered {answer}, not {step['answer']}"
                    raise NonconformityError(message)
        finally:
            process.kill()


def _ask(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return "nothing: it has ended"
    if not select.select([process.stdout], [], [], _PATIENCE_SECONDS)[0]:
        return f"nothing within {_PATIENCE_SECONDS:g} s"
    line = process.stdout.readline()
    try:
        return json.loads(line)
    except ValueError:
        return f"{len(line)} bytes that are not a line of JSON"


def _point(volume: Path, link: str | None) -> None:
    if link is None:
        (volume / "..data").unlink(missing_ok=True)
        return
    temporary = volume / "..tmp-link"
    temporary.symlink_to(link)
    temporary.rename(volume / "..data")


def _place(path: Path, content: Content) -> None:
    if isinstance(content, bytes):
        path.mkdir()
        (path / "keyring.json").write_bytes(content)
        return
    good = path.with_name("elsewhere")
    _place(good, generation(version("1")))
    match content:
        case "linked-directory":
            path.symlink_to(good)
        case "file":
            path.touch()
        case _:
            path.mkdir()
    match content:
        case "linked-file":
            (path / "keyring.json").symlink_to(good / "keyring.json")
        case "directory":
            (path / "keyring.json").mkdir()
        case "fifo":
            os.mkfifo(path / "keyring.json")
