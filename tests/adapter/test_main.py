# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from keyferry import __main__ as program
from keyferry.__main__ import main
from keyferry.reader import read_volume
from keyferry.report import describe
from tests.adapter.volume import Volume, keyring, moment, status, version, withdrawn


def fill(volume: Volume) -> list[dict[str, Any]]:
    found = [
        version("1", activates_at=1_700_000_000, fingerprint="sha256:1111111111111111"),
        version("2", activates_at=1_700_000_600, fingerprint="sha256:2222222222222222", created_at=None),
        version("\x1b[2J", activates_at=None, fingerprint="sha256:-"),
    ]
    volume.number = 6
    volume.publish(master=keyring(*found), gone=withdrawn("denied by the key store"))
    return found


def test_for_people(volume: Volume, capsys: pytest.CaptureFixture[str]) -> None:
    fill(volume)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - 300
    heartbeat = status(fields={"last_success_boottime": age}) | {
        "written_at": moment(time.time() - 7200),
        "config_problems": ["keys.master.length: must be at least 1"],
    }
    volume.write_status(heartbeat)
    assert main(["--dir", str(volume.path)]) == 0
    out, err = capsys.readouterr()
    published_at = moment(read_volume(str(volume.path)).generation.published_at)
    assert err == ""
    assert (
        out
        == f"""\
{volume.path}: generation 7, published {published_at} (0 s ago)
agent: 0.1.0, heartbeat 2 h ago
agent: refused a change of its configuration: keys.master.length: must be at least 1

master: vault, base64url, 32 bytes, fresh, key store answered 5 min ago
  id    state        created                   activates                 fingerprint
  1     deactivated  2023-11-14T22:13:20.000Z  2023-11-14T22:13:20.000Z  sha256:1111111111111111
  2     active       -                         2023-11-14T22:23:20.000Z  sha256:2222222222222222
  ?[2J  deactivated  2023-11-14T22:13:20.000Z  -                         sha256:-

gone: vault, base64url, 32 bytes, freshness unknown, WITHDRAWN: denied by the key store
"""
    )


def test_for_programs(volume: Volume, capsys: pytest.CaptureFixture[str]) -> None:
    found = fill(volume)
    volume.write_status(status(fields={"last_success_boottime": None}))
    assert main(["--dir", str(volume.path), "--json"]) == 0
    out = capsys.readouterr().out
    report = json.loads(out)
    assert report["generation"] == 7
    assert report["keys"]["gone"]["withdrawn"] == "denied by the key store"
    master = report["keys"]["master"]
    assert (master["freshness"], master["staleness_seconds"], master["length"]) == ("fresh", None, 32)
    assert [entry["state"] for entry in master["versions"]] == ["deactivated", "active", "deactivated"]
    assert [entry["created_at"] for entry in master["versions"]] == [entry["created_at"] for entry in found]
    assert not [entry for entry in found if entry["material"] in out]


def test_without_a_heartbeat_and_a_length(volume: Volume, capsys: pytest.CaptureFixture[str]) -> None:
    volume.publish(master=keyring(version("1"), length=None))
    assert main(["--dir", str(volume.path)]) == 0
    assert "agent: no heartbeat\n\nmaster: vault, base64url, freshness unknown\n" in capsys.readouterr().out


def test_states_are_those_of_the_publication_at_least(volume: Volume) -> None:
    volume.publish(version("1"), version("2", activates_at=time.time() - 60))
    report = describe(read_volume(str(volume.path)).generation, None, now=0)
    assert [entry["state"] for entry in report["keys"]["master"]["versions"]] == ["deactivated", "active"]


@pytest.mark.parametrize(
    ("prepare", "code", "problem"),
    [
        pytest.param(lambda _: None, 3, "nothing is published in ", id="not yet"),
        pytest.param(lambda v: v.write_bytes(b"{}"), 1, "keyring.json: schema is missing", id="broken"),
        pytest.param(lambda v: v.path.rmdir(), 2, "does not exist: mount the volume", id="missing"),
    ],
)
def test_exit_codes(
    volume: Volume, capsys: pytest.CaptureFixture[str], prepare: Any, code: int, problem: str
) -> None:
    prepare(volume)
    assert main(["--dir", str(volume.path)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("keyferry: ")
    assert problem in err


def test_ctrl_c(volume: Volume, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "read_volume", interrupt)
    assert main(["--dir", str(volume.path)]) == 130
    assert capsys.readouterr() == ("", "")


def test_as_a_program(volume: Volume, tmp_path: Path) -> None:
    """The directory comes from the environment where it is not named; wrong usage is exit code 2."""
    volume.publish(version("1"))
    command = [sys.executable, "-m", "keyferry"]
    environment = os.environ | {"KEYFERRY_DIR": str(volume.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith(f"{volume.path}: generation 1, ")
    done = subprocess.run([*command, "--wat"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unrecognized arguments: --wat" in done.stderr
