# SPDX-License-Identifier: Apache-2.0
"""The adapter and the readers in other languages give the contract's answers, on made and on real volumes."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyferry import FileAdapter
from tests.conformance.kit import check
from tests.conformance.python_reader import answer
from tests.daemon.agent_process import AgentProcess

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "other-languages"
Reader = list[str]
Make = Callable[[Path], Reader]

pytestmark = pytest.mark.timeout(180)


def interpreter(name: str) -> str:
    """Return its path. On a machine without it the test is skipped, but never in CI."""
    found = shutil.which(name)
    if found is None and "CI" not in os.environ:
        pytest.skip(f"there is no {name} on this machine")
    assert found is not None, f"CI needs {name}; .ci/run installs it"
    return found


def shell(_: Path) -> Reader:
    interpreter("jq")
    return [interpreter("sh"), str(EXAMPLES / "reader.sh")]


def node(_: Path) -> Reader:
    return [interpreter("node"), str(EXAMPLES / "reader.mjs")]


def go(directory: Path) -> Reader:
    # Whatever go.mod asks for, nothing is downloaded.
    environ = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    program = directory / "reader"
    command = [interpreter("go"), "build", "-o", str(program), "."]
    built = subprocess.run(
        command, cwd=EXAMPLES / "go", env=environ, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return [str(program)]


def python(_: Path) -> Reader:
    return [sys.executable, str(HERE / "python_reader.py")]


@pytest.mark.parametrize(
    "make",
    [
        python,
        go,
        # Their start costs a tenth of a second of CPU, for each case.
        pytest.param(node, marks=pytest.mark.slow),
        pytest.param(shell, marks=pytest.mark.slow),
    ],
)
def test_every_case(make: Make, tmp_path: Path) -> None:
    assert check(tmp_path / "cases", make(tmp_path)) == {}


@pytest.mark.slow
def test_a_naive_reader_does_not_pass(tmp_path: Path) -> None:
    """The kit sees each of the usual mistakes, and passes what is right."""
    failed = check(tmp_path, [sys.executable, str(HERE / "naive_reader.py")])
    assert {
        "activation-unsorted",
        "activation-staged",
        "activation-too-early",
        "activation-deleted-last",
        "clock-behind",
        "clock-back",
        "unpublished",
        "inherited-name",
        "document-newer-major",
        "refused-bits",
        "refused-short",
        "strange-linked-file",
        "link-outside",
    } <= failed.keys()
    assert not failed.keys() & {
        "activation-one",
        "activation-by-time",
        "rotation",
        "wiped",
        "withdrawn",
        "base64url",
    }
    assert failed["document-newer-major"].startswith(
        "document-newer-major, step 1 (Another major version): answered {'result': 'ok', "
    )


@pytest.mark.parametrize("make", [python, go, node, shell])
def test_the_volume_of_a_real_agent(make: Make, tmp_path: Path) -> None:
    """All see what the adapter sees, and the plain file holds what is active."""
    now = datetime.now(UTC)
    versions = [
        {
            "id": id_,
            "created_at": now.isoformat(),
            "activates_at": (now + timedelta(hours=hours)).isoformat(),
            "material": secrets.token_urlsafe(32),
        }
        for id_, hours in (("1", -2), ("2", -1), ("3", 1))
    ]
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="keyferry-test-") as directory,
        AgentProcess(Path(directory)) as agent,
    ):
        more = {"format": "keyring", "encoding": "base64url", "length": 32}
        agent.configure(keys={"master": agent.file_key() | more})
        agent.write_key(json.dumps({"schema": "keyferry-keyring/v1", "key": "master", "versions": versions}))
        agent.start()
        agent.wait_ready()
        keys = FileAdapter(agent.volume)
        command = [*make(tmp_path), str(agent.volume), "master"]
        told = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
        assert json.loads(told.stdout) == answer(keys)
        assert [key.state for key in keys.keyring] == ["deactivated", "active", "pre-active"]
        assert agent.plain() == keys.active.text
