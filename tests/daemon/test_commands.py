# SPDX-License-Identifier: Apache-2.0
"""The commands beside ``run``, with the exit codes and sentences that scripts and people rely on."""

import gc
import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.__main__ import main
from agent.commands import check
from tests.daemon.agent_process import AgentProcess, eventually
from tests.daemon.conftest import new_key
from tests.servers.scripted import Response, ScriptedServer


class TestUsage:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            main(["--version"])
        assert raised.value.code == 0
        assert capsys.readouterr().out == f"keyferry-agent {__version__}\n"

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ([], "the following arguments are required: COMMAND"),
            (["serve"], "argument COMMAND: invalid choice: 'serve'"),
            (["run", "--json"], "unrecognized arguments: --json"),
            (["plan", "--pods", "0"], "argument --pods: '0' is not a number of at least 1"),
        ],
        ids=["none", "unknown", "another command's option", "no count"],
    )
    def test_mistakes(self, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2
        assert complaint in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "1e300"])
    @pytest.mark.parametrize(
        "arguments", [["status", "--watch", "--interval"], ["refresh", "--timeout"], ["rotate", "--timeout"]]
    )
    def test_what_is_no_number_of_seconds(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
    ) -> None:
        with pytest.raises(SystemExit) as raised:
            main([*arguments, text])
        assert raised.value.code == 2
        complaint = f"{text!r} is not a number of seconds above 0, at most 31536000 (a year)"
        assert capsys.readouterr().err.endswith(f"error: argument {arguments[-1]}: {complaint}\n")

    @pytest.mark.parametrize("command", ["run", "once", "check", "refresh"])
    def test_no_configuration(self, home: Path, command: str) -> None:
        run = subprocess.run(
            [sys.executable, "-m", "agent", command, "-c", str(home / "agent.yaml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == (
            f"keyferry-agent: {home}/agent.yaml: cannot be read: No such file or directory; allowed: a YAML "
            "file; let the agent read it, or name another one by --config or KEYFERRY_CONFIG\n"
        )


@pytest.mark.parametrize("command", ["run", "once", "check"])
def test_hardened_before_it_holds_a_key(agent: AgentProcess, black_hole: str, command: str) -> None:
    """No core file, no lax mode, and nobody of the same uid may attach."""
    vault = {"provider": "vault", "address": black_hole, "path": "a/b", "auth": {"token": "none"}}
    agent.configure(refresh={"interval": "1h", "timeout": "1m"}, keys={"master": vault})
    agent.start(command)
    process = Path("/proc") / str(agent.pid)
    eventually(lambda: "\nUmask:\t0077\n" in (process / "status").read_text())
    eventually(lambda: re.search(r"\nMax core file size +0 +0 ", (process / "limits").read_text()))


def test_hardening() -> None:
    program = (
        "import ctypes, os, resource; from agent.commands.hardening import harden; harden(); "
        "print(ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE), oct(os.umask(0)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "0 (0, 0) 0o77\n"  # 3: PR_GET_DUMPABLE


class TestCheck:
    @pytest.fixture(autouse=True)
    def _spare_the_tests(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leave this process as it is: ``check`` hardens its own."""
        monkeypatch.setattr(check, "harden", lambda: None)

    def test_what_nobody_foresaw(
        self, agent: AgentProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its type is told, its text not: that may hold anything."""
        secret = new_key()

        def fail(*_: object, **__: object) -> None:
            raise LookupError(secret)

        monkeypatch.setattr(check, "opened", fail)
        assert self.check(agent) == 1
        told = capsys.readouterr()
        assert "\nkey master (file): unavailable: unexpected builtins.LookupError at opening it\n" in told.out
        assert secret not in told.out + told.err

    def check(self, agent: AgentProcess, *more: str) -> int:
        return main(["check", "-c", str(agent.config), *more])

    def test_all_is_well(self, agent: AgentProcess, key: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It tells what a person wants to know before the rollout, and publishes nothing."""
        agent.configure(rotation={"activation_delay": "20m"})
        assert self.check(agent) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"volume {agent.volume}: ok\n")
        assert "\nkey master (file): ok, version sha256:" in told
        assert "\n  latency:  " in told
        assert "\n  staged:   no: a raw file has no history; " in told
        assert "\n  bound:    32.46 s, within the activation delay of 1200 s\n" in told
        assert key not in told
        assert list(agent.volume.iterdir()) == []

    def test_json(self, agent: AgentProcess, key: str, capsys: pytest.CaptureFixture[str]) -> None:
        agent.configure(
            keys={
                "master": agent.file_key() | {"encoding": "base64url", "length": 32},
                "none": agent.file_key("no"),
            }
        )
        assert self.check(agent, "--json") == 1
        text = capsys.readouterr().out
        document = json.loads(text)
        assert document["volume"] == {"path": str(agent.volume), "problems": []}
        master, missing = document["keys"]
        assert (master["key"], master["outcome"]) == ("master", "ok")
        assert master["active"] == master["fingerprint"] == master["versions"][0]
        assert master["first_ms"] > 0
        assert "activation_delay is 0s" in master["warnings"][0]
        assert (missing["outcome"], missing["active"]) == ("missing", None)
        assert missing["reason"].startswith(f"file {agent.key_file.with_name('no')} does not exist; ")
        assert key not in text

    def test_a_key_that_would_fail(self, agent: AgentProcess, capsys: pytest.CaptureFixture[str]) -> None:
        secret = new_key()
        agent.write_key(secret)
        agent.configure(keys={"master": agent.file_key() | {"encoding": "hex"}})
        assert self.check(agent) == 1
        told = capsys.readouterr().out
        assert "\nkey master (file): malformed: " in told
        assert secret not in told

    def test_a_volume_that_cannot_be_used(
        self, agent: AgentProcess, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The keys are tried all the same: everything that is wrong comes at once."""
        agent.configure(volume={"path": str(agent.home / "nowhere")})
        assert self.check(agent) == 2
        told = capsys.readouterr().out
        assert told.startswith(f"volume {agent.home}/nowhere: not usable\n  problem: volume.path: ")
        assert "\nkey master (file): ok" in told

    def test_a_provider_that_hangs(
        self, agent: AgentProcess, black_hole: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        vault = {"provider": "vault", "address": black_hole, "path": "a/b", "auth": {"token": "none"}}
        agent.configure(keys={"hung": vault, "master": agent.file_key()})
        assert self.check(agent) == 1
        told = capsys.readouterr().out
        assert "\nkey hung (vault): unavailable: " in told
        assert "\nkey master (file): ok" in told

    def test_a_refusal_leaves_no_connection_behind(
        self, agent: AgentProcess, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A socket that nobody closed is a warning, hence an error here."""
        with ScriptedServer(lambda _: Response(403, b'{"errors": ["permission denied"]}')) as store:
            vault = {"provider": "vault", "address": store.address, "path": "a/b", "auth": {"token": "none"}}
            agent.configure(keys={"refused": vault})
            assert self.check(agent) == 1
        assert "\nkey refused (vault): unavailable: " in capsys.readouterr().out
        gc.collect()

    def test_beside_a_running_agent(self, agent: AgentProcess) -> None:
        agent.start()
        agent.settle()
        before = agent.tree()
        assert agent.run("check", "-c", str(agent.config)).returncode == 0
        assert agent.tree() == before


class TestRefresh:
    def test_brings_the_new_value(self, agent: AgentProcess) -> None:
        """When it returns, the volume has what the source had when it was called."""
        agent.configure(refresh={"interval": "1h"})
        agent.start()
        agent.wait_ready()
        for _ in range(3):
            rotated = new_key()
            agent.key_file.write_text(rotated)
            run = agent.run("refresh", "-c", str(agent.config))
            assert (run.returncode, run.stderr) == (0, "")
            assert run.stdout in (
                "master: changed\n",
                "master: unchanged\n",
            )  # unchanged: the watcher was first
            assert agent.plain() == rotated

    def test_a_key_that_fails(self, agent: AgentProcess) -> None:
        agent.configure(refresh={"interval": "1h"})
        agent.start()
        agent.wait_ready()
        agent.key_file.unlink()
        run = agent.run("refresh", "--dir", str(agent.volume), "--json")
        assert run.returncode == 1
        document = json.loads(run.stdout)
        assert document["generation"] == 1
        assert document["keys"]["master"]["outcome"] == "missing"
        assert document["keys"]["master"]["failures"] >= 1

    def test_a_key_that_cannot_be_published(self, agent: AgentProcess) -> None:
        """As on a full volume, where the heartbeat still has room."""
        agent.start()
        agent.wait_ready()
        subprocess.run(["prlimit", f"--pid={agent.pid}", "--fsize=3000"], check=True)
        agent.write_key(secrets.token_urlsafe(3000))
        run = agent.run("refresh", "--dir", str(agent.volume))
        assert (run.returncode, run.stderr) == (1, "")
        # The watcher may have been quicker; then the refresh itself brings nothing new.
        assert re.fullmatch(r"master: (un)?changed", run.stdout.partition("\n")[0])
        assert run.stdout.partition("\n")[2] == (
            f"not published: cannot publish on {agent.volume} (File too large); what was published stays\n"
        )
        assert (
            "agent: holds what it could not publish: " in agent.run("status", "-c", str(agent.config)).stdout
        )

    def test_a_configuration_that_is_refused(self, agent: AgentProcess) -> None:
        """The keys may be fresh: what was asked for is not what the agent does."""
        agent.start()
        agent.wait_ready()
        agent.configure(log={"level": "loud"})
        run = agent.run("refresh", "--dir", str(agent.volume))
        assert (run.returncode, run.stderr) == (1, "")
        keys, problem = run.stdout.splitlines()
        assert keys == "master: unchanged"
        assert problem.startswith('configuration refused: log.level: "loud" ')
        as_json = json.loads(agent.run("refresh", "--dir", str(agent.volume), "--json").stdout)
        assert problem == f"configuration refused: {as_json['config_problems'][0]}"

    def test_no_result_in_time(self, agent: AgentProcess, black_hole: str) -> None:
        vault = {"provider": "vault", "address": black_hole, "path": "a/b", "auth": {"token": "none"}}
        agent.configure(refresh={"interval": "1h", "timeout": "1m"}, keys={"hung": vault})
        agent.start()
        agent.wait_for("refresh.started")
        run = agent.run("refresh", "-c", str(agent.config), "--timeout", "0.2")
        assert (run.returncode, run.stdout) == (3, "")
        assert run.stderr == (
            f"keyferry-agent: the agent (pid {agent.pid}) had no result for every key within 0.2 s\n"
        )

    def test_ctrl_c(self, agent: AgentProcess, black_hole: str) -> None:
        vault = {"provider": "vault", "address": black_hole, "path": "a/b", "auth": {"token": "none"}}
        agent.configure(refresh={"interval": "1h", "timeout": "1m"}, keys={"hung": vault})
        agent.start()
        agent.wait_for("refresh.started")
        command = [sys.executable, "-m", "agent", "refresh", "-c", str(agent.config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            agent.wait_for("signal.received", signal="SIGHUP")
            waiting.send_signal(signal.SIGINT)
            told = waiting.communicate(timeout=30)
        assert (waiting.returncode, *told) == (130, "", "")

    @pytest.mark.parametrize("ran", [False, True], ids=["never", "not any more"])
    def test_no_agent(self, agent: AgentProcess, ran: bool) -> None:
        if ran:
            agent.start()
            agent.wait_ready()
            agent.stop()
        run = agent.run("refresh", "-c", str(agent.config))
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr == (
            f"keyferry-agent: no agent runs on {agent.volume}; start one, or give its volume by --dir\n"
        )

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_another_uid(self, agent: AgentProcess) -> None:
        agent.start()
        agent.wait_ready()
        agent.home.chmod(0o755)
        # Nobody may not be able to read this environment, so everything is imported before,
        # what argparse loads late included.
        program = (
            "import os, sys, agent.commands.refresh; from agent.__main__ import _parser, main; _parser(); "
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
        )
        run = subprocess.run(
            [sys.executable, "-c", program, "refresh", "--dir", str(agent.volume)],
            capture_output=True,
            text=True,
            env={},  # nobody could write what coverage measures
            check=False,
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == (
            f"keyferry-agent: {agent.volume}/..lock cannot be read (Permission denied); ask with the uid "
            "that the agent has\n"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_any_privilege(agent: AgentProcess, key: str) -> None:
    """As the restricted Pod Security profile has it: any uid, no capability, files for the volume's group."""
    # Nobody may not be able to read this checkout or this interpreter, so everything is imported before.
    program = (
        "import os, sys, grp, yaml, agent.commands.run, agent.services, agent.providers.file; "
        "from agent.__main__ import _parser, main; "
        "_parser(); os.setgroups([4321]); os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[4:]))"
    )
    unprivileged = [
        "setpriv", "--bounding-set=-all,+setuid,+setgid", "--inh-caps=-all", "--no-new-privs",
        sys.executable, "-c", program,
    ]  # fmt: skip
    agent.home.chmod(0o755)
    for directory in (agent.config.parent, agent.key_file.parent):
        directory.chmod(0o755)
    agent.volume.chmod(0o2770)
    os.chown(agent.volume, 0, 4321)
    agent.start(before=unprivileged)
    agent.settle()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines())
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    info = (agent.volume / "master").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (65534, 4321, 0o440)
    assert agent.plain() == key
    assert agent.request("/metrics").status == 200
    assert agent.stop() == 0


def test_nothing_that_fails_shows_a_key(agent: AgentProcess, black_hole: str) -> None:
    """Log at its finest, HTTP, heartbeat, command line and environment, through every failure."""
    planted = {
        name: secrets.token_urlsafe(32) for name in ("good", "rotated", "hex", "short", "field", "token")
    }
    agent.write_key(planted["good"])
    agent.write_key(planted["hex"], "hex")
    agent.write_key(json.dumps({"key": planted["short"]}), "short")
    agent.write_key(json.dumps({planted["field"]: planted["field"]}), "field")
    agent.configure(
        keys={
            "master": agent.file_key(),
            "hex": agent.file_key("hex") | {"encoding": "hex"},
            "short": agent.file_key("short") | {"format": "json", "field": "key", "length": 7},
            "field": agent.file_key("field") | {"format": "json", "field": "key"},
            "gone": agent.file_key("gone"),
            "hung": {
                "provider": "vault",
                "address": black_hole,
                "path": "a/b",
                "auth": {"token": "${PLANTED_TOKEN}"},
            },
        }
    )
    agent.start(environment={"PLANTED_TOKEN": planted["token"]})
    for name in ("hex", "short", "field", "gone", "hung"):
        agent.wait_for("refresh.failed", key=name)
    agent.write_key(planted["rotated"])
    agent.wait_published(planted["rotated"])
    (agent.volume / "master").chmod(0o666)
    agent.wait_for("volume.repaired")
    agent.write_config("keys: {master: {provider: vault, auth: {token: " + planted["good"])
    agent.wait_for("config.refused")

    shown = [agent.request(path).body for path in ("/livez", "/readyz", "/metrics", "/status", "/nothing")]
    shown.append((agent.volume / "..status" / "status.json").read_text())
    shown.append(Path(f"/proc/{agent.pid}/cmdline").read_text())
    environment = Path(f"/proc/{agent.pid}/environ").read_text()
    assert agent.stop() == 0
    shown += agent.lines
    for name, secret in planted.items():
        assert not any(secret in text for text in shown), name
        assert (secret in environment) == (name == "token"), name
    outcomes = {event["key"]: event["outcome"] for event in agent.told("refresh.failed")}
    malformed = dict.fromkeys(("hex", "short", "field"), "malformed")
    assert outcomes == malformed | {"gone": "missing", "hung": "unavailable"}


def test_every_line_is_an_event(agent: AgentProcess) -> None:
    """A collector finds time, level and name in each line; an auditor finds what is marked."""
    agent.start()
    agent.settle()
    rotated = new_key()
    agent.write_key(rotated)
    agent.wait_published(rotated)
    agent.stop()
    assert len(agent.events) == len(agent.lines)
    for event in agent.events:
        assert list(event)[:3] == ["timestamp", "level", "event"]
        assert event["level"] in ("debug", "info", "warning", "error")
    assert {event["event"] for event in agent.events if event.get("audit")} == {
        "key.published",
        "key.activated",
    }


def test_no_watches_left(agent: AgentProcess) -> None:
    """A node whose inotify instances are used up costs promptness, not the agent."""
    limit = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    agent.start(before=["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"])
    told = agent.wait_for("agent.warning", level="warning")
    assert told["reason"].startswith("cannot watch files (")
    assert told["reason"].endswith("): changes there are noticed within 30 s, not at once")
    agent.wait_ready()
    rotated = new_key()
    agent.write_key(rotated)
    agent.wait_published(rotated)
    assert agent.stop() == 0
