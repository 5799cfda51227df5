# SPDX-License-Identifier: Apache-2.0
"""The demo as a person runs it: real agents, real apps, a real store."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# 32 bytes in base64url, and what is longer.
KEY_LIKE = re.compile(r"[A-Za-z0-9_-]{43,}")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.demo", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_nothing_is_left(output: str) -> None:
    """Check that the processes and the directory that the demo spoke of are gone."""
    place = re.search(r", in (\S+)$", output, re.MULTILINE)
    pids = re.findall(r"started, pid (\d+)", output)
    assert place is not None
    assert pids
    assert not Path(place[1]).exists()
    commands = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    assert [path for path in commands if path.exists() and place[1].encode() in path.read_bytes()] == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("arguments", [("file",), ("vault",), ("file", "--no-tmpfs")], ids=" ".join)
def test_every_rotation_arrives_and_no_decrypt_fails(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    picture = tmp_path / "new" / "demo.svg"
    with start("--provider", *arguments, "--svg", str(picture)) as demo:
        output, _ = demo.communicate()
    assert demo.returncode == 0, output
    assert "\ndemo: ok, 3 rotations reached every app and no decrypt failed\n" in output
    assert re.search(r"\n[\d,]+ records encrypted, [\d,]+ decrypts, 0 failed\n", output)
    assert max(map(len, output.splitlines())) <= 100
    assert KEY_LIKE.findall(output) == []
    assert "no failed decrypt" in picture.read_text()
    assert_nothing_is_left(output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_it_cleans_up_when_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    with start("--svg", str(tmp_path / "demo.svg")) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "1 active" in line:
                break
        demo.send_signal(number)
        lines += demo.stdout
    output = "".join(lines)
    assert demo.returncode == 1, output
    assert output.endswith("\ndemo: stopped, and cleaned up\n")
    assert not (tmp_path / "demo.svg").exists()
    assert_nothing_is_left(output)
